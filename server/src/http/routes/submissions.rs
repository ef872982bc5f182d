//! `/api/v1/generations/async`: submit, status, cancel and history. The stream is in [`super::stream`].

use salvo::http::header::{HeaderName, HeaderValue};
use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Response, Router};
use serde::Serialize;

use super::call::{self, Call, CallBody};
use super::generation_view::{AsyncGeneration, HistoryRecord};
use super::models;
use crate::clock;
use crate::generation::{Generation, Status};
use crate::http::hoops::authenticated;
use crate::http::input::{Query, json, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Problem, Result};
use crate::http::{Caller, Services};
use crate::id::GenerationId;
use crate::intake::{Accepted, Stopped};
use crate::store::GenerationFilter;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Routes below `/api/v1/generations/async`.
pub fn router() -> Router {
    let limited = |path: &str, policy| Router::with_path(path).hoop(limit(policy));
    Router::new()
        .hoop(authenticated)
        .push(limited("submit", Policy::Submit).post(submit_generation))
        .push(limited("{generation_id}/status", Policy::Status).get(generation_status))
        .push(limited("{generation_id}/cancel", Policy::Api).delete(cancel_generation))
        .push(limited("user/history", Policy::Api).get(generation_history))
        .push(limited("models/available", Policy::Api).get(models::available_models))
}

/// Submit a generation
///
/// Validates and prices the call, holds the credits and queues the job, all or nothing. The credits are charged when the
/// result is delivered and returned when it fails or is cancelled. A repeated request with the same `Idempotency-Key`
/// answers the same generation and buys nothing.
#[endpoint(
    tags("async generations"),
    parameters(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated submit harmless; tied to your account and to the body.")),
    request_body = CallBody,
    status_codes(200, 400, 401, 402, 403, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn submit_generation(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<Json<AsyncGeneration>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let body: CallBody = json(req, services.config.max_body_bytes).await?;
    let call: Call = body.clean()?;
    let key = call::idempotency_key(req, &call)?;
    let accepted = call.submit(services, caller, key).await?;
    mark_replayed(res, &accepted);
    Ok(Json(shown(services, &accepted.generation, accepted.position)))
}

/// Tells that the answer is the one of an earlier request with the same `Idempotency-Key`.
pub fn mark_replayed(res: &mut Response, accepted: &Accepted) {
    if accepted.replayed {
        res.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Status of a generation
#[endpoint(
    tags("async generations"),
    parameters(("generation_id" = String, Path, description = "As answered by submit.")),
    status_codes(200, 401, 404, 429, 500, 503),
    security(["bearer" = []])
)]
async fn generation_status(req: &mut Request, depot: &mut Depot) -> Result<Json<AsyncGeneration>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let id = any_id(req)?;
    let generation = services.store.generation(caller.user_id, id).await?;
    let generation = generation.ok_or_else(missing)?;
    let position = services.intake.position(&generation).await;
    Ok(Json(shown(services, &generation, position)))
}

/// The answer to a cancel.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[salvo(schema(name = "CancelAnswer"))]
struct CancelAnswer {
    #[salvo(schema(format = "uuid"))]
    generation_id: String,
    /// True when this call has stopped it: nothing is charged.
    cancelled: bool,
    message: String,
}

/// Cancel a generation
///
/// Cancelling and completing race and exactly one wins; the money follows the winner. A job that the provider already
/// has is cancelled when the provider agrees in time, otherwise the wish is noted and `cancelled` is false: watch it.
#[endpoint(
    tags("async generations"),
    parameters(("generation_id" = String, Path, description = "As answered by submit.")),
    status_codes(200, 401, 404, 429, 500, 503),
    security(["bearer" = []])
)]
async fn cancel_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<CancelAnswer>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let id = any_id(req)?;
    let stopped = services.intake.cancel(caller.user_id, id).await?.ok_or_else(missing)?;
    Ok(Json(cancel_answer(id, &stopped)))
}

fn cancel_answer(id: GenerationId, stopped: &Stopped) -> CancelAnswer {
    let (cancelled, message) = match stopped {
        Stopped::Cancelled(_) => (true, "Generation cancelled"),
        Stopped::Asked(_) => (false, "Cancellation requested; the provider has not answered yet"),
        Stopped::Ended(ended) if ended.status == Status::Cancelled => (false, "Generation was cancelled before"),
        Stopped::Ended(_) => (false, "Unable to cancel (already processing or completed)"),
    };
    CancelAnswer {
        generation_id: id.to_string(),
        cancelled,
        message: message.to_owned(),
    }
}

/// Your newest generations
///
/// Newest first. Members after `parameters` are present only when they have a value.
#[endpoint(
    tags("async generations"),
    parameters(("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 10 by default.")),
    status_codes(200, 401, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn generation_history(req: &mut Request, depot: &mut Depot) -> Result<Json<Vec<HistoryRecord>>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let filter = GenerationFilter {
        limit: Query::of(req).integer("limit", 10, 1, 100)? as u32,
        ..GenerationFilter::default()
    };
    let page = services.store.generations(caller.user_id, filter).await?;
    let now = clock::now();
    let records = page.items.iter().map(|g| HistoryRecord::of(g, &services.outputs, now));
    Ok(Json(records.collect()))
}

/// The id of the path; what is no UUID cannot be anybody's generation, so it is missing like any other.
pub fn any_id(req: &Request) -> Result<GenerationId> {
    let text = req
        .params()
        .get("generation_id")
        .map(String::as_str)
        .unwrap_or_default();
    text.parse().map_err(|_| missing())
}

/// What an unknown generation and another user's look like.
pub fn missing() -> Problem {
    Problem::not_found("Generation")
}

fn shown(services: &Services, generation: &Generation, position: Option<u64>) -> AsyncGeneration {
    AsyncGeneration::of(
        generation,
        position,
        &services.shelf.get(),
        &services.outputs,
        clock::now(),
    )
}
