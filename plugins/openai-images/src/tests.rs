//! The recordings in `fixtures/`, in their order and in any other.

use proptest::prelude::*;
use std::sync::LazyLock;
use velro_plugin::testkit::{BEGIN_MS, Storm, play_folder};
use velro_plugin::{Event, Job, Params, Provider, Response};

use crate::OpenAiImages;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

#[test]
fn recordings_hold() {
    match play_folder(FIXTURES, OpenAiImages::new) {
        Ok(played) => assert!(played >= 25, "only {played} recordings"),
        Err(what) => panic!("{what}"),
    }
}

static STORM: LazyLock<Storm> = LazyLock::new(|| Storm::of_folder(FIXTURES).unwrap());

proptest! {
    #[test]
    fn any_order_of_anything_is_survived(seed: u64) {
        STORM.play(OpenAiImages::new, seed).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_state_body_and_image_are_survived(state: Vec<u8>, body: Vec<u8>, image: String, status in 100u16..600) {
        let provider = OpenAiImages::new(b"{}").unwrap();
        let params = serde_json::json!({"prompt": image, "image": format!("data:{image}")}).to_string();
        let response = Response { status, headers: &[], body: &body };
        for (state, event) in [
            (&state[..], Event::Http(response)),
            (br#"{"v":1}"#, Event::Http(response)),
            (b"", Event::Start),
        ] {
            let job = Job {
                id: "1", model: "gpt-image-1", params: Params::new(&params), state, idempotency_key: "1",
                webhook_url: None, now_ms: BEGIN_MS, deadline_ms: BEGIN_MS, attempt: 1, steps: 1,
            };
            drop(provider.step(&job, event));
        }
    }
}
