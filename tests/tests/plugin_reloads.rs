//! The registry and its libraries are replaced, again and again, while jobs are in flight. Alone in its process: it measures the
//! process's memory and threads, which other tests would use too.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Map;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tests::harness::{SOON, eventually};
use tests::libraries::{Installed, PluginFolder, add, built, table};
use tests::process;
use tokio_util::sync::CancellationToken;
use velro::catalog::{ClientCall, Registry};
use velro::clock;
use velro::generation::Status;
use velro::id::GenerationId;
use velro::intake::Request;
use velro::provider::ProviderShelf;
use velro::worker::{Settings, Worker};

/// Registries that are taken up one after the other, for one content of the library: `VELRO_TEST_LIBRARIES=200` makes
/// 10,000 reloads of it, in some minutes.
const RELOADS_EACH: usize = 50;

/// Contents of the library, one after the other.
fn libraries() -> usize {
    let more = std::env::var("VELRO_TEST_LIBRARIES").ok();
    more.map_or(20, |count| count.parse().expect("VELRO_TEST_LIBRARIES is a number"))
}

/// Jobs that are in flight meanwhile.
const JOBS: usize = 20;
/// What a loaded library may cost of the process's own memory; the design measured 26 kB, a debug build has more.
const BYTES_PER_LIBRARY: u64 = 150_000;
/// What all reloads may leave behind besides.
const SLACK_BYTES: u64 = 12 << 20;

/// The shipped registry with the zoo in it.
fn registry(library: &Installed, concurrency: usize, steps: u32) -> String {
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../providers.toml")).unwrap();
    let mut registry: toml::Table = shipped.parse().unwrap();
    let more = format!(
        "concurrency = {concurrency}\nconcurrency_per_user = {concurrency}\nconfig = {{ waits = {steps}, wait_ms = 200 }}"
    );
    add(&mut registry, "zoo", library, table(&more));
    toml::to_string(&registry).unwrap()
}

fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_lose_no_job_and_leave_nothing_but_the_libraries() {
    let (count, reloads) = (libraries(), libraries() * RELOADS_EACH);
    let (folder, plugins) = (tempfile::tempdir().unwrap(), PluginFolder::new());
    let more = [("VELRO_PLUGIN_DIR", plugins.path().to_str().unwrap())];
    let config = process::config(folder.path(), &more).unwrap();
    let (store, user) = process::store_with_user(folder.path(), 10_000).await.unwrap();
    let code = fs::read(built("velro-zoo")).unwrap();
    // Bytes behind the end of an ELF file change its hash and nothing else.
    let version = |number: usize| plugins.install_bytes(&[&code[..], number.to_string().as_bytes()].concat(), "zoo.so");
    let parse = |text: &str| Registry::from_toml(text, Path::new("providers.toml"), clock::now()).unwrap();

    let mut library = version(0);
    let first = parse(&registry(&library, JOBS, 3));
    let providers = ProviderShelf::load(&config, &first).unwrap();
    let (intake, tools) = process::tools(&config, Arc::clone(&store), first, providers).unwrap();
    let (providers, shelf) = (Arc::clone(&tools.providers), Arc::clone(&tools.shelf));
    let stop = CancellationToken::new();
    let working = tokio::spawn(Worker::new(tools, Settings::new(None, Duration::from_secs(5))).run(stop.clone()));

    let submit = async || {
        let call = ClientCall {
            prompt: "a pixel",
            negative_prompt: None,
            reference_image_url: None,
            parameters: &Map::new(),
        };
        let request = Request {
            user_id: user,
            project_id: None,
            model_id: "zoo/pixel",
            call,
            idempotency: None,
            api_key_id: None,
        };
        intake.submit(request).await.unwrap().generation.id
    };
    let mut jobs: Vec<GenerationId> = Vec::new();
    for _ in 0..JOBS {
        jobs.push(submit().await);
    }
    let mut before = (0, 0);
    for number in 1..=reloads {
        if number % RELOADS_EACH == 0 {
            library = version(number);
        }
        // An edit that touches the entry without changing its code, and every fiftieth time its code.
        let next = parse(&registry(&library, JOBS + number % 2, 3));
        providers.take_up(&config, &next).unwrap();
        shelf.set(next);
        if number % 100 == 0 {
            jobs.push(submit().await);
        }
        // After the first few everything that fills once is full.
        if number == reloads / 10 {
            before = (anonymous_bytes(), threads());
        }
    }
    for id in &jobs {
        eventually("every job ends", SOON, || async {
            let now = store.generation(user, *id).await.unwrap().unwrap();
            now.status
                .is_terminal()
                .then(|| assert_eq!(now.status, Status::Completed, "{:?}", now.error))
        })
        .await;
    }
    stop.cancel();
    working.await.unwrap();

    let registry = shelf.get();
    assert_eq!(
        providers.libraries(&registry),
        (1, count),
        "one serves, the others are left over"
    );
    let loaded = (count - count / 10) as u64;
    let grown = anonymous_bytes().saturating_sub(before.0);
    println!(
        "{reloads} reloads, {count} libraries, {} jobs: {} bytes per library",
        jobs.len(),
        grown / loaded
    );
    assert!(
        grown < loaded * BYTES_PER_LIBRARY + SLACK_BYTES,
        "grew by {grown} bytes"
    );
    assert!(threads() <= before.1 + 4, "{} threads, {} before", threads(), before.1);
    let report = store.verify_ledger().await.unwrap();
    assert!(
        report.faults.is_empty() && report.open_holds == 0,
        "{:?}",
        report.faults
    );
}
