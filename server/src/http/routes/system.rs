//! What operators and their tools ask: health, version, metrics.

use salvo::http::header::{CONTENT_TYPE, HeaderValue};
use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Response, Router, handler};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

use super::provider_state::{self, ProviderState};
use crate::clock;
use crate::config::Environment;
use crate::http::Services;
use crate::http::hoops::authenticated;
use crate::http::input::services;
use crate::http::limits::{Policy, limit};
use crate::http::operator::operator;
use crate::http::problem::{Code, Problem, Result};
use crate::pause::Scope;
use crate::queue::Depth;
use crate::telemetry::METRICS_CONTENT_TYPE;

/// Of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What it was built from; set by whoever builds a release.
pub const COMMIT: Option<&str> = option_env!("VELRO_COMMIT");

/// How long a readiness check waits for the database.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// Routes from the root on, with their hoops.
pub fn router() -> Router {
    probes()
        .push(Router::with_path("api/v1/health/config").get(health_config))
        .push(
            Router::with_path("api/v1/generations/async/metrics/system")
                .hoop(authenticated)
                .hoop(limit(Policy::Api))
                .hoop(operator)
                .get(system_metrics),
        )
}

/// Those of them that are about this process and not about the API: every role has them.
pub(super) fn probes() -> Router {
    Router::new()
        .get(index)
        .push(
            Router::with_path("health")
                .get(health)
                .push(Router::with_path("ready").get(ready)),
        )
        .push(Router::with_path("metrics").get(metrics))
        .push(Router::with_path("__health").get(service_health))
        .push(Router::with_path("__version").get(version))
}

/// Every other path of a worker.
#[handler]
pub(super) async fn only_a_worker() -> Problem {
    Problem::new(
        Code::NotFound,
        "This process is a worker: it has /health, /health/ready, /metrics, /__health and /__version only. Send API \
         requests to a process with the role api or all",
    )
}

/// `/metrics` of a process whose metrics have a port of their own.
#[handler]
pub(super) async fn metrics_elsewhere() -> Problem {
    Problem::new(Code::NotFound, "The metrics are on a port of their own: METRICS_PORT")
}

/// Seconds since the Unix epoch.
fn unix_seconds() -> f64 {
    clock::now().0 as f64 / 1e6
}

/// A sign of life.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Pong"))]
pub(super) struct Pong {
    ok: bool,
    service: &'static str,
    /// Seconds since the Unix epoch.
    timestamp: f64,
}

impl Pong {
    pub(super) fn of(service: &'static str) -> Self {
        Pong {
            ok: true,
            service,
            timestamp: unix_seconds(),
        }
    }
}

/// Where to go from here.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Index"))]
struct Index {
    name: &'static str,
    version: &'static str,
    /// `all`, `api` or `worker`.
    role: &'static str,
    /// Not on a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    docs: Option<&'static str>,
    /// Not on a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    openapi: Option<&'static str>,
    health: &'static str,
}

/// Where to go from here
#[endpoint(tags("system"), status_codes(200, 500))]
async fn index(depot: &mut Depot) -> Result<Json<Index>> {
    let role = services(depot)?.config.role;
    let of_the_api = |path| role.serves_api().then_some(path);
    Ok(Json(Index {
        name: "velro",
        version: VERSION,
        role: role.as_str(),
        docs: of_the_api("/docs"),
        openapi: of_the_api("/openapi.json"),
        health: "/health/ready",
    }))
}

/// The process lives.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Health"))]
struct Health {
    /// Always `healthy`.
    status: &'static str,
    /// Seconds since the Unix epoch.
    timestamp: f64,
    /// `current`, or `edit_refused` while the newest edit of the registry is not valid and the one before is in use.
    registry: &'static str,
    /// `ok`, or `degraded` while a provider is not asked because it did not work; operators see which in the system metrics.
    providers: &'static str,
    /// `running`, `paused` (what comes waits) or `draining` (nothing new is taken).
    queue: &'static str,
    /// Providers that an operator has paused or is draining.
    stopped_providers: usize,
}

/// The word for the state of the registry.
fn registry_state(services: &Services) -> &'static str {
    match services.registry_health.snapshot().error {
        Some(_) => "edit_refused",
        None => "current",
    }
}

/// Live
///
/// Answers while the process runs; looks at nothing else. See `/health/ready`.
#[endpoint(tags("system"), status_codes(200, 500))]
async fn health(depot: &mut Depot) -> Result<Json<Health>> {
    let services = services(depot)?;
    let stopped = services.pauses.all().into_iter();
    Ok(Json(Health {
        status: "healthy",
        timestamp: unix_seconds(),
        registry: registry_state(services),
        providers: provider_state::word(services),
        queue: services.pauses.queue().as_str(),
        stopped_providers: stopped.filter(|pause| pause.scope != Scope::Queue).count(),
    }))
}

/// The process lives, and what it is.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "ServiceHealth"))]
struct ServiceHealth {
    /// Always `healthy`.
    status: &'static str,
    service: String,
    version: &'static str,
}

