//! What those who run a server rely on: metrics where nobody else looks, a stop that loses no request, a log that can be made
//! to talk, books that are checked, and a smoke test.

use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};
use std::time::Duration;
use tests::harness::{Client, Options, Server, eventually};
use tests::ports::free_port;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a line of the metrics.
async fn metric(server: &Server, line: &str) {
    let nobody = server.anonymous();
    eventually(line, PATIENCE, || async {
        let text = nobody.get("/metrics").await.expect(200).text();
        text.lines().any(|l| l == line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_have_a_port_of_their_own_and_are_not_on_the_api_s() {
    let port = free_port().unwrap();
    let server = Server::with(Options::new().env("METRICS_PORT", port.to_string())).await;
    let line = format!("  metrics    http://127.0.0.1:{port}/metrics");
    server.wait_for_log(0, &line, PATIENCE).await;
    let apart = Client::anonymous(&format!("http://127.0.0.1:{port}"));
    let text = apart.get("/metrics").await.expect(200).text();
    assert!(text.contains(r#"velro_build_info{commit="#), "{text}");
    assert!(text.contains("process_resident_memory_bytes "), "{text}");
    apart.get("/health/ready").await.ok();
    apart.get("/api/v1/models").await.problem(404, "not_found");

    let nobody = server.anonymous();
    let told = nobody.get("/metrics").await.problem(404, "not_found");
    assert!(told["detail"].as_str().unwrap().contains("METRICS_PORT"), "{told}");
    // What the command line asks the server for is found there too.
    let listed = server.velro(&["providers", "--json"]).ok();
    assert!(listed.contains("\"closed\""), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_takes_connections_until_load_balancers_have_heard_of_it() {
    let mut server = Server::with(Options::new().env("VELRO_SHUTDOWN_DELAY_SECONDS", "3")).await;
    let ada = server.register("ada").await;
    let base_url = server.base_url.clone();
    let calm = ada.get("/api/v1/credits/balance").await.expect(200);
    assert_eq!(calm.header("connection"), "");
    let nobody = server.anonymous();
    let stopping = tokio::task::spawn_blocking(move || {
        server.terminate();
        server
    });
    eventually("not ready any more", PATIENCE, || async {
        let answer = nobody.get("/health/ready").await;
        (answer.status == 503).then_some(())
    })
    .await;
    // A client that has not heard of it is served, and told to come back by another way.
    let fresh = Client::anonymous(&base_url).with_token(ada.token());
    let answer = fresh.get("/api/v1/credits/balance").await.expect(200);
    assert_eq!(answer.header("connection"), "close");
    fresh.submit_quick("late").await;
    let mut server = stopping.await.unwrap();
    // What came late was not begun here, and is done by whoever comes next.
    server.restart().await;
    let again = Client::anonymous(&server.base_url).with_token(ada.token());
    let done = again.generations().await;
    let id = done[0]["id"].as_str().unwrap();
    again.wait_for(id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_talks_and_falls_silent_while_the_server_runs() {
    let server = Server::start().await;
    let boss = server.operator().await;
    let ask = |id: &'static str| {
        let request = boss
            .request(reqwest::Method::GET, "/api/v1/auth/me")
            .header("x-request-id", id);
        boss.send(request)
    };
    let told = server
        .velro(&["log", "level", "error", "--minutes", "5", "--reason", "too much"])
        .ok();
    assert!(told.starts_with("error until "), "{told}");
    server.wait_for_log(0, "the log level changes", PATIENCE).await;
    ask("silent-1").await.ok();
    let now = boss.get("/api/v1/operator/log-level").await.ok();
    assert_eq!((&now["configured"], &now["filter"]), (&json!("info"), &json!("error")));

    // Libraries keep their secrets, and nonsense changes nothing.
    for (filter, minutes, field) in [
        ("hyper=trace", 5, "body.filter"),
        ("info,sqlx=debug", 5, "body.filter"),
        ("loud", 5, "body.filter"),
        ("debug", 1441, "body.minutes"),
    ] {
        let body = json!({"filter": filter, "minutes": minutes, "reason": "a test"});
        boss.put("/api/v1/operator/log-level", &body).await.invalid(field);
    }
    server
        .velro(&["log", "level", "reqwest=trace", "--reason", "a test"])
        .fails();

    let body = json!({"filter": "info,velro::worker=debug", "minutes": 5, "reason": "a test"});
    let set = boss.put("/api/v1/operator/log-level", &body).await.ok();
    assert_eq!(set["filter"], "info,velro::worker=debug");
    ask("loud-1").await.ok();
    server.wait_for_log(0, "loud-1", PATIENCE).await;
    server.velro(&["log", "reset", "--reason", "seen"]).ok();
    server
        .wait_for_log(0, "the configured log level is back", PATIENCE)
        .await;
    assert!(!server.log_text().contains("silent-1"));
    let audit = boss.get("/api/v1/operator/audit?action=log.level").await.ok();
    assert_eq!(audit["items"].as_array().unwrap().len(), 3, "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_are_checked_by_themselves_and_the_metrics_say_what_was_found() {
    let mut server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada.submit_quick("fine").await;
    ada.wait_for(&id, "completed").await;
    metric(&server, "velro_ledger_faults 0").await;
    metric(&server, "velro_ledger_check_interval_seconds 3600").await;
    metric(&server, r#"velro_captured_credits_total{provider="sandbox"} 5"#).await;
    metric(
        &server,
        r#"velro_attempts_total{outcome="completed",provider="sandbox"} 1"#,
    )
    .await;
    metric(
        &server,
        r#"velro_generation_stage_duration_seconds_count{provider="sandbox",stage="outputs"} 1"#,
    )
    .await;

    // Somebody writes into the database by hand, and the next check is due.
    let damage = |credits: i64| {
        format!(
            "UPDATE accounts SET balance = balance + {credits} WHERE user_id IS NOT NULL; DELETE FROM ledger_checks"
        )
    };
    server.terminate();
    let url = format!("sqlite:{}", server.path().join("data/velro.db").display());
    let execute = async |sql: String| {
        let mut conn = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
    };
    execute(damage(7)).await;
    server.restart().await;
    // The balance is not the sum of the transfers, all together are not nothing, and the statement says something else.
    metric(&server, "velro_ledger_faults 3").await;
    server.wait_for_log(0, "the books are not in order", PATIENCE).await;
    server.terminate();
    execute(damage(-7)).await;
    server.restart().await;
    metric(&server, "velro_ledger_faults 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smoke_test_draws_a_picture_and_leaves_nothing_behind() {
    // The world knows it by another name than whoever runs the test.
    let server = Server::with(Options::new().env("PUBLIC_URL", "https://api.velro.invalid")).await;
    let told = server.velro(&["smoke", "--url", &server.base_url]).ok();
    for line in [
        "is ready",
        "twice with one key",
        "of image/png",
        "charged 5 credits, once",
        "deleted smoke-",
    ] {
        assert!(told.contains(line), "{line} is missing from\n{told}");
    }
    let told = server
        .velro(&["smoke", "--url", &server.base_url, "--model", "no/such"])
        .fails();
    assert!(
        told.contains("not submitted") && told.contains("deleted smoke-"),
        "{told}"
    );
    let nowhere = server.velro(&["smoke", "--url", "http://127.0.0.1:1"]).fails();
    assert!(nowhere.contains("not ready"), "{nowhere}");
    // With a token of somebody who is there.
    let ada = server.register("ada").await;
    let told = server
        .velro(&["smoke", "--url", &server.base_url, "--token", ada.token()])
        .ok();
    assert!(
        told.contains("charged 5 credits") && !told.contains("registered"),
        "{told}"
    );
    assert_eq!(ada.balance().await, 995);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_at_once_and_probes_are_answered() {
    let server = Server::with(Options::new().env("VELRO_MAX_REQUESTS", "1")).await;
    let nobody = server.anonymous();
    server.register("ada").await;
    // A client that is slow with its body keeps nobody out.
    let address = server.base_url.strip_prefix("http://").unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nhost: velro\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..20 {
        nobody.get("/api/v1/models").await.ok();
    }

    // Passwords take their time: of many at once one is at work, and the others are told at once.
    let body = json!({"email": "ada@example.com", "password": "not the right one"});
    let logins = (0..20).map(|_| {
        let login = nobody.request(reqwest::Method::POST, "/api/v1/auth/login");
        nobody.send(login.json(&body).header("origin", "http://localhost:3000"))
    });
    let (mut looked, mut refused) = (0, 0);
    for answer in futures_util::future::join_all(logins).await {
        // A page may read that there was no room.
        assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:3000");
        if answer.status == 401 {
            looked += 1;
            continue;
        }
        refused += 1;
        assert_eq!(answer.header("retry-after"), "1");
        answer.problem(503, "service_unavailable");
    }
    assert!(looked >= 1 && refused >= 1, "{looked} looked, {refused} refused");
    nobody.get("/health/ready").await.ok();
    let text = nobody.get("/metrics").await.expect(200).text();
    let line = format!("velro_shed_requests_total {refused}");
    assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
    nobody.get("/api/v1/models").await.ok();
    // What has come slowly is answered too.
    slow.write_all(b"\"a\": 1}").await.unwrap();
    let mut answer = String::new();
    let read = tokio::io::BufReader::new(slow).read_line(&mut answer).await;
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_has_so_many_streams_and_no_more() {
    let server = Server::start().await;
    let (ada, bob) = (server.register("ada").await, server.register("bob").await);
    let slow = json!({"latency_ms": 60_000});
    let id = ada.submit("sandbox/image", "slow", slow.clone()).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(ada.stream(&id).await);
    }
    ada.send(ada.stream_request(&id)).await.problem(429, "rate_limited");
    let his = bob.submit("sandbox/image", "slow", slow).await;
    drop(bob.stream(&his).await);
    streams.pop();
    eventually("there is room again", PATIENCE, || async {
        match ada.stream_request(&id).send().await {
            Ok(answer) if answer.status() == 200 => Some(()),
            _ => None,
        }
    })
    .await;
    for (client, id) in [(&ada, &id), (&bob, &his)] {
        client.cancel(id).await.ok();
    }
}

#[test]
fn whoever_has_read_enough_of_a_list_sees_no_panic() {
    let velro = tests::harness::binary().unwrap();
    let piped = format!("'{}' openapi | head -c 1", velro.display());
    let output = std::process::Command::new("sh").args(["-c", &piped]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
