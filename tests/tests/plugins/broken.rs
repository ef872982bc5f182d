//! A zoo of broken libraries: each has its own clear error, and the server lives.

use serde_json::{Value, json};
use std::fs;
use tests::harness::{Client, Server};
use tests::libraries::{Installed, PluginFolder, add, built, options, table};

/// What is found before or while a library is loaded, with the words that an operator reads.
const AT_LOAD: &[(&str, &str)] = &[
    ("BROKEN_MAGIC", "does not begin with VELROPLG"),
    (
        "BROKEN_MAJOR",
        "is built for plugin ABI 7.x, this host speaks 1.x; update the host",
    ),
    ("BROKEN_NEXT_MAJOR", "is built for plugin ABI 2.x, this host speaks 1.x"),
    ("BROKEN_MINOR", "needs plugin ABI 1.9 or later, this host speaks 1.0"),
    ("BROKEN_NOTE", "does not export `velro_plugin_abi_v1`"),
    ("BROKEN_ENTRY", "does not export `velro_plugin_entry_v1`"),
    ("BROKEN_REFUSES", "its entry refuses this host"),
    ("BROKEN_SHORT", "its function table (8 bytes) lacks `step`"),
    ("BROKEN_STEP", "lacks `step`"),
    ("BROKEN_POINTER", "answers with a pointer that is not one"),
    (
        "BROKEN_MANIFEST",
        "cannot describe itself (Internal: its manifest is not what it should be",
    ),
    ("BROKEN_EMPTY_MANIFEST", "returned without a manifest"),
    ("BROKEN_LONG_MANIFEST", "its manifest is longer than 16 MiB"),
];

/// What a library answers to its first step, and what an operator reads in the log.
const AT_WORK: &[(&str, &str)] = &[
    ("BROKEN_NO_ACTION", "NoAction: returned without an action"),
    ("BROKEN_TWO_ACTIONS", "emitted 2 actions in one step"),
    ("BROKEN_KIND", "emitted the unknown action 99"),
    ("BROKEN_UTF8", "its URL is not UTF-8"),
    ("BROKEN_LENGTH", "its state is 18446744073709551615 bytes long"),
    ("BROKEN_HEADERS", "asked for 3 headers"),
    ("BROKEN_OUTCOME", "its outcome cannot be read"),
    ("BROKEN_CODE", "answered with the unknown code 4711: what is this"),
    ("BROKEN_SPIN", "the library does not answer within 1000 ms"),
];

/// The functions of the zoo in which it panics during a step.
const IN_STEP: &str = "Panic: the zoo panics in step (at tests/zoo/src/lib.rs:";

