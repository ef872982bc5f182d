//! FAL's webhooks: the signature, the published key, and the deliveries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::faults::{Action, Point};
use super::job::{Delivery, Outcome, Phase};
use super::state::{Inner, unix_ms};
use super::{errors::Failure, outputs};

/// The user id every delivery names.
pub const USER_ID: &str = "sim-user";

/// FAL gives the receiver so long.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Signs deliveries with a fixed test key, so that a test can know the public key beforehand.
#[derive(Debug)]
pub struct Signer {
    key: Ed25519KeyPair,
}

impl Signer {
    /// The key made from 32 bytes of 7.
    ///
    /// # Errors
    /// Never in practice: the seed has the right length.
    pub fn fixed() -> anyhow::Result<Self> {
        Ok(Self {
            key: Ed25519KeyPair::from_seed_unchecked(&[7; 32])?,
        })
    }

    /// The lower-case hexadecimal signature over
    /// `request_id \n user_id \n timestamp \n hex(sha256(body))`; `timestamp` is in Unix seconds.
    #[must_use]
    pub fn sign(&self, request_id: &str, user_id: &str, timestamp: u64, body: &[u8]) -> String {
        let digest = hex::encode(Sha256::digest(body));
        let message = format!("{request_id}\n{user_id}\n{timestamp}\n{digest}");
        hex::encode(self.key.sign(message.as_bytes()))
    }

    /// The key set served at `/.well-known/jwks.json`.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let public = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": public, "kid": "fal-sim-1" }] })
    }
}

/// Waits for the job's end and delivers, retrying as the settings say. Ends early if the simulator stops.
pub(super) async fn deliver(inner: Arc<Inner>, request_id: String) {
    let mut changed = inner.changed.subscribe();
    let actions = inner.with_job(&request_id, |state, index, _| state.strike_job(index, Point::Webhook));
    let fault = actions.flatten();
    if fault == Some(Action::Drop) {
        return;
    }
    if fault == Some(Action::Lie) {
        send(&inner, &request_id, &fault, true).await;
    }
    loop {
        let now = Instant::now();
        let Some((phase, next)) = inner.with_job(&request_id, |state, index, now| {
            let job = &state.jobs[index];
            (job.phase(now), job.next_change(now))
        }) else {
            return;
        };
        if phase == Phase::Completed {
            break;
        }
        // Whichever comes first: the clock, or somebody's decision.
        let wait = next.map_or(Duration::from_secs(3600), |at| at.duration_since(now));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            result = changed.changed() => if result.is_err() { return },
        }
    }
    if let Some(Action::Slow(ms)) = fault {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    let copies = if fault == Some(Action::Duplicate) { 3 } else { 1 };
    for _ in 0..copies {
        send(&inner, &request_id, &fault, false).await;
    }
}

/// One delivery with its retries.
async fn send(inner: &Inner, request_id: &str, fault: &Option<Action>, pretend_success: bool) {
    let Some((url, said, body)) = inner
        .with_job(request_id, |state, index, now| {
            let job = &state.jobs[index];
            let url = job.webhook_url.clone()?;
            let outputs = match (job.ended(now), pretend_success) {
                (Some(Outcome::Fail(failure)), false) => {
                    return Some((url, "ERROR", error_body(request_id, failure)));
                }
                (Some(Outcome::Deliver { outputs }), _) => *outputs,
                _ => job.model.asked_outputs(&job.input),
            };
            let payload = outputs::answer(job, outputs, state.settings.media_long_edge_px).ok()?;
            let body = json!({
                "request_id": request_id,
                "gateway_request_id": request_id,
                "status": "OK",
                "payload": payload,
                "error": null,
            });
            Some((url, "OK", body))
        })
        .flatten()
    else {
        return;
    };
    let retries = inner.lock().settings.webhook_retry_ms.clone();
    let body = body.to_string();
    for wait_ms in std::iter::once(0).chain(retries) {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let seconds = unix_ms() / 1000;
        let timestamp = match fault {
            Some(Action::Stale) => seconds - 3600,
            _ => seconds,
        };
        let signature = match fault {
            Some(Action::BadSignature) => "00".repeat(64),
            _ => inner.signer.sign(request_id, USER_ID, timestamp, body.as_bytes()),
        };
        let answer = inner
            .http
            .post(&url)
            .timeout(TIMEOUT)
            .header("content-type", "application/json")
            .header("x-fal-webhook-request-id", request_id)
            .header("x-fal-webhook-user-id", USER_ID)
            .header("x-fal-webhook-timestamp", timestamp.to_string())
            .header("x-fal-webhook-signature", signature)
            .body(body.clone())
            .send()
            .await;
        let answered = answer.ok().map(|response| response.status());
        inner.with_job(request_id, |state, index, _| {
            state.jobs[index].deliveries.push(Delivery {
                at_ms: unix_ms(),
                said: said.to_owned(),
                answered: answered.map(|status| status.as_u16()),
            });
        });
        inner.notify();
        if answered.is_some_and(|status| status.is_success()) {
            return;
        }
    }
}

fn error_body(request_id: &str, failure: &Failure) -> Value {
    json!({
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "ERROR",
        "error": format!("Invalid status code: {}", failure.status),
        "payload": failure.body,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    /// Computed with an independent implementation (node's crypto module) from the same seed.
    #[test]
    fn signature_equals_the_reference_vector() {
        let signer = Signer::fixed().unwrap();
        let body = br#"{"request_id":"024ca5b1-45d3-4afd-883e-ad3abe2a1c4d","status":"OK"}"#;
        assert_eq!(
            signer.jwks()["keys"][0]["x"],
            "6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw"
        );
        assert_eq!(
            hex::encode(Sha256::digest(body)),
            "1ef235fe70b4118a1d3818413f1e03ae57b7506682d5f4588a342260c0d69693"
        );
        assert_eq!(
            signer.sign("024ca5b1-45d3-4afd-883e-ad3abe2a1c4d", "user_123", 1_700_000_000, body),
            "4366a2900ecf83a2d7a2912bf1cdfc2ae250b88ebf1f006ce62a3aa0680e614d\
             7f7a1d22fa0dcbabf999ace41f2c9cfa4aecf3dcc04cd990c9167b45a0d75a00"
        );
    }
}
