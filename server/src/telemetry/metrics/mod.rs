//! Every metric of the process, defined in one place: name, help, unit, labels.

mod record;
#[cfg(test)]
mod tests;

pub use record::StreamGuard;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::clock;

/// Upper bounds in seconds: from a read in memory to a slow database.
const REQUEST_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Upper bounds in seconds: providers answer over the Internet and draw for minutes.
const PROVIDER_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Upper bounds in seconds: from a picture that is drawn at once to a clip behind a long queue.
const GENERATION_SECONDS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];
/// Upper bounds in seconds: an event comes at once, or after hours when we were away.
const LAG_SECONDS: &[f64] = &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0];

/// Type of the text that [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal [$($label:literal),*] $($buckets:ident)?;)+) => {
        /// Every metric of the process. Share one; each method is cheap.
        pub struct Metrics {
            registry: Registry,
            /// Units of bills that have a series; see [`Metrics::billed`].
            units: Mutex<BTreeSet<String>>,
            $($(#[doc = $help])+ $field: $kind,)+
        }

        impl Metrics {
            /// All at nothing.
            pub fn new() -> prometheus::Result<Metrics> {
                let registry = Registry::new();
                $(
                    let help = concat!($($help),+).trim();
                    let $field = metrics!(@make $kind $name help [$($label),*] $($buckets)?)?;
                    register(&registry, &$field)?;
                )+
                registry.register(Box::new(ProcessCollector::for_self()))?;
                let metrics = Metrics { registry, units: Mutex::default(), $($field),+ };
                metrics.gauges_refreshed.set(clock::now().0 as f64 / 1e6);
                Ok(metrics)
            }
        }
    };
    (@make IntCounter $name:literal $help:ident []) => { IntCounter::with_opts(Opts::new($name, $help)) };
    (@make Gauge $name:literal $help:ident []) => { Gauge::with_opts(Opts::new($name, $help)) };
    (@make IntGauge $name:literal $help:ident []) => { IntGauge::with_opts(Opts::new($name, $help)) };
    (@make IntCounterVec $name:literal $help:ident [$($label:literal),+]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),+])
    };
    (@make CounterVec $name:literal $help:ident [$($label:literal),+]) => {
        CounterVec::new(Opts::new($name, $help), &[$($label),+])
    };
    (@make IntGaugeVec $name:literal $help:ident [$($label:literal),*]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),*])
    };
    (@make HistogramVec $name:literal $help:ident [$($label:literal),+] $buckets:ident) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),+])
    };
}

