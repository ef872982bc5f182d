//! Two versions side by side: the schema of a newer one arrives under a server that runs.

use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::str::FromStr;
use tests::harness::{Client, Options, SOON, Server, eventually, race};
use tests::services::{Database, shared};
use tests::store_suite::migrations;

/// What a release may do while the one before it serves: columns and indexes for every table, and a new table.
const ADDS: &str = "CREATE TABLE later (id uuid PRIMARY KEY); \
    DO $$ DECLARE t text; BEGIN \
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_sqlx%' \
    LOOP EXECUTE format('ALTER TABLE %I ADD COLUMN later_note text, ADD COLUMN later_count bigint NOT NULL DEFAULT 0', t); \
    END LOOP; END $$; \
    CREATE INDEX generations_later ON generations (later_note)";

/// As many calls of each kind as make every connection know every statement.
const CALLS: usize = 30;

async fn started(database: &Database) -> Server {
    Server::with(Options::new().env("DATABASE_URL", &database.url)).await
}

async fn raw(database: &Database) -> PgConnection {
    let options = PgConnectOptions::from_str(&database.url).unwrap();
    options.connect().await.unwrap()
}

/// A bit of everything that a frontend asks for; nothing of it may fail.
async fn usual_day(ada: &Client) {
    let id = ada.submit_quick("as every day").await;
    ada.wait_for(&id, "completed").await;
    let project = ada.post("/api/v1/projects", &json!({"name": "p"})).await;
    let project = project.json()["id"].as_str().unwrap().to_owned();
    let paths = [
        "/api/v1/auth/me".to_owned(),
        "/api/v1/generations?limit=10".to_owned(),
        format!("/api/v1/generations/{id}"),
        format!("/api/v1/generations/async/{id}/status"),
        "/api/v1/projects".to_owned(),
        format!("/api/v1/projects/{project}"),
        "/api/v1/credits/transactions".to_owned(),
        "/api/v1/generations/stats".to_owned(),
        "/health/ready".to_owned(),
    ];
    for path in &paths {
        for answer in race(CALLS, |_| ada.get(path)).await {
            answer.expect(200);
        }
    }
    let favorite = format!("/api/v1/generations/{id}/favorite");
    for answer in race(CALLS, |_| ada.post_empty(&favorite)).await {
        answer.expect(200);
    }
    ada.put(&format!("/api/v1/projects/{project}"), &json!({"name": "q"}))
        .await
        .expect(200);
    let frames = ada.stream(&id).await.rest().await;
    assert_eq!(frames.last().unwrap().event(), "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_works_on_while_a_newer_version_adds_to_the_schema() {
    let database = shared().unwrap().create_database().await.unwrap();
    let mut server = started(&database).await;
    let mut ada = server.register("ada").await;
    usual_day(&ada).await;
    let slow = json!({"image_size": "square", "latency_ms": 1500});
    let under_way = ada.submit("sandbox/image", "under way", slow).await;
    ada.wait_for(&under_way, "processing").await;
    migrations::apply(&mut raw(&database).await, ADDS).await;
    usual_day(&ada).await;
    ada.wait_for(&under_way, "completed").await;
    ada.login(tests::harness::PASSWORD).await;
    let log = server.log_text();
    assert!(!log.contains("ERROR") && !log.contains("cached plan"), "{log}");

    server.terminate();
    server.restart().await;
    usual_day(&ada).await;
    assert!(server.velro(&["migrate"]).ok().contains("this version's schema"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_has_left_this_version_behind_takes_it_out_of_service() {
    let database = shared().unwrap().create_database().await.unwrap();
    let mut server = started(&database).await;
    let ada = server.register("ada").await;
    let mut conn = raw(&database).await;
    let next = migrations::newest() + 1;
    migrations::apply(&mut conn, &format!("UPDATE schema_floor SET floor = {next}")).await;
    let from = server.log_lines();
    let nobody = server.anonymous();
    eventually("it is not ready", SOON, || async {
        (nobody.get("/health/ready").await.status == 503).then_some(())
    })
    .await;
    nobody.get("/health/ready").await.problem(503, "service_unavailable");
    let reason = format!("which does not know migration {next}: start the newer `velro`");
    server.wait_for_log(from, &reason, SOON).await;
    server.terminate();
    for command in ["serve", "migrate"] {
        let said = server.velro(&[command]).fails();
        assert!(
            said.contains(&reason) && said.contains("restore the backup"),
            "{command}: {said}"
        );
    }
    // The way back: what the newer version knows how to undo, or a backup.
    let undo = format!(
        "UPDATE schema_floor SET floor = {known}; DELETE FROM _sqlx_migrations WHERE version = {next}",
        known = next - 1
    );
    sqlx::raw_sql(AssertSqlSafe(undo)).execute(&mut conn).await.unwrap();
    server.restart().await;
    assert_eq!(ada.balance().await, 1000);
}
