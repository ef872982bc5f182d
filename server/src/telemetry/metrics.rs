//! Every metric of the process, defined in one place: name, help, unit, labels.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Micros;
use crate::queue::Depth;
use crate::shared::{Link, Part};
use crate::store::SystemCounts;

/// Upper bounds in seconds: from a read in memory to a slow database.
const REQUEST_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Upper bounds in seconds: providers answer over the Internet and draw for minutes.
const PROVIDER_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Upper bounds in seconds: an event comes at once, or after hours when we were away.
const LAG_SECONDS: &[f64] = &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0];

/// Type of the text that [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal [$($label:literal),*] $($buckets:ident)?;)+) => {
        /// Every metric of the process. Share one; each method is cheap.
        pub struct Metrics {
            registry: Registry,
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
                Ok(Metrics { registry, $($field),+ })
            }
        }
    };
    (@make IntCounter $name:literal $help:ident []) => { IntCounter::with_opts(Opts::new($name, $help)) };
    (@make Gauge $name:literal $help:ident []) => { Gauge::with_opts(Opts::new($name, $help)) };
    (@make IntGauge $name:literal $help:ident []) => { IntGauge::with_opts(Opts::new($name, $help)) };
    (@make IntCounterVec $name:literal $help:ident [$($label:literal),+]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),+])
    };
    (@make IntGaugeVec $name:literal $help:ident [$($label:literal),*]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),*])
    };
    (@make HistogramVec $name:literal $help:ident [$($label:literal),+] $buckets:ident) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),+])
    };
}

