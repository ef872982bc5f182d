//! The recordings in `fixtures/`, in their order and in any other.

use proptest::prelude::*;
use std::sync::LazyLock;
use velro_plugin::testkit::{BEGIN_MS, Storm, play_folder};
use velro_plugin::{Action, Event, Job, Params, Provider, Response, Value};

use crate::ComfyUi;

const CONFIG: &[u8] = br#"{"base_url": "http://gpu:8188", "workflows": {"w": {"graph": {"1": {"class_type": "x"}}}}}"#;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

#[test]
fn recordings_hold() {
    match play_folder(FIXTURES, ComfyUi::new) {
        Ok(played) => assert!(played >= 30, "only {played} recordings"),
        Err(what) => panic!("{what}"),
    }
}

#[test]
fn the_workflow_of_the_readme_is_one() {
    let readme = include_str!("../README.md");
    let graph = readme.split("'''").nth(1).unwrap();
    let config =
        serde_json::json!({"base_url": "http://gpu:8188", "workflows": {"sdxl": {"graph": graph, "outputs": ["9"]}}});
    let provider = ComfyUi::new(config.to_string().as_bytes()).unwrap();
    let job = Job {
        id: "1",
        model: "sdxl",
        params: Params::new(r#"{"prompt": "a fox", "width": 512, "height": 512}"#),
        state: b"",
        idempotency_key: "1",
        webhook_url: None,
        now_ms: BEGIN_MS,
        deadline_ms: BEGIN_MS,
        attempt: 1,
        steps: 0,
    };
    let step = provider.step(&job, Event::Start).unwrap();
    let Action::Http(request) = step.action else {
        panic!("not submitted")
    };
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["prompt"]["3"]["inputs"]["steps"], 25);
    assert!(body["prompt"]["3"]["inputs"]["seed"].is_u64());
    assert_eq!(body["prompt"]["7"]["inputs"]["text"], "");
}

static STORM: LazyLock<Storm> = LazyLock::new(|| Storm::of_folder(FIXTURES).unwrap());

proptest! {
    #[test]
    fn any_order_of_anything_is_survived(seed: u64) {
        STORM.play(ComfyUi::new, seed).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_state_and_body_are_survived(state: Vec<u8>, body: Vec<u8>, status in 100u16..600, which in 0u8..3) {
        let provider = ComfyUi::new(CONFIG).unwrap();
        let response = Response { status, headers: &[], body: &body };
        for state in [&state[..], b"", br#"{"v":1,"stage":"submitting"}"#, br#"{"v":1,"stage":"looking","at":"history","tries":0}"#] {
            let job = Job {
                id: "1", model: "w", params: Params::new("{}"), state, idempotency_key: "1", webhook_url: None,
                now_ms: BEGIN_MS, deadline_ms: BEGIN_MS, attempt: 1, steps: 1,
            };
            let event = match which {
                0 => Event::Http(response),
                1 => Event::Start,
                _ => Event::Timer,
            };
            drop(provider.step(&job, event));
        }
    }
}
