//! The provider libraries of this repository, built and loaded as the server loads them: what their own tests play to the
//! trait is played to the library, so that nothing is lost at the boundary.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use velro::plugin::{self, Foreign, Library, Plugins};
use velro_plugin::testkit::{Storm, play_folder};
use velro_plugin::{Fault, FaultCode, Provider};

/// Folder, and what has to be configured.
const LIBRARIES: [(&str, &str); 3] = [
    ("replicate", "{}"),
    ("openai-images", "{}"),
    (
        "comfyui",
        r#"{"base_url": "http://gpu:8188", "workflows": {"w": {"graph": {"1": {"class_type": "SaveImage"}}}}}"#,
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Where cargo puts them; built once.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    // This test is in target/debug/deps, or target/release/deps.
    let own = std::env::current_exe().unwrap();
    let target = own.parent().unwrap().parent().unwrap().to_path_buf();
    let release = target.ends_with("release").then_some("--release");
    let packages = LIBRARIES
        .iter()
        .flat_map(|(folder, _)| ["-p".to_owned(), format!("velro-{folder}")]);
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet"])
        .args(packages)
        .args(release)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target
});

/// Loads a library. What is mapped is a copy in a folder that may go.
fn load(folder: &str) -> Arc<Library> {
    let file = BUILT.join(format!("libvelro_{}.so", folder.replace('-', "_")));
    let staging = tempfile::tempdir().unwrap();
    let verified = plugin::read(&file).unwrap();
    Plugins::new(staging.path()).load(&verified).unwrap()
}

fn create(library: &Arc<Library>, config: &[u8]) -> Result<Foreign, Fault> {
    let Ok(Value::Object(config)) = serde_json::from_slice(config) else {
        panic!("configurations are objects");
    };
    Foreign::create(Arc::clone(library), "library", &config)
        .map_err(|fault| Fault::new(FaultCode::BadInput, fault.to_string()))
}

#[test]
fn libraries_hold_the_recordings_of_their_crates() {
    for (folder, _) in LIBRARIES {
        let library = load(folder);
        let recordings = root().join("plugins").join(folder).join("fixtures");
        match play_folder(recordings, |config| create(&library, config)) {
            Ok(played) => assert!(played >= 30, "{folder}: only {played} recordings"),
            Err(what) => panic!("{folder}: {what}"),
        }
    }
}

#[test]
fn libraries_survive_storms() {
    for (folder, _) in LIBRARIES {
        let library = load(folder);
        let storm = Storm::of_folder(root().join("plugins").join(folder).join("fixtures")).unwrap();
        for seed in 0..40 {
            if let Err(what) = storm.play(|config| create(&library, config), seed) {
                panic!("{folder}, seed {seed}: {what}");
            }
        }
    }
}

#[test]
fn libraries_say_what_they_are_and_refuse_what_they_do_not_know() {
    for (folder, config) in LIBRARIES {
        let library = load(folder);
        let manifest = create(&library, config.as_bytes()).unwrap().manifest().unwrap();
        assert_eq!((manifest.provider.as_str(), manifest.hosts.len()), (folder, 1));
        assert_eq!(
            (library.name.as_str(), library.version.as_str()),
            (&*format!("velro-{folder}"), manifest.version.as_str())
        );
        let fault = create(&library, br#"{"bas_url": "https://a.example"}"#).err();
        assert!(fault.is_some_and(|f| f.message.contains("`bas_url`")), "{folder}");
    }
}
