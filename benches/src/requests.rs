//! The call that every load makes: as an HTTP request, and as the intake hands it to the store.

use anyhow::Result;
use serde_json::{Map, json};
use velro::clock;
use velro::generation::{MediaType, PriceBasis};
use velro::id::{GenerationId, UserId};
use velro::ledger::Credits;
use velro::store::NewGeneration;

use crate::people;

/// The model asked for, the provider's whose key the server is given.
pub const MODEL: &str = "fal-ai/flux-pro/v1.1-ultra";
/// Its provider.
pub const PROVIDER: &str = "fal";
const PROMPT: &str = "a lighthouse in the fog at dawn, seen from a small boat";

/// A request with the token of a person, ready to be written to a socket.
///
/// # Errors
/// Never for numbers of people.
fn request(method: &str, path: &str, person: u64, body: &str) -> Result<Vec<u8>> {
    let token = people::token(person)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: velro\r\nauthorization: Bearer {token}\r\n");
    if !body.is_empty() {
        head.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        ));
    }
    Ok(format!("{head}\r\n{body}").into_bytes())
}

/// One submit per person.
///
/// # Errors
/// Never.
pub fn submits() -> Result<Vec<Vec<u8>>> {
    let body = json!({ "model_id": MODEL, "prompt": PROMPT }).to_string();
    let submit = |person| request("POST", "/api/v1/generations/async/submit", person, &body);
    (0..people::PEOPLE).map(submit).collect()
}

/// One status read per generation, of its owner.
///
/// # Errors
/// Never.
pub fn reads(generations: &[(u64, GenerationId)]) -> Result<Vec<Vec<u8>>> {
    let read = |(person, id): &(u64, GenerationId)| {
        request("GET", &format!("/api/v1/generations/async/{id}/status"), *person, "")
    };
    generations.iter().map(read).collect()
}

/// A request without a token.
#[must_use]
pub fn plain(path: &str) -> Vec<Vec<u8>> {
    vec![format!("GET {path} HTTP/1.1\r\nhost: velro\r\n\r\n").into_bytes()]
}

/// What the intake makes of a submit.
#[must_use]
pub fn stored(user_id: UserId) -> NewGeneration {
    let parameters = json!({
        "image_size": "landscape_4_3", "num_images": 1, "output_format": "jpeg", "guidance_scale": 3.5,
        "num_inference_steps": 28, "safety_tolerance": 2,
    });
    let input = json!({
        "aspect_ratio": "4:3", "num_images": 1, "output_format": "jpeg", "prompt": PROMPT, "safety_tolerance": "2",
        "sync_mode": false,
    });
    NewGeneration {
        id: GenerationId::new(),
        user_id,
        project_id: None,
        model_id: MODEL.into(),
        provider: PROVIDER.into(),
        media_type: MediaType::Image,
        prompt: PROMPT.into(),
        negative_prompt: None,
        reference_image_url: None,
        parameters: parameters.as_object().cloned().unwrap_or_else(Map::new),
        dropped_parameters: Vec::new(),
        provider_model: MODEL.into(),
        provider_input: input.to_string(),
        fallbacks: Vec::new(),
        price: Credits(50),
        price_basis: PriceBasis {
            base: Credits(50),
            factors: vec![("num_images".into(), 1)],
            count: Some(1),
        },
        idempotency: None,
        api_key_id: None,
        trace_context: None,
        now: clock::now(),
    }
}
