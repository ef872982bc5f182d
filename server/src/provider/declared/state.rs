//! What the host keeps for us between two steps, versioned because it outlives the code that wrote it.

use serde::{Deserialize, Serialize};
use velro_plugin::{Failure, Fault, Job, Step};

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
    /// The API has the job.
    Accepted(Box<Ticket>),
}

/// A job that the API has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) id: String,
    /// Addresses that the API named; the others are built.
    pub(super) urls: Urls,
    pub(super) phase: Phase,
    /// Unhelpful answers in a row.
    pub(super) errors: u32,
    /// Waits at the usual pace so far.
    pub(super) waits: u32,
    /// Largest progress seen: it never goes backwards.
    pub(super) permille: Option<u16>,
    /// A cancel has been asked for, and why.
    pub(super) stop: Option<Stop>,
    /// The API called the job finished and named an error; the result may say more.
    pub(super) verdict: Option<Failure>,
    /// The last state word that the declaration does not know, so that each is logged once.
    pub(super) strange: Option<String>,
}

/// Addresses of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Urls {
    pub(super) status: Option<String>,
    pub(super) result: Option<String>,
    pub(super) cancel: Option<String>,
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
    pub(super) fn new(id: String, urls: Urls) -> Self {
        Ticket {
            id,
            urls,
            phase: Phase::Poll,
            errors: 0,
            waits: 0,
            permille: None,
            stop: None,
            verdict: None,
            strange: None,
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
