//! FAL's official clients, unchanged, accept the simulator: what Velro is tested against is what FAL's users see.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use tests::clients::{node, python, run_script};
use tests::fal_sim::{FalSim, Options, Settings, Via};
use tests::tls::TlsFront;

const KEY: &str = "key-id:key-secret";

fn cache() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

async fn simulator() -> FalSim {
    FalSim::start(Options {
        port: 0,
        settings: Settings {
            required_key: Some(KEY.to_owned()),
            ..Settings::default()
        },
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_client_accepts_the_simulator() {
    let interpreter = tokio::task::spawn_blocking(|| python(cache())).await.unwrap().unwrap();
    let sim = simulator().await;
    let front = TlsFront::start(sim.address).await.unwrap();
    sim.set_public_url(front.url());
    let host = front.address.to_string();
    let output = run_script(
        &interpreter,
        "fal_python.py",
        &[
            ("FAL_KEY", KEY),
            ("FAL_QUEUE_RUN_HOST", &host),
            ("FAL_RUN_HOST", &format!("{host}/run")),
            ("SSL_CERT_FILE", front.ca_file().to_str().unwrap()),
            ("TEST_REST_URL", &front.url()),
            ("TEST_CONTROL_URL", &format!("{}/_sim", sim.base_url)),
        ],
    )
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(output.matches("ok ").count(), 14, "{output}");

    let requests = sim.requests();
    let submit = requests
        .iter()
        .find(|request| request.prompt().starts_with("py submit"))
        .unwrap();
    assert_eq!(submit.headers["x-fal-queue-priority"], "low");
    assert_eq!(submit.headers["x-fal-runner-hint"], "lane-1");
    assert_eq!(submit.headers["x-fal-request-timeout"], "30.0");
    assert!(!submit.headers.contains_key("authorization"));
    assert!(requests.iter().any(|request| request.via == Via::Run));
    // The 429s of the busy check were refused, so its one acceptance is its only purchase.
    assert_eq!(sim.bought_twice(), []);
    let refused = sim.refusals();
    assert_eq!(refused.iter().filter(|refusal| refusal.answer == "429").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_client_accepts_the_simulator() {
    let folder = tokio::task::spawn_blocking(|| node(cache())).await.unwrap().unwrap();
    let sim = simulator().await;
    let output = run_script(
        Path::new("node"),
        "fal_js.mjs",
        &[
            ("CLIENTS_FOLDER", folder.to_str().unwrap()),
            ("FAL_KEY", KEY),
            ("TEST_QUEUE_URL", &sim.base_url),
            ("TEST_RUN_URL", &sim.run_url()),
            ("TEST_REST_URL", &sim.base_url),
            ("TEST_CONTROL_URL", &format!("{}/_sim", sim.base_url)),
        ],
    )
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(output.matches("ok ").count(), 11, "{output}");

    let requests = sim.requests();
    let streamed = requests
        .iter()
        .find(|request| request.prompt().starts_with("js streaming"))
        .unwrap();
    assert_eq!((streamed.counts.stream, streamed.counts.status), (1, 0));
    let submit = requests
        .iter()
        .find(|request| request.prompt().starts_with("js submit"))
        .unwrap();
    assert_eq!(submit.headers["x-fal-request-timeout"], "30");
    assert_eq!(sim.bought_twice(), []);
}
