//! What the host keeps for us between two steps, versioned because it outlives the code that wrote it.

use serde::{Deserialize, Serialize};
use velro_plugin::{Fault, Job, Step};

use super::address::Urls;

/// Version written; older ones stay readable.
const VERSION: u32 = 1;

/// How far the job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(super) enum State {
    /// The submit was handed to the host.
    Submitting,
    /// The submit's answer was lost or unclear.
    Lost,
    /// FAL has the job.
    Accepted(Ticket),
}

/// A job that FAL has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) request_id: String,
    pub(super) urls: Urls,
    pub(super) phase: Phase,
    /// When FAL accepted, in milliseconds since the Unix epoch.
    pub(super) since_ms: u64,
    /// Unhelpful answers in a row.
    pub(super) errors: u32,
    /// Largest progress seen: it never goes backwards.
    pub(super) permille: Option<u16>,
    /// A cancel has been asked for, and why.
    pub(super) stop: Option<Stop>,
    /// FAL said that the job failed: its code, or `error`.
    pub(super) verdict: Option<String>,
}

/// What the next request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Poll,
    Fetch,
    Cancel,
}

/// Who wants the job to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stop {
    User,
    Deadline,
}

impl Ticket {
    pub(super) fn new(urls: Urls, request_id: String, now_ms: u64) -> Self {
        Ticket {
            request_id,
            urls,
            phase: Phase::Poll,
            since_ms: now_ms,
            errors: 0,
            permille: None,
            stop: None,
            verdict: None,
        }
    }
}

/// Stores a state with a step.
pub(super) fn keep(step: Step, state: &State) -> Step {
    step.versioned_state(VERSION, state)
}

/// The saved state; none before the first step.
pub(super) fn load(job: &Job<'_>) -> Result<Option<State>, Fault> {
    job.versioned_state(VERSION)
}
