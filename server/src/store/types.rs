//! What goes into the store's use cases and what comes out.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::clock::Micros;
use crate::generation::{
    Attempt, AttemptState, Event, Generation, MediaType, Pending, PriceBasis, PublicError, Status, StoredOutput,
};
use crate::id::{AttemptId, GenerationId, ProjectId, SessionId, StatementLineId, UserId};
use crate::ledger::{Credits, LineType, Settlement};

/// A part of a list, and how long the whole is.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The part asked for.
    pub items: Vec<T>,
    /// How many match in all.
    pub total: u64,
}

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Own things only.
    User,
    /// Also what concerns the whole installation.
    Operator,
}

impl Role {
    /// The database form.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Operator => "operator",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<Role> {
        [Role::User, Role::Operator].into_iter().find(|r| r.as_str() == text)
    }
}

/// A person.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)]
pub struct User {
    pub id: UserId,
    /// Lower case.
    pub email: String,
    /// PHC string; never shown, never logged.
    pub password_hash: Option<String>,
    pub full_name: Option<String>,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
    pub role: Role,
    pub plan: String,
    pub created_at: Micros,
    pub updated_at: Micros,
    pub last_sign_in_at: Option<Micros>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// To create a person with an account.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct NewUser {
    pub id: UserId,
    /// Lower case.
    pub email: String,
    pub password_hash: Option<String>,
    pub full_name: Option<String>,
    pub role: Role,
    /// Booked once as a bonus transfer from the platform's grants.
    pub start_credits: Credits,
    pub now: Micros,
}

/// Whether something that must be unique was created.
#[derive(Debug, Clone, PartialEq)]
pub enum Created<T> {
    /// It was.
    New(T),
    /// Somebody was there before; nothing was changed.
    Taken,
}

/// `Some` changes, `None` leaves. An inner `None` clears.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ProfileChange {
    pub full_name: Option<Option<String>>,
    pub display_name: Option<Option<String>>,
    pub avatar_url: Option<Option<String>>,
}

/// To open a session.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct NewSession {
    pub id: SessionId,
    pub user_id: UserId,
    /// SHA-256 of the refresh token, hex; the token itself is never stored.
    pub refresh_hash: String,
    pub refresh_expires_at: Micros,
    pub now: Micros,
}

/// To exchange a refresh token.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Rotation {
    pub old_hash: String,
    pub new_hash: String,
    pub new_expires_at: Micros,
    pub now: Micros,
}

/// What became of a rotation.
#[derive(Debug, Clone)]
pub enum Rotated {
    /// The new token is valid, the old one is used up.
    Ok {
        /// Whose session.
        user: User,
        /// Which session.
        session: SessionId,
    },
    /// The token had been used before: the session is revoked now.
    Reused {
        /// Which session.
        session: SessionId,
    },
    /// Unknown, expired, or of a revoked session.
    Invalid,
}

/// Which statement lines.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct StatementFilter {
    pub line_type: Option<LineType>,
    pub skip: u64,
    pub limit: u32,
}

/// A line of the statement a person sees.
#[derive(Debug, Clone, PartialEq)]
pub struct StatementLine {
    /// Unique.
    pub id: StatementLineId,
    /// Whose.
    pub user_id: UserId,
    /// The contract's `transaction_type`.
    pub line_type: LineType,
    /// Negative for spending.
    pub amount: Credits,
    /// Available balance after this line.
    pub balance_after: Credits,
    /// One sentence.
    pub description: String,
    /// What it was for.
    pub generation_id: Option<GenerationId>,
    /// Model id and the like; no secret.
    pub metadata: Map<String, Value>,
    /// When.
    pub created_at: Micros,
}

/// Sums over a user's statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreditStats {
    /// Now.
    pub available: Credits,
    /// Usage less refunds in the period, positive.
    pub spent: Credits,
    /// Purchases and bonuses in the period.
    pub purchased: Credits,
    /// Generations charged in the period.
    pub generation_count: u64,
    /// Lines in the period.
    pub transaction_count: u64,
}

/// To give credits to a user.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Grant {
    pub user_id: UserId,
    /// More than zero.
    pub amount: Credits,
    /// Shown to the user and kept for audit.
    pub reason: String,
    /// Who did it, for audit.
    pub actor: String,
    /// The same key gives once.
    pub idempotency_key: Option<String>,
    pub now: Micros,
}

/// A grant that is booked.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Available balance now.
    pub available: Credits,
    /// The key had been used before; nothing was given again.
    pub replayed: bool,
}

/// What `velro ledger verify` found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LedgerReport {
    /// Accounts looked at.
    pub accounts: u64,
    /// Transfers looked at.
    pub transfers: u64,
    /// Unsettled holds.
    pub open_holds: u64,
    /// Credits in unsettled holds.
    pub held: Credits,
    /// One sentence for every broken invariant; empty when the books are in order.
    pub faults: Vec<String>,
}

