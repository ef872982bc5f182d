//! `/api/v1/operator/log-level`: how much every process writes into its log.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::clock;
use crate::desk::{holding, load_log_level};
use crate::http::input::{Faults, json, services};
use crate::http::operator::{by, check_reason};
use crate::http::problem::Result;
use crate::http::{Caller, Services};
use crate::store::SetLogLevel;
use crate::telemetry::run_time_filter;

/// The longest that a level may hold, in minutes: a day.
const MOST_MINUTES: u64 = 1440;

/// Routes below `/api/v1/operator/log-level`.
pub(super) fn router() -> Router {
    Router::new().get(operator_log_level).put(set_log_level)
}

/// How much is written into the log.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "LogLevel"))]
struct LevelView {
    /// What is configured on the process that answers.
    configured: String,
    /// What an operator asked for instead, in all processes; `null` when that is over or was never done.
    #[salvo(schema(required = true))]
    filter: Option<String>,
    /// Until when.
    #[salvo(schema(required = true, format = "date-time"))]
    until: Option<String>,
    /// Who asked.
    #[salvo(schema(required = true))]
    actor: Option<String>,
}

async fn view(services: &Services) -> Result<LevelView> {
    let level = holding(services.store.log_level().await?, clock::now());
    Ok(LevelView {
        configured: services.levels.configured().to_owned(),
        filter: level.as_ref().map(|level| level.filter.clone()),
        until: level.as_ref().map(|level| level.until.rfc3339()),
        actor: level.map(|level| level.actor),
    })
}

/// Log level
///
/// For operators: what is configured, and what an operator has set for a while.
#[endpoint(
    tags("operator"),
    status_codes(200, 401, 403, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_log_level(depot: &mut Depot) -> Result<Json<LevelView>> {
    view(services(depot)?).await.map(Json)
}

/// Another level.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "LogLevelChange"))]
struct LevelBody {
    /// `off`, `error`, `warn`, `info`, `debug`, `trace`, or a filter over Velro's own modules.
    #[salvo(schema(example = json!("info,velro::worker=debug")))]
    filter: String,
    /// How long it holds, a day at most; 0 brings the configured one back at once.
    #[salvo(schema(maximum = 1440))]
    minutes: u64,
    /// For the audit log.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

/// Set the log level
///
/// For operators. Every process follows within seconds, and by itself goes back to what is configured when the time is over.
#[endpoint(
    tags("operator"),
    request_body = LevelBody,
    status_codes(200, 400, 401, 403, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn set_log_level(req: &mut Request, depot: &mut Depot) -> Result<Json<LevelView>> {
    let services = services(depot)?;
    let body: LevelBody = json(req, services.config.max_body_bytes).await?;
    let filter = run_time_filter(&body.filter);
    let mut faults = Faults::default();
    faults.unless(
        filter.is_some(),
        &["body", "filter"],
        "must be off, error, warn, info, debug or trace, or a filter such as info,velro::worker=debug over velro's own modules",
        "filter",
    );
    faults.unless(
        body.minutes <= MOST_MINUTES,
        &["body", "minutes"],
        "must be from 0 to 1440: a day",
        "range",
    );
    check_reason(&mut faults, &body.reason, "reason");
    faults.finish()?;
    let by = by(Caller::of(depot)?, &body.reason);
    let set = SetLogLevel {
        filter: filter.unwrap_or_default(),
        until: by.now.plus(Duration::from_secs(body.minutes * 60)),
        by,
    };
    services.store.set_log_level(set).await?;
    if let Err(error) = load_log_level(services.store.as_ref(), &services.levels, clock::now()).await {
        tracing::warn!(error = %error, "stored, but not read again yet");
    }
    services.live.pauses_changed();
    view(services).await.map(Json)
}
