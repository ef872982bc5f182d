//! A real Prometheus watches a healthy installation of two replicas.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fal_sim::{FalSim, Options as FalOptions, Settings};
use tests::harness::{Client, Cluster, ClusterOptions, Options, Role, eventually};
use tests::services::{Prometheus, program};

use super::promql;
use super::source::{Question, RULES, dashboard_questions, root, rule_questions};

/// Longest until what was done is seen: scrapes and rules come every second, gauges out of the database every ten.
const PATIENCE: Duration = Duration::from_secs(40);

/// Panels that draw nothing on a healthy installation, and why.
const EMPTY: [(&str, &str); 5] = [
    ("Stopped by operators", "nothing is stopped"),
    ("Failed requests by route", "no request has failed"),
    ("Reroutes", "no provider has refused"),
    ("Payment events", "only a real payment provider tells something"),
    ("Payment event lag", "only a real payment provider tells something"),
];

/// Not a panel: what fires is marked in every panel.
const MARKS: &str = "Alerts";

fn configuration(cluster: &Cluster, replicas: usize) -> String {
    let address = |number| cluster.replica(number).base_url.replace("http://", "");
    let targets: Vec<String> = (0..replicas).map(address).collect();
    // JSON is YAML.
    let configuration = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{
            "job_name": "velro",
            "static_configs": [{"targets": targets, "labels": {"namespace": "test"}}],
        }],
    });
    configuration.to_string()
}

/// Somebody uses the service: what is delivered, fails, is cancelled, is refused, is limited; a webhook; an order.
async fn traffic(cluster: &Cluster, name: &str) {
    let ada = cluster.api().register(name).await;
    let quick = json!({"image_size": "square", "latency_ms": 0});
    let done = ada.submit("sandbox/image", "delivered", quick.clone()).await;
    let failed = ada
        .submit("sandbox/image", "fails", json!({"latency_ms": 0, "outcome": "fail"}))
        .await;
    let long = ada
        .submit("sandbox/image", "cancelled", json!({"latency_ms": 600_000}))
        .await;
    let webhook = ada
        .submit("fal-ai/flux-pro/v1.1-ultra", "with a webhook", json!({}))
        .await;
    ada.wait_for(&done, "completed").await;
    ada.wait_for(&failed, "failed").await;
    ada.wait_for(&long, "processing").await;
    ada.cancel(&long).await.expect(200);
    ada.wait_for(&long, "cancelled").await;
    ada.wait_for(&webhook, "completed").await;
    ada.try_submit("sandbox/image", "invalid", json!({"image_size": "round"}))
        .await
        .expect(422);
    ada.post("/api/v1/credits/purchase", &json!({"package_id": "plus"}))
        .await
        .expect(200);
    ada.without_token().get("/api/v1/credits/balance").await.expect(401);
    // Guessing a password is limited for the account.
    let guess = json!({"email": ada.email, "password": "not the password"});
    eventually("a 429", PATIENCE, || async {
        let reply = ada.post("/api/v1/auth/login", &guess).await;
        (reply.status.as_u16() == 429).then_some(())
    })
    .await;
}

/// `promtool check metrics` on what a process says.
async fn lint(anybody: &Client) -> String {
    let text = anybody.get("/metrics").await.expect(200).text();
    let mut tool = Command::new(program("promtool").unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "promtool check metrics: {}\n{text}",
        String::from_utf8_lossy(&said)
    );
    text
}

/// What asks for the values of a variable, as a query.
fn as_query(expression: &str) -> String {
    let values = expression
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    match values.and_then(|values| values.rsplit_once(", ")) {
        Some((series, label)) => format!("count by ({label}) ({series})"),
        None => expression.to_owned(),
    }
}

/// Asks every query of the dashboard until each has an answer; those of [`EMPTY`] must have none.
async fn every_panel_is_answered(prometheus: &Prometheus) {
    let ask = async |question: &Question| {
        let found = prometheus.query(&as_query(&question.expression)).await;
        found.unwrap_or_else(|error| panic!("{}: {error:#}", question.place))
    };
    let is_empty = |question: &Question| {
        let mut titles = EMPTY.iter().map(|(title, _)| *title).chain([MARKS]);
        titles.any(|title| question.place == format!("panel `{title}`"))
    };
    let (empty, mut silent): (Vec<Question>, Vec<Question>) = dashboard_questions().into_iter().partition(is_empty);
    let deadline = Instant::now() + PATIENCE;
    while !silent.is_empty() {
        let mut still = Vec::new();
        for question in silent {
            if ask(&question).await.is_empty() {
                still.push(question);
            }
        }
        silent = still;
        assert!(Instant::now() < deadline, "no data within {PATIENCE:?}: {silent:#?}");
    }
    for question in empty {
        let found = ask(&question).await;
        assert!(found.is_empty(), "{} is not empty any more: {found:?}", question.place);
    }
}

/// Waits until every alert was evaluated and none is pending or firing.
async fn every_alert_is_quiet(prometheus: &Prometheus) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let data = prometheus.get("/api/v1/rules?type=alert").await.unwrap();
        let groups = data["groups"].as_array().unwrap();
        let rules: Vec<&Value> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap())
            .collect();
        assert!(rules.len() > 30, "{data}");
        let is_quiet = |rule: &&Value| rule["health"] == "ok" && rule["state"] == "inactive";
        let loud: Vec<_> = rules.into_iter().filter(|rule| !is_quiet(rule)).collect();
        if loud.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "not quiet within {PATIENCE:?}: {loud:#?}");
        // Rules are evaluated every second.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_installation_answers_every_question_and_fires_nothing() {
    let settings = Settings {
        queue_ms: 20,
        run_ms: 20,
        media_long_edge_px: 64,
        ..Settings::default()
    };
    let sim = FalSim::start(FalOptions { port: 0, settings }).await.unwrap();
    let options = Options::new().fal(&sim).webhooks().env("RATE_LIMIT_ENABLED", "true");
    let roles = [Role::Api, Role::Worker];
    let cluster = Cluster::start(ClusterOptions::new(&roles).options(options)).await;
    let rules = root().join(RULES);
    let prometheus = Prometheus::start(&configuration(&cluster, roles.len()), &rules).await;
    let prometheus = prometheus.unwrap_or_else(|error| panic!("{error:#}"));
    // A counter that is new says nothing about a rate: each must have been seen before it counts again.
    for name in ["ada", "bob"] {
        traffic(&cluster, name).await;
        let seen = "sum(velro_settlements_total) and sum(up) == 2";
        eventually(seen, PATIENCE, || async { prometheus.query(seen).await.unwrap().pop() }).await;
    }

    let mut running = BTreeSet::new();
    for number in 0..roles.len() {
        let text = lint(&cluster.replica(number).anonymous()).await;
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        running.extend(types.filter_map(|rest| rest.split(' ').next()).map(str::to_owned));
    }
    // What the process' own metrics are called is not ours to define.
    for question in rule_questions().iter().chain(&dashboard_questions()) {
        for (metric, _) in promql::names(&question.expression).metrics {
            let is_there = !metric.starts_with("process_") || running.contains(&metric);
            assert!(is_there, "{}: no process says {metric}", question.place);
        }
    }

    every_panel_is_answered(&prometheus).await;
    for question in rule_questions() {
        let found = prometheus.query(&question.expression).await;
        found.unwrap_or_else(|error| panic!("{}: {error:#}", question.place));
    }
    every_alert_is_quiet(&prometheus).await;
}
