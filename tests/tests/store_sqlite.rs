//! What only the SQLite store can show: damage done behind its back, the schema's own guards, other processes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use futures_util::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use std::path::PathBuf;
use std::time::Duration;
use tests::store_suite::damage::{Damage, damages};
use tests::store_suite::fixtures::*;
use velro::generation::AttemptState;
use velro::id::UserId;
use velro::ledger::Credits;
use velro::store::sql::{OpenOptions, SqlStore};
use velro::store::{Grant, NewGeneration, Store, StoreError, Submitted};

const NEW: OpenOptions = OpenOptions {
    create: true,
    migrate: true,
};
const SERVE: OpenOptions = OpenOptions {
    create: false,
    migrate: false,
};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("velro.db")
    }

    async fn open(&self, options: OpenOptions) -> Result<SqlStore, StoreError> {
        SqlStore::open(&self.file().to_string_lossy(), options).await
    }

    /// A connection beside the store's.
    async fn raw(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.file())
            .create_if_missing(true);
        options.foreign_keys(false).connect().await.unwrap()
    }
}

async fn sql(conn: &mut SqliteConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
        .execute(conn)
        .await
        .map(drop)
}

/// Every kind of drift is found, and named with what is there and what should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_every_kind_of_drift() {
    let dangling = "UPDATE transfers SET to_account = 'nobody' WHERE kind = 'capture'".to_owned();
    let dangling: Damage = (dangling, &["refers to a row of accounts that does not exist"]);
    for (damage, sentences) in damages().into_iter().chain([dangling]) {
        let folder = Folder::new();
        let store = folder.open(NEW).await.unwrap();
        lived_in(&store).await;
        let mut raw = folder.raw().await;
        sql(&mut raw, "PRAGMA ignore_check_constraints = on").await.unwrap();
        for table in ["transfers", "statement_lines", "holds", "settlements"] {
            sql(
                &mut raw,
                &format!("DROP TRIGGER {table}_keep; DROP TRIGGER {table}_stay"),
            )
            .await
            .unwrap();
        }
        sql(&mut raw, &damage).await.unwrap_or_else(|e| panic!("{damage}: {e}"));
        let faults = store.verify_ledger().await.unwrap().faults;
        for sentence in sentences {
            let found = faults.iter().any(|f| f.contains(sentence));
            assert!(found, "after {damage}\nnothing says {sentence:?} in {faults:#?}");
        }
        raw.close().await.unwrap();
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_guards_money_by_itself() {
    let folder = Folder::new();
    let store = folder.open(NEW).await.unwrap();
    lived_in(&store).await;
    let mut raw = folder.raw().await;
    sql(&mut raw, "PRAGMA foreign_keys = on").await.unwrap();
    let refused: &[(&str, &str)] = &[
        ("UPDATE transfers SET amount = 1", "append-only"),
        ("DELETE FROM transfers", "append-only"),
        ("UPDATE statement_lines SET amount = 1", "append-only"),
        ("DELETE FROM statement_lines", "append-only"),
        ("UPDATE holds SET amount = 1", "append-only"),
        ("DELETE FROM holds", "append-only"),
        ("UPDATE settlements SET captured = 1", "append-only"),
        ("DELETE FROM settlements", "append-only"),
        (
            "UPDATE accounts SET balance = 129 WHERE user_id IS NOT NULL",
            "accounts_not_overdrawn",
        ),
        (
            "UPDATE accounts SET held = -1 WHERE user_id IS NOT NULL",
            "accounts_held_not_negative",
        ),
        (
            "UPDATE generations SET status = 'completed' WHERE status = 'queued'",
            "generations_charged_when_over",
        ),
        ("UPDATE generations SET status = 'lost'", "status IN"),
        (
            "UPDATE generations SET deleted_at = 1 WHERE status = 'queued'",
            "generations_hidden_when_over",
        ),
        ("UPDATE generations SET price = 'a lot'", "TEXT value in INTEGER column"),
        (
            "UPDATE generations SET outputs = '[' WHERE status = 'completed'",
            "json_valid",
        ),
        ("UPDATE attempts SET state = 'lost'", "state IN"),
        (
            "INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, created_at, \
          updated_at) SELECT 'x', generation_id, 2, provider, 'prepared', pending, 1, 1, 1, 1 FROM attempts \
          WHERE state = 'unknown'",
            "attempts.generation_id",
        ),
        (
            "INSERT INTO settlements SELECT generation_id, account_id, 0, 0, 'x', 1 FROM settlements",
            "settlements.generation_id",
        ),
        (
            "INSERT INTO transfers (id, kind, from_account, to_account, amount, generation_id, reason, actor, \
          idempotency_key, created_at) SELECT 'x', kind, from_account, to_account, amount, generation_id, '', '', NULL, 1 \
          FROM transfers WHERE kind = 'capture'",
            "transfers.generation_id",
        ),
        (
            "INSERT INTO transfers VALUES ('x', 'grant', 'platform:grants', 'nobody', 5, NULL, NULL, '', '', NULL, 1)",
            "FOREIGN KEY",
        ),
        (
            "INSERT INTO transfers VALUES ('x', 'grant', 'platform:grants', 'platform:revenue', 0, NULL, NULL, '', '', NULL, 1)",
            "amount > 0",
        ),
    ];
    for (statement, why) in refused {
        let error = sql(&mut raw, statement).await.expect_err(statement).to_string();
        assert!(error.contains(why), "{statement}: {error}");
    }
    raw.close().await.unwrap();
    in_order(&store).await;
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
    let folder = Folder::new();
    assert!(remedy(folder.open(SERVE).await).contains("velro migrate"));
    assert!(!folder.file().exists());
    let create_only = OpenOptions {
        create: true,
        migrate: false,
    };
    assert!(remedy(folder.open(create_only).await).contains("no schema yet"));
    // A second migration of nothing is no migration.
    for options in [NEW, NEW, SERVE] {
        let store = folder.open(options).await.unwrap();
        store.ping().await.unwrap();
        store.close().await;
    }
    let url = format!("sqlite://{}", folder.file().display());
    SqlStore::open(&url, SERVE).await.unwrap().close().await;
    for memory in [":memory:", "sqlite::memory:"] {
        assert!(remedy(SqlStore::open(memory, NEW).await).contains("needs a file"));
    }
    let nested = folder.0.path().join("a/b/velro.db");
    SqlStore::open(&nested.to_string_lossy(), NEW)
        .await
        .unwrap()
        .close()
        .await;

    let mut raw = folder.raw().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', 1, x'00', 1)";
    sql(&mut raw, newer).await.unwrap();
    // A newer schema that only added something is served, whoever of the two versions is started.
    for options in [SERVE, NEW] {
        folder.open(options).await.unwrap().close().await;
    }
    sql(&mut raw, "UPDATE schema_floor SET floor = 9999").await.unwrap();
    for options in [SERVE, NEW] {
        let text = remedy(folder.open(options).await);
        assert!(text.contains("newer") && text.contains("9999"), "{text}");
    }
    sql(&mut raw, "UPDATE _sqlx_migrations SET checksum = x'00'")
        .await
        .unwrap();
    for options in [SERVE, NEW] {
        assert!(remedy(folder.open(options).await).contains("is not the one this program knows"));
    }
    sql(&mut raw, "DELETE FROM _sqlx_migrations").await.unwrap();
    assert!(remedy(folder.open(SERVE).await).contains("older"));
    raw.close().await.unwrap();
}

/// A schema that changes under a running server shows in the readiness check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_notices_a_foreign_schema() {
    let folder = Folder::new();
    let store = folder.open(NEW).await.unwrap();
    store.ping().await.unwrap();
    let mut raw = folder.raw().await;
    sql(&mut raw, "DELETE FROM _sqlx_migrations").await.unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Schema(_))));
    raw.close().await.unwrap();
    in_order(&store).await;
}