metrics! {
    /// HTTP requests answered, by route template, method and status class.
    requests: IntCounterVec = "velro_http_requests_total" ["route", "method", "status"];
    /// Time from the first hoop to the end of the handler, in seconds; a stream counts until it begins.
    request_seconds: HistogramVec = "velro_http_request_duration_seconds" ["route", "method"] REQUEST_SECONDS;
    /// Event streams that are open now.
    streams: IntGauge = "velro_sse_connections" [];
    /// Submitted generations by outcome: accepted, replayed, insufficient_credits, invalid, unavailable, error.
    submits: IntCounterVec = "velro_submits_total" ["outcome"];
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
    /// Requests to providers by result: ok, or the kind of error.
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
    /// Credits in unsettled holds.
    held_credits: IntGauge = "velro_held_credits" [];
    /// Ended generations by verdict: completed, failed, cancelled.
    settlements: IntCounterVec = "velro_settlements_total" ["verdict"];
    /// Credits captured since the start of the process.
    captured_credits: IntCounter = "velro_captured_credits_total" [];
    /// Credits released since the start of the process.
    released_credits: IntCounter = "velro_released_credits_total" [];
    /// Webhooks of providers by outcome: stored, over, missing, refused, error.
    webhooks: IntCounterVec = "velro_webhooks_total" ["provider", "outcome"];
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

impl Metrics {
    /// A request was answered. `route` is a template, never a path.
    pub fn request(&self, method: &str, route: &str, status: u16, elapsed: Duration) {
        let class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[route, method, class]).inc();
        self.request_seconds
            .with_label_values(&[route, method])
            .observe(elapsed.as_secs_f64());
    }

    /// An event stream was opened; it counts until the guard is dropped.
    pub fn stream_opened(self: &Arc<Self>) -> StreamGuard {
        self.streams.inc();
        StreamGuard(Arc::clone(self))
    }

    /// A submit ended: `accepted`, `replayed`, `insufficient_credits`, `invalid`, `unavailable` or `error`.
    pub fn submit(&self, outcome: &'static str) {
        self.submits.with_label_values(&[outcome]).inc();
    }

    /// How full a provider's lane is.
    pub fn queue(&self, provider: &str, depth: Depth) {
        let as_gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.queue_waiting
            .with_label_values(&[provider])
            .set(as_gauge(depth.waiting));
        self.queue_running
            .with_label_values(&[provider])
            .set(as_gauge(depth.running));
    }

    /// What the store counted.
    pub fn system(&self, counts: &SystemCounts, now: Micros) {
        let as_gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for (status, n) in &counts.by_status {
            self.generations.with_label_values(&[status]).set(as_gauge(*n));
        }
        self.unknown_attempts.set(as_gauge(counts.unknown_attempts));
        self.held_credits.set(counts.held.0);
        self.debt_credits.set(counts.debt.0);
        self.orders_in_trouble.set(as_gauge(counts.orders_in_trouble));
        let age = counts.oldest_queued_at.map_or(Duration::ZERO, |at| now.after(at));
        self.queue_age_seconds.set(as_gauge(age.as_secs()));
    }

    /// How many libraries serve the registry, and how many are left over from before.
    pub fn libraries(&self, (active, retired): (usize, usize)) {
        for (state, count) in [("active", active), ("retired", retired)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.plugin_libraries.with_label_values(&[state]).set(count);
        }
    }

    /// A request to a provider ended: `ok` or the kind of error.
    pub fn provider_request(&self, provider: &str, result: &'static str, elapsed: Duration) {
        self.provider_requests.with_label_values(&[provider, result]).inc();
        self.provider_seconds
            .with_label_values(&[provider])
            .observe(elapsed.as_secs_f64());
    }

    /// What the breakers say now: 0 closed, 1 half open, 2 open. Providers that are not named are gone.
    pub fn provider_breakers<'a>(&self, levels: impl IntoIterator<Item = (&'a str, u8)>) {
        self.provider_breakers.reset();
        for (provider, level) in levels {
            self.provider_breakers
                .with_label_values(&[provider])
                .set(i64::from(level));
        }
    }

    /// What an operator has stopped, by scope and mode. What is not named runs.
    pub fn paused(&self, stopped: impl IntoIterator<Item = (String, &'static str)>) {
        self.paused.reset();
        for (scope, mode) in stopped {
            self.paused.with_label_values(&[&*scope, mode]).set(1);
        }
    }

    /// The code of a provider did not work.
    pub fn provider_fault(&self, provider: &str) {
        self.provider_faults.with_label_values(&[provider]).inc();
    }

    /// A generation went from one provider to another.
    pub fn reroute(&self, from: &str, to: &str, reason: &'static str) {
        self.reroutes.with_label_values(&[from, to, reason]).inc();
    }

    /// A generation ended: `completed`, `failed` or `cancelled`, with where its hold went.
    pub fn settlement(&self, verdict: &'static str, settlement: crate::ledger::Settlement) {
        self.settlements.with_label_values(&[verdict]).inc();
        self.captured_credits
            .inc_by(settlement.captured.0.max(0).unsigned_abs());
        self.released_credits
            .inc_by(settlement.released.0.max(0).unsigned_abs());
    }

    /// A provider's webhook: `stored`, `over`, `missing`, `refused` or `error`. `provider` must be a known one.
    pub fn webhook(&self, provider: &str, outcome: &'static str) {
        self.webhooks.with_label_values(&[provider, outcome]).inc();
    }

    /// An order was `created`, `replayed`, `unavailable` or `booked`.
    pub fn order(&self, outcome: &'static str) {
        self.orders.with_label_values(&[outcome]).inc();
    }

    /// An event of the payment provider. `kind` is a type that is subscribed to, or `unknown`.
    pub fn payment_event(&self, kind: &'static str, outcome: &'static str, lag: Option<Duration>) {
        self.payment_events.with_label_values(&[kind, outcome]).inc();
        if let Some(lag) = lag {
            self.payment_event_lag
                .with_label_values(&[kind])
                .observe(lag.as_secs_f64());
        }
    }

    /// How the registry's file is doing: which revision is in use, what became of the edits.
    pub fn registry(&self, revision: &str, applied: u64, refused: u64, edit_refused: bool) {
        for (outcome, total) in [("applied", applied), ("refused", refused)] {
            let counter = self.registry_reloads.with_label_values(&[outcome]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.registry_info.reset();
        self.registry_info.with_label_values(&[revision]).set(1);
        self.registry_refused.set(i64::from(edit_refused));
    }

    /// Leases changed hands `n` times: `adopted` or `released`.
    pub fn leases(&self, kind: &'static str, n: u64) {
        self.leases.with_label_values(&[kind]).inc_by(n);
    }

    /// What is added to the machine's clock.
    pub fn clock_offset(&self, offset_us: i64) {
        self.clock_offset_seconds.set(offset_us as f64 / 1e6);
    }

    /// How Redis is doing, where there is one.
    pub fn redis(&self, link: &Link) {
        self.redis_up
            .with_label_values(&[] as &[&str])
            .set(i64::from(link.is_up()));
        for part in Part::ALL {
            let counter = self.redis_fallbacks.with_label_values(&[part.as_str()]);
            counter.inc_by(link.fallbacks(part).saturating_sub(counter.get()));
        }
    }

    /// All of them in Prometheus' text form.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

/// An open event stream.
pub struct StreamGuard(Arc<Metrics>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::ledger::{Credits, Settlement};

    #[test]
    fn what_happened_can_be_scraped() {
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.request("GET", "api/v1/projects/{project_id}", 404, Duration::from_millis(3));
        metrics.submit("accepted");
        metrics.clock_offset(-1_500_000);
        metrics.provider_breakers([("gone", 1)]);
        metrics.provider_breakers([("fal", 2)]);
        metrics.provider_fault("acme");
        metrics.reroute("fal", "acme", "refused");
        let stream = metrics.stream_opened();
        metrics.registry("aaa", 0, 0, false);
        metrics.registry("bbb", 1, 2, true);
        metrics.settlement(
            "completed",
            Settlement {
                captured: Credits(40),
                released: Credits(5),
            },
        );
        let text = metrics.render().unwrap();
        for line in [
            r#"velro_http_requests_total{method="GET",route="api/v1/projects/{project_id}",status="4xx"} 1"#,
            r#"velro_submits_total{outcome="accepted"} 1"#,
            "velro_sse_connections 1",
            r#"velro_registry_info{revision="bbb"} 1"#,
            r#"velro_registry_reloads_total{outcome="refused"} 2"#,
            "velro_registry_edit_refused 1",
            "velro_clock_offset_seconds -1.5",
            r#"velro_provider_breaker{provider="fal"} 2"#,
            r#"velro_provider_faults_total{provider="acme"} 1"#,
            r#"velro_reroutes_total{from="fal",reason="refused",to="acme"} 1"#,
            "velro_captured_credits_total 40",
            "# HELP velro_held_credits Credits in unsettled holds.",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
        assert!(!text.contains("aaa") && !text.contains("gone"));
        drop(stream);
        assert!(metrics.render().unwrap().contains("velro_sse_connections 0"));
    }

    #[test]
    fn ages_are_seconds_of_the_oldest() {
        let metrics = Metrics::new().unwrap();
        let counts = SystemCounts {
            oldest_queued_at: Some(Micros(1_000_000)),
            held: Credits(7),
            ..SystemCounts::default()
        };
        metrics.system(&counts, Micros(4_500_000));
        let text = metrics.render().unwrap();
        assert!(text.contains("velro_queue_oldest_age_seconds 3"), "{text}");
        assert!(text.contains("velro_held_credits 7"), "{text}");
    }
}
