//! What the host keeps for us between two steps, versioned because it outlives the code that wrote it.

use serde::{Deserialize, Serialize};
use velro_plugin::{Fault, Job, Step};

/// Version written; older ones stay readable.
const VERSION: u32 = 1;

/// How far the job is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(crate) enum State {
    /// The paid request was handed to the host.
    Submitting,
    /// Its answer was lost or unclear.
    Lost,
    /// Replicate has the job.
    Accepted(Ticket),
}

/// A prediction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) id: String,
    /// When Replicate accepted, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// Unhelpful answers in a row.
    pub(crate) errors: u32,
    /// Largest progress seen: it never goes backwards.
    pub(crate) permille: Option<u16>,
    /// What the request that is under way, or the next one, is for.
    pub(crate) phase: Phase,
    /// A cancel was asked for.
    pub(crate) stopping: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Poll,
    Cancel,
}

impl Ticket {
    pub(crate) fn new(id: String, now_ms: u64) -> Self {
        Ticket {
            id,
            since_ms: now_ms,
            errors: 0,
            permille: None,
            phase: Phase::Poll,
            stopping: false,
        }
    }
}

/// Stores a state with a step.
pub(crate) fn keep(step: Step, state: &State) -> Step {
    step.versioned_state(VERSION, state)
}

/// The saved state; none before the first step.
pub(crate) fn load(job: &Job<'_>) -> Result<Option<State>, Fault> {
    job.versioned_state(VERSION)
}
