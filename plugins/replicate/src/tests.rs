//! The recordings in `fixtures/`, in their order and in any other.

use proptest::prelude::*;
use std::sync::LazyLock;
use velro_plugin::testkit::{BEGIN_MS, Storm, play_folder};
use velro_plugin::{Event, HookTarget, Job, Params, Provider, Response, Webhook};

use crate::Replicate;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

#[test]
fn recordings_hold() {
    match play_folder(FIXTURES, Replicate::new) {
        Ok(played) => assert!(played >= 25, "only {played} recordings"),
        Err(what) => panic!("{what}"),
    }
}

#[test]
fn webhooks_name_their_prediction() {
    let provider = Replicate::new(b"{}").unwrap();
    let target = |body: &[u8]| {
        let hook = Webhook {
            query: "",
            headers: &[],
            body,
        };
        provider.webhook(&hook).unwrap()
    };
    assert_eq!(
        target(br#"{"id": "abc", "status": "succeeded"}"#),
        HookTarget::Remote("abc".into())
    );
    assert_eq!(target(br#"{"id": "../x"}"#), HookTarget::Ignore);
    assert_eq!(target(b"junk"), HookTarget::Ignore);
}

static STORM: LazyLock<Storm> = LazyLock::new(|| Storm::of_folder(FIXTURES).unwrap());

proptest! {
    #[test]
    fn any_order_of_anything_is_survived(seed: u64) {
        STORM.play(Replicate::new, seed).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_state_and_body_are_survived(state: Vec<u8>, body: Vec<u8>, status in 100u16..600, which in 0u8..3) {
        let provider = Replicate::new(b"{}").unwrap();
        let response = Response { status, headers: &[], body: &body };
        for state in [&state[..], b"", br#"{"v":1,"stage":"submitting"}"#] {
            let job = Job {
                id: "1", model: "acme/draw", params: Params::new("{}"), state, idempotency_key: "1", webhook_url: None,
                now_ms: BEGIN_MS, deadline_ms: BEGIN_MS, attempt: 1, steps: 1,
            };
            let event = match which {
                0 => Event::Http(response),
                1 => Event::Webhook(response),
                _ => Event::Timer,
            };
            drop(provider.step(&job, event));
        }
    }
}
