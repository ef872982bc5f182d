//! Schemathesis, made from `/openapi.json`, against the real binary: no 5xx, and no answer outside the document.
//!
//! It sends what the document allows and what it does not, and follows answers into further requests. Everything has
//! a fixed seed; `VELRO_FUZZ_SEED` sets another one, `VELRO_FUZZ_EXAMPLES` more cases per operation. FAL is the
//! simulator, so that every model can be bought. What ends sessions or changes the password is fuzzed last.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tests::clients::{folder, schemathesis};
use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{Client, FAL_KEY, Options, Server, eventually};

/// What every answer must be.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

const SEED: &str = "20261123";

/// Cases per operation and phase; 25 keep the whole within two minutes on two cores.
const EXAMPLES: &str = "25";

/// Longest run of the fuzzer; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(400);

const LOGOUT: &str = "/api/v1/auth/logout";
const SESSION: &str = "/api/v1/auth/sessions/{session_id}";
const PASSWORD: &str = "/api/v1/auth/change-password";
const LEAVE: &str = "/api/v1/user/account";
const SYSTEM_METRICS: &str = "/api/v1/generations/async/metrics/system";

/// Documented to answer 501.
/// The operator's desk. Fuzzed by a plain user, who gets nowhere, and by an operator.
const DESK: &str = "/api/v1/operator";

/// With them the fuzzer could take its own rights away.
const RIGHTS: [&str; 3] = ["role", "suspend", "unsuspend"];

/// Generations that exist when it begins; it deletes some of them.
const GENERATIONS: usize = 30;

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Real ids and names, so that Schemathesis gets past "not found".
struct Hints {
    /// Its configuration: values it mixes with its own.
    config: toml::Table,
    /// By path, the parameters with slashes, for `fuzz_hooks.py`.
    paths: Value,
}

/// One server's fuzzer.
struct Fuzzer {
    program: PathBuf,
    folder: tempfile::TempDir,
    base_url: String,
    paths: String,
}

impl Fuzzer {
    async fn new(server: &Server, hints: &Hints) -> Self {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = tokio::task::spawn_blocking(|| schemathesis(cache)).await.unwrap();
        let program = program.unwrap_or_else(|error| panic!("{error:#}"));
        let folder = tempfile::Builder::new().prefix("velro-fuzz-").tempdir().unwrap();
        std::fs::write(folder.path().join("schemathesis.toml"), hints.config.to_string()).unwrap();
        Self {
            program,
            folder,
            base_url: server.base_url.clone(),
            paths: hints.paths.to_string(),
        }
    }

    /// Fuzzes the operations that `selection` leaves as `client` and gives Schemathesis's report.
    async fn run(&self, client: &Client, selection: &[&str]) -> Report {
        let seed = setting("VELRO_FUZZ_SEED", SEED);
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["--config-file", "schemathesis.toml", "run"])
            .arg(format!("{}/openapi.json", self.base_url))
            .args(["--header", &format!("Authorization: Bearer {}", client.token())])
            .args(["--checks", CHECKS, "--seed", &seed, "--continue-on-failure"])
            .args(["--max-examples", &setting("VELRO_FUZZ_EXAMPLES", EXAMPLES)])
            // One: CPython 3.11's `ast.parse`, which Hypothesis calls, fails now and then when two threads are in it.
            .args(["--workers", "1", "--generation-database", "none", "--no-color"])
            .args(["--report", "json,ndjson", "--report-json-path", "report.json"])
            .args(["--report-ndjson-path", "events.ndjson", "--request-timeout", "20"])
            .args(selection)
            .env("NO_PROXY", "127.0.0.1")
            .env("SCHEMATHESIS_HOOKS", folder().join("fuzz_hooks.py"))
            .env("FUZZ_PATHS", &self.paths)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let Output { status, stdout, .. } = ended
            .unwrap_or_else(|_| panic!("still runs after {PATIENCE:?}"))
            .unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned();
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name));
        let report = read("report.json").unwrap_or_else(|error| panic!("{error}: {status}\n{said}"));
        assert!(status.success(), "{status}; repeat with VELRO_FUZZ_SEED={seed}\n{said}");
        Report {
            summary: serde_json::from_str(&report).unwrap(),
            succeeded: succeeded(&read("events.ndjson").unwrap()),
        }
    }
}

struct Report {
    summary: Value,
    /// Operations that had a success, such as `GET /health`.
    succeeded: BTreeSet<String>,
}