fn name_of(fault: &str) -> String {
    fault
        .trim_start_matches("BROKEN_")
        .to_ascii_lowercase()
        .replace('_', "-")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_file_is_told_at_once_with_its_line() {
    let folder = PluginFolder::new();
    let mut options = options(&folder);
    let mut wanted: Vec<(String, String)> = Vec::new();
    for (fault, words) in AT_LOAD {
        let library = folder.broken(fault);
        options = options.edit_registry(|registry| add(registry, &name_of(fault), &library, table("required = true")));
        wanted.push((name_of(fault), (*words).to_owned()));
    }
    // What is no fault of the code: the file is somebody else's, not there, not a library, outside, open to others.
    let good = folder.install(&built("velro-zoo"), "zoo.so");
    let text = folder.install_bytes(b"#!/bin/sh\necho hello\n", "text.so");
    let open = folder.install(&built("velro-zoo"), "open.so");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(folder.path().join("open.so"), everybody).unwrap();
    let strange: [(&str, Installed, &str, &str); 9] = [
        (
            "hash",
            Installed {
                sha256: "0".repeat(64),
                ..good.clone()
            },
            "",
            "is not the pinned library: its SHA-256 is",
        ),
        (
            "gone",
            Installed {
                name: "gone.so".into(),
                ..good.clone()
            },
            "",
            "cannot be read (No such file",
        ),
        ("text", text, "", "is not a shared library"),
        (
            "outside",
            Installed {
                name: "../../../../../../bin/sh".into(),
                ..good.clone()
            },
            "",
            "resolves outside the plugin folder",
        ),
        ("open", open, "", "can be written by others (mode 666)"),
        (
            "config",
            good.clone(),
            "config = { refuse = true }",
            "does not accept its configuration (BadInput: config: `refuse`",
        ),
        (
            "panics",
            good.clone(),
            "config = { panic = \"create\" }",
            "(Panic: the zoo panics in create (at",
        ),
        (
            "shy",
            good.clone(),
            "config = { panic = \"manifest\" }",
            "cannot describe itself (Panic: the zoo panics in manifest",
        ),
        (
            "host",
            good.clone(),
            "hosts = [\"other.example\"]",
            "wants to talk to `zoo.example`, which `hosts` does not name",
        ),
    ];
    for (name, library, more, words) in strange {
        options = options.edit_registry(|registry| add(registry, name, &library, table(more)));
        wanted.push((name.to_owned(), words.to_owned()));
    }
    let error = format!("{:#}", Server::try_with(options.clone()).await.unwrap_err());
    for (name, words) in &wanted {
        let line = error
            .lines()
            .find(|line| line.contains(&format!("[providers.{name}]:")));
        let line = line.unwrap_or_else(|| panic!("nothing is said of {name} in:\n{error}"));
        assert!(line.contains(words.as_str()), "{name}: {line}");
        assert!(
            line.starts_with("./providers.toml:") || line.contains(" ./providers.toml:"),
            "without a place: {line}"
        );
        assert!(line.contains("; "), "without a remedy: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_calls_a_502_a_refusal_is_not_believed() {
    // Answers every request with 502, as a proxy does that lost the provider in the middle.
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", proxy.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&asked);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = proxy.accept().await {
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    let folder = PluginFolder::new();
    let zoo = folder.install(&built("velro-zoo"), "zoo.so");
    let more = format!("allow_private = true\nconfig = {{ submit = true, base_url = \"{base_url}\" }}");
    let options = options(&folder)
        .open_holds(1)
        .edit_registry(|registry| add(registry, "zoo", &zoo, table(&more)));
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    let id = ada.submit("zoo/pixel", "a pixel", json!({})).await;
    server
        .wait_for_log(0, "the outcome of a paid request is not known", tests::harness::SOON)
        .await;
    let open = server.velro(&["generations", "resolve"]).ok();
    assert!(open.contains(&id), "{open}");
    assert_eq!(
        asked.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "asked once and never again"
    );
    assert_eq!(ada.status(&id).await["status"], "processing");
}

/// Submits and waits for the end.
async fn end_of(client: &Client, model: &str) -> Value {
    let id = client.submit(model, "a pixel", json!({})).await;
    client.wait_until_terminal(&id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_required_costs_its_own_models_and_nothing_else() {
    let folder = PluginFolder::new();
    let broken = folder.broken("BROKEN_MAJOR");
    let good = folder.install(&built("velro-zoo"), "zoo.so");
    let options = options(&folder).edit_registry(|registry| {
        add(registry, "major", &broken, table("required = false"));
        add(registry, "zoo", &good, table(""));
    });
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    ada.try_submit("major/pixel", "x", json!({}))
        .await
        .problem(422, "model_unavailable");
    assert_eq!(end_of(&ada, "zoo/pixel").await["status"], "completed");
    server
        .wait_for_log(0, "is built for plugin ABI 7.x", tests::harness::SOON)
        .await;
    let listed = server.velro(&["plugin", "list"]).fails();
    assert!(
        listed.contains("zoo: ready") && listed.contains("major: not ready: "),
        "{listed}"
    );
    assert!(
        listed.contains(&good.sha256)
            && listed.contains(concat!("velro-zoo ", env!("CARGO_PKG_VERSION"), ", plugin ABI 1.0")),
        "{listed}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_does_not_work_fails_its_own_jobs_and_the_server_lives() {
    let folder = PluginFolder::new();
    let mut options = options(&folder);
    for (fault, _) in AT_WORK {
        let library = folder.broken(fault);
        options = options.edit_registry(|registry| add(registry, &name_of(fault), &library, table("")));
    }
    let zoo = folder.install(&built("velro-zoo"), "zoo.so");
    let chatter = folder.broken("BROKEN_CHATTER");
    let host = folder.broken("BROKEN_HOST");
    options = options.edit_registry(|registry| {
        for place in ["step", "quote", "webhook", "destroy"] {
            let more = table(&format!("config = {{ panic = \"{place}\" }}"));
            add(registry, &format!("panic-{place}"), &zoo, more);
        }
        add(registry, "zoo", &zoo, table(""));
        add(registry, "chatter", &chatter, table(""));
        add(registry, "host", &host, table(""));
    });
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    let credits = ada.balance().await;
    for (fault, words) in AT_WORK {
        let ended = end_of(&ada, &format!("{}/pixel", name_of(fault))).await;
        assert_eq!(ended["status"], "failed", "{fault}: {ended}");
        assert!(
            !ended.to_string().contains(words),
            "{fault}: internal words reach the client: {ended}"
        );
        server.wait_for_log(0, words, tests::harness::SOON).await;
    }
    let ended = end_of(&ada, "panic-step/pixel").await;
    assert_eq!(ended["status"], "failed", "{ended}");
    server.wait_for_log(0, IN_STEP, tests::harness::SOON).await;
    // A request that the policy refuses never leaves: the provider hears HostDenied, and this one asks for it again.
    let ended = end_of(&ada, "host/pixel").await;
    assert_eq!(ended["status"], "failed", "{ended}");
    server
        .wait_for_log(0, "asked for 30 requests without a wait", tests::harness::SOON)
        .await;
    assert_eq!(ada.balance().await, credits, "nothing was charged for any of it");
    for model in [
        "zoo/pixel",
        "panic-quote/pixel",
        "panic-webhook/pixel",
        "panic-destroy/pixel",
        "chatter/pixel",
    ] {
        let ended = end_of(&ada, model).await;
        assert_eq!(ended["status"], "completed", "{model}: {ended}");
    }
    assert_eq!(ada.balance().await, credits - 5 * 7);
    let lines = server.log_text().matches("chatter").count();
    assert!(lines < 100, "{lines} lines of a library that writes 100,000 in a step");
}
