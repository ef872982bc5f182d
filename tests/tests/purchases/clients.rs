//! Stripe's official libraries, unchanged: they accept the stand-in, and Velro accepts what they sign.

use super::*;
use std::path::Path;
use tests::clients::{node, python, run_script};

fn cache() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Runs a script with an event that waits to be delivered, and gives how many of its checks passed.
async fn run(program: &Path, script: &str, folder: &str) -> usize {
    let (sim, server, ada) = shop().await;
    let (_, session_id) = session(&sim, &ada, "hundred").await;
    let event = sim.pay(&session_id);
    let body = event.to_string();
    let intent = event["data"]["object"]["payment_intent"].as_str().unwrap();
    let output = run_script(
        program,
        script,
        &[
            ("CLIENTS_FOLDER", folder),
            ("TEST_API_URL", &sim.base_url),
            ("TEST_SECRET_KEY", SECRET_KEY),
            ("TEST_WEBHOOK_SECRET", WEBHOOK_SECRET),
            ("TEST_WEBHOOK_URL", &format!("{}{HOOK}", server.base_url)),
            ("TEST_PAYMENT_INTENT", intent),
            ("TEST_EVENT", &body),
            ("TEST_SIGNATURE", &sign(&body, WEBHOOK_SECRET, now())),
        ],
    )
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(ada.statement().await, ["purchase +100"]);
    output.matches("ok ").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_library_accepts_the_simulator_and_signs_for_velro() {
    let program = tokio::task::spawn_blocking(|| python(cache())).await.unwrap().unwrap();
    assert_eq!(run(&program, "stripe_python.py", "").await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_library_accepts_the_simulator_and_signs_for_velro() {
    let folder = tokio::task::spawn_blocking(|| node(cache())).await.unwrap().unwrap();
    assert_eq!(
        run(Path::new("node"), "stripe_js.mjs", folder.to_str().unwrap()).await,
        5
    );
}
