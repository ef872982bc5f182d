//! The example in C, built by its own Makefile and loaded as the server loads it, holds its recordings and survives
//! storms: that the header, the loader and the recordings mean the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use tests::harness::Server;
use tests::libraries::{PluginFolder, add, create, load, options, table};
use tests::queue_sim::QueueSim;
use velro::plugin::Library;
use velro_plugin::testkit::{Storm, play_folder};
use velro_plugin::{HookTarget, Provider, Webhook, WebhookAuth};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/examples/pixie-c")
}

/// Builds the library into a folder.
fn make(into: &Path) -> PathBuf {
    let file = into.join("libpixie.so");
    let made = Command::new("make")
        .current_dir(folder())
        .arg(format!("OUT={}", file.display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    file
}

fn library() -> Arc<Library> {
    let built = tempfile::tempdir().unwrap();
    load(&make(built.path()))
}

#[test]
fn the_example_in_c_holds_its_recordings() {
    let library = library();
    match play_folder(folder().join("fixtures"), |config| create(&library, config)) {
        Ok(played) => assert!(played >= 20, "only {played} recordings"),
        Err(what) => panic!("{what}"),
    }
}

#[test]
fn the_example_in_c_survives_storms() {
    let library = library();
    let storm = Storm::of_folder(folder().join("fixtures")).unwrap();
    for seed in 0..100 {
        if let Err(what) = storm.play(|config| create(&library, config), seed) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn the_example_in_c_says_what_it_is() {
    let library = library();
    let pixie = create(&library, br#"{"base_url": "http://127.0.0.1:9000/x/"}"#).unwrap();
    let manifest = pixie.manifest().unwrap();
    assert_eq!(
        (manifest.provider.as_str(), manifest.hosts.as_slice()),
        ("pixie", &["127.0.0.1:9000".to_owned()][..])
    );
    assert!(matches!(
        manifest.webhook_auth,
        Some(WebhookAuth::StandardWebhooks { .. })
    ));
    let target = |body: &[u8]| {
        let hook = Webhook {
            query: "",
            headers: &[],
            body,
        };
        pixie.webhook(&hook).unwrap()
    };
    assert_eq!(target(br#"{"id": "j-1"}"#), HookTarget::Remote("j-1".into()));
    assert_eq!(target(br#"{"id": "\"}"}"#), HookTarget::Ignore);
    assert_eq!(target(b"junk"), HookTarget::Ignore);
    for wrong in [
        "",
        "pixie.example",
        "https://",
        "https://a@b",
        "https://a b",
        "ftp://a",
        &"x".repeat(600),
    ] {
        let config = serde_json::json!({ "base_url": wrong }).to_string();
        let fault = create(&library, config.as_bytes()).err().map(|f| f.message);
        assert!(fault.is_some_and(|f| f.contains("config.base_url")), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_c_passes_the_check_and_generates() {
    let made = tempfile::tempdir().unwrap();
    let file = make(made.path());
    let checked = Command::new(tests::harness::binary().unwrap())
        .args(["plugin", "check", "--questions", "400", "--exchanges"])
        .args([&folder().join("fixtures"), &file])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && !said.contains("skipped"), "{said}");

    let sim = QueueSim::start().await.unwrap();
    let plugins = PluginFolder::new();
    let installed = plugins.install(&file, "libpixie.so");
    let more = format!("allow_private = true\nconfig = {{ base_url = \"{}\" }}", sim.base_url);
    let options = options(&plugins)
        .env("PIXIE_KEY", "pixie-secret")
        .edit_registry(|registry| add(registry, "pixie", &installed, table(&more)));
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    let credits = ada.balance().await;
    let id = ada.submit("pixie/pixel", "a fox", json!({})).await;
    let ended = ada.wait_until_terminal(&id).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    let jobs = sim.book.jobs();
    assert_eq!((jobs.len(), jobs[0].key.as_str()), (1, "Bearer pixie-secret"));
    assert_eq!(ada.balance().await, credits - 7);
}