/// Live, with a name
#[endpoint(tags("system"), status_codes(200, 500))]
async fn service_health(depot: &mut Depot) -> Result<Json<ServiceHealth>> {
    Ok(Json(ServiceHealth {
        status: "healthy",
        service: services(depot)?.config.service_name.clone(),
        version: VERSION,
    }))
}

/// Requests can be served.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Ready"))]
struct Ready {
    /// Always `ready`; otherwise the answer is a 503 with the reasons.
    status: &'static str,
    /// Always `ok`.
    database: &'static str,
    /// `current`, or `edit_refused` while the newest edit of the registry is not valid and the one before is in use.
    registry: &'static str,
    /// Revision of the registry in use.
    registry_revision: String,
    /// Models that can be used.
    models: u64,
}

/// Ready
///
/// 200 when requests can be served: the database answers with the expected schema, the registry has a model, and the
/// process has not been told to stop.
#[endpoint(tags("system"), status_codes(200, 500, 503))]
async fn ready(depot: &mut Depot) -> Result<Json<Ready>> {
    let services = services(depot)?;
    if services.leaving.is_cancelled() || services.shutdown.is_cancelled() {
        return Err(Problem::new(Code::Unavailable, "Not ready: draining, this process stops").retry_after(5));
    }
    let mut reasons = Vec::new();
    match timeout(READY_PATIENCE, services.store.ping()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "not ready: database"
            );
            reasons.push("the database does not answer as expected");
        }
        Err(_) => reasons.push("the database does not answer in time"),
    }
    let registry = services.shelf.get();
    if registry.models.is_empty() {
        reasons.push("the registry has no models");
    }
    if !reasons.is_empty() {
        return Err(Problem::new(Code::Unavailable, format!("Not ready: {}", reasons.join("; "))).retry_after(5));
    }
    Ok(Json(Ready {
        status: "ready",
        database: "ok",
        registry: registry_state(services),
        registry_revision: registry.revision.clone(),
        models: registry.available(None).count() as u64,
    }))
}

/// What runs here.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Version"))]
struct Version {
    service: String,
    version: &'static str,
    /// First 8 characters of the commit, when the build says so.
    #[salvo(schema(required = true))]
    commit: Option<String>,
    /// Always `null`.
    #[salvo(schema(required = true))]
    deployment_id: Option<String>,
    environment: &'static str,
    /// `all`, `api` or `worker`.
    role: &'static str,
    #[salvo(schema(format = "date-time"))]
    timestamp: String,
    configuration: VersionConfiguration,
    features: BTreeMap<&'static str, bool>,
}

/// Settings that are no secret.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "VersionConfiguration"))]
struct VersionConfiguration {
    /// In seconds.
    timeout_config: BTreeMap<&'static str, u64>,
    circuit_breaker: CircuitBreaker,
    redis_enabled: bool,
    /// `null`: accounts are local.
    #[salvo(schema(required = true))]
    supabase_url: Option<String>,
    auth_mode: &'static str,
}

/// The original's breaker in front of its account service. There is none: every call has its own bounds.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CircuitBreaker"))]
struct CircuitBreaker {
    enabled: bool,
    consecutive_failures: u32,
    circuit_open: bool,
    threshold: u32,
    timeout_duration: u32,
}

/// Version
#[endpoint(tags("system"), status_codes(200, 500))]
async fn version(depot: &mut Depot) -> Result<Json<Version>> {
    let services = services(depot)?;
    let config = &services.config;
    Ok(Json(Version {
        service: config.service_name.clone(),
        version: VERSION,
        commit: COMMIT.map(|c| c.chars().take(8).collect()),
        deployment_id: None,
        environment: config.environment.as_str(),
        role: config.role.as_str(),
        timestamp: clock::now().rfc3339(),
        configuration: VersionConfiguration {
            timeout_config: BTreeMap::from([
                ("access_token", config.access_token_ttl.as_secs()),
                ("refresh_token", config.refresh_token_ttl.as_secs()),
                ("output_url", config.output_url_ttl.as_secs()),
                ("shutdown_grace", config.shutdown_grace.as_secs()),
            ]),
            circuit_breaker: CircuitBreaker {
                enabled: false,
                consecutive_failures: 0,
                circuit_open: false,
                threshold: 0,
                timeout_duration: 0,
            },
            redis_enabled: config.redis_url.is_some(),
            supabase_url: config.supabase.url.clone(),
            auth_mode: services.auth.provider(),
        },
        features: BTreeMap::from([
            ("rate_limit", config.rate_limit_enabled),
            ("redis", config.redis_url.is_some()),
            ("webhooks", config.public_url_is_set),
            ("fal", config.fal.key.is_some()),
        ]),
    }))
}

/// What is configured.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "HealthConfig"))]
struct HealthConfig {
    /// Always `healthy`.
    status: &'static str,
    service: String,
    version: &'static str,
    environment: &'static str,
    supabase: SupabaseState,
    features: Features,
}

