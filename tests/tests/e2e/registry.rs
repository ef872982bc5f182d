//! The registry is edited while the server works.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::harness::{Client, Options, Server, eventually};

/// An edit applies within this time.
const PROMISED: Duration = Duration::from_secs(2);

const NEW_MODEL: &str = r#"
[[models]]
id = "studio/poster"
provider = "sandbox"
provider_model = "sandbox/image"
media_type = "image"
description = "A poster."
credits = 3
max_resolution = "1024x1024"
formats = ["png"]
typical_ms = 2_000
deadline_ms = 900_000
poll_ceiling_ms = 1_000
negative_prompt = { refused = "not here" }
reference_image = { refused = "not here" }
"#;

/// The value of a metric without labels.
async fn metric(client: &Client, name: &str) -> String {
    let text = client.get("/metrics").await.expect(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).to_owned()
}

async fn ready(client: &Client) -> Value {
    client.get("/health/ready").await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_model_applies_within_two_seconds_with_jobs_in_flight() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let slow = json!({"latency_ms": 5000, "image_size": "square"});
    let running = ada.submit("sandbox/image", "running", slow).await;
    ada.wait_for(&running, "processing").await;
    let before = ready(&ada).await;
    ada.try_submit("studio/poster", "x", json!({}))
        .await
        .problem(422, "unknown_model");

    let text = fs::read_to_string(server.registry_path()).unwrap();
    fs::write(server.registry_path(), format!("{text}{NEW_MODEL}")).unwrap();
    let written = Instant::now();
    eventually("the new model is listed", PROMISED, || async {
        let detail = ada.get("/api/v1/models/studio/poster").await;
        (detail.status == 200).then_some(())
    })
    .await;
    assert!(written.elapsed() <= PROMISED, "{:?}", written.elapsed());
    let id = ada.submit("studio/poster", "x", json!({})).await;
    ada.wait_for(&id, "completed").await;
    let after = ready(&ada).await;
    assert_ne!(after["registry_revision"], before["registry_revision"]);
    assert_eq!(
        after["models"].as_u64().unwrap(),
        before["models"].as_u64().unwrap() + 1
    );
    ada.wait_for(&running, "completed").await;
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5", "usage -3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_edit_changes_nothing_and_is_visible() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let good = fs::read_to_string(server.registry_path()).unwrap();
    let before = ready(&ada).await;
    assert_eq!(before["registry"], "current");
    let broken = [
        good.replacen("credits = 5\n", "credits = -5\n", 1),
        good.replacen("media_type = \"image\"", "media_type = \"smell\"", 1),
        format!("{good}{NEW_MODEL}{NEW_MODEL}"),
        format!("{good}\n[[models]\n"),
        String::new(),
    ];
    for (number, text) in broken.iter().enumerate() {
        assert_ne!(*text, good);
        fs::write(server.registry_path(), text).unwrap();
        eventually(
            &format!("broken edit {number} is visible"),
            Duration::from_secs(5),
            || async { (ready(&ada).await["registry"] == "edit_refused").then_some(()) },
        )
        .await;
        assert_eq!(ready(&ada).await["registry_revision"], before["registry_revision"]);
        assert_eq!(ready(&ada).await["models"], before["models"]);
        let id = ada.submit_quick("still works").await;
        ada.wait_for(&id, "completed").await;
        assert_eq!(metric(&ada, "velro_registry_edit_refused").await, "1");

        fs::write(server.registry_path(), &good).unwrap();
        eventually("the repair is noticed", Duration::from_secs(5), || async {
            (ready(&ada).await["registry"] == "current").then_some(())
        })
        .await;
        assert_eq!(metric(&ada, "velro_registry_edit_refused").await, "0");
    }
    // The log says where, `velro check` says the same offline.
    fs::write(server.registry_path(), &broken[0]).unwrap();
    let said = server.velro(&["check"]).fails();
    let line = 1 + broken[0].lines().position(|line| line == "credits = -5").unwrap();
    assert!(said.contains(&line.to_string()), "line {line} is not in: {said}");
    fs::write(server.registry_path(), &good).unwrap();
    server.velro(&["check"]).ok();
    assert_eq!(ada.balance().await, 1000 - 5 * broken.len() as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_switched_off_is_refused_and_its_jobs_end() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let slow = json!({"latency_ms": 3000, "image_size": "square"});
    let running = ada.submit("sandbox/image", "running", slow).await;
    ada.wait_for(&running, "processing").await;
    let text = fs::read_to_string(server.registry_path()).unwrap();
    let at = text.find("id = \"sandbox/image\"").unwrap();
    let off = format!("{}status = \"disabled\"\n{}", &text[..at], &text[at..]);
    fs::write(server.registry_path(), off).unwrap();
    eventually(
        "the model is gone from the listings",
        Duration::from_secs(5),
        || async {
            let detail = ada.get("/api/v1/models/sandbox/image").await;
            (detail.status == 404).then_some(())
        },
    )
    .await;
    ada.try_submit("sandbox/image", "x", json!({}))
        .await
        .problem(422, "model_unavailable");
    ada.wait_for(&running, "completed").await;
    assert_eq!(ada.balance().await, 995);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_registry_does_not_start() {
    let options = Options::new().edit_registry(|registry| {
        registry.insert("nonsense".into(), 1.into());
    });
    let error = Server::try_with(options).await.unwrap_err();
    let said = format!("{error:#}");
    assert!(said.contains("providers.toml") && said.contains("nonsense"), "{said}");
}
