//! Supabase's official clients, unchanged, accept the stand-in, and what they get from it works at Velro.

use std::path::Path;

use tests::clients::{node, python, run_script};
use tests::gotrue_sim::{ANON_KEY, GoTrueSim, Kind, PASSWORD, SERVICE_KEY, Settings};
use tests::harness::Server;

fn cache() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

async fn run(interpreter: &Path, script: &str, folder: &str, kind: Kind) {
    let settings = Settings {
        kind,
        ..Settings::default()
    };
    let sim = GoTrueSim::start(settings).await.unwrap();
    let server = Server::with(sim.options()).await;
    let environment = [
        ("CLIENTS_FOLDER", folder),
        ("TEST_AUTH_URL", sim.base_url()),
        ("TEST_VELRO_URL", &server.base_url),
        ("TEST_ANON_KEY", ANON_KEY),
        ("TEST_SERVICE_KEY", SERVICE_KEY),
        ("TEST_PASSWORD", PASSWORD),
    ];
    let output = run_script(interpreter, script, &environment).await;
    let output = output.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(output.matches("ok ").count(), 9, "{output}");
    // Both registered at Velro by the admin route, which takes no mail to confirm.
    assert_eq!(sim.asked("/admin/users"), if script.ends_with(".py") { 4 } else { 3 });
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_client_accepts_the_account_service_and_its_sessions_work() {
    let interpreter = tokio::task::spawn_blocking(|| python(cache())).await.unwrap().unwrap();
    run(&interpreter, "supabase_python.py", "", Kind::Es256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_client_accepts_the_account_service_and_its_sessions_work() {
    let folder = tokio::task::spawn_blocking(|| node(cache())).await.unwrap().unwrap();
    run(
        Path::new("node"),
        "supabase_js.mjs",
        folder.to_str().unwrap(),
        Kind::Rs256,
    )
    .await;
}
