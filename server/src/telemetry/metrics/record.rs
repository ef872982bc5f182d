//! What can be said to the metrics: one method for each thing that happens.

use prometheus::{Encoder, TextEncoder};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use velro_plugin::Quote;

use super::Metrics;
use crate::clock::Micros;
use crate::generation::{Generation, Status};
use crate::ledger::Credits;
use crate::queue::Depth;
use crate::shared::{Link, Part};
use crate::store::{Connections, SystemCounts};

/// Units of bills with a series of their own.
const MOST_UNITS: usize = 20;

fn as_gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
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

    /// A part of an accepted submit: `check`, `hold` or `enqueue`.
    pub fn submit_stage(&self, stage: &'static str, elapsed: Duration) {
        self.submit_stage_seconds
            .with_label_values(&[stage])
            .observe(elapsed.as_secs_f64());
    }

    /// A rate limit refused a request.
    pub fn rate_limited(&self, policy: &'static str) {
        self.rate_limited.with_label_values(&[policy]).inc();
    }

    /// A request was refused because there was no room for it.
    pub fn shed(&self) {
        self.shed_requests.inc();
    }

    /// What this process is and how it is set up.
    pub fn built(&self, version: &str, commit: &str, role: &str, ledger_check_every: Option<Duration>) {
        self.build_info.with_label_values(&[version, commit, role]).set(1);
        let every = ledger_check_every.unwrap_or_default();
        self.ledger_check_interval.set(as_gauge(every.as_secs()));
    }

    /// How full a provider's lane is.
    pub fn queue(&self, provider: &str, depth: Depth) {
        self.queue_waiting
            .with_label_values(&[provider])
            .set(as_gauge(depth.waiting));
        self.queue_running
            .with_label_values(&[provider])
            .set(as_gauge(depth.running));
    }

    /// What the store counted.
    pub fn system(&self, counts: &SystemCounts, now: Micros) {
        self.database_up.set(1);
        self.gauges_refreshed.set(now.0 as f64 / 1e6);
        for status in Status::ALL {
            let n = counts.by_status.get(status.as_str()).copied().unwrap_or(0);
            self.generations.with_label_values(&[status.as_str()]).set(as_gauge(n));
        }
        let unknown_for = counts.oldest_unknown_at.map_or(Duration::ZERO, |at| now.after(at));
        self.oldest_unknown_seconds.set(unknown_for.as_secs_f64());
        self.held_too_long.set(as_gauge(counts.open_too_long));
        if let Some(check) = &counts.ledger_check {
            let at: [&str; 0] = [];
            let finished = check.finished_at.0.div_euclid(1_000_000);
            self.ledger_checked.with_label_values(&at).set(finished);
            self.ledger_faults.with_label_values(&at).set(as_gauge(check.faults));
            self.ledger_check_seconds.set(check.took.as_secs_f64());
            self.charged_without_output.set(as_gauge(check.charged_without_output));
        }
        self.unknown_attempts.set(as_gauge(counts.unknown_attempts));
        self.held_credits.set(counts.held.0);
        self.debt_credits.set(counts.debt.0);
        self.orders_in_trouble.set(as_gauge(counts.orders_in_trouble));
        let age = counts.oldest_queued_at.map_or(Duration::ZERO, |at| now.after(at));
        self.queue_age_seconds.set(as_gauge(age.as_secs()));
    }

    /// The store did not answer when it was asked for the counts.
    pub fn system_is_away(&self) {
        self.database_up.set(0);
    }

    /// The pools of connections to the database.
    pub fn connections(&self, pools: &[Connections]) {
        for pool in pools {
            for (state, n) in [("idle", pool.idle), ("used", pool.used), ("limit", pool.limit)] {
                let gauge = self.database_connections.with_label_values(&[pool.pool, state]);
                gauge.set(as_gauge(n));
            }
        }
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

    /// A generation ended, as it is stored then.
    pub fn ended(&self, generation: &Generation) {
        let (provider, verdict) = (generation.provider.as_str(), generation.status.as_str());
        let captured = generation.captured.unwrap_or_default();
        let released = generation.price - captured;
        let credits = |credits: Credits| credits.0.max(0).unsigned_abs();
        self.settlements.with_label_values(&[provider, verdict]).inc();
        self.captured_credits
            .with_label_values(&[provider])
            .inc_by(credits(captured));
        self.released_credits
            .with_label_values(&[provider])
            .inc_by(credits(released));
        let ended = generation.completed_at.unwrap_or(generation.updated_at);
        self.generation_seconds
            .with_label_values(&[provider, verdict])
            .observe(ended.after(generation.created_at).as_secs_f64());
    }

    /// A part of a generation's time at a provider: `queue`, `provider` or `outputs`.
    pub fn stage(&self, provider: &str, stage: &'static str, elapsed: Duration) {
        self.stage_seconds
            .with_label_values(&[provider, stage])
            .observe(elapsed.as_secs_f64());
    }

    /// An attempt ended: `completed`, `failed`, `cancelled`, `rejected` or `unknown`.
    pub fn attempt(&self, provider: &str, outcome: &'static str) {
        self.attempts.with_label_values(&[provider, outcome]).inc();
    }

    /// Series that exist before anything has happened, so that the first time is seen as an increase.
    pub fn providers<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            for outcome in ["completed", "failed", "cancelled", "rejected", "unknown"] {
                self.attempts.with_label_values(&[name, outcome]);
            }
            self.provider_faults.with_label_values(&[name]);
        }
    }

    /// A provider's bill. Units come from providers: after the first few, and when they are no short word, they are `other`.
    pub fn billed(&self, provider: &str, bill: &Quote) {
        let unit = bill.unit.as_str();
        let fits = unit.len() <= 32 && unit.bytes().all(|c| c.is_ascii_graphic());
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        let known = units.contains(unit) || (fits && units.len() < MOST_UNITS && units.insert(unit.to_owned()));
        let unit = if known { unit } else { "other" };
        self.billed_units
            .with_label_values(&[provider, unit])
            .inc_by(bill.units_milli as f64 / 1e3);
        self.billed_dollars
            .with_label_values(&[provider])
            .inc_by(bill.usd_micros as f64 / 1e6);
    }

    /// A webhook was taken up, so long after it came.
    pub fn webhook_taken(&self, provider: &str, lag: Duration) {
        self.webhook_lag
            .with_label_values(&[provider])
            .observe(lag.as_secs_f64());
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
