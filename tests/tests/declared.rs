//! The declared FAL (`docs/providers/fal.toml`) and the built-in one are the same provider to everybody around them: the
//! same faults at the same points of a job, the same ends, the same requests, the same money.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tests::fal_bench::{Bench, FLUX, Hooks, parse};
use tests::fal_sim::{FalSim, Point, Settings};
use velro::catalog::{ProviderKind, Registry};
use velro::clock::Micros;
use velro::provider::declared::Declared;
use velro_plugin::{Failure, Outcome, Provider};

const FAL: &str = include_str!("../../docs/providers/fal.toml");

/// The shipped declaration, pointed at the simulator.
fn declared(sim: &FalSim) -> Arc<dyn Provider> {
    let text = FAL
        .replace("https://queue.fal.run", &sim.base_url)
        .replace("https://rest.fal.ai", &sim.base_url)
        .replacen("kind = \"http\"", "kind = \"http\"\nallow_private = true", 1);
    let registry = Registry::from_toml(&text, Path::new("fal.toml"), Micros(0)).unwrap_or_else(|e| panic!("{e}"));
    match &registry.providers["fal-http"].kind {
        ProviderKind::Http(declaration) => Arc::new(Declared::new("fal-http", Arc::clone(declaration))),
        other => panic!("{other:?}"),
    }
}

/// One way a job can go.
#[derive(Debug, Clone, Default)]
struct Scenario {
    settings: Settings,
    faults: Vec<(Point, &'static str, u32)>,
    model: Option<&'static str>,
    input: Option<Value>,
    cancel_after: Option<u32>,
    hooked: bool,
    refuse_connections: bool,
}

impl Scenario {
    fn fault(point: Point, fault: &'static str, times: u32) -> Self {
        Scenario::default().and(point, fault, times)
    }

    fn and(mut self, point: Point, fault: &'static str, times: u32) -> Self {
        self.faults.push((point, fault, times));
        self
    }
}

/// What can be seen of a job from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    end: Result<Value, Value>,
    /// Input, whether a webhook was asked for, and whether it was cancelled, of every job bought.
    bought: Vec<(Value, bool, bool)>,
    refused: usize,
    billed_milliunits: u64,
    forged: u32,
}

async fn see(bench: Bench, scenario: &Scenario) -> Seen {
    for (point, fault, times) in &scenario.faults {
        bench.sim.handle().fault(*point, parse(fault), *times);
    }
    if scenario.refuse_connections {
        bench.sim.handle().refuse_connections().await;
    }
    let hooks = match scenario.hooked {
        true => Some(Hooks::start(&bench).await),
        false => None,
    };
    let input = scenario
        .input
        .clone()
        .unwrap_or(json!({"prompt": "a fox", "num_images": 2}));
    let model = scenario.model.unwrap_or(FLUX);
    let end = bench
        .run_hooked(model, &input, scenario.cancel_after, hooks.as_ref())
        .await;
    assert!(bench.bought() <= 1);
    let jobs = bench.sim.handle().requests();
    Seen {
        end: end
            .map(|outcome| outcome_of(&outcome))
            .map_err(|failure| failure_of(&failure)),
        bought: jobs
            .iter()
            .map(|job| (json!(job.input), job.webhook_url.is_some(), job.counts.cancel > 0))
            .collect(),
        refused: bench.sim.handle().refusals().len(),
        billed_milliunits: bench.sim.handle().billed_milliunits(),
        forged: hooks.map_or(0, |hooks| hooks.refused.load(std::sync::atomic::Ordering::SeqCst)),
    }
}

/// An outcome without what differs from one simulated job to the next: addresses have the job's id in them.
fn outcome_of(outcome: &Outcome) -> Value {
    let outputs: Vec<Value> = outcome
        .outputs
        .iter()
        .map(|output| json!({"kind": output.kind, "content_type": output.content_type, "meta": names(&json!(output.meta))}))
        .collect();
    json!({"outputs": outputs, "billed": outcome.billed, "meta": names(&json!(outcome.meta))})
}

fn names(object: &Value) -> Vec<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

fn failure_of(failure: &Failure) -> Value {
    json!({"kind": failure.kind, "retry": failure.retry})
}

/// Plays a scenario to both, and answers with what was seen of them.
async fn same(scenario: Scenario) -> Seen {
    let built_in = see(Bench::start(scenario.settings.clone()).await, &scenario).await;
    let described = see(Bench::with(scenario.settings.clone(), declared).await, &scenario).await;
    assert_eq!(described, built_in, "declared (left) and built in differ: {scenario:?}");
    described
}

/// What `upstream` would refuse at the first job is a fault of the file.
#[test]
fn headers_of_the_connection_are_refused_by_both() {
    for name in [
        "host",
        "content-length",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "accept",
        "user-agent",
        "cookie",
        "content-type",
    ] {
        let text = FAL.replacen("accept = ", &format!("{name} = "), 1);
        let refused = Registry::from_toml(&text, Path::new("fal.toml"), Micros(0)).is_err();
        assert_eq!(refused, velro::upstream::is_header_of_ours(name), "{name}");
    }
}

