//! Replicate's official clients, unchanged, accept the simulator that the provider library is tested against.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use serde_json::{Value, json};
use tests::clients::{node, python, run_script};
use tests::replicate_sim::{ReplicateSim, Settings, Status, TOKEN, VERSION};
use tests::tls::TlsFront;

fn cache() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A simulator with TLS in front: the clients take only `https:` URLs for files.
async fn simulator() -> (ReplicateSim, TlsFront) {
    let settings = Settings {
        page: 3,
        ..Settings::default()
    };
    let sim = ReplicateSim::start(settings).await.unwrap();
    let front = TlsFront::start(sim.address).await.unwrap();
    sim.set_public_url(front.url());
    (sim, front)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_client_accepts_the_simulator() {
    let interpreter = tokio::task::spawn_blocking(|| python(cache())).await.unwrap().unwrap();
    let (sim, front) = simulator().await;
    let output = run_script(
        &interpreter,
        "replicate_python.py",
        &[
            ("REPLICATE_BASE_URL", &front.url()),
            ("REPLICATE_API_TOKEN", TOKEN),
            ("REPLICATE_POLL_INTERVAL", "0.05"),
            ("SSL_CERT_FILE", front.ca_file().to_str().unwrap()),
            ("TEST_VERSION", VERSION),
            ("TEST_CONTROL_URL", &format!("{}/_sim", sim.base_url)),
        ],
    )
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(output.matches("ok ").count(), 16, "{output}");
    // Every refusal was made once: the client repeats no create, not even a throttled one.
    let refused = sim.refused();
    assert_eq!((refused.len(), refused.iter().filter(|s| **s == 429).count()), (10, 1));
    check(&sim, "py");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_client_accepts_the_simulator() {
    let folder = tokio::task::spawn_blocking(|| node(cache())).await.unwrap().unwrap();
    let (sim, front) = simulator().await;
    let output = run_script(
        Path::new("node"),
        "replicate_js.mjs",
        &[
            ("CLIENTS_FOLDER", folder.to_str().unwrap()),
            ("REPLICATE_API_TOKEN", TOKEN),
            ("NODE_EXTRA_CA_CERTS", front.ca_file().to_str().unwrap()),
            ("TEST_API_URL", &format!("{}/v1", front.url())),
            ("TEST_VERSION", VERSION),
            ("TEST_CONTROL_URL", &format!("{}/_sim", sim.base_url)),
        ],
    )
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(output.matches("ok ").count(), 15, "{output}");
    assert_eq!(sim.refused().iter().filter(|s| **s == 429).count(), 1);
    check(&sim, "js");
}

/// What the clients have no words for, and Velro's library uses or could meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_client_asks_for_is_answered_too() {
    let sim = ReplicateSim::start(Settings::default()).await.unwrap();
    let client = reqwest::Client::new();
    let url = format!("{}/v1/predictions", sim.base_url);
    let create = |prompt: &str, header: (&str, &str)| {
        let body = json!({ "version": format!("stability-ai/sdxl:{VERSION}"), "input": { "prompt": prompt } });
        let request = client.post(&url).bearer_auth(TOKEN).json(&body);
        request.header("prefer", "wait").header(header.0, header.1).send()
    };
    let json = async |answer: reqwest::Response| {
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.json::<Value>().await.unwrap())
    };

    // A deadline ends what has not started, unbilled, and what runs.
    let (status, _, ended) = json(create("[sim:hold]", ("cancel-after", "5s")).await.unwrap()).await;
    assert_eq!((status, ended["status"].as_str()), (201, Some("aborted")), "{ended}");
    assert!(
        ended["started_at"].is_null() && ended["metrics"].get("predict_time").is_none(),
        "{ended}"
    );
    let (_, _, ended) = json(create("in time", ("cancel-after", "1m30s")).await.unwrap()).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    for wrong in ["4s", "soon", "5", "s", ""] {
        let (status, kind, _) = json(create("x", ("cancel-after", wrong)).await.unwrap()).await;
        assert_eq!((status, kind.as_str()), (422, "application/problem+json"), "{wrong}");
    }

    let junk = client.post(&url).bearer_auth(TOKEN).body("{");
    assert_eq!(junk.send().await.unwrap().status(), 400);
    let get = async |query: &str| {
        json(
            client
                .get(format!("{url}{query}"))
                .bearer_auth(TOKEN)
                .send()
                .await
                .unwrap(),
        )
        .await
    };
    assert_eq!(get("?cursor=junk").await.0, 400);
    let (_, _, list) = get("?source=web").await;
    assert_eq!(list, json!({ "previous": null, "next": null, "results": [] }));
    assert_eq!(get("").await.2["results"].as_array().unwrap().len(), 2);

    // After an hour nothing but the fact is left.
    let id = sim.bought()[1].id.clone();
    sim.forget(&id);
    let (_, _, gone) = get(&format!("/{id}")).await;
    assert_eq!((&gone["data_removed"], &gone["output"]), (&json!(true), &Value::Null));
    // Nobody without the token.
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
}

/// What both clients have bought, and how.
fn check(sim: &ReplicateSim, client: &str) {
    let bought = sim.bought();
    let find = |what: &str| {
        let prompt = format!("{client} {what}");
        bought.iter().find(|p| p.prompt().starts_with(&prompt)).unwrap()
    };
    let run = find("run");
    assert_eq!(run.path, "/v1/models/black-forest-labs/flux-1.1-pro-ultra/predictions");
    assert_eq!((run.headers["prefer"].as_str(), run.polls), ("wait", 0));
    assert_eq!(run.headers["authorization"], format!("Bearer {TOKEN}"));
    let late = find("late");
    assert_eq!(
        (late.path.as_str(), late.headers["prefer"].as_str()),
        ("/v1/predictions", "wait=1")
    );
    assert!(late.polls > 0 && !find("create").headers.contains_key("prefer"));
    assert_eq!(find("deployed").path, "/v1/deployments/acme/fast/predictions");
    assert_eq!(find("cancel").status, Status::Canceled);
    let hook = find("webhook");
    assert_eq!(hook.events, ["completed"]);
    assert_eq!(hook.deliveries.len(), 1, "{:?}", hook.deliveries);
    assert_eq!(sim.bought_twice(), Vec::<String>::new());
}
