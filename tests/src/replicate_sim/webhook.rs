//! Webhooks, signed as Standard Webhooks says.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;

use super::{Delivery, Inner};

/// The end of a prediction is told so often, until somebody listens.
const TRIES: u32 = 4;

/// The `webhook-signature` of a message; `timestamp` is in Unix seconds.
///
/// # Errors
/// When the secret is not `whsec_` and base64.
pub fn sign(secret: &str, id: &str, timestamp: i64, body: &str) -> anyhow::Result<String> {
    let secret = secret
        .strip_prefix("whsec_")
        .ok_or_else(|| anyhow::anyhow!("a webhook secret begins with whsec_"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(secret)?);
    let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    Ok(format!("v1,{}", BASE64.encode(tag)))
}

/// Tells the receiver what happened, if it wants to know.
pub(super) async fn deliver(inner: Arc<Inner>, prediction: String, event: &'static str) {
    let public_url = inner.public_url();
    let found = inner.with(&prediction, |p| {
        let wanted = p.events.is_empty() || p.events.iter().any(|name| name == event);
        let url = p.webhook.clone().filter(|_| wanted)?;
        Some((url, p.show(&public_url).to_string()))
    });
    let Some((url, body)) = found.flatten() else { return };
    let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
    let tries = if event == "completed" { TRIES } else { 1 };
    for number in 0..tries {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(200 << number)).await;
        }
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let Ok(signature) = sign(&inner.settings.secret, &id, timestamp, &body) else {
            return;
        };
        let request = inner.http.post(&url).body(body.clone());
        let request = request
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature);
        let answered = request.send().await.ok().map(|answer| answer.status().as_u16());
        inner.with(&prediction, |p| p.deliveries.push(Delivery { event, answered }));
        if answered.is_some_and(|status| (200..300).contains(&status)) {
            return;
        }
    }
}