/// Who may see a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Visibility {
    Private,
    TeamOnly,
    Public,
}

impl Visibility {
    /// All of them, for filters and their error messages.
    pub const ALL: [Visibility; 3] = [Visibility::Private, Visibility::TeamOnly, Visibility::Public];

    /// The wire and database form.
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::TeamOnly => "team-only",
            Visibility::Public => "public",
        }
    }

    /// Parses the wire form.
    pub fn parse(text: &str) -> Option<Visibility> {
        Visibility::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

/// A project as stored, with its generations counted.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Project {
    pub id: ProjectId,
    pub user_id: UserId,
    pub name: String,
    pub description: Option<String>,
    pub visibility: Visibility,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub generation_count: u64,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// To create a project.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewProject {
    pub id: ProjectId,
    pub user_id: UserId,
    pub name: String,
    pub description: Option<String>,
    pub visibility: Visibility,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub now: Micros,
}

/// `Some` changes, `None` leaves.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ProjectChange {
    pub name: Option<String>,
    pub description: Option<String>,
    pub visibility: Option<Visibility>,
    pub tags: Option<Vec<String>>,
    pub metadata: Option<Map<String, Value>>,
}

/// Which projects. Without a visibility: the viewer's own. `Public`: everybody's public ones. Else the viewer's own
/// of that kind (contract §16, rulings 10 and 11).
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ProjectFilter {
    pub visibility: Option<Visibility>,
    pub skip: u64,
    pub limit: u32,
}

/// A submit's idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// As the client sent it, without quotes.
    pub key: String,
    /// SHA-256 of what was asked, hex.
    pub fingerprint: String,
}

/// To submit a generation: everything validated and priced already.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewGeneration {
    pub id: GenerationId,
    pub user_id: UserId,
    pub project_id: Option<ProjectId>,
    pub model_id: String,
    pub provider: String,
    pub media_type: MediaType,
    pub prompt: String,
    pub negative_prompt: Option<String>,
    pub reference_image_url: Option<String>,
    pub parameters: Map<String, Value>,
    pub dropped_parameters: Vec<String>,
    pub provider_model: String,
    pub provider_input: String,
    pub price: Credits,
    pub price_basis: PriceBasis,
    pub idempotency: Option<IdempotencyKey>,
    pub now: Micros,
}

/// What became of a submit.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// Stored, held, visible.
    New {
        /// As stored.
        generation: Box<Generation>,
        /// The `queued` event.
        event: Event,
        /// Available balance after the hold.
        available: Credits,
    },
    /// The idempotency key had been used for the same request.
    Replayed(Box<Generation>),
    /// The idempotency key had been used for another request; nothing was changed.
    KeyReused,
    /// Not enough credits; nothing was changed.
    Insufficient {
        /// What it costs.
        required: Credits,
        /// What there is.
        available: Credits,
    },
    /// The project is not the user's; nothing was changed.
    NoSuchProject,
    /// The user does not exist (any more); nothing was changed.
    NoSuchUser,
}

/// Which generations.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct GenerationFilter {
    pub project_id: Option<ProjectId>,
    pub status: Option<Status>,
    pub skip: u64,
    pub limit: u32,
}

/// Counts over a user's generations.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct GenerationStats {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Queued and processing.
    pub unfinished: u64,
    pub favorites: u64,
    /// Captured credits.
    pub captured: Credits,
    pub by_media_type: BTreeMap<String, u64>,
    pub by_model: BTreeMap<String, u64>,
}

/// What became of a delete.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// Gone from every list; these storage keys can be removed.
    Done(Vec<StoredOutput>),
    /// It still runs; cancel it first.
    Unfinished(Status),
    /// There is none.
    Missing,
}

/// What became of a cancel.
#[derive(Debug, Clone)]
pub enum Cancelled {
    /// Cancelled and released now; `events` to publish.
    Now {
        /// As stored.
        generation: Box<Generation>,
        /// The `cancelled` event.
        events: Vec<Event>,
    },
    /// The provider has it; the worker will ask it to stop.
    Requested {
        /// As stored.
        generation: Box<Generation>,
        /// The attempt to wake.
        attempt: AttemptId,
    },
    /// It was terminal before.
    Already(Box<Generation>),
}

/// Counts for the operator.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SystemCounts {
    /// Generations by status.
    pub by_status: BTreeMap<String, u64>,
    /// Attempts whose outcome is not known.
    pub unknown_attempts: u64,
    /// Credits in unsettled holds.
    pub held: Credits,
    /// When the oldest queued generation was submitted.
    pub oldest_queued_at: Option<Micros>,
}

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

/// To resolve an `unknown` attempt.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Resolve {
    pub generation_id: GenerationId,
    pub resolution: Resolution,
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
    /// Its newest attempt is not `unknown`; nothing was changed.
    NotUnknown(Option<AttemptState>),
    /// There is none.
    Missing,
}