/// Submits forty at once, one of them a bomb; answers how many were stored.
async fn with_a_bomb(store: &SqlStore, user: UserId) -> (usize, usize) {
    let calls = (0..40).map(|i| {
        let new = request(user, 10);
        let prompt = if i == 20 { "bomb" } else { "cat" };
        store.submit(NewGeneration {
            prompt: prompt.into(),
            ..new
        })
    });
    let results = join_all(calls).await;
    let stored = results
        .iter()
        .filter(|r| matches!(r, Ok(Submitted::New { .. })))
        .count();
    (stored, results.iter().filter(|r| r.is_err()).count())
}

/// SQLite gives up the whole transaction: the neighbours of whatever did that are carried out all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_transaction_costs_only_the_member_that_lost_it() {
    let folder = Folder::new();
    let store = folder.open(NEW).await.unwrap();
    let user = somebody(&store, 10_000).await.id;
    let mut raw = folder.raw().await;
    let trigger = "CREATE TRIGGER bomb AFTER INSERT ON generations WHEN NEW.prompt = 'bomb' \
                   BEGIN SELECT RAISE(ROLLBACK, 'the whole transaction is gone'); END";
    sql(&mut raw, trigger).await.unwrap();
    assert_eq!(with_a_bomb(&store, user).await, (39, 1));
    assert_eq!(money(&store, user).await, (10_000, 390));
    assert_eq!(in_order(&store).await.open_holds, 39);
    raw.close().await.unwrap();
}

/// A COMMIT that is refused: the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_commit_costs_only_the_member_that_broke_it() {
    let folder = Folder::new();
    let store = folder.open(NEW).await.unwrap();
    let user = somebody(&store, 10_000).await.id;
    let mut raw = folder.raw().await;
    let late = "CREATE TABLE late (x TEXT REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED); \
                CREATE TRIGGER bomb AFTER INSERT ON generations WHEN NEW.prompt = 'bomb' \
                BEGIN INSERT INTO late VALUES ('nobody'); END";
    sql(&mut raw, late).await.unwrap();
    assert_eq!(with_a_bomb(&store, user).await, (39, 1));
    assert_eq!(money(&store, user).await, (10_000, 390));
    assert_eq!(in_order(&store).await.open_holds, 39);
    raw.close().await.unwrap();
}

