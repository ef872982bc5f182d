//! What must not happen: half a copy, a copy of something that moves or is damaged, a copy over somebody's data.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use futures_util::future::join_all;
use sqlx::AssertSqlSafe;
use tests::harness::{SOON, Server, eventually};
use tests::services::Database;
use tests::store_suite::fixtures::*;
use velro::store::Store;

use super::rows::{self, Rows};
use super::{Source, database, run, velro, with_password};

/// More than two batches of a table.
const MANY: usize = 4_500;

/// True when there is no row but those that come with the schema.
fn is_empty(rows: &Rows) -> bool {
    rows.iter().all(|(table, rows)| match table.as_str() {
        "accounts" => rows.len() == 4 && rows.iter().all(|row| row[2..].iter().all(|sum| sum == "'0'")),
        _ => rows.is_empty(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_leaves_nothing_behind() {
    let database = database().await;
    let source = Source::lived_in().await;
    let store = source.open().await;
    let user = somebody(&store, 1_000_000).await.id;
    join_all((0..MANY).map(|_| store.submit(request(user, 3)))).await;
    store.close().await;
    let moments = [
        "users",
        "generations",
        "attempts",
        "accounts",
        "transfers",
        "statement_lines",
        "audit",
        "verifying",
        "committing",
    ];
    for moment in moments {
        let mut child = velro(source.path(), &["db", "copy", "--to", &database.url])
            .env("FAILPOINTS", format!("copy::{moment}=return"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let reached = format!("failpoint copy::{moment} reached");
        let mut lines = Vec::new();
        while lines.last() != Some(&reached) {
            let line = said.next();
            lines.push(
                line.unwrap_or_else(|| panic!("copy::{moment} was not reached: {lines:?}"))
                    .unwrap(),
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_empty(&rows::copied(&database.url).await), "after {moment}");
    }
    source.copy(&database).ok();
    let all = rows::same(&source.file(), &database.url).await;
    assert_eq!(all["generations"].len(), MANY + 4);
}

/// Cut anywhere, and not only where it pauses: by the clock, ever later, until one gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_there_whole_or_not_at_all_whenever_it_is_killed() {
    let database = database().await;
    let source = Source::lived_in().await;
    for step in 0.. {
        let mut child = velro(source.path(), &["db", "copy", "--to", &database.url])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let life = std::time::Duration::from_millis(40 + 15 * step);
        let ended = tokio::time::timeout(life, async {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
        .await;
        if let Ok(status) = ended {
            assert!(status.success(), "{status}");
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The server notices that nobody is there any more.
        eventually("the server has let go", SOON, || async {
            let mut conn = rows::postgres(&database.url).await;
            let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
            let others: i64 = sqlx::query_scalar(others).fetch_one(&mut conn).await.unwrap();
            (others == 0).then_some(())
        })
        .await;
        let mut conn = rows::postgres(&database.url).await;
        let schema: bool = sqlx::query_scalar("SELECT to_regclass('users') IS NOT NULL")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        if schema && !is_empty(&rows::copied(&database.url).await) {
            // Killed between its commit and its end.
            rows::same(&source.file(), &database.url).await;
        }
    }
    rows::same(&source.file(), &database.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_is_not_copied() {
    let database = database().await;
    let server = Server::start().await;
    for from in [None, Some("sqlite:data/velro.db")] {
        let mut args = vec!["db", "copy", "--to", &database.url];
        args.extend(from.iter().flat_map(|from| ["--from", from]));
        let said = server.velro(&args).fails();
        assert!(
            said.contains("another velro serves from") && said.contains("stop it"),
            "{said}"
        );
    }
    let mut conn = rows::postgres(&database.url).await;
    let schema: bool = sqlx::query_scalar("SELECT to_regclass('users') IS NOT NULL")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert!(!schema, "the target was touched");
}

/// Refuses with the sentences, and leaves the target as it was.
async fn refused(source: &Source, database: &Database, sentences: &[&str]) {
    let before = rows::copied(&database.url).await;
    source.copy(database).refused(sentences);
    assert_eq!(rows::copied(&database.url).await, before, "after {sentences:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_was_used_is_left_alone() {
    let source = Source::lived_in().await;
    let stranger = "INSERT INTO users (id, email, role, created_at, updated_at) \
                    VALUES (gen_random_uuid(), 'x@y.z', 'user', now(), now())";
    // What somebody did there, and what is said about it.
    let uses = [
        (stranger, "users had 1 rows and has 2 now"),
        (
            "UPDATE users SET full_name = 'Somebody Else'",
            "1 rows of users are not those that were copied",
        ),
        (
            "UPDATE generations SET is_favorite = true",
            "4 rows of generations are not those",
        ),
        (
            "INSERT INTO transfers SELECT gen_random_uuid(), 'grant', from_account, to_account, 5, NULL, '', '', NULL, now() \
             FROM transfers WHERE kind = 'grant'",
            "transfers had 2 rows and has 3 now",
        ),
        (
            "UPDATE attempts SET lease_owner = NULL, updated_at = now() WHERE state = 'unknown'",
            "rows of attempts",
        ),
        (
            "INSERT INTO leases VALUES ('worker', now() + interval '1 minute')",
            "a worker holds leases there",
        ),
    ];
    for (use_of_it, sentence) in uses {
        let database = super::database().await;
        source.copy(&database).ok();
        rows::execute(&database.url, use_of_it).await;
        refused(&source, &database, &[sentence]).await;
    }
    // One that somebody writes to just now.
    let database = super::database().await;
    let mut conn = rows::postgres(&database.url).await;
    source.copy(&database).ok();
    let writes = "BEGIN; UPDATE users SET full_name = full_name";
    sqlx::raw_sql(writes).execute(&mut conn).await.unwrap();
    refused(
        &source,
        &database,
        &["The target is in use: somebody else writes to it"],
    )
    .await;
    drop(conn);
    // One that was never copied to.
    let database = super::database().await;
    run(source.path(), &["migrate"]).ok();
    let mut migrate = velro(source.path(), &["migrate"]);
    assert!(migrate.env("DATABASE_URL", &database.url).status().unwrap().success());
    rows::execute(&database.url, stranger).await;
    let sentences = [
        "The target has 1 rows of users, which no copy has put there",
        "nothing was changed",
    ];
    refused(&source, &database, &sentences).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_source_or_an_older_state_is_refused() {
    let database = database().await;
    let source = Source::lived_in().await;
    let older = Source::new();
    std::fs::create_dir_all(older.file().parent().unwrap()).unwrap();
    std::fs::copy(source.file(), older.file()).unwrap();
    let store = source.open().await;
    lived_in(&store).await;
    store.close().await;
    source.copy(&database).ok();
    refused(
        &older,
        &database,
        &["The target has 2 rows of users, the source 1", "nothing was changed"],
    )
    .await;
    let other = Source::lived_in().await;
    refused(&other, &database, &["it is not the source of the last copy"]).await;
    // Rows that never change must be the same.
    let mut conn = rows::sqlite(&source.file()).await;
    let forged = "DROP TRIGGER transfers_keep; UPDATE transfers SET reason = 'forged' \
                  WHERE id = (SELECT min(id) FROM transfers)";
    sqlx::raw_sql(forged).execute(&mut conn).await.unwrap();
    refused(
        &source,
        &database,
        &["1 rows of transfers are other ones in the target"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_books_are_wrong_is_refused() {
    let database = database().await;
    let source = Source::lived_in().await;
    let mut conn = rows::sqlite(&source.file()).await;
    let damage = "UPDATE accounts SET balance = balance - 5 WHERE id = 'platform:revenue'";
    sqlx::raw_sql(damage).execute(&mut conn).await.unwrap();
    source.copy(&database).refused(&[
        "The source: Account platform:revenue: its balance is 25, but its transfers sum to 30.",
        "The source: All balances together are -5, but must be 0.",
        "2 faults: nothing was changed",
    ]);
    let mut conn = rows::postgres(&database.url).await;
    let tables = "SELECT count(*) FROM pg_class WHERE relname = 'users'";
    let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut conn).await.unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_program_does_not_know_is_not_lost_in_a_copy() {
    let database = database().await;
    let source = Source::lived_in().await;
    source.copy(&database).ok();
    let newer = |success: &str, bytes: &str| {
        format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'later', {success}, {bytes}, 1)"
        )
    };
    let sentence = "newer than this program, which does not know migration 9999";
    rows::execute(&database.url, &newer("true", "'\\x00'")).await;
    refused(&source, &database, &[sentence]).await;
    rows::execute(&database.url, "DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    let mut conn = rows::sqlite(&source.file()).await;
    let newer = newer("1", "x'00'");
    sqlx::raw_sql(AssertSqlSafe(newer)).execute(&mut conn).await.unwrap();
    refused(&source, &database, &[sentence]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_through_a_pooler_is_a_copy() {
    let database = database().await;
    let source = Source::lived_in().await;
    for _ in 0..2 {
        run(source.path(), &["db", "copy", "--to", &database.pooled_url]).ok();
        rows::same(&source.file(), &database.url).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_command_line_is_explained() {
    let source = Source::lived_in().await;
    let nowhere = with_password("postgres://velro@127.0.0.1:1/velro");
    let wrong: &[(&[&str], &str)] = &[
        (&["db", "copy"], "where to?"),
        (
            &["db", "copy", "--to", "mysql://a:hunter2@b/c"],
            "--to is no PostgreSQL database",
        ),
        (
            &["db", "copy", "--from", &nowhere, "--to", &nowhere],
            "--from is no SQLite database",
        ),
        (
            &["db", "copy", "--from", "sqlite:missing.db", "--to", &nowhere],
            "there is no database at missing.db",
        ),
        (
            &["db", "copy", "--data", "elsewhere", "--to", &nowhere],
            "there is no database at elsewhere/velro.db",
        ),
    ];
    for (args, said) in wrong {
        run(source.path(), args).refused(&[said]);
    }
    assert!(!source.path().join("missing.db").exists());
}
