//! How the providers are doing, for operators, probes and metrics. What a breaker says is this process's own experience: a
//! process that only serves the API calls no provider, and its breakers stay closed.

use salvo::oapi::ToSchema;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::clock;
use crate::http::Services;
use crate::provider::Standing;

/// A provider as this process sees it.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "ProviderState"))]
pub(super) struct ProviderState {
    /// `ready`, `not_ready` or `switched_off`.
    state: &'static str,
    /// Why it is not ready.
    #[salvo(schema(required = true))]
    not_ready: Option<String>,
    /// `closed` (it is asked), `open` (it is not) or `half_open` (one job is let through to see).
    breaker: &'static str,
    /// What opened it.
    #[salvo(schema(required = true))]
    breaker_reason: Option<String>,
    /// When an open one lets a job through.
    #[salvo(schema(required = true, format = "date-time"))]
    breaker_until: Option<String>,
    /// Times that its code did not work.
    faults: u64,
}

/// Every provider of the registry.
pub(super) fn all(services: &Services) -> BTreeMap<String, ProviderState> {
    let (registry, now) = (services.shelf.get(), clock::now());
    let mut states = BTreeMap::new();
    for entry in registry.providers.values() {
        let Some(provider) = services.providers.get(&entry.name) else {
            continue;
        };
        let standing = provider.health.standing(now);
        let breaker = standing.as_str();
        let (breaker_reason, breaker_until) = match standing {
            Standing::Closed => (None, None),
            Standing::HalfOpen { reason } => (Some(reason), None),
            Standing::Open { until, reason } => (Some(reason), Some(until.rfc3339())),
        };
        let state = ProviderState {
            state: match &provider.not_ready {
                _ if !entry.enabled => "switched_off",
                Some(_) => "not_ready",
                None => "ready",
            },
            not_ready: provider.not_ready.clone(),
            breaker,
            breaker_reason,
            breaker_until,
            faults: provider.health.faults(),
        };
        states.insert(entry.name.clone(), state);
    }
    states
}

/// The word for all of them: `ok`, or `degraded` while the breaker of one that is switched on is not closed.
pub(super) fn word(services: &Services) -> &'static str {
    let (registry, now) = (services.shelf.get(), clock::now());
    let mut enabled = registry.providers.values().filter(|entry| entry.enabled);
    let degraded = enabled.any(|entry| {
        let provider = services.providers.get(&entry.name);
        provider.is_some_and(|p| p.health.standing(now) != Standing::Closed)
    });
    if degraded { "degraded" } else { "ok" }
}

/// Brings the gauges up to date.
pub(super) fn refresh(services: &Services) {
    let (registry, now) = (services.shelf.get(), clock::now());
    let levels = registry.providers.keys().filter_map(|name| {
        let provider = services.providers.get(name)?;
        Some((name.as_str(), provider.health.standing(now).level()))
    });
    services.metrics.provider_breakers(levels);
    services
        .metrics
        .providers(registry.providers.keys().map(String::as_str));
}
