//! Attempts as the worker sees them, and how a generation ends.

use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::generation::{Attempt, AttemptState, Event, Generation, Pending, PublicError, StoredOutput};
use crate::id::{AttemptId, GenerationId, UserId};
use crate::ledger::{Credits, Settlement};

/// What a queue must know of a waiting generation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct QueuedGeneration {
    pub id: GenerationId,
    pub user_id: UserId,
    pub provider: String,
    pub price: Credits,
    pub created_at: Micros,
}

/// To begin the first attempt of a generation.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct BeginAttempt {
    pub generation_id: GenerationId,
    pub attempt_id: AttemptId,
    pub worker: String,
    pub lease_until: Micros,
    pub deadline_at: Micros,
    pub now: Micros,
}

/// An attempt to step, with what it is for.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Work {
    pub attempt: Attempt,
    pub generation: Generation,
}

/// An attempt a worker has taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Adopted {
    pub attempt_id: AttemptId,
    pub generation_id: GenerationId,
    pub user_id: UserId,
    pub provider: String,
    pub due_at: Micros,
}

/// A step to store before it is carried out.
#[derive(Debug, Clone)]
pub struct SaveStep {
    /// Which attempt.
    pub attempt_id: AttemptId,
    /// Who thinks it holds the lease.
    pub worker: String,
    /// The step count the caller read; stored as one more.
    pub steps: u32,
    /// The state after this step.
    pub state: AttemptState,
    /// `None` leaves the provider's state unchanged.
    pub plugin_state: Option<Vec<u8>>,
    /// What the host is about to do.
    pub pending: Pending,
    /// `None` leaves it unchanged.
    pub remote_id: Option<String>,
    /// When the next step is due.
    pub due_at: Micros,
    /// The inbox was stepped; empty it.
    pub clear_inbox: bool,
    /// A progress event to store and to show (`processing` with `progress` and `message`).
    pub progress: Option<ProgressNote>,
    /// Now.
    pub now: Micros,
}

/// Progress worth showing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct ProgressNote {
    pub permille: Option<u16>,
    pub message: Option<String>,
    pub queue_position: Option<u32>,
}

/// What became of a step.
#[derive(Debug, Clone)]
pub enum Saved {
    /// Stored; the caller may carry it out.
    Ok {
        /// The user wants it stopped.
        cancel_requested: bool,
        /// To publish.
        events: Vec<Event>,
    },
    /// Somebody else has it or it is over; drop it.
    Lost,
}

/// To end an attempt that bought nothing and prepare another one.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NextAttempt {
    pub rejected: AttemptId,
    pub worker: String,
    pub steps: u32,
    /// Why, for the operator.
    pub reason: String,
    pub attempt_id: AttemptId,
    pub due_at: Micros,
    pub deadline_at: Micros,
    pub now: Micros,
}

/// To give an attempt that has sent nothing its time anew.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Redate {
    pub attempt_id: AttemptId,
    pub worker: String,
    pub steps: u32,
    pub deadline_at: Micros,
    pub now: Micros,
}

/// To end an attempt whose provider did not do it and put the generation back into the queue, for another provider.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Reroute {
    pub generation_id: GenerationId,
    pub attempt_id: AttemptId,
    pub worker: String,
    pub steps: u32,
    /// `Rejected` when nothing was bought, `Finished` when an accepted job failed by the provider's own verdict. Anything
    /// that does not fit the stored state changes nothing: what is `unknown` goes nowhere.
    pub attempt_state: AttemptState,
    /// Why, for the operator.
    pub reason: String,
    /// Which of the generation's fallbacks it goes to; those before it stay, for later.
    pub fallback: usize,
    pub now: Micros,
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum Rerouted {
    /// It waits for its next provider, with the same hold.
    Queued {
        /// As stored.
        generation: Box<Generation>,
        /// The `queued` event.
        events: Vec<Event>,
    },
    /// Its owner had asked to stop it, so it ended instead.
    Cancelled {
        /// As stored.
        generation: Box<Generation>,
        /// Where the hold went.
        settlement: Settlement,
        /// To publish.
        events: Vec<Event>,
    },
    /// It is over or somebody else has it, or it is not known what was bought; nothing was changed.
    Lost,
}

/// How a generation ends.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Delivered.
    Completed {
        /// Files in our storage.
        outputs: Vec<StoredOutput>,
        /// What they are worth; captured up to the hold.
        worth: Credits,
        /// The provider's own bill, for the operator: JSON of [`velro_plugin::Quote`].
        billed: Option<Value>,
        /// The provider's remarks, such as the seed.
        meta: Map<String, Value>,
    },
    /// Not delivered; everything is released.
    Failed {
        /// For the customer.
        error: PublicError,
        /// For the operator: what really happened.
        detail: String,
        /// `Finished`, or `Rejected` when nothing was bought.
        attempt_state: AttemptState,
    },
    /// Stopped; everything is released.
    Cancelled,
}

/// To end a generation.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Settle {
    pub generation_id: GenerationId,
    pub attempt_id: AttemptId,
    pub worker: String,
    pub steps: u32,
    pub verdict: Verdict,
    pub now: Micros,
}

/// What became of a settlement.
#[derive(Debug, Clone)]
pub enum Settled {
    /// This call ended it.
    Won {
        /// As stored.
        generation: Box<Generation>,
        /// Where the hold went.
        settlement: Settlement,
        /// To publish.
        events: Vec<Event>,
    },
    /// It was over before, or the lease is somebody else's; nothing was changed.
    Lost,
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Stored; the worker will step it.
    Stored,
    /// The attempt is over; nothing to do.
    Over,
    /// There is no such attempt at this provider.
    Missing,
}

/// An operator's word on an `unknown` attempt.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// It was not bought, or it is worth nothing: fail and release.
    Refund,
    /// It was not bought: put the generation back into the queue.
    Retry,
    /// It was delivered: these outputs, captured in full.
    Deliver(Vec<StoredOutput>),
}

/// To resolve an `unknown` attempt, or to end by hand what is held too long.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Resolve {
    pub generation_id: GenerationId,
    pub resolution: Resolution,
    /// A refund also ends what is queued or in work; whatever its provider makes of it is lost.
    pub even_running: bool,
    /// Who, for audit.
    pub actor: String,
    /// Why, for audit.
    pub reason: String,
    pub now: Micros,
}

/// What became of a resolution.
#[derive(Debug, Clone)]
pub enum Resolved {
    /// Done; as stored, with events to publish.
    Done {
        /// As stored.
        generation: Box<Generation>,
        /// To publish.
        events: Vec<Event>,
    },
    /// Its newest attempt is not `unknown`, or nothing is held any more; nothing was changed.
    NotUnknown(Option<AttemptState>),
    /// There is none.
    Missing,
}
