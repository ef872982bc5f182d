//! `velro plugin new`: what it writes builds as it is, with other settings than the host's, passes the check and generates.

use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::harness::{Server, binary};
use tests::libraries::{PluginFolder, add, options, table};
use tests::queue_sim::QueueSim;

/// An allocator that is not the host's.
const ALLOCATOR: &str = r#"
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub struct Counting(pub AtomicUsize);

    fn wider(layout: Layout) -> (Layout, usize) {
        let gap = layout.align().max(16);
        (Layout::from_size_align(layout.size() + gap, gap).unwrap_or(layout), gap)
    }

    // SAFETY: hands everything on to the system's allocator, behind a gap: memory of one side that the other side frees
    // would be found out at once.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.fetch_add(1, Ordering::Relaxed);
            let (layout, gap) = wider(layout);
            let start = unsafe { System.alloc(layout) };
            if start.is_null() { start } else { unsafe { start.add(gap) } }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            let (layout, gap) = wider(layout);
            unsafe { System.dealloc(pointer.sub(gap), layout) }
        }
    }

    #[global_allocator]
    static COUNTING: Counting = Counting(AtomicUsize::new(0));
}
"#;

/// Cargo in a folder, without the settings of the build that runs this test.
fn cargo(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder).args(args);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let ours = name.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&name.as_str());
        if ours && !name.starts_with("CARGO_REGISTRIES") && !name.starts_with("CARGO_HTTP") {
            command.env_remove(name);
        }
    }
    command.env("CARGO_TARGET_DIR", folder.join("target")).output().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn new_crate(folder: &Path, name: &str) -> PathBuf {
    let made = Command::new(binary().unwrap())
        .current_dir(folder)
        .args(["plugin", "new", name])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    assert!(text(&made).contains(&format!(
        "velro plugin check target/release/lib{}.so",
        name.replace('-', "_")
    )));
    let krate = folder.join(name);
    // The versions that were fetched for the workspace: the test needs no network.
    fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"),
        krate.join("Cargo.lock"),
    )
    .unwrap();
    krate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_crate_builds_with_other_settings_passes_the_check_and_generates() {
    let folder = tempfile::tempdir().unwrap();
    let krate = new_crate(folder.path(), "acme");
    let source = krate.join("src/lib.rs");
    let written = fs::read_to_string(&source).unwrap();
    fs::write(&source, format!("{written}{ALLOCATOR}")).unwrap();
    let size = [
        "--config",
        "profile.release.opt-level='z'",
        "--config",
        "profile.release.lto=true",
    ];
    let built = cargo(&krate, &[&["build", "--release", "--offline"][..], &size].concat());
    assert!(built.status.success(), "{}", text(&built));
    let library = krate.join("target/release/libacme.so");

    let fixtures = krate.join("fixtures");
    let checked = Command::new(binary().unwrap())
        .args(["plugin", "check", "--questions", "400", "--exchanges"])
        .args([&fixtures, &library])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(
        text(&checked).contains("4 recordings") && !text(&checked).contains("skipped"),
        "{}",
        text(&checked)
    );

    let sim = QueueSim::start().await.unwrap();
    let plugins = PluginFolder::new();
    let installed = plugins.install(&library, "libacme.so");
    let more = format!(
        "allow_private = true\nsecrets = {{ ACME_KEY = \"THE_KEY\" }}\nconfig = {{ base_url = \"{}\" }}",
        sim.base_url
    );
    let options = options(&plugins)
        .env("THE_KEY", "acme-secret")
        .edit_registry(|registry| add(registry, "acme", &installed, table(&more)));
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    let credits = ada.balance().await;
    let id = ada.submit("acme/pixel", "a fox", json!({})).await;
    let ended = ada.wait_until_terminal(&id).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ada.balance().await, credits - 7);
    let jobs = sim.book.jobs();
    assert_eq!(jobs.len(), 1, "bought once");
    assert_eq!(
        (jobs[0].key.as_str(), &jobs[0].input),
        ("Bearer acme-secret", &json!({ "prompt": "a fox" }))
    );
    for (prompt, code) in [("refuse", "http_422"), ("fail", "failed")] {
        let id = ada.submit("acme/pixel", prompt, json!({})).await;
        let ended = ada.wait_until_terminal(&id).await;
        assert_eq!(
            (&ended["status"], ended.to_string().contains(code)),
            (&json!("failed"), true),
            "{ended}"
        );
    }
    assert_eq!(ada.balance().await, credits - 7, "what failed is not paid for");
    assert!(!server.log_text().contains("acme-secret"));
}

#[test]
fn a_crate_that_aborts_on_panic_does_not_build() {
    let folder = tempfile::tempdir().unwrap();
    let krate = new_crate(folder.path(), "sudden");
    let built = cargo(&krate, &["build", "--offline", "--config", "profile.dev.panic='abort'"]);
    assert!(!built.status.success());
    assert!(
        text(&built).contains("a provider library must unwind"),
        "{}",
        text(&built)
    );
}

#[test]
fn nothing_is_overwritten_and_a_name_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let new = |name: &str| {
        let made = Command::new(binary().unwrap())
            .current_dir(folder.path())
            .args(["plugin", "new", name])
            .output();
        made.unwrap()
    };
    fs::create_dir(folder.path().join("acme")).unwrap();
    let made = new("acme");
    assert!(
        !made.status.success() && text(&made).contains("nothing was written"),
        "{}",
        text(&made)
    );
    assert_eq!(fs::read_dir(folder.path().join("acme")).unwrap().count(), 0);
    let made = new("Acme_2");
    assert!(
        !made.status.success() && text(&made).contains("use a-z, 0-9 and `-`"),
        "{}",
        text(&made)
    );
}
