//! A model with two providers: what clients see of it when the first one does not deliver.

use serde_json::{Value, json};
use tests::fal_sim::FalSim;
use tests::harness::{Client, Options, SOON, Server, eventually};

use crate::fal::simulator;

const MODEL: &str = "fal-ai/imagen4/preview/ultra";

/// A server that draws by itself what FAL does not deliver, and a person with a lot of credits who operates it.
async fn shop(sim: &FalSim) -> (Server, Client) {
    open(options(sim)).await
}

async fn open(options: Options) -> (Server, Client) {
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    (server, ada)
}

fn options(sim: &FalSim) -> Options {
    let fallback: toml::Table = r#"
        provider = "sandbox"
        provider_model = "sandbox/image"
        fixed = { latency_ms = 0, outcome = "ok" }
        [inputs]
        image_size = "image_size"
        output_format = { not_sent = "always PNG" }
        safety_tolerance = { not_sent = "it draws from the words alone" }
    "#
    .parse()
    .unwrap();
    Options::new()
        .fal(sim)
        .env("DEFAULT_USER_CREDITS", "10000")
        .env("OPERATOR_EMAILS", "ada@example.com")
        .edit_model(MODEL, |model| {
            model.insert("fallbacks".into(), vec![fallback].into());
        })
}

async fn health(client: &Client) -> Value {
    client.get("/health").await.ok()["providers"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_provider_refuses_the_second_delivers_at_the_same_price() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    let id = ada.submit(MODEL, "a harbour [sim:submit=402]", json!({})).await;
    let frames = ada.stream(&id).await.rest().await;
    let done = ada.wait_for(&id, "completed").await;
    assert_eq!(done["status"], "completed");
    assert_eq!(ada.statement().await, ["bonus +10000", "usage -45"]);
    assert_eq!(sim.requests().len(), 0, "FAL refused");
    let last = frames.last().unwrap();
    assert_eq!(last.event(), "completed");
    let urls = last.data()["output_urls"].as_array().unwrap();
    assert_eq!(urls.len(), 1);
    // From the beginning: it waits twice, and what is ours stays with us.
    let all = ada.stream_after(&id, "0").await.rest().await;
    let told: Vec<&str> = all.iter().map(|frame| frame.event()).collect();
    assert_eq!(told, ["queued", "processing", "queued", "processing", "completed"]);
    assert!(
        all.iter().all(|frame| frame.data().get("provider").is_none()),
        "{all:?}"
    );
    let metrics = ada.get("/metrics").await.expect(200).text();
    for line in [
        r#"velro_reroutes_total{from="fal",reason="refused",to="sandbox"} 1"#,
        r#"velro_provider_breaker{provider="fal"} 0"#,
        r#"velro_provider_breaker{provider="sandbox"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing from\n{metrics}");
    }
    assert_eq!(health(&ada).await, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_failed_at_the_first_provider_is_delivered_by_the_second() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    let id = ada
        .submit(MODEL, "a harbour [sim:runner]", json!({"num_images": 2}))
        .await;
    let done = ada.wait_for(&id, "completed").await;
    assert_eq!(done["output_urls"].as_array().map(Vec::len), Some(2), "{done}");
    assert_eq!(ada.statement().await, ["bonus +10000", "usage -90"]);
    assert_eq!(sim.requests().len(), 1);
    // An input that is refused is refused everywhere.
    let id = ada.submit(MODEL, "a harbour [sim:submit=422]", json!({})).await;
    ada.wait_for(&id, "failed").await;
    assert_eq!(ada.balance().await, 10_000 - 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_takes_nothing_is_seen_and_not_asked() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    for n in 0..5 {
        let id = ada
            .submit(MODEL, &format!("number {n} [sim:submit=402]"), json!({}))
            .await;
        ada.wait_for(&id, "completed").await;
    }
    eventually("the breaker is seen to be open", SOON, || async {
        (health(&ada).await == "degraded").then_some(())
    })
    .await;
    let metrics = ada.get("/metrics").await.expect(200).text();
    assert!(
        metrics.contains(r#"velro_provider_breaker{provider="fal"} 2"#),
        "{metrics}"
    );
    // FAL would take this one, and is not asked.
    let id = ada.submit(MODEL, "the sixth", json!({})).await;
    ada.wait_for(&id, "completed").await;
    assert_eq!(sim.requests().len(), 0);
    assert_eq!(ada.balance().await, 10_000 - 6 * 45);
    let system = ada.get("/api/v1/generations/async/metrics/system").await.ok();
    let fal = &system["providers"]["fal"];
    assert_eq!(
        (&fal["state"], &fal["breaker"]),
        (&json!("ready"), &json!("open")),
        "{system}"
    );
    assert_eq!(fal["breaker_reason"], "Quota: http_402", "{system}");
    assert!(fal["breaker_until"].is_string() && fal["faults"] == 0, "{system}");
    assert_eq!(system["providers"]["sandbox"]["breaker"], "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_follows_a_job_into_the_queue_of_its_next_provider() {
    let sim = simulator().await;
    let one_at_a_time = options(&sim).edit_registry(|registry| {
        let sandbox = registry["providers"]["sandbox"].as_table_mut().unwrap();
        sandbox.insert("concurrency".into(), 1.into());
        sandbox.remove("concurrency_per_user");
    });
    let (_server, ada) = open(one_at_a_time).await;
    let slow = json!({"latency_ms": 4000, "image_size": "square"});
    let before = ada.submit("sandbox/image", "in the way", slow).await;
    ada.wait_for(&before, "processing").await;
    let id = ada.submit(MODEL, "behind [sim:submit=402]", json!({})).await;
    let all = ada.stream_after(&id, "0").await.rest().await;
    let begun = all.iter().position(|frame| frame.event() == "processing").unwrap();
    let again = &all[begun..];
    let mut waiting = again.iter().filter(|frame| frame.event() == "queued");
    assert!(waiting.any(|frame| frame.data()["position"] == 0), "{all:?}");
    assert_eq!(all.last().unwrap().event(), "completed");
    ada.wait_for(&before, "completed").await;
}
