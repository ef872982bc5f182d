//! The public JSON of the operator's desk.

use salvo::oapi::ToSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::generation::Attempt;
use crate::pause;
use crate::store::{self, AttemptNote, Case, Person, StatementLine};

fn text(time: Option<Micros>) -> Option<String> {
    time.map(Micros::rfc3339)
}

/// A person with the account, as operators see them.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorUser"))]
pub(super) struct UserView {
    #[salvo(schema(format = "uuid"))]
    id: String,
    email: String,
    #[salvo(schema(required = true))]
    full_name: Option<String>,
    /// `user` or `operator`.
    role: &'static str,
    plan: String,
    /// What can be spent.
    available: i64,
    /// Set aside for generations that run.
    held: i64,
    /// What a reversed purchase has left unpaid.
    debt: i64,
    /// Since when they may look and spend nothing.
    #[salvo(schema(required = true, format = "date-time"))]
    suspended_at: Option<String>,
    #[salvo(schema(required = true))]
    suspended_reason: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    deleted_at: Option<String>,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(required = true, format = "date-time"))]
    last_sign_in_at: Option<String>,
}

impl From<&Person> for UserView {
    fn from(person: &Person) -> Self {
        let (user, balance) = (&person.user, &person.balance);
        UserView {
            id: user.id.to_string(),
            email: user.email.clone(),
            full_name: user.full_name.clone(),
            role: user.role.as_str(),
            plan: user.plan.clone(),
            available: balance.available().0,
            held: balance.held.0,
            debt: balance.debt.0,
            suspended_at: text(user.suspended_at),
            suspended_reason: user.suspended_reason.clone(),
            deleted_at: text(user.deleted_at),
            created_at: user.created_at.rfc3339(),
            last_sign_in_at: text(user.last_sign_in_at),
        }
    }
}

/// A line of somebody's statement.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorTransaction"))]
pub(super) struct LineView {
    #[salvo(schema(format = "uuid"))]
    id: String,
    /// `purchase`, `usage`, `refund` or `bonus`.
    transaction_type: &'static str,
    amount: i64,
    balance_after: i64,
    description: String,
    #[salvo(schema(required = true, format = "uuid"))]
    generation_id: Option<String>,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
}

impl From<&StatementLine> for LineView {
    fn from(line: &StatementLine) -> Self {
        LineView {
            id: line.id.to_string(),
            transaction_type: line.line_type.as_str(),
            amount: line.amount.0,
            balance_after: line.balance_after.0,
            description: line.description.clone(),
            generation_id: line.generation_id.map(|id| id.to_string()),
            created_at: line.created_at.rfc3339(),
        }
    }
}

/// An attempt at a provider.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorAttempt"))]
pub(super) struct AttemptView {
    #[salvo(schema(format = "uuid"))]
    id: String,
    ordinal: u32,
    provider: String,
    /// `prepared`, `sending`, `accepted`, `finished`, `rejected` or `unknown`.
    state: &'static str,
    /// The provider's own id of the job.
    #[salvo(schema(required = true))]
    remote_id: Option<String>,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    due_at: String,
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        AttemptView {
            id: attempt.id.to_string(),
            ordinal: attempt.ordinal,
            provider: attempt.provider.clone(),
            state: attempt.state.as_str(),
            remote_id: attempt.remote_id.clone(),
            created_at: attempt.created_at.rfc3339(),
            due_at: attempt.due_at.rfc3339(),
        }
    }
}

/// An attempt with what only operators are told.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorAttemptNote"))]
pub(super) struct NoteView {
    attempt: AttemptView,
    /// The worker that holds it.
    #[salvo(schema(required = true))]
    lease_owner: Option<String>,
    /// Why it ended.
    #[salvo(schema(required = true))]
    detail: Option<String>,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
}

impl From<&AttemptNote> for NoteView {
    fn from(note: &AttemptNote) -> Self {
        NoteView {
            attempt: (&note.attempt).into(),
            lease_owner: note.lease_owner.clone(),
            detail: note.detail.clone(),
            updated_at: note.updated_at.rfc3339(),
        }
    }
}

