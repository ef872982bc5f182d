//! The example in C, built by its own Makefile and loaded as the server loads it, holds its recordings and survives
//! storms: that the header, the loader and the recordings mean the same.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use velro::plugin::{self, Foreign, Library, Plugins};
use velro_plugin::testkit::{Storm, play_folder};
use velro_plugin::{Fault, FaultCode, HookTarget, Provider, Webhook, WebhookAuth};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/examples/pixie-c")
}

/// The library, built into a folder of its own.
fn library() -> (tempfile::TempDir, Arc<Library>) {
    let built = tempfile::tempdir().unwrap();
    let file = built.path().join("libpixie.so");
    let made = Command::new("make")
        .current_dir(folder())
        .arg(format!("OUT={}", file.display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let verified = plugin::read(&file).unwrap();
    let library = Plugins::new(built.path().join("staging")).load(&verified).unwrap();
    (built, library)
}

fn create(library: &Arc<Library>, config: &[u8]) -> Result<Foreign, Fault> {
    let Ok(Value::Object(config)) = serde_json::from_slice(config) else {
        panic!("configurations are objects");
    };
    Foreign::create(Arc::clone(library), "pixie", &config)
        .map_err(|fault| Fault::new(FaultCode::BadInput, fault.to_string()))
}

#[test]
fn the_example_in_c_holds_its_recordings() {
    let (_built, library) = library();
    match play_folder(folder().join("fixtures"), |config| create(&library, config)) {
        Ok(played) => assert!(played >= 20, "only {played} recordings"),
        Err(what) => panic!("{what}"),
    }
}

#[test]
fn the_example_in_c_survives_storms() {
    let (_built, library) = library();
    let storm = Storm::of_folder(folder().join("fixtures")).unwrap();
    for seed in 0..100 {
        if let Err(what) = storm.play(|config| create(&library, config), seed) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn the_example_in_c_says_what_it_is() {
    let (_built, library) = library();
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
