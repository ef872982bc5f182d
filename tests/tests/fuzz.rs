//! Schemathesis, driven by our own OpenAPI document, over the running server: no server error, no answer outside the
//! document.
//!
//! The server is set up so that whatever is asked for can be had: FAL is the simulator, credits are plenty, nothing takes
//! long. So a 5xx is always ours.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::clients::{folder, python_with};
use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{Client, FAL_KEY, Options, Server, eventually, models};

/// What schemathesis may take; it repeats its fuzzing until this is spent.
const BUDGET_SECONDS: &str = "100";
/// And what it may take beyond, to start and to shrink what it found.
const PATIENCE: Duration = Duration::from_secs(240);

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,ignored_auth,use_after_free";

/// Nothing in the sandbox takes longer than a blink, also when it is told to hang.
fn quick(options: Options) -> Options {
    options.edit_registry(|registry| {
        for model in models(registry) {
            if let Some(latency) = model["params"]
                .get_mut("latency_ms")
                .and_then(toml::Value::as_table_mut)
            {
                latency.insert("default".into(), 0.into());
                latency.insert("max".into(), 200.into());
                model.insert("deadline_ms".into(), 2_000.into());
                model.insert("typical_ms".into(), 200.into());
            }
        }
    })
}

/// Until nothing of the fuzzer's runs any more.
async fn settled(client: &Client) {
    eventually("everything has ended", Duration::from_secs(120), || async {
        let stats = client.get("/api/v1/generations/stats").await.ok();
        (stats["processing_generations"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_server_error_and_no_answer_outside_the_document() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let interpreter = tokio::task::spawn_blocking(|| python_with(cache, "fuzz", "fuzz-requirements.txt"));
    let interpreter = interpreter.await.unwrap().unwrap();
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let options = quick(Options::new().fal(&sim)).env("DEFAULT_USER_CREDITS", "100000000");
    let server = Server::with(options.env("LOG_LEVEL", "warn")).await;
    let operator = server.operator().await;

    let run = tokio::process::Command::new(interpreter)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(folder().join("schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", server.base_url)])
        .args(["--header", &format!("Authorization: Bearer {}", operator.token())])
        .args(["--checks", CHECKS, "--max-time", BUDGET_SECONDS, "--max-examples", "15"])
        .args([
            "--request-timeout",
            "15",
            "--workers",
            "2",
            "--seed",
            "20261123",
            "--warnings",
            "off",
        ])
        .args(["--suppress-health-check", "filter_too_much,too_slow"])
        .current_dir(server.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap();
    let [said, complained] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{said}\n{complained}");
    // It has really run: hundreds of calls against nearly every operation.
    let tested = said.lines().find_map(|line| line.trim().strip_prefix("Tested:"));
    let tested: usize = tested.unwrap_or_else(|| panic!("{said}")).trim().parse().unwrap();
    let operations = operations(&operator.get("/openapi.json").await.ok());
    assert!(tested + 4 >= operations, "{tested} of {operations}: {said}");

    settled(&operator).await;
    let metrics = operator.get("/metrics").await.expect(200).text();
    let errors = metrics
        .lines()
        .filter(|l| l.starts_with("velro_http_requests_total") && l.contains("status=\"5xx\""));
    assert_eq!(errors.collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(
        sim.bought_twice()
            .iter()
            .filter(|double| double.by == "webhook_url")
            .count(),
        0
    );
}

fn operations(document: &Value) -> usize {
    let items = document["paths"].as_object().unwrap().values();
    items
        .map(|item| {
            item.as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "parameters")
                .count()
        })
        .sum()
}