/// Whether accounts live at Supabase.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "SupabaseState"))]
struct SupabaseState {
    configured: bool,
    auth_enabled: bool,
}

/// What is switched on.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Features"))]
struct Features {
    /// Always true.
    auth_enabled: bool,
    rate_limit_enabled: bool,
    /// True outside development.
    deployment_mode: bool,
}

/// What is configured
#[endpoint(tags("system"), status_codes(200, 500))]
async fn health_config(depot: &mut Depot) -> Result<Json<HealthConfig>> {
    let config = &services(depot)?.config;
    Ok(Json(HealthConfig {
        status: "healthy",
        service: config.service_name.clone(),
        version: VERSION,
        environment: config.environment.as_str(),
        supabase: SupabaseState {
            configured: config.supabase.url.is_some(),
            auth_enabled: config.supabase.url.is_some(),
        },
        features: Features {
            auth_enabled: true,
            rate_limit_enabled: config.rate_limit_enabled,
            deployment_mode: config.environment == Environment::Production,
        },
    }))
}

/// Metrics
///
/// Prometheus' text form. Gauges that cost a query are refreshed in the background, so a scrape costs nothing.
#[endpoint(
    tags("system"),
    responses((status_code = 200, description = "Prometheus text", body = String, content_type = "text/plain")),
    status_codes(200, 500)
)]
async fn metrics(depot: &mut Depot, res: &mut Response) -> Result<()> {
    let services = services(depot)?;
    let registry = services.registry_health.snapshot();
    services.metrics.registry(
        &registry.revision,
        registry.reloads_ok,
        registry.reloads_failed,
        registry.error.is_some(),
    );
    services
        .metrics
        .libraries(services.providers.libraries(&services.shelf.get()));
    if let Some(link) = &services.link {
        services.metrics.redis(link);
    }
    services.metrics.connections(&services.store.connections());
    provider_state::refresh(services);
    let text = services.metrics.render().map_err(Problem::internal)?;
    res.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(METRICS_CONTENT_TYPE));
    res.replace_body(text.into());
    Ok(())
}

/// Every provider's lane, as far as the queue can say.
async fn depths(services: &Services) -> BTreeMap<String, Depth> {
    let registry = services.shelf.get();
    let mut depths = BTreeMap::new();
    for provider in registry.providers.keys() {
        if let Ok(depth) = services.queue.depth(provider).await {
            depths.insert(provider.clone(), depth);
        }
    }
    depths
}

/// The installation at a glance.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "SystemMetrics"))]
struct SystemMetrics {
    /// Generations at a provider.
    active_generations: u64,
    /// Generations by status.
    status_counts: BTreeMap<String, u64>,
    /// Always 0: results are never shared between calls.
    cache_entries: u64,
    /// Always `null`: connection details are not shown.
    #[salvo(schema(required = true))]
    redis_connections: Option<String>,
    /// Slots that are free, over all providers.
    semaphore_available: u64,
    /// Waiting and running jobs by provider.
    queues: BTreeMap<String, QueueDepth>,
    /// How the providers are doing, as this process sees them.
    providers: BTreeMap<String, ProviderState>,
    /// Attempts whose outcome nobody knows.
    unknown_attempts: u64,
    /// Credits set aside for generations that run.
    held_credits: i64,
    /// When the oldest queued generation was submitted.
    #[salvo(schema(required = true, format = "date-time"))]
    oldest_queued_at: Option<String>,
    #[salvo(schema(format = "date-time"))]
    timestamp: String,
}

/// A provider's lane.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "QueueDepth"))]
struct QueueDepth {
    waiting: u64,
    running: u64,
}

/// System metrics
///
/// For operators.
#[endpoint(
    tags("system"),
    status_codes(200, 401, 403, 429, 500, 503),
    security(["bearer" = []])
)]
async fn system_metrics(depot: &mut Depot) -> Result<Json<SystemMetrics>> {
    let services = services(depot)?;
    let counts = services.counts().await?;
    let depths = depths(services).await;
    let registry = services.shelf.get();
    let free = |(name, depth): (&String, &Depth)| {
        let slots = registry.providers.get(name).map_or(0, |p| u64::from(p.concurrency));
        slots.saturating_sub(depth.running)
    };
    let mut status_counts = ["queued", "processing", "completed", "failed", "cancelled"]
        .map(|status| (status.to_owned(), 0))
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    status_counts.extend(counts.by_status);
    Ok(Json(SystemMetrics {
        active_generations: status_counts.get("processing").copied().unwrap_or(0),
        status_counts,
        cache_entries: 0,
        redis_connections: None,
        semaphore_available: depths.iter().map(free).sum(),
        queues: depths
            .into_iter()
            .map(|(name, Depth { waiting, running })| (name, QueueDepth { waiting, running }))
            .collect(),
        providers: provider_state::all(services),
        unknown_attempts: counts.unknown_attempts,
        held_credits: counts.held.0,
        oldest_queued_at: counts.oldest_queued_at.map(|t| t.rfc3339()),
        timestamp: clock::now().rfc3339(),
    }))
}
