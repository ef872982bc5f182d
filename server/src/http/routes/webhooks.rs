//! `POST /webhooks/{provider}/{attempt_id}`: a provider's word on an attempt. It is checked by the provider's own
//! scheme, stored in the attempt's inbox and otherwise treated as a hint: the worker fetches the result.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::Serialize;

use crate::clock;
use crate::http::input::{body, services};
use crate::http::problem::{Code, Problem, Result};
use crate::id::AttemptId;
use crate::store::Delivered;
use crate::upstream::HookRefused;

/// Largest webhook, in bytes; results come with files by URL, so that a body is small.
const MAX_BYTES: u64 = 4 << 20;

/// `/webhooks`.
pub fn router() -> Router {
    Router::with_path("webhooks/{provider}/{attempt_id}").post(provider_webhook)
}

/// What became of a webhook.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "WebhookAnswer"))]
struct WebhookAnswer {
    /// `stored`, or `over` when the attempt has ended.
    status: String,
}

/// A provider's webhook
///
/// For providers only. The signature is checked by the provider's own scheme; delivering twice is harmless.
#[endpoint(
    tags("webhooks"),
    parameters(
        ("provider" = String, Path, description = "Name of the provider's entry."),
        ("attempt_id" = String, Path, format = "uuid"),
    ),
    request_body(content = serde_json::Value, content_type = "application/json", description = "As the provider sends it."),
    status_codes(200, 400, 401, 404, 413, 500, 503)
)]
async fn provider_webhook(req: &mut Request, depot: &mut Depot) -> Result<Json<WebhookAnswer>> {
    let services = services(depot)?;
    let name = req.params().get("provider").cloned().unwrap_or_default();
    let attempt = req
        .params()
        .get("attempt_id")
        .and_then(|id| id.parse::<AttemptId>().ok());
    let unknown = || Problem::not_found("Attempt");
    // Only names we know get into a metric.
    let provider = services.providers.get(&name).ok_or_else(unknown)?;
    let body = body(req, MAX_BYTES).await?.to_vec();
    let now = clock::now();
    let outcome = |outcome| services.metrics.webhook(&provider.name, outcome);
    if let Err(refused) = services.webhooks.verify(&provider, req.headers(), &body, now).await {
        outcome("refused");
        tracing::warn!(provider = %provider.name, reason = %refused, "webhook refused");
        return Err(match refused {
            HookRefused::KeysUnavailable => Problem::new(
                Code::Unavailable,
                "The signature cannot be checked at the moment; send it again",
            )
            .retry_after(60),
            refused => Problem::new(Code::Unauthorized, format!("The webhook is not believed: {refused}")),
        });
    }
    let attempt = attempt.ok_or_else(unknown)?;
    let delivered = services.store.deliver_webhook(&provider.name, attempt, body, now).await;
    let status = match delivered {
        Ok(Delivered::Stored) => {
            services.live.nudge(attempt);
            "stored"
        }
        Ok(Delivered::Over) => "over",
        Ok(Delivered::Missing) => {
            outcome("missing");
            return Err(unknown());
        }
        Err(error) => {
            outcome("error");
            return Err(error.into());
        }
    };
    outcome(status);
    Ok(Json(WebhookAnswer {
        status: status.to_owned(),
    }))
}
