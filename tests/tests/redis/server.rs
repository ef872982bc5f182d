//! The program itself with a Redis that goes away: clients notice nothing but the metrics.

use serde_json::json;
use tests::harness::{Client, Options, Server};
use tests::redis::OwnRedis;

use super::until;

async fn metric(client: &Client, line: &str) -> bool {
    let text = client.get("/metrics").await.text();
    text.lines().any(|found| found == line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_do_not_notice_that_redis_is_away() {
    let mut redis = OwnRedis::start();
    let url = redis.url().replace("redis://", "redis://default:@");
    let options = Options::new()
        .env("REDIS_URL", url)
        .env("VELRO_REDIS_PREFIX", "black-box:")
        .env("RATE_LIMIT_ENABLED", "true");
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    let id = ada.submit_quick("with").await;
    assert_eq!(ada.wait_until_terminal(&id).await["status"], "completed");
    assert!(metric(&ada, "velro_redis_up 1").await);
    assert_eq!(
        ada.get("/__version").await.ok()["configuration"]["redis_enabled"],
        json!(true)
    );

    redis.kill();
    let id = ada.submit_quick("without").await;
    let frames = ada.stream(&id).await.rest().await;
    assert_eq!(frames.last().unwrap().event(), "completed");
    until("the loss does not show", || metric(&ada, "velro_redis_up 0")).await;
    assert!(server.log_text().contains("Redis does not answer; going on without it"));

    redis.start_again();
    until("Redis is not found again", || metric(&ada, "velro_redis_up 1")).await;
    let id = ada.submit_quick("with again").await;
    assert_eq!(ada.wait_until_terminal(&id).await["status"], "completed");
    let lines = server.log_text();
    assert_eq!(lines.matches("going on without it").count(), 1, "{lines}");
    assert_eq!(lines.matches("Redis is back").count(), 1, "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_without_its_redis() {
    let server = Server::with(Options::new().env("REDIS_URL", "redis://:hunter2@127.0.0.1:1/")).await;
    let ada = server.register("ada").await;
    let id = ada.submit_quick("alone").await;
    assert_eq!(ada.wait_until_terminal(&id).await["status"], "completed");
    assert!(!server.log_text().contains("hunter2"));
}