/// Another process holds the write lock for too long: callers hear of it, nothing is stored, and later writes work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_is_unavailable_and_recovers() {
    let folder = Folder::new();
    let store = folder.open(NEW).await.unwrap();
    let user = somebody(&store, 100).await.id;
    let mut raw = folder.raw().await;
    sql(&mut raw, "BEGIN IMMEDIATE").await.unwrap();
    let results = join_all((0..5).map(|_| store.submit(request(user, 10)))).await;
    for result in results {
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    // Readers are not disturbed.
    assert_eq!(money(&store, user).await, (100, 0));
    sql(&mut raw, "ROLLBACK").await.unwrap();
    submit(&store, request(user, 10)).await;
    assert_eq!(money(&store, user).await, (100, 10));
    in_order(&store).await;
    raw.close().await.unwrap();
}

/// Amounts that no account can hold are refused, and the writer lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_amounts_are_refused() {
    let folder = Folder::new();
    let store = folder.open(NEW).await.unwrap();
    let user = somebody(&store, 100).await.id;
    let grant = Grant {
        user_id: user,
        amount: Credits(i64::MAX),
        reason: "oops".into(),
        actor: "test".into(),
        idempotency_key: None,
        now: at(1),
    };
    assert!(matches!(store.grant(grant).await, Err(StoreError::Broken(_))));
    let refused = store.submit(request(user, i64::MAX)).await.unwrap();
    assert!(matches!(refused, Submitted::Insufficient { .. }), "{refused:?}");
    assert_eq!(money(&store, user).await, (100, 0));
    in_order(&store).await;
}

/// No timer stands between a write and its transaction: with nobody else there, it is carried out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_write_waits_for_nobody() {
    let folder = Folder::new();
    let store = folder.open(NEW).await.unwrap();
    let user = somebody(&store, 100).await.id;
    let call = tokio::time::timeout(Duration::from_secs(2), store.submit(request(user, 10)));
    assert!(matches!(call.await.unwrap().unwrap(), Submitted::New { .. }));
    in_order(&store).await;
}

/// Where [`a_writer_works_until_it_is_told_to_stop`] finds its database when it is a child that will be killed.
const CHILD: &str = "VELRO_STORE_CHILD";

/// One whole life of a generation; answers its id once the store has answered.
async fn one_life(store: &SqlStore, user: UserId) -> velro::id::GenerationId {
    let work = brought_to(store, user, 3, AttemptState::Accepted).await;
    won(store, settle(&work, delivered(&work, 2))).await;
    work.generation.id
}

/// By itself: many lives at once, and the books are in order. As a child of the next test: the same without an end, telling
/// each life as it is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_works_until_it_is_told_to_stop() {
    let Ok(file) = std::env::var(CHILD) else {
        let folder = Folder::new();
        let store = folder.open(NEW).await.unwrap();
        let user = somebody(&store, 1_000_000).await.id;
        join_all((0..40).map(|_| one_life(&store, user))).await;
        assert_eq!(in_order(&store).await.transfers, 41);
        return;
    };
    let store = SqlStore::open(&file, SERVE).await.unwrap();
    let user = somebody(&store, 1_000_000).await.id;
    loop {
        for id in join_all((0..8).map(|_| one_life(&store, user))).await {
            println!("answered {user} {id}");
        }
    }
}

/// SIGKILL in the middle of many writes: whatever was answered is there, the books are in order, and what was under way
/// can be taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_it_answered() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = Folder::new();
    folder.open(NEW).await.unwrap().close().await;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_writer_works_until_it_is_told_to_stop", "--nocapture"])
            .env(CHILD, folder.file())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered: Vec<(UserId, velro::id::GenerationId)> = Vec::new();
        while answered.len() < 30 + round * 17 {
            let line = told.next().expect("the child goes on").unwrap();
            let mut words = line.split_whitespace().skip_while(|w| *w != "answered").skip(1);
            if let (Some(user), Some(id)) = (words.next(), words.next()) {
                answered.push((user.parse().unwrap(), id.parse().unwrap()));
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = folder.open(SERVE).await.unwrap();
        for (user, id) in answered {
            let generation = store.generation(user, id).await.unwrap().unwrap();
            assert_eq!(generation.captured, Some(Credits(2)));
        }
        in_order(&store).await;
        let taken = store.adopt("survivor", at(10_000), at(20_000), 1000).await.unwrap();
        assert!(taken.len() <= 8, "{} under way", taken.len());
        for adopted in taken {
            let work = store.work(adopted.attempt_id, "survivor").await.unwrap().unwrap();
            let mut end = settle(&work, delivered(&work, 3));
            end.worker = "survivor".into();
            won(&store, end).await;
        }
        in_order(&store).await;
        store.close().await;
    }
}
