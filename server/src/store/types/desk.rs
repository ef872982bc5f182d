//! The operator's desk: people, corrections, refunds, what needs a hand, the audit.

use serde_json::Value;

use crate::clock::Micros;
use crate::generation::{Attempt, Event, Generation, Status};
use crate::id::{GenerationId, UserId};
use crate::ledger::{Balance, Credits};
use crate::pause::{Mode, Scope};

use super::{Role, User};

/// Who does something, and why; kept in the audit.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct By {
    pub actor: String,
    pub reason: String,
    pub now: Micros,
}

/// A part of a list that is read from a cursor on.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The part asked for.
    pub items: Vec<T>,
    /// There is more behind the last one.
    pub more: bool,
}

impl<T> Listed<T> {
    /// Of `items`, one more than `limit` when there is more.
    pub(crate) fn of(mut items: Vec<T>, limit: u32) -> Listed<T> {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        Listed { items, more }
    }

    /// The same of something else.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Listed<U> {
        Listed {
            items: self.items.into_iter().map(change).collect(),
            more: self.more,
        }
    }
}

// ---- people

/// Which people; newest first.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// A part of the e-mail address, in lower case.
    pub email: Option<String>,
    /// Only these.
    pub role: Option<Role>,
    /// Only those that are suspended, or are not.
    pub suspended: Option<bool>,
    /// Only those behind this one.
    pub after: Option<UserId>,
    /// How many.
    pub limit: u32,
}

/// A person with what is in the account.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Person {
    pub user: User,
    pub balance: Balance,
}

/// What an operator makes of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserChange {
    /// Gives a role.
    Role(Role),
    /// Lets them look and spend nothing.
    Suspend,
    /// Takes that back.
    Unsuspend,
}

/// To change a person.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ChangeUser {
    pub user_id: UserId,
    pub change: UserChange,
    pub by: By,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum UserChanged {
    /// As stored; `changed` is false when it was so before.
    #[allow(missing_docs)]
    Done { user: Box<User>, changed: bool },
    /// Nobody would be left who may operate; nothing was changed.
    LastOperator,
    /// There is no such person (any more).
    Missing,
}

// ---- money

/// Whether credits are given, or a grant is set right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorrectionKind {
    /// A present; more than zero.
    Grant,
    /// In either direction, but not zero.
    Correction,
}

/// To change what is in an account.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Correct {
    pub user_id: UserId,
    pub kind: CorrectionKind,
    pub amount: Credits,
    /// The reason is shown to the user too.
    pub by: By,
    /// The same key moves credits once.
    pub idempotency_key: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corrected {
    /// Booked, or (`replayed`) booked before with this key; what can be spent now.
    #[allow(missing_docs)]
    Done { available: Credits, replayed: bool },
    /// There is less to take; nothing was changed.
    #[allow(missing_docs)]
    TooMuch { available: Credits },
    /// The key belongs to another movement; nothing was changed.
    KeyReused,
    /// There is no such account.
    Missing,
}

/// To give back what was charged for a generation.
#[derive(Debug, Clone)]
pub struct Refund {
    /// Which one.
    pub generation_id: GenerationId,
    /// More than zero; `None`: all that was charged and has not been given back yet.
    pub amount: Option<Credits>,
    /// Who and why.
    pub by: By,
    /// The same key gives back once, for this generation.
    pub idempotency_key: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Refunded {
    /// Booked, or (`replayed`) booked before with this key.
    #[allow(missing_docs)]
    Done {
        generation: Box<Generation>,
        amount: Credits,
        available: Credits,
        replayed: bool,
    },
    /// Everything that was charged has been given back before; nothing was changed.
    NothingLeft(Box<Generation>),
    /// More than is left of what was charged; nothing was changed.
    #[allow(missing_docs)]
    TooMuch { left: Credits },
    /// The key belongs to another amount; nothing was changed.
    KeyReused,
    /// Nothing was charged for it, because it has not ended or ended without a delivery.
    NotCharged(Status),
    /// There is none.
    Missing,
}

// ---- generations

/// Which generations of all users; newest first.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct CaseFilter {
    pub user_id: Option<UserId>,
    pub status: Option<Status>,
    pub provider: Option<String>,
    pub model_id: Option<String>,
    /// Only those behind this one.
    pub after: Option<GenerationId>,
    pub limit: u32,
}

/// A generation as the operator sees it.
#[derive(Debug, Clone)]
pub struct Case {
    /// With what was given back of its charge.
    pub generation: Generation,
    /// Whose it is.
    pub email: String,
    /// The newest one.
    pub attempt: Option<Attempt>,
}

/// An attempt with what only the operator is told.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AttemptNote {
    pub attempt: Attempt,
    /// The worker that holds it.
    pub lease_owner: Option<String>,
    /// Why it ended.
    pub detail: Option<String>,
    pub updated_at: Micros,
}

/// All that is known of a generation.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct CaseFile {
    pub case: Case,
    /// Oldest first.
    pub attempts: Vec<AttemptNote>,
    /// What the operators did with it, oldest first.
    pub audit: Vec<AuditEntry>,
    pub events: Vec<Event>,
}

/// What may be wrong with a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Its newest attempt is `unknown`.
    Unknown,
    /// Charged, not given back in full, whether its files are there or not: that only the storage knows.
    Charged,
    /// The same, and no file is recorded.
    ChargedWithoutRecord,
    /// Not ended, submitted before this moment, and not `unknown`.
    OpenSince(Micros),
}

// ---- audit

/// What an operator did.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct AuditEntry {
    /// Grows.
    pub seq: i64,
    pub actor: String,
    /// `user.role`, `credits.correct` and so on.
    pub action: String,
    /// An id, or the scope of a pause.
    pub subject: String,
    pub reason: String,
    /// `before` and `after`, and what else belongs to it.
    pub details: Value,
    pub created_at: Micros,
}

/// Which entries; newest first.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct AuditFilter {
    pub actor: Option<String>,
    pub subject: Option<String>,
    pub action: Option<String>,
    /// From this moment on.
    pub since: Option<Micros>,
    /// Before this moment.
    pub until: Option<Micros>,
    /// Only those behind this one.
    pub after: Option<i64>,
    pub limit: u32,
}

// ---- pauses

/// To stop something, or let it run again.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct SetPause {
    pub scope: Scope,
    pub mode: Mode,
    pub by: By,
}
