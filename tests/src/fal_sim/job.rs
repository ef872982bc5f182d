//! One accepted request: when it starts and ends, what comes of it, and what was done to it.
//!
//! A job's phase is a function of the time; nothing ticks. Only a decision (cancel, a manual step) changes it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use super::errors::Failure;
use super::faults::Rule;
use super::models::Model;

/// How the request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// Through the queue.
    Queue,
    /// As a direct run.
    Run,
}

/// The queue's three states; there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Waiting for a runner.
    InQueue,
    /// Running.
    InProgress,
    /// Over, well or badly.
    Completed,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InQueue => "IN_QUEUE",
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
        }
    }
}

/// How often the client did what to one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Status polls.
    pub status: u32,
    /// Status streams opened.
    pub stream: u32,
    /// Result reads, early ones included.
    pub result: u32,
    /// Cancel calls.
    pub cancel: u32,
    /// Downloads of its media.
    pub media: u32,
    /// Downloads that carried an `Authorization` header: the client gave its key to a public URL.
    pub media_with_key: u32,
}

/// One delivery of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// What it said: `OK` or `ERROR`.
    pub said: String,
    /// The receiver's HTTP status; `None` if there was no answer.
    pub answered: Option<u16>,
}

/// What the simulator knows about one accepted request: the platform's side of the ledger.
#[derive(Debug, Clone, Serialize)]
pub struct RequestRecord {
    /// FAL's request id.
    pub request_id: String,
    /// Endpoint id.
    pub endpoint: String,
    /// Queue or direct run.
    pub via: Via,
    /// The model input exactly as sent.
    pub input: Value,
    /// Request headers in lower case, without credentials.
    pub headers: BTreeMap<String, String>,
    /// The `fal_webhook` query parameter.
    pub webhook_url: Option<String>,
    /// Unix milliseconds of acceptance.
    pub accepted_at_ms: u64,
    /// Its phase at the time of asking.
    pub phase: Phase,
    /// `None` until completed and when delivered; else FAL's error type.
    pub error_type: Option<String>,
    /// What the platform charges so far, in thousandths of the model's unit. Zero until delivered.
    pub billed_milliunits: u64,
    /// What the client did to it.
    pub counts: Counts,
    /// Webhook deliveries so far.
    pub deliveries: Vec<Delivery>,
}

impl RequestRecord {
    /// The prompt, or an empty text.
    #[must_use]
    pub fn prompt(&self) -> &str {
        self.input["prompt"].as_str().unwrap_or_default()
    }
}

/// What comes of a job once it ends.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// So many images, or one video.
    Deliver {
        outputs: u32,
    },
    Fail(Failure),
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) request_id: String,
    pub(super) model: &'static Model,
    pub(super) via: Via,
    pub(super) input: Map<String, Value>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) webhook_url: Option<String>,
    /// What the client calls this simulator; answers' URLs start with it.
    pub(super) base_url: String,
    pub(super) accepted: Instant,
    pub(super) accepted_at_ms: u64,
    /// `None`: held in the queue until told.
    pub(super) start_at: Option<Instant>,
    /// `None`: runs until told.
    pub(super) end_at: Option<Instant>,
    /// How long it runs; `None`: until told.
    pub(super) run_for: Option<Duration>,
    /// The client's `X-Fal-Request-Timeout`: the job must start before.
    pub(super) start_deadline: Option<Instant>,
    pub(super) outcome: Outcome,
    /// Faults named in its prompt.
    pub(super) rules: Vec<Rule>,
    pub(super) counts: Counts,
    pub(super) deliveries: Vec<Delivery>,
}

impl Job {
    /// Applies a start deadline that has passed. Everything else reads the clock.
    pub(super) fn settle(&mut self, now: Instant) {
        if let Some(deadline) = self.missed_deadline(now) {
            self.end(deadline, failed("request_timeout"));
            self.start_deadline = None;
        }
    }

    /// The start deadline, if it has passed with the job still waiting.
    fn missed_deadline(&self, now: Instant) -> Option<Instant> {
        self.start_deadline
            .filter(|deadline| *deadline <= now && self.start_at.is_none_or(|start| start > *deadline))
    }

    pub(super) fn phase(&self, now: Instant) -> Phase {
        if self.end_at.is_some_and(|end| end <= now) || self.missed_deadline(now).is_some() {
            Phase::Completed
        } else if self.start_at.is_some_and(|start| start <= now) {
            Phase::InProgress
        } else {
            Phase::InQueue
        }
    }

    /// When the phase changes next without anybody's doing.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        [self.start_at, self.end_at, self.start_deadline]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// The outcome, once there is one.
    pub(super) fn ended(&self, now: Instant) -> Option<&Outcome> {
        (self.phase(now) == Phase::Completed).then_some(&self.outcome)
    }

    /// Starts a waiting job at this moment.
    pub(super) fn start(&mut self, at: Instant) {
        self.start_at = Some(at);
        self.end_at = self.run_for.map(|run_for| at + run_for);
    }

    /// Ends the job at this moment.
    pub(super) fn end(&mut self, at: Instant, outcome: Outcome) {
        self.start_at = Some(self.start_at.map_or(at, |start| start.min(at)));
        self.end_at = Some(at);
        self.outcome = outcome;
    }

    /// Time spent running, zero if it never ran.
    pub(super) fn run_time(&self) -> Duration {
        match (self.start_at, self.end_at) {
            (Some(start), Some(end)) => end.saturating_duration_since(start),
            _ => Duration::ZERO,
        }
    }

    pub(super) fn prompt(&self) -> &str {
        self.input.get("prompt").and_then(Value::as_str).unwrap_or_default()
    }

    /// What the platform charges for it as things stand.
    pub(super) fn billed_milliunits(&self, now: Instant) -> u64 {
        match self.ended(now) {
            Some(Outcome::Deliver { outputs }) => self.model.billable_milliunits(&self.input, *outputs),
            _ => 0,
        }
    }

    /// Whether it had already ended without a charge at that moment, so that buying again was right.
    pub(super) fn was_free_by(&self, moment: Instant) -> bool {
        matches!(self.outcome, Outcome::Fail(_)) && self.end_at.is_some_and(|end| end <= moment)
    }

    /// `{base}/{owner}/{alias}/requests/{id}`, as FAL spells it.
    pub(super) fn response_url(&self) -> String {
        let app = self.model.app();
        format!("{}/{app}/requests/{}", self.base_url, self.request_id)
    }

    pub(super) fn record(&self, now: Instant) -> RequestRecord {
        RequestRecord {
            request_id: self.request_id.clone(),
            endpoint: self.model.endpoint.to_owned(),
            via: self.via,
            input: Value::Object(self.input.clone()),
            headers: self.headers.clone(),
            webhook_url: self.webhook_url.clone(),
            accepted_at_ms: self.accepted_at_ms,
            phase: self.phase(now),
            error_type: match self.ended(now) {
                Some(Outcome::Fail(failure)) => Some(failure.error_type.clone()),
                _ => None,
            },
            billed_milliunits: self.billed_milliunits(now),
            counts: self.counts.clone(),
            deliveries: self.deliveries.clone(),
        }
    }
}

/// The outcome for one of FAL's documented error types.
pub(super) fn failed(error_type: &str) -> Outcome {
    Outcome::Fail(Failure::of_type(error_type).unwrap_or_else(|| {
        Failure::validation(vec![super::errors::detail_item(
            &["body"],
            error_type,
            error_type,
            serde_json::json!({}),
            Value::Null,
        )])
    }))
}
