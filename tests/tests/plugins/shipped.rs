//! The provider libraries of this repository, built and loaded as the server loads them: what their own tests play to the
//! trait is played to the library, so that nothing is lost at the boundary.

use std::path::{Path, PathBuf};

use tests::libraries::{built, create, load};
use velro_plugin::Provider;
use velro_plugin::testkit::{Storm, play_folder};

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

fn library(folder: &str) -> std::sync::Arc<velro::plugin::Library> {
    load(&built(&format!("velro-{folder}")))
}

#[test]
fn libraries_hold_the_recordings_of_their_crates() {
    for (folder, _) in LIBRARIES {
        let library = library(folder);
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
        let library = library(folder);
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
        let library = library(folder);
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