impl Report {
    /// Asserts that all of the document's operations were exercised but for `left_out`.
    #[track_caller]
    fn covers(&self, document: usize, left_out: usize) {
        let summary = &self.summary;
        let selected = document - left_out;
        let all = json!({"total": document, "selected": selected, "tested": selected, "errored": 0, "skipped": 0, "skip_reasons": []});
        assert_eq!(summary["operations"], all, "{summary}");
        assert_eq!(
            (&summary["complete"], &summary["stop_reason"]),
            (&json!(true), &json!("completed"))
        );
        for phase in ["coverage", "fuzzing"] {
            assert_eq!(summary["phases"][phase]["status"], "success", "{summary}");
        }
    }
}

impl Report {
    /// Which of these operations had no success.
    fn barren<'o>(&self, operations: &'o [String]) -> Vec<&'o str> {
        let barren = operations
            .iter()
            .filter(|operation| !self.succeeded.contains(*operation));
        barren.map(String::as_str).collect()
    }
}

/// Operations with a success in Schemathesis's events.
fn succeeded(events: &str) -> BTreeSet<String> {
    let mut succeeded = BTreeSet::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let recorder = &event["ScenarioFinished"]["recorder"];
        for (id, case) in recorder["cases"].as_object().into_iter().flatten() {
            let text = |name: &str| case["value"][name].as_str().unwrap();
            let status = recorder["interactions"][id]["response"]["status_code"].as_u64();
            if status.is_some_and(|status| (200..400).contains(&status)) {
                succeeded.insert(format!("{} {}", text("method"), text("path")));
            }
        }
    }
    succeeded
}