#[tokio::test]
async fn pictures_and_clips_arrive() {
    let seen = same(Scenario::default()).await;
    let done = seen.end.unwrap();
    assert_eq!(done["outputs"].as_array().unwrap().len(), 2);
    assert_eq!(done["billed"]["units_milli"], 2_000);
    assert_eq!(
        seen.bought,
        [(json!({"prompt": "a fox", "num_images": 2}), false, false)]
    );
    let clip = same(Scenario {
        model: Some("fal-ai/veo3"),
        input: Some(json!({"prompt": "a fox"})),
        ..Scenario::default()
    })
    .await;
    assert_eq!(clip.end.unwrap()["outputs"][0]["kind"], "video");
}

#[tokio::test]
async fn faults_of_the_submit() {
    for fault in [
        "503",
        "500",
        "502",
        "504",
        "cut",
        "hang",
        "429",
        "401",
        "403",
        "404",
        "422",
        "accept_then_503",
        "accept_then_cut",
        "accept_then_hang",
        "half",
        "garbage",
        "wrong_type",
        "slow:50",
    ] {
        same(Scenario::fault(Point::Submit, fault, 1)).await;
    }
    let refused = same(Scenario {
        refuse_connections: true,
        ..Scenario::default()
    })
    .await;
    assert_eq!(refused.end.unwrap_err()["kind"], "unavailable");
    let locked = same(Scenario {
        settings: Settings {
            balance_locked: true,
            ..Settings::default()
        },
        ..Scenario::default()
    })
    .await;
    assert_eq!(locked.end.unwrap_err()["kind"], "quota");
}

#[tokio::test]
async fn faults_of_the_status() {
    on_the_way(Point::Status).await;
}

#[tokio::test]
async fn faults_of_the_result() {
    on_the_way(Point::Result).await;
}

async fn on_the_way(point: Point) {
    for fault in [
        "500",
        "502",
        "503",
        "429",
        "404",
        "401",
        "cut",
        "hang",
        "accept_then_cut",
        "half",
        "garbage",
        "wrong_type",
        "slow:50",
    ] {
        let seen = same(Scenario::fault(point, fault, 2)).await;
        assert_eq!(seen.end.unwrap()["outputs"].as_array().unwrap().len(), 2, "{fault}");
    }
}

#[tokio::test]
async fn faults_of_the_job() {
    for hide_errors in [false, true] {
        for fault in [
            "fail",
            "policy",
            "runner",
            "no_media",
            "fewer",
            "error:generation_timeout",
            "error:file_download_error",
            "error:downstream_service_error",
            "error:downstream_service_unavailable",
            "error:internal_server_error",
            "error:no_media_generated",
            "error:face_detection_error",
            "error:request_timeout",
            "error:runner_scheduling_failure",
            "error:runner_incomplete_response",
            "error:client_cancelled",
            "error:bad_request",
        ] {
            same(Scenario {
                settings: Settings {
                    hide_errors,
                    ..Settings::default()
                },
                ..Scenario::fault(Point::Job, fault, 1)
            })
            .await;
        }
    }
    let refused = same(Scenario {
        input: Some(json!({"prompt": "a fox", "num_images": 9})),
        ..Scenario::default()
    })
    .await;
    assert_eq!(
        refused.end.unwrap_err(),
        json!({"kind": "invalid_input", "retry": "never"})
    );
}

#[tokio::test]
async fn a_cancel_ends_as_fal_says() {
    for job in ["never", "queue_ms:60000"] {
        for fault in [None, Some("503"), Some("cut"), Some("accept_then_cut"), Some("garbage")] {
            let mut scenario = Scenario {
                cancel_after: Some(2),
                ..Scenario::fault(Point::Job, job, 1)
            };
            if let Some(fault) = fault {
                scenario = scenario.and(Point::Cancel, fault, 1);
            }
            let seen = same(scenario).await;
            assert_eq!(seen.end.unwrap_err()["kind"], "cancelled", "{job} {fault:?}");
            assert!(seen.bought[0].2, "FAL was asked to stop");
            assert_eq!(seen.billed_milliunits, 0);
        }
    }
    let ignored = same(Scenario {
        settings: Settings {
            ignore_cancel: true,
            run_ms: 400,
            ..Settings::default()
        },
        cancel_after: Some(2),
        ..Scenario::default()
    })
    .await;
    assert!(ignored.end.is_ok());
}

#[tokio::test]
async fn webhooks_resolve_a_lost_submit() {
    for fault in ["accept_then_cut", "accept_then_503", "half", "garbage"] {
        let seen = same(Scenario {
            hooked: true,
            ..Scenario::fault(Point::Submit, fault, 1)
        })
        .await;
        assert!(seen.end.is_ok() && seen.bought[0].1, "{fault}");
    }
    for job in ["fail", "policy", "no_media", "error:generation_timeout"] {
        same(Scenario {
            hooked: true,
            ..Scenario::fault(Point::Submit, "accept_then_cut", 1).and(Point::Job, job, 1)
        })
        .await;
    }
    for (fault, forged) in [
        ("bad_signature", 1),
        ("stale", 1),
        ("drop", 0),
        ("lie", 0),
        ("duplicate", 0),
    ] {
        let seen = same(Scenario {
            hooked: true,
            ..Scenario::fault(Point::Submit, "accept_then_cut", 1).and(Point::Webhook, fault, 1)
        })
        .await;
        assert_eq!(seen.forged, forged, "{fault}");
        assert_eq!(seen.end.is_ok(), matches!(fault, "lie" | "duplicate"), "{fault}");
    }
}