metrics! {
    /// Always 1; the labels say what runs here.
    build_info: IntGaugeVec = "velro_build_info" ["version", "commit", "role"];
    /// HTTP requests answered, by route template, method and status class.
    requests: IntCounterVec = "velro_http_requests_total" ["route", "method", "status"];
    /// Time from the first hoop to the end of the handler, in seconds; a stream counts until it begins.
    request_seconds: HistogramVec = "velro_http_request_duration_seconds" ["route", "method"] REQUEST_SECONDS;
    /// Event streams that are open now.
    streams: IntGauge = "velro_sse_connections" [];
    /// Submitted generations by outcome: accepted, replayed, insufficient_credits, invalid, unavailable, error.
    submits: IntCounterVec = "velro_submits_total" ["outcome"];
    /// Time of the parts of an accepted submit, in seconds: check (against the model), hold (the transaction), enqueue.
    submit_stage_seconds: HistogramVec = "velro_submit_stage_duration_seconds" ["stage"] REQUEST_SECONDS;
    /// Requests that a rate limit refused with 429, by the limit's name.
    rate_limited: IntCounterVec = "velro_rate_limited_total" ["policy"];
    /// Requests that were refused with 503 because as many were at work as may be.
    shed_requests: IntCounter = "velro_shed_requests_total" [];
    /// Where a generation's time goes, in seconds: queue (submitted until an attempt begins), provider (begun until the
    /// provider's verdict), outputs (verdict until the files are ours).
    stage_seconds: HistogramVec = "velro_generation_stage_duration_seconds" ["provider", "stage"] GENERATION_SECONDS;
    /// From submit to the end of a generation, in seconds, by the provider it ended at and the verdict: completed, failed,
    /// cancelled.
    generation_seconds: HistogramVec = "velro_generation_duration_seconds" ["provider", "verdict"] GENERATION_SECONDS;
    /// Attempts that ended here by outcome: completed, failed, cancelled, rejected (nothing was bought), unknown (nobody knows
    /// what was bought).
    attempts: IntCounterVec = "velro_attempts_total" ["provider", "outcome"];
    /// Generations that wait for their turn, by provider.
    queue_waiting: IntGaugeVec = "velro_queue_waiting" ["provider"];
    /// Generations that occupy a slot, by provider.
    queue_running: IntGaugeVec = "velro_queue_running" ["provider"];
    /// Age of the oldest generation that waits, in seconds.
    queue_age_seconds: IntGauge = "velro_queue_oldest_age_seconds" [];
    /// Generations by status.
    generations: IntGaugeVec = "velro_generations" ["status"];
    /// Attempts whose outcome nobody knows; an operator resolves them.
    unknown_attempts: IntGauge = "velro_attempts_unknown" [];
    /// How long the oldest of them has been so, in seconds; 0 when there is none.
    oldest_unknown_seconds: Gauge = "velro_oldest_unknown_age_seconds" [];
    /// Generations that have not ended though they are older than any model of the registry may take; unknown ones are not
    /// counted.
    held_too_long: IntGauge = "velro_held_too_long" [];
    /// Requests to providers by result: ok, 3xx, 4xx, 5xx, not_sent, denied, timeout, reset, too_large.
    provider_requests: IntCounterVec = "velro_provider_requests_total" ["provider", "result"];
    /// Time of a request to a provider, in seconds.
    provider_seconds: HistogramVec = "velro_provider_request_duration_seconds" ["provider"] PROVIDER_SECONDS;
    /// What the breaker of a provider says: 0 closed, 1 half open, 2 open.
    provider_breakers: IntGaugeVec = "velro_provider_breaker" ["provider"];
    /// Times that the code of a provider did not work.
    provider_faults: IntCounterVec = "velro_provider_faults_total" ["provider"];
    /// Generations that went from one provider to another, by reason: refused, failed (the provider's verdict on a job it
    /// had accepted), breaker, fault (of its code), removed (from the registry).
    reroutes: IntCounterVec = "velro_reroutes_total" ["from", "to", "reason"];
    /// 1 for what an operator has stopped: mode paused begins nothing, draining takes nothing new.
    paused: IntGaugeVec = "velro_paused" ["scope", "mode"];
    /// What providers said they billed, in their own units.
    billed_units: CounterVec = "velro_provider_billed_units_total" ["provider", "unit"];
    /// The same in US dollars, where they say it.
    billed_dollars: CounterVec = "velro_provider_billed_dollars_total" ["provider"];
    /// Credits in unsettled holds.
    held_credits: IntGauge = "velro_held_credits" [];
    /// Generations that this process ended, by the provider they ended at and the verdict: completed, failed, cancelled.
    settlements: IntCounterVec = "velro_settlements_total" ["provider", "verdict"];
    /// Credits captured by them.
    captured_credits: IntCounterVec = "velro_captured_credits_total" ["provider"];
    /// Credits released by them.
    released_credits: IntCounterVec = "velro_released_credits_total" ["provider"];
    /// Broken invariants that the last check of the books found, whichever process did it; 0 when the books are in order.
    ledger_faults: IntGaugeVec = "velro_ledger_faults" [];
    /// When the books were recomputed last, in seconds since the Unix epoch.
    ledger_checked: IntGaugeVec = "velro_ledger_checked_timestamp_seconds" [];
    /// How long that took, in seconds.
    ledger_check_seconds: Gauge = "velro_ledger_check_duration_seconds" [];
    /// How often the books are to be recomputed, in seconds; 0 for never.
    ledger_check_interval: IntGauge = "velro_ledger_check_interval_seconds" [];
    /// Charged generations without a file on record that were not refunded, as the last check of the books counted them.
    charged_without_output: IntGauge = "velro_charged_without_output" [];
    /// Webhooks of providers by outcome: stored, over, missing, refused, error.
    webhooks: IntCounterVec = "velro_webhooks_total" ["provider", "outcome"];
    /// From a provider's webhook to the step that takes it, in seconds.
    webhook_lag: HistogramVec = "velro_webhook_lag_seconds" ["provider"] LAG_SECONDS;
    /// Orders by outcome: created, replayed, unavailable (the payment provider did not take it), and booked when paid.
    orders: IntCounterVec = "velro_orders_total" ["outcome"];
    /// Events of the payment provider by type and outcome: booked, taken back, given back, moved, kept, nothing new, trouble,
    /// replayed, ignored, error; refused ones have the type unknown.
    payment_events: IntCounterVec = "velro_payment_events_total" ["type", "outcome"];
    /// From an event of the payment provider to its booking, in seconds.
    payment_event_lag: HistogramVec = "velro_payment_event_lag_seconds" ["type"] LAG_SECONDS;
    /// Orders that need an operator; `velro orders list --trouble` has them.
    orders_in_trouble: IntGauge = "velro_orders_in_trouble" [];
    /// Credits that reversed purchases have left accounts short of.
    debt_credits: IntGauge = "velro_debt_credits" [];
    /// Edits of the registry by outcome: applied, refused.
    registry_reloads: IntCounterVec = "velro_registry_reloads_total" ["outcome"];
    /// Always 1; the label is the revision of the registry in use.
    registry_info: IntGaugeVec = "velro_registry_info" ["revision"];
    /// 1 when the newest edit of the registry was refused, else 0.
    registry_refused: IntGauge = "velro_registry_edit_refused" [];
    /// Provider libraries in the address space: active ones serve an entry of the registry, retired ones have been replaced
    /// and stay loaded until the process ends.
    plugin_libraries: IntGaugeVec = "velro_plugin_libraries" ["state"];
    /// Attempts whose lease changed hands, by kind: adopted from a dead worker, released by a drain.
    leases: IntCounterVec = "velro_leases_total" ["kind"];
    /// 1 while the database answers, as of ten seconds ago at most, else 0.
    database_up: IntGauge = "velro_database_up" [];
    /// When the gauges that come out of the database were read last, in seconds since the Unix epoch; the start of the process
    /// before the first time.
    gauges_refreshed: Gauge = "velro_gauges_refreshed_timestamp_seconds" [];
    /// Connections to the database by pool (read, write) and state: idle, used, and limit for how many there may be.
    database_connections: IntGaugeVec = "velro_database_connections" ["pool", "state"];
    /// Seconds that are added to this machine's clock to follow the database's; 0 with the embedded one.
    clock_offset_seconds: Gauge = "velro_clock_offset_seconds" [];
    /// 1 while Redis answers, 0 while the process goes on without it; absent when none is configured.
    redis_up: IntGaugeVec = "velro_redis_up" [];
    /// Times that a part went on without Redis: queue (the worker claimed from the database), limits (a request was
    /// counted by this process alone), live (a message did not reach the other replicas).
    redis_fallbacks: IntCounterVec = "velro_redis_fallbacks_total" ["part"];
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: &C) -> prometheus::Result<()> {
    registry.register(Box::new(collector.clone()))
}