/// A generation of anybody, as operators see it.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorGeneration"))]
pub(super) struct CaseView {
    #[salvo(schema(format = "uuid"))]
    id: String,
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    email: String,
    model_id: String,
    provider: String,
    /// `queued`, `processing`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    /// What was held for it.
    price: i64,
    /// What was charged in the end; `null` until it has ended.
    #[salvo(schema(required = true))]
    captured: Option<i64>,
    /// What was given back of that since.
    refunded: i64,
    #[salvo(schema(required = true))]
    error_code: Option<String>,
    #[salvo(schema(required = true))]
    error_message: Option<String>,
    /// Recorded files.
    files: usize,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(required = true, format = "date-time"))]
    started_at: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    completed_at: Option<String>,
    /// The newest one.
    #[salvo(schema(required = true))]
    attempt: Option<AttemptView>,
}

impl From<&Case> for CaseView {
    fn from(case: &Case) -> Self {
        let generation = &case.generation;
        let error = generation.error.as_ref();
        CaseView {
            id: generation.id.to_string(),
            user_id: generation.user_id.to_string(),
            email: case.email.clone(),
            model_id: generation.model_id.clone(),
            provider: generation.provider.clone(),
            status: generation.status.as_str(),
            price: generation.price.0,
            captured: generation.captured.map(|c| c.0),
            refunded: generation.refunded.0,
            error_code: error.map(|e| e.code.clone()),
            error_message: error.map(|e| e.message.clone()),
            files: generation.outputs.len(),
            created_at: generation.created_at.rfc3339(),
            started_at: text(generation.started_at),
            completed_at: text(generation.completed_at),
            attempt: case.attempt.as_ref().map(Into::into),
        }
    }
}

/// What an operator did.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "AuditEntry"))]
pub(super) struct AuditView {
    /// Grows.
    seq: i64,
    /// `operator USER_ID`, or `cli:NAME` for the command line.
    actor: String,
    action: String,
    /// An id, `queue` or `provider:NAME`.
    subject: String,
    reason: String,
    /// `before` and `after`, and what else belongs to it.
    #[salvo(schema(value_type = Object))]
    details: Map<String, Value>,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
}

impl From<&store::AuditEntry> for AuditView {
    fn from(entry: &store::AuditEntry) -> Self {
        AuditView {
            seq: entry.seq,
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            subject: entry.subject.clone(),
            reason: entry.reason.clone(),
            details: entry.details.as_object().cloned().unwrap_or_default(),
            created_at: entry.created_at.rfc3339(),
        }
    }
}

/// A redeem code; the code itself is shown once, when it is made.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "RedeemCode"))]
pub(super) struct CodeView {
    #[salvo(schema(format = "uuid"))]
    pub(super) id: String,
    /// Its first characters.
    hint: String,
    /// What one use gives.
    credits: i64,
    max_uses: u32,
    uses: u32,
    per_user_limit: u32,
    note: String,
    created_by: String,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(required = true, format = "date-time"))]
    expires_at: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    disabled_at: Option<String>,
}

impl From<&store::RedeemCode> for CodeView {
    fn from(code: &store::RedeemCode) -> Self {
        CodeView {
            id: code.id.to_string(),
            hint: code.hint.clone(),
            credits: code.credits.0,
            max_uses: code.max_uses,
            uses: code.uses,
            per_user_limit: code.per_user_limit,
            note: code.note.clone(),
            created_by: code.created_by.clone(),
            created_at: code.created_at.rfc3339(),
            expires_at: text(code.expires_at),
            disabled_at: text(code.disabled_at),
        }
    }
}

/// A use of a code.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Redemption"))]
pub(super) struct UseView {
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    email: String,
    /// The first, second ... time of this user.
    ordinal: u32,
    credits: i64,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
}

impl From<&store::Redemption> for UseView {
    fn from(redemption: &store::Redemption) -> Self {
        UseView {
            user_id: redemption.user_id.to_string(),
            email: redemption.email.clone(),
            ordinal: redemption.ordinal,
            credits: redemption.credits.0,
            created_at: redemption.created_at.rfc3339(),
        }
    }
}

/// What an operator has stopped.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Pause"))]
pub(super) struct PauseView {
    /// `queue` or `provider:NAME`.
    scope: String,
    /// `running`, `paused` (nothing begins) or `draining` (nothing new is taken).
    mode: &'static str,
    reason: String,
    actor: String,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
}

impl From<&pause::Pause> for PauseView {
    fn from(pause: &pause::Pause) -> Self {
        PauseView {
            scope: pause.scope.to_string(),
            mode: pause.mode.as_str(),
            reason: pause.reason.clone(),
            actor: pause.actor.clone(),
            created_at: pause.created_at.rfc3339(),
        }
    }
}
