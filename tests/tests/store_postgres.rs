//! What only the PostgreSQL store can show: damage done behind its back, the schema's own guards, several openers, and
//! schemas of other versions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tests::harness::{SOON, eventually};
use tests::services::{Database, shared};
use tests::store_suite::damage::damages;
use tests::store_suite::fixtures::*;
use tests::store_suite::migrations;
use velro::id::SessionId;
use velro::store::sql::{OpenOptions, SqlStore};
use velro::store::{GenerationFilter, NewSession, Origin, Store, StoreError};

const NEW: OpenOptions = OpenOptions {
    create: true,
    migrate: true,
};
/// As a server opens it.
const EMPTY_ONLY: OpenOptions = OpenOptions {
    create: true,
    migrate: false,
};
const SERVE: OpenOptions = OpenOptions {
    create: false,
    migrate: false,
};

async fn database() -> Database {
    let shared = shared().unwrap_or_else(|error| panic!("{error:#}"));
    shared.create_database().await.unwrap()
}

async fn raw(database: &Database) -> PgConnection {
    let options = PgConnectOptions::from_str(&database.url).unwrap();
    options.connect().await.unwrap()
}

async fn sql(conn: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
        .execute(conn)
        .await
        .map(drop)
}

/// Triggers and foreign keys do not fire in this session, and no constraint looks at values any more.
const DISARM: &str = "SET session_replication_role = replica; \
    DO $$ DECLARE c record; BEGIN \
    FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint \
        WHERE contype = 'c' AND connamespace = 'public'::regnamespace \
    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname); END LOOP; END $$";