fn texts(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// Fills the account of `ada` and tells what is in it.
async fn hints(ada: &Client) -> Hints {
    let mut generations = Vec::new();
    for n in 0..GENERATIONS {
        generations.push(ada.submit_quick(&format!("picture {n}")).await);
    }
    for id in &generations {
        ada.wait_for(id, "completed").await;
    }
    // Its file stays: nobody else is told its id.
    let kept = ada.submit_quick("kept").await;
    let kept = ada.wait_for(&kept, "completed").await;
    let url = url::Url::parse(kept["output_urls"][0].as_str().unwrap()).unwrap();
    let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    let key = url.path().strip_prefix("/outputs/").unwrap();
    let mut projects = Vec::new();
    for n in 0..10 {
        let project = ada
            .post("/api/v1/projects", &json!({"name": format!("project {n}")}))
            .await;
        projects.push(project.ok()["id"].as_str().unwrap().to_owned());
    }
    let mut keys = Vec::new();
    for n in 0..10 {
        let key = ada.post("/api/v1/keys", &json!({"name": format!("key {n}")})).await;
        keys.push(key.ok()["api_key"]["id"].as_str().unwrap().to_owned());
    }
    let models = ada.get("/api/v1/models").await.ok();
    let models = models.as_array().or_else(|| models["models"].as_array()).unwrap();
    let models: Vec<&str> = models.iter().map(|model| model["id"].as_str().unwrap()).collect();

    let (mut dictionaries, mut parameters) = (toml::Table::new(), toml::Table::new());
    let mut hint = |name: &str, values: Vec<&str>, probability: f64, places: &[&str]| {
        let values: Vec<toml::Value> = values.into_iter().map(Into::into).collect();
        dictionaries.insert(
            name.into(),
            toml::Table::from_iter([("values".to_owned(), values.into())]).into(),
        );
        for place in places {
            let mut binding = toml::Table::new();
            binding.insert("dictionary".into(), name.into());
            binding.insert("probability".into(), probability.into());
            parameters.insert((*place).into(), binding.into());
        }
    };
    hint("keys", texts(&keys), 0.7, &["path.key_id"]);
    hint(
        "generations",
        texts(&generations),
        0.7,
        &["path.generation_id", "body.generation_id"],
    );
    hint(
        "projects",
        texts(&projects),
        0.7,
        &["path.project_id", "query.project_id", "body.project_id"],
    );
    hint("models", models, 0.8, &["body.model_id"]);
    hint("prompts", vec!["a lighthouse in the fog"], 0.7, &["body.prompt"]);
    hint("providers", vec!["fal", "sandbox"], 0.8, &["path.provider"]);
    hint("expiries", vec![&query["exp"]], 0.9, &["query.exp"]);
    hint("signatures", vec![&query["sig"]], 0.9, &["query.sig"]);
    let order = ada
        .post("/api/v1/credits/purchase", &json!({"package_id": "starter"}))
        .await
        .ok();
    let (order_id, checkout) = (
        order["order_id"].as_str().unwrap(),
        order["checkout_url"].as_str().unwrap(),
    );
    hint("orders", vec![order_id], 0.9, &["path.order_id", "query.before"]);
    hint(
        "tokens",
        vec![checkout.split_once("token=").unwrap().1],
        0.9,
        &["query.token"],
    );
    hint("packages", vec!["starter", "plus", "studio"], 0.7, &["body.package_id"]);
    hint("emails", vec![&ada.email], 0.5, &["body.email", "query.email"]);
    hint("passwords", vec![tests::harness::PASSWORD], 0.5, &["body.password"]);
    let mut config = toml::Table::new();
    config.insert("dictionaries".into(), dictionaries.into());
    config.insert("parameters".into(), parameters.into());
    let model = json!({"model_id": "sandbox/image"});
    let paths = json!({
        "/api/v1/models/{model_id}": model,
        "/api/v1/models/{model_id}/pricing": model,
        "/outputs/{key}": {"key": key},
    });
    Hints { config, paths }
}

/// The document's operations, apart from the document's own, which Schemathesis reads instead.
async fn operations(server: &Server) -> Vec<String> {
    let document = server.anonymous().get("/openapi.json").await.ok();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|_| path != "/openapi.json");
        operations.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    operations
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_input_breaks_the_server_or_the_document() {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let server = Server::with(Options::new().fal(&sim)).await;
    let ada = server.register("ada").await;
    server.grant(&ada, 1_000_000_000);
    let fuzzer = Fuzzer::new(&server, &hints(&ada).await).await;
    let document = operations(&server).await;

    let left_out = [LOGOUT, SESSION, PASSWORD, LEAVE]
        .map(|path| ["--exclude-path", path])
        .concat();
    let report = fuzzer.run(&ada, &left_out).await;
    let all = document.len();
    report.covers(all, left_out.len() / 2);
    // What it cannot know: the rights of an operator, and a provider's signature.
    let metrics = [format!("GET {SYSTEM_METRICS}")];
    let logout = [format!("POST {LOGOUT}")];
    let is_of_the_desk = |operation: &&String| operation.contains(DESK);
    let desk: Vec<String> = document.iter().filter(is_of_the_desk).cloned().collect();
    let mut unreachable = vec![
        "POST /api/v1/credits/sandbox-checkout/{order_id}",
        &*metrics[0],
        "POST /api/v1/webhooks/stripe",
        "POST /webhooks/{provider}/{attempt_id}",
    ];
    // Nobody has told it a code.
    unreachable.push("POST /api/v1/credits/redeem");
    unreachable.extend(texts(&desk));
    let is_tried = |name: &String| !left_out.iter().any(|path| name.ends_with(path));
    let tried: Vec<String> = document.into_iter().filter(is_tried).collect();
    let barren: BTreeSet<&str> = report.barren(&tried).into_iter().collect();
    assert_eq!(barren, unreachable.into_iter().collect());

    let operator = server.operator().await;
    let report = fuzzer.run(&operator, &["--include-path", SYSTEM_METRICS]).await;
    report.covers(all, all - 1);
    assert_eq!(report.barren(&metrics), Vec::<&str>::new());

    let rights = RIGHTS.map(|right| format!("{DESK}/users/{{user_id}}/{right}"));
    let mut selection = vec!["--include-path-regex", DESK];
    selection.extend(rights.iter().flat_map(|path| ["--exclude-path", path]));
    let report = fuzzer.run(&operator, &selection).await;
    report.covers(all, all - (desk.len() - RIGHTS.len()));
    let lists: Vec<String> = desk
        .iter()
        .filter(|operation| operation.starts_with("GET ") && !operation.contains('{'))
        // Asks for a kind, which the fuzzer does not always hit upon.
        .filter(|operation| !operation.ends_with("/problems"))
        .cloned()
        .collect();
    assert_eq!(report.barren(&lists), Vec::<&str>::new());
    // It may have stopped everything.
    for what in [
        &["queue", "resume"][..],
        &["providers", "resume", "fal"],
        &["providers", "resume", "sandbox"],
    ] {
        server.velro(&[what, &["--reason", "fuzzed"]].concat()).ok();
    }

    let leaver = server.register("leaver").await;
    for (client, path) in [(&operator, SESSION), (&operator, PASSWORD), (&leaver, LEAVE)] {
        let report = fuzzer.run(client, &["--include-path", path]).await;
        report.covers(all, all - 1);
    }
    let report = fuzzer.run(&operator, &["--include-path", LOGOUT]).await;
    report.covers(all, all - 1);
    assert_eq!(report.barren(&logout), Vec::<&str>::new());
    assert_eq!(operator.get("/api/v1/auth/me").await.status, 401);

    assert!(!server.log_text().contains(" ERROR "), "the log has errors");
    // What was bought in the last moments comes to its end, and the books with it.
    eventually("every hold is closed", Duration::from_secs(120), || async {
        (server.verify_ledger().unwrap() == 0).then_some(())
    })
    .await;
}
