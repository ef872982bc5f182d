//! No statement of the SQLite store reads a whole table, except where that is its purpose.
//!
//! The statements are not copied here: the suite's cases run with the driver's log captured, and the plan of every
//! statement that was really executed is looked at.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tests::store_suite::{self, Stage};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use velro::store::Store;
use velro::store::sql::{OpenOptions, SqlStore};

/// Statements seen so far.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeSet<String>>>);

/// Takes the statement out of a log record: short ones are the summary, long ones have a field of their own.
#[derive(Default)]
struct Statement {
    summary: String,
    whole: String,
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => self.summary = value.to_owned(),
            "db.statement" => self.whole = value.trim().to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: tracing::Subscriber> Layer<S> for Seen {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut statement = Statement::default();
            event.record(&mut statement);
            let Statement { summary, whole } = statement;
            let sql = if whole.is_empty() { summary } else { whole };
            self.0.lock().unwrap().insert(sql);
        }
    }
}

struct Folder(tempfile::TempDir);

#[async_trait]
impl Stage for Folder {
    async fn open(&self) -> Arc<dyn Store> {
        let options = OpenOptions {
            create: true,
            migrate: true,
        };
        let file = self.0.path().join("velro.db");
        Arc::new(SqlStore::open(&file.to_string_lossy(), options).await.unwrap())
    }
}

/// Full reads that are meant: `(part of the statement, part of the plan)`.
const MEANT: &[(&str, &str)] = &[
    // The operator's counts: one pass over the narrowest index.
    ("GROUP BY status", "COVERING INDEX generations_by_status"),
    ("sum(held)", "COVERING INDEX accounts_holding"),
    ("sum(held)", "COVERING INDEX accounts_in_debt"),
    ("sum(held)", "INDEX orders_in_trouble"),
    // Everybody's public projects, newest first, by an index of nothing else.
    ("visibility = 'public' ORDER BY", "USING INDEX projects_public"),
    // The operator's list of codes, newest first, page by page; and the newest uses of one code.
    (
        "FROM redeem_codes WHERE (",
        "USING INDEX sqlite_autoindex_redeem_codes_1",
    ),
    ("FROM redemptions AS r", "USE TEMP B-TREE FOR ORDER BY"),
    // New parents of foreign keys: SQLite plans a look for children that were waiting for them, and skips it as long as
    // none is (the opcode FkIfZero).
    ("INSERT INTO generations", "SCAN statement_lines"),
    ("INSERT INTO generations", "SCAN transfers"),
    ("INSERT INTO generations", "SCAN idempotency_keys"),
    ("INSERT INTO users", "SCAN generations"),
    ("INSERT INTO orders", "SCAN transfers"),
    ("INSERT INTO orders", "SCAN payment_events"),
    // One row per release of the schema.
    ("_sqlx_migrations", "SCAN _sqlx_migrations"),
    ("FROM _sqlx_migrations", "TEMP B-TREE FOR ORDER BY"),
    ("sqlite_schema", "SCAN sqlite_schema"),
];

/// Statements that look at everything by purpose, or have no plan.
fn is_exempt(sql: &str) -> bool {
    // `verify_ledger` reads everything by purpose.
    let verify = sql.starts_with("SELECT CAST(") || sql.contains("AS open_holds");
    let word = sql.split_whitespace().next().unwrap_or_default();
    verify || !["SELECT", "INSERT", "UPDATE", "DELETE"].contains(&word) || sql.contains("INTO _sqlx_migrations")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_finds_its_rows_through_an_index() {
    let seen = Seen::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(seen.clone())).unwrap();
    let stage = || Folder(tempfile::tempdir().unwrap());
    store_suite::people::a_profile_changes_where_it_is_told_to(&stage()).await;
    store_suite::people::roles_are_given(&stage()).await;
    store_suite::people::a_session_lives_until_it_is_revoked(&stage()).await;
    store_suite::people::a_refresh_token_is_exchanged_once(&stage()).await;
    store_suite::credits::grants_are_booked_once_per_key(&stage()).await;
    store_suite::credits::statements_are_filtered_and_paged(&stage()).await;
    store_suite::desk::a_charge_is_given_back_in_parts_and_never_more_than_it_was(&stage()).await;
    store_suite::desk::a_correction_takes_what_is_there_and_no_more(&stage()).await;
    store_suite::codes::a_code_gives_what_it_says_as_often_as_it_says(&stage()).await;
    store_suite::codes::a_code_that_is_over_gives_nothing(&stage()).await;
    store_suite::credits::stats_count_what_happened_in_the_period(&stage()).await;
    store_suite::payments::a_payment_is_booked_once(&stage()).await;
    store_suite::payments::orders_are_opened_listed_and_ended(&stage()).await;
    store_suite::payments::a_spent_purchase_that_goes_back_becomes_a_debt(&stage()).await;
    store_suite::projects::the_owner_does_what_strangers_cannot(&stage()).await;
    store_suite::projects::lists_follow_visibility(&stage()).await;
    store_suite::projects::generations_outlive_their_project(&stage()).await;
    store_suite::submit::an_idempotency_key_makes_one_generation(&stage()).await;
    store_suite::generations::lists_are_newest_first_with_totals(&stage()).await;
    store_suite::generations::favorites_flip(&stage()).await;
    store_suite::generations::only_terminal_generations_are_hidden(&stage()).await;
    store_suite::generations::events_resume_after_a_number(&stage()).await;
    store_suite::generations::the_queue_can_be_rebuilt_in_order(&stage()).await;
    store_suite::generations::the_operator_sees_counts(&stage()).await;
    store_suite::attempts::released_leases_are_free_at_once(&stage()).await;
    store_suite::attempts::a_heartbeat_keeps_every_attempt(&stage()).await;
    store_suite::attempts::the_next_attempt_replaces_a_rejected_one(&stage()).await;
    store_suite::attempts::webhooks_wake_and_are_kept_until_stepped(&stage()).await;
    store_suite::resolve::what_was_sent_is_only_asked_to_stop(&stage()).await;
    store_suite::resolve::an_unknown_attempt_can_be_tried_again(&stage()).await;

    let last = stage();
    last.open().await.close().await;
    let file = last.0.path().join("velro.db");
    let mut conn = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let statements = seen.0.lock().unwrap().clone();
    let mut faults = Vec::new();
    let mut looked_at = 0;
    for sql in statements.iter().filter(|sql| !is_exempt(sql)) {
        looked_at += 1;
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .fetch_all(&mut conn)
            .await;
        for step in plan.unwrap_or_else(|e| panic!("{sql}: {e}")) {
            let detail: String = step.get("detail");
            let virtual_table = detail.contains("VIRTUAL TABLE") || detail.contains("CONSTANT ROW");
            let meant = MEANT.iter().any(|(of, plan)| sql.contains(of) && detail.contains(plan));
            let sorts_a_list = detail.contains("TEMP B-TREE FOR ORDER BY") && sql.contains("LIMIT") && !meant;
            // A change names its rows; going through all of a status to find them grows with the queue.
            let by_status = sql.starts_with("UPDATE") && detail.ends_with("(status=?)");
            if sorts_a_list || by_status || (detail.starts_with("SCAN") && !virtual_table && !meant) {
                faults.push(format!("{detail}\n    in {sql}"));
            }
        }
    }
    conn.close().await.unwrap();
    assert!(looked_at > 60, "only {looked_at} statements were seen");
    assert!(faults.is_empty(), "{} full reads:\n{}", faults.len(), faults.join("\n"));
}
