//! What the host keeps for us between two steps, versioned because it outlives the code that wrote it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use velro_plugin::{Fault, Job, Step};

/// Version written; older ones stay readable.
const VERSION: u32 = 1;

/// How far the job is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(crate) enum State {
    /// Reference images are on their way: the names ComfyUI gave those that are there, by parameter.
    Uploading { stored: BTreeMap<String, String> },
    /// The workflow was handed to the host.
    Submitting,
    /// The answer was lost, and we look for the job under the id we gave it.
    Looking { at: Look, tries: u32 },
    /// It was not found.
    Lost,
    /// ComfyUI has the job.
    Accepted(Ticket),
}

/// Where we look: first among what waits and runs, then among what ended, because jobs move that way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Look {
    Queue,
    History,
}

/// A job that ComfyUI has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) id: String,
    /// When ComfyUI accepted, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// Unhelpful answers in a row.
    pub(crate) errors: u32,
    /// How often in a row it was neither in the queue nor in the history.
    pub(crate) missing: u32,
    pub(crate) phase: Phase,
    /// A cancel was asked for.
    pub(crate) stopping: bool,
    /// The interrupt was sent.
    pub(crate) interrupted: bool,
}

/// What the request that is under way, or the next one, is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    History,
    Queue,
    Delete,
    Interrupt,
}

impl Ticket {
    pub(crate) fn new(id: String, now_ms: u64) -> Self {
        Ticket {
            id,
            since_ms: now_ms,
            errors: 0,
            missing: 0,
            phase: Phase::History,
            stopping: false,
            interrupted: false,
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
