//! Replicate's official clients, unchanged, accept the simulator that the provider library is tested against.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

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
    assert_eq!(output.matches("ok ").count(), 14, "{output}");
    check(&sim, "js");
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
    assert!(bought.iter().all(|p| p.status.is_end()), "{bought:#?}");
}
