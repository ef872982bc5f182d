//! `/api/v1/operator/providers` and `/pauses`: how providers are doing, and what is stopped.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};

use super::view::PauseView;
use crate::http::input::{Faults, json, services};
use crate::http::operator::{by, check_reason};
use crate::http::problem::{Problem, Result};
use crate::http::routes::provider_state::{self, ProviderState};
use crate::http::{Caller, Services};
use crate::pause::{Mode, Scope};
use crate::store::SetPause;

/// Routes below `/api/v1/operator/providers`.
pub(super) fn providers_router() -> Router {
    Router::new().get(operator_providers)
}

/// Routes below `/api/v1/operator/pauses`.
pub(super) fn router() -> Router {
    Router::new()
        .get(operator_pauses)
        .push(Router::with_path("queue").put(set_queue))
        .push(Router::with_path("providers/{provider}").put(set_provider))
}

/// A provider.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorProvider"))]
struct ProviderView {
    provider: String,
    /// What it may do by itself: `running`, `paused` or `draining`.
    mode: &'static str,
    /// As the process that answers sees it: one that only serves the API calls no provider.
    health: ProviderState,
}

/// All providers.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorProviders"))]
struct Providers {
    items: Vec<ProviderView>,
    /// Always `null`: there are few.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
    /// What the queue as a whole may do: `running`, `paused` or `draining`.
    queue: &'static str,
}

/// Providers
///
/// For operators: which are ready, what their breakers say in this process, what is stopped.
#[endpoint(
    tags("operator"),
    status_codes(200, 401, 403, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_providers(depot: &mut Depot) -> Result<Json<Providers>> {
    let services = services(depot)?;
    let of = |(provider, health): (String, ProviderState)| ProviderView {
        mode: services.pauses.provider(&provider).as_str(),
        provider,
        health,
    };
    Ok(Json(Providers {
        items: provider_state::all(services).into_iter().map(of).collect(),
        next_cursor: None,
        queue: services.pauses.queue().as_str(),
    }))
}

/// What operators have said of every scope last.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Pauses"))]
struct Pauses {
    items: Vec<PauseView>,
    /// Always `null`: there are few.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
}

/// What is stopped
///
/// For operators. What was never stopped is not in the list, and runs.
#[endpoint(
    tags("operator"),
    status_codes(200, 401, 403, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_pauses(depot: &mut Depot) -> Result<Json<Pauses>> {
    let pauses = services(depot)?.store.pauses().await?;
    Ok(Json(Pauses {
        items: pauses.iter().map(Into::into).collect(),
        next_cursor: None,
    }))
}

/// What a scope may do.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "PauseChange"))]
struct PauseBody {
    /// `running`; `paused`: nothing begins, what comes waits; `draining`: nothing new is taken, what was taken is worked off.
    mode: String,
    /// For the audit log and the other operators.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

/// What was set.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "PauseSet"))]
struct PauseSet {
    /// `queue` or `provider:NAME`.
    scope: String,
    /// Now.
    mode: &'static str,
    /// Until now.
    before: &'static str,
}

/// Pause, drain or resume the queue
///
/// For operators. Every process hears of it within seconds, and it survives restarts.
#[endpoint(
    tags("operator"),
    request_body = PauseBody,
    status_codes(200, 400, 401, 403, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn set_queue(req: &mut Request, depot: &mut Depot) -> Result<Json<PauseSet>> {
    set(req, depot, Scope::Queue).await
}

/// Pause, drain or resume a provider
///
/// For operators. Every process hears of it within seconds, and it survives restarts.
#[endpoint(
    tags("operator"),
    parameters(("provider" = String, Path, description = "Name of the provider entry.")),
    request_body = PauseBody,
    status_codes(200, 400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn set_provider(req: &mut Request, depot: &mut Depot) -> Result<Json<PauseSet>> {
    let name = req.params().get("provider").cloned().unwrap_or_default();
    let services = services(depot)?;
    // What is not in the registry any more may still be let run.
    let is_known =
        services.shelf.get().providers.contains_key(&name) || services.pauses.provider(&name) != Mode::Running;
    if !is_known {
        return Err(Problem::not_found("Provider"));
    }
    set(req, depot, Scope::Provider(name)).await
}

async fn set(req: &mut Request, depot: &Depot, scope: Scope) -> Result<Json<PauseSet>> {
    let services: &Services = services(depot)?;
    let body: PauseBody = json(req, services.config.max_body_bytes).await?;
    let mode = Mode::parse(&body.mode);
    let mut faults = Faults::default();
    faults.unless(
        mode.is_some(),
        &["body", "mode"],
        "must be running, paused or draining",
        "enum",
    );
    check_reason(&mut faults, &body.reason, "reason");
    faults.finish()?;
    let mode = mode.unwrap_or(Mode::Running);
    let set = SetPause {
        scope: scope.clone(),
        mode,
        by: by(Caller::of(depot)?, &body.reason),
    };
    let before = services.store.set_pause(set).await?;
    if let Err(error) = crate::desk::load_pauses(services.store.as_ref(), &services.pauses, &services.metrics).await {
        tracing::warn!(error = %error, "stored, but not read again yet");
    }
    services.live.pauses_changed();
    Ok(Json(PauseSet {
        scope: scope.to_string(),
        mode: mode.as_str(),
        before: before.as_str(),
    }))
}