/// The same sentences as with SQLite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_every_kind_of_drift_in_postgres() {
    for (damage, sentences) in damages() {
        let database = database().await;
        let store = SqlStore::open(&database.url, NEW).await.unwrap();
        lived_in(&store).await;
        let mut raw = raw(&database).await;
        sql(&mut raw, DISARM).await.unwrap();
        sql(&mut raw, &damage).await.unwrap_or_else(|e| panic!("{damage}: {e}"));
        let faults = store.verify_ledger().await.unwrap().faults;
        for sentence in sentences {
            let found = faults.iter().any(|f| f.contains(sentence));
            assert!(found, "after {damage}\nnothing says {sentence:?} in {faults:#?}");
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_guards_money_by_itself() {
    let database = database().await;
    let store = SqlStore::open(&database.url, NEW).await.unwrap();
    lived_in(&store).await;
    let mut raw = raw(&database).await;
    for table in ["transfers", "statement_lines", "holds", "settlements"] {
        for statement in [
            format!("UPDATE {table} SET created_at = now()"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table} CASCADE"),
        ] {
            let error = sql(&mut raw, &statement).await.expect_err(&statement).to_string();
            assert!(error.contains("are append-only"), "{statement}: {error}");
        }
    }
    let refused: &[(&str, &str)] = &[
        ("TRUNCATE audit", "are append-only"),
        ("TRUNCATE accounts CASCADE", "are append-only"),
        (
            "UPDATE accounts SET balance = 129 WHERE user_id IS NOT NULL",
            "accounts_not_overdrawn",
        ),
        (
            "UPDATE accounts SET held = -1 WHERE user_id IS NOT NULL",
            "accounts_held_not_negative",
        ),
        (
            "INSERT INTO accounts (id, user_id) SELECT 'other', id FROM users",
            "accounts_named_by_user",
        ),
        (
            "UPDATE generations SET status = 'completed' WHERE status = 'queued'",
            "generations_charged_when_over",
        ),
        ("UPDATE generations SET status = 'lost'", "generations_status_check"),
        (
            "UPDATE generations SET error_code = 'x', error_message = NULL",
            "generations_error_is_whole",
        ),
        (
            "UPDATE generations SET deleted_at = now() WHERE status = 'queued'",
            "generations_hidden_when_over",
        ),
        (
            "UPDATE generations SET outputs = '['",
            "invalid input syntax for type json",
        ),
        ("UPDATE attempts SET state = 'lost'", "attempts_state_check"),
        (
            "UPDATE attempts SET lease_owner = 'w' WHERE state = 'finished'",
            "attempts_over_without_lease",
        ),
        (
            "INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, created_at, \
             updated_at) SELECT gen_random_uuid(), generation_id, 2, provider, 'prepared', pending, now(), now(), now(), \
             now() FROM attempts WHERE state = 'unknown'",
            "attempts_one_alive",
        ),
        (
            "INSERT INTO settlements SELECT generation_id, account_id, 0, 0, 'x', now() FROM settlements",
            "settlements_pkey",
        ),
        (
            "INSERT INTO transfers SELECT gen_random_uuid(), kind, from_account, to_account, amount, generation_id, '', '', \
             NULL, now() FROM transfers WHERE kind = 'capture'",
            "transfers_one_capture",
        ),
        (
            "INSERT INTO transfers VALUES (gen_random_uuid(), 'grant', 'platform:grants', 'nobody', 5, NULL, '', '', NULL, \
             now())",
            "transfers_to_account_fkey",
        ),
        (
            "INSERT INTO transfers VALUES (gen_random_uuid(), 'grant', 'platform:grants', 'platform:revenue', 0, NULL, '', \
             '', NULL, now())",
            "transfers_amount_check",
        ),
        ("DELETE FROM users", "violates foreign key constraint"),
    ];
    for (statement, why) in refused {
        let error = sql(&mut raw, statement).await.expect_err(statement).to_string();
        assert!(error.contains(why), "{statement}: {error}");
    }
    in_order(&store).await;
    store.close().await;
}

#[track_caller]
fn remedy(result: Result<SqlStore, StoreError>) -> String {
    match result {
        Err(StoreError::Schema(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_known_schema_is_served() {
    let database = database().await;
    let open = |options| SqlStore::open(&database.url, options);
    assert!(remedy(open(SERVE).await).contains("no schema yet: create it with `velro migrate`"));
    for options in [EMPTY_ONLY, EMPTY_ONLY, NEW, SERVE] {
        let store = open(options).await.unwrap();
        store.ping().await.unwrap();
        store.close().await;
    }
    let pooled = SqlStore::open(&database.pooled_url, SERVE).await.unwrap();
    pooled.ping().await.unwrap();
    pooled.close().await;
    let wrong = SqlStore::open("postgres://a:b@[/c", SERVE).await;
    assert!(remedy(wrong).contains("not a valid postgres: URL"));

    let mut raw = raw(&database).await;
    migrations::apply(&mut raw, "CREATE TABLE later (x text)").await;
    let (newest, known) = (migrations::newest() + 1, migrations::newest());
    for options in [SERVE, EMPTY_ONLY, NEW] {
        let store = open(options).await.unwrap();
        store.ping().await.unwrap();
        store.close().await;
    }
    let raise = format!("UPDATE schema_floor SET floor = {newest}");
    sql(&mut raw, &raise).await.unwrap();
    for options in [SERVE, EMPTY_ONLY, NEW] {
        let text = remedy(open(options).await);
        assert!(
            text.contains(&format!("does not know migration {newest}")) && text.contains("start the newer `velro`"),
            "{text}"
        );
    }
    let lower = format!("UPDATE schema_floor SET floor = {known}; UPDATE _sqlx_migrations SET checksum = '\\x00'");
    sql(&mut raw, &lower).await.unwrap();
    for options in [SERVE, NEW] {
        assert!(remedy(open(options).await).contains("is not the one this program knows"));
    }
}

/// An older schema is brought up to date by whoever is told to, and by one of several only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_schema_is_migrated_once_and_only_on_request() {
    let database = database().await;
    let mut raw = raw(&database).await;
    migrations::apply_first(&mut raw).await;
    for options in [SERVE, EMPTY_ONLY] {
        let text = remedy(SqlStore::open(&database.url, options).await);
        assert!(text.contains("migration 2 is missing: run `velro migrate`"), "{text}");
    }
    let stores = join_all((0..6).map(|_| SqlStore::open(&database.url, NEW))).await;
    for store in stores {
        let store = store.unwrap();
        store.ping().await.unwrap();
        store.close().await;
    }
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(applied, migrations::newest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openers_that_meet_on_an_empty_database_make_one_schema() {
    let database = database().await;
    let urls = [&database.url, &database.pooled_url];
    let opens = (0..6).map(|n| SqlStore::open(urls[n % 2], EMPTY_ONLY));
    for store in join_all(opens).await {
        let store = store.unwrap();
        lived_in(&store).await;
        store.close().await;
    }
}

/// A schema that changes under a running server shows in the readiness check.
/// They would still succeed, one deadlock's second later: the server counts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_ins_of_one_person_at_once_wait_for_nobody_in_a_circle() {
    let database = database().await;
    let store = Arc::new(SqlStore::open(&database.url, NEW).await.unwrap());
    let user = somebody(&*store, 0).await.id;
    let sign_in = |n: i64| {
        let id = SessionId::new();
        store.open_session(NewSession {
            id,
            user_id: user,
            refresh_hash: id.to_string(),
            refresh_expires_at: at(1000),
            password_hash: None,
            origin: Origin::default(),
            now: at(n),
        })
    };
    let opened = join_all((0..40).map(sign_in)).await;
    assert!(opened.into_iter().all(|opened| opened.unwrap()));
    assert_eq!(store.sessions(user, at(100)).await.unwrap().len(), 40);
    // What a connection has counted is told when it ends.
    store.close().await;
    let mut conn = raw(&database).await;
    eventually("the store's connections have ended", SOON, || async {
        let mut conn = raw(&database).await;
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let others: i64 = sqlx::query_scalar(others).fetch_one(&mut conn).await.unwrap();
        // The one outside.
        (others == 1).then_some(())
    })
    .await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks).fetch_one(&mut conn).await.unwrap();
    assert_eq!(deadlocks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_notices_a_foreign_schema() {
    let database = database().await;
    let store = SqlStore::open(&database.url, NEW).await.unwrap();
    store.ping().await.unwrap();
    let mut raw = raw(&database).await;
    let newest = migrations::newest();
    for (change, says) in [
        (
            format!("DELETE FROM _sqlx_migrations WHERE version = {newest}"),
            "older than this program",
        ),
        ("DROP TABLE _sqlx_migrations".to_owned(), "no schema yet"),
    ] {
        sql(&mut raw, &change).await.unwrap();
        match store.ping().await {
            Err(StoreError::Schema(text)) => assert!(text.contains(says), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    in_order(&store).await;
    store.close().await;
}

/// A worker stops while a begin of its own still waits for a row: whatever the order, somebody else can go on with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_in_flight_is_not_orphaned_by_a_drain() {
    let database = database().await;
    let store = Arc::new(SqlStore::open(&database.url, NEW).await.unwrap());
    let user = somebody(&*store, 100).await.id;
    let generation = submit(&*store, request(user, 5)).await;
    let mut raw = raw(&database).await;
    sql(&mut raw, "BEGIN; SELECT 1 FROM generations FOR UPDATE")
        .await
        .unwrap();

    let beginning = {
        let (store, begin) = (Arc::clone(&store), begin(generation.id, WORKER));
        tokio::spawn(async move { store.begin_attempt(begin).await })
    };
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the begin waits for the row", SOON, || async {
        let mut look = self::raw(&database).await;
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut look).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    let releasing = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.release_leases(WORKER, &[]).await })
    };
    sql(&mut raw, "ROLLBACK").await.unwrap();
    releasing.await.unwrap().unwrap();
    let (work, _) = beginning.await.unwrap().unwrap().unwrap();
    let adopted = store.adopt("worker-2", at(200), at(300), 10).await.unwrap();
    let adopted: Vec<_> = adopted.into_iter().map(|a| a.attempt_id).collect();
    assert_eq!(adopted, [work.attempt.id], "nobody would ever go on with it");
    store.close().await;
}

/// The few attempts that go on are found among very many that are over without a walk through all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopting_does_not_read_what_is_over() {
    let database = database().await;
    let store = SqlStore::open(&database.url, NEW).await.unwrap();
    let user = somebody(&store, 100).await.id;
    begun(&store, user, 5).await;
    let mut raw = raw(&database).await;
    // Two hundred thousand, of which somebody holds twenty thousand and the rest is over.
    let fill = "SET session_replication_role = replica; \
        INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, lease_owner, \
        created_at, updated_at) SELECT gen_random_uuid(), gen_random_uuid(), 1, 'sandbox', \
        CASE WHEN n <= 20000 THEN 'accepted' ELSE 'finished' END, '{}', now(), now(), \
        CASE WHEN n <= 20000 THEN 'worker-1' END, now(), now() FROM generate_series(1, 200000) AS n; ANALYZE attempts";
    sql(&mut raw, fill).await.unwrap();
    sql(&mut raw, "SELECT pg_stat_reset()").await.unwrap();
    assert!(store.adopt("worker-2", at(21), at(121), 500).await.unwrap().is_empty());
    store.close().await;
    let read = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_user_tables \
        WHERE relname = 'attempts'";
    // The server tells its counts a moment after the connection is gone.
    let rows = eventually("the reads are counted", SOON, || async {
        let mut look = self::raw(&database).await;
        let rows: i64 = sqlx::query_scalar(read).fetch_one(&mut look).await.unwrap();
        (rows > 0).then_some(rows)
    })
    .await;
    assert!(rows < 50_000, "{rows} rows were read to find that nothing is free");
}

/// Callers go away in the middle of a read, at every moment of it: nobody reads the past afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_given_up_leaves_no_transaction_open() {
    let database = database().await;
    for url in [&database.url, &database.pooled_url] {
        let store = SqlStore::open(url, NEW).await.unwrap();
        let user = somebody(&store, 100_000).await.id;
        for round in (0..400).rev() {
            let filter = GenerationFilter {
                limit: 10,
                ..GenerationFilter::default()
            };
            let mut read = std::pin::pin!(store.generations(user, filter));
            // Given up at the first place where it waits, at the second, and so on.
            for _ in 0..=round % 8 {
                if futures_util::poll!(read.as_mut()).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
        // A connection that was left in a transaction takes its snapshot with its first read, and keeps it for all reads
        // that do not begin one of their own.
        for expected in 1..=40_u64 {
            submit(&store, request(user, 5)).await;
            let reads = (0..12).map(|_| store.balance(user));
            for balance in join_all(reads).await {
                let held = balance.unwrap().unwrap().held.0;
                assert_eq!(held, 5 * i64::try_from(expected).unwrap(), "an old balance");
            }
        }
        store.close().await;
    }
}
