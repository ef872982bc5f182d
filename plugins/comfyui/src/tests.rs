//! The recordings in `fixtures/`, in their order and in any other.

use proptest::prelude::*;
use std::sync::LazyLock;
use velro_plugin::testkit::{BEGIN_MS, Storm, play_folder};
use velro_plugin::{Event, Job, Params, Provider, Response};

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
