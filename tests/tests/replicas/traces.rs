//! One trace from the request to the last file, whichever replica does the work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tests::collector::{Collector, Seen};
use tests::fal_sim::{self, FalSim};
use tests::harness::{Cluster, ClusterOptions, Options, Role, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// A prompt that must not be told to anybody but the provider.
const PROMPT: &str = "a very private lighthouse";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_is_one_trace_over_all_replicas() {
    let (collector, sim) = (
        Collector::start().await.unwrap(),
        FalSim::start(fal_sim::Options::default()).await.unwrap(),
    );
    let options = Options::new()
        .fal(&sim)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.base_url)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20tell-nobody")
        .env("SERVICE_NAME", "velro-test")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let cluster = Cluster::start(ClusterOptions::new(&[Role::Api, Role::Worker]).options(options)).await;
    let ada = cluster.api().register("ada").await;
    let id = ada
        .submit("fal-ai/flux-pro/v1.1-ultra", PROMPT, serde_json::json!({}))
        .await;
    ada.wait_for(&id, "completed").await;

    let of_generation = || {
        let spans = collector.spans();
        let attempt = spans.iter().find(|s| s.attributes.get("generation_id") == Some(&id))?;
        let trace: Vec<Seen> = spans
            .iter()
            .filter(|s| s.trace_id == attempt.trace_id)
            .cloned()
            .collect();
        let names: BTreeSet<&str> = trace.iter().map(|s| s.name.as_str()).collect();
        let stages = [
            "POST /api/v1/generations/async/submit",
            "check",
            "hold",
            "enqueue",
            "queue",
            "attempt",
            "save",
            "upstream",
            "collect",
            "settle",
        ];
        stages.iter().all(|stage| names.contains(stage)).then_some(trace)
    };
    let trace = eventually("every stage is in one trace", PATIENCE, || async { of_generation() }).await;

    let by_id: BTreeMap<&str, &Seen> = trace.iter().map(|s| (s.span_id.as_str(), s)).collect();
    let roots: Vec<&Seen> = trace.iter().filter(|s| s.parent_id.is_empty()).collect();
    assert_eq!(roots.len(), 1, "{roots:?}");
    let root = roots[0];
    assert_eq!(root.name, "POST /api/v1/generations/async/submit");
    assert_eq!(root.attributes["http.response.status_code"], "200");
    assert_eq!(root.attributes["http.route"], "/api/v1/generations/async/submit");
    assert_eq!(root.resource["service.name"], "velro-test");
    for span in &trace {
        assert!(span.end_ns >= span.start_ns, "{span:?}");
        // Up to the request, without a gap.
        let mut above = span;
        while !above.parent_id.is_empty() {
            above = by_id
                .get(above.parent_id.as_str())
                .unwrap_or_else(|| panic!("no parent of {above:?}"));
        }
        let role = match span.name.as_str() {
            name if name == root.name => "api",
            "check" | "hold" | "enqueue" => "api",
            _ => "worker",
        };
        assert_eq!(span.resource["velro.role"], role, "{span:?}");
    }
    let paid: Vec<_> = trace
        .iter()
        .filter(|s| s.attributes.get("paid").map(String::as_str) == Some("true"))
        .collect();
    assert_eq!(paid.len(), 1, "bought once: {paid:?}");
    assert_eq!(paid[0].attributes["http.request.method"], "POST");
    assert_eq!(paid[0].attributes["http.response.status_code"], "200");
    let waited = trace.iter().find(|s| s.name == "queue").unwrap();
    let attempt = trace.iter().find(|s| s.name == "attempt").unwrap();
    assert!(waited.end_ns <= attempt.end_ns && waited.start_ns < attempt.end_ns);

    // Every request has a trace, whatever its thread did before.
    let log = cluster.api().log_text();
    let requests = log.lines().filter(|line| line.contains("velro::access"));
    let untraced: Vec<&str> = requests.filter(|line| !line.contains("trace_id=")).collect();
    assert!(
        untraced.iter().all(|line| line.contains("/health/ready")),
        "{untraced:?}"
    );

    // Who may read traces reads no secrets, and probes are no traces.
    assert_eq!(collector.authorization().as_deref(), Some("Bearer tell-nobody"));
    let all = format!("{:?}", collector.spans());
    for secret in [
        PROMPT,
        "tell-nobody",
        ada.token(),
        &ada.email,
        tests::harness::FAL_KEY,
        "/health",
    ] {
        assert!(!all.contains(secret), "{secret} is in the traces");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_a_trusted_proxy_began_goes_on_and_one_that_is_not_sampled_stays_so() {
    let collector = Collector::start().await.unwrap();
    let options = Options::new()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.base_url)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("TRUST_PROXY_HEADERS", "true");
    let cluster = Cluster::start(ClusterOptions::new(&[Role::All]).options(options)).await;
    let ada = cluster.api().register("ada").await;
    let submit = |parent: String| {
        let request = ada.submit_request("sandbox/image", "x", serde_json::json!({}));
        ada.send(request.header("traceparent", parent))
    };
    let (unsampled, sampled) = ("1".repeat(32), "2".repeat(32));
    let quiet = submit(format!("00-{unsampled}-{}-00", "a".repeat(16))).await.ok();
    ada.wait_for(&tests::harness::id_of(&quiet), "completed").await;
    let told = submit(format!("00-{sampled}-{}-01", "b".repeat(16))).await.ok();
    ada.wait_for(&tests::harness::id_of(&told), "completed").await;
    eventually("the proxy's trace is told to its end", PATIENCE, || async {
        let spans = collector.spans();
        let settled = spans.iter().any(|s| s.trace_id == sampled && s.name == "settle");
        settled.then_some(())
    })
    .await;
    let spans = collector.spans();
    assert!(
        spans
            .iter()
            .any(|s| s.trace_id == sampled && s.parent_id == "b".repeat(16)),
        "{spans:?}"
    );
    let id = tests::harness::id_of(&quiet);
    let of_quiet = |s: &&Seen| s.trace_id == unsampled || s.attributes.get("generation_id") == Some(&id);
    assert_eq!(spans.iter().find(of_quiet).map(|s| &s.name), None);
}
