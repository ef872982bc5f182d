//! An operator stops the queue or a provider: paused begins nothing, draining takes nothing new; both survive a restart.

use serde_json::{Value, json};
use tests::harness::{Client, SOON, Server, eventually};

async fn health(client: &Client) -> (String, u64) {
    let health = client.get("/health").await.ok();
    let queue = health["queue"].as_str().unwrap().to_owned();
    (queue, health["stopped_providers"].as_u64().unwrap())
}

/// Waits until the process knows.
async fn knows(client: &Client, queue: &str, stopped: u64) {
    eventually(&format!("{queue}, {stopped} stopped"), SOON, || async {
        (health(client).await == (queue.to_owned(), stopped)).then_some(())
    })
    .await;
}

fn slow(latency_ms: u64) -> Value {
    json!({"latency_ms": latency_ms, "image_size": "square"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_takes_everything_and_begins_nothing_until_it_is_resumed() {
    let mut server = Server::start().await;
    let ada = server.register("ada").await;
    let running = ada.submit("sandbox/image", "runs", slow(4000)).await;
    ada.wait_for(&running, "processing").await;
    server.velro(&["queue", "pause", "--reason", "maintenance"]).ok();
    knows(&ada, "paused", 0).await;
    let first = ada.try_submit("sandbox/image", "waits", slow(0)).await.ok();
    let second = ada.try_submit("sandbox/image", "waits too", slow(0)).await.ok();
    assert_eq!(
        (&first["queue_position"], &second["queue_position"]),
        (&json!(0), &json!(1))
    );
    // What runs goes on, and frees a slot; nobody takes it.
    ada.wait_for(&running, "completed").await;
    let metrics = ada.get("/metrics").await.text();
    assert!(
        metrics.contains(r#"velro_paused{mode="paused",scope="queue"} 1"#),
        "{metrics}"
    );

    server.kill9();
    server.restart().await;
    assert_eq!(
        health(&ada).await,
        ("paused".to_owned(), 0),
        "known before anything begins"
    );
    let other = ada.submit_quick("after the restart").await;
    for answer in [&first, &second] {
        let id = answer["generation_id"].as_str().unwrap();
        assert_eq!(ada.status(id).await["status"], "queued");
    }
    let shown = server.velro(&["queue", "show"]).ok();
    assert!(shown.contains("paused") && shown.contains("maintenance"), "{shown}");

    server.velro(&["queue", "resume", "--reason", "done"]).ok();
    for id in [
        first["generation_id"].as_str().unwrap(),
        second["generation_id"].as_str().unwrap(),
        &other,
    ] {
        ada.wait_for(id, "completed").await;
    }
    assert!(!ada.get("/metrics").await.text().contains("velro_paused{"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_refuses_what_is_new_and_works_off_what_was_taken() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let ada = server.register("ada").await;
    let pauses = "/api/v1/operator/pauses";
    let set = |path: &'static str, mode: &'static str| {
        let operator = operator.clone();
        async move {
            let body = json!({"mode": mode, "reason": "contract ends"});
            operator.put(&format!("{pauses}{path}"), &body).await
        }
    };
    set("/providers/sandbox", "paused").await.ok();
    let taken = ada.submit_quick("taken").await;
    assert_eq!(ada.status(&taken).await["status"], "queued");
    // Known at once where it was changed.
    let answer = set("/providers/sandbox", "draining").await.ok();
    assert_eq!(
        (&answer["before"], &answer["mode"]),
        (&json!("paused"), &json!("draining"))
    );
    let refused = ada.try_submit("sandbox/image", "new", slow(0)).await;
    assert_eq!(refused.header("retry-after"), "30");
    refused.problem(503, "draining");
    ada.wait_for(&taken, "completed").await;
    let quote = json!({"model_id": "sandbox/image", "prompt": "x"});
    ada.post("/api/v1/generations/quote", &quote).await.ok();
    set("/providers/sandbox", "running").await.ok();
    set("/queue", "draining").await.ok();
    ada.try_submit("sandbox/image", "new", slow(0))
        .await
        .problem(503, "draining");
    set("/queue", "running").await.ok();
    let new = ada.submit_quick("new").await;
    ada.wait_for(&new, "completed").await;
    set("/providers/nobody", "paused").await.problem(404, "not_found");
    let said = server.velro(&["providers", "pause", "nobody", "--reason", "x"]).fails();
    assert!(said.contains("sandbox"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_stopped_while_its_file_has_a_mistake() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let told = server.velro(&["providers", "pause", "nobody", "--reason", "x"]).fails();
    assert!(told.contains("no provider `nobody`"), "{told}");
    let shipped = std::fs::read_to_string(server.registry_path()).unwrap();
    std::fs::write(server.registry_path(), "providers = 7").unwrap();
    let told = server
        .velro(&["providers", "pause", "sandbox", "--reason", "bills look odd"])
        .ok();
    assert!(told.contains("not checked") && told.contains("is paused now"), "{told}");
    knows(&ada, "running", 1).await;
    std::fs::write(server.registry_path(), shipped).unwrap();
    server
        .velro(&["providers", "resume", "sandbox", "--reason", "all is well"])
        .ok();
    knows(&ada, "running", 0).await;
}
