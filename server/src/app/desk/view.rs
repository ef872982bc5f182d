//! The JSON of `--json`: stable keys, times as RFC 3339.

use serde_json::{Value, json};

use crate::clock::Micros;
use crate::generation::Attempt;
use crate::ledger::Balance;
use crate::pause::Pause;
use crate::store::{AuditEntry, Case, Person, RedeemCode, Redemption, StatementLine};

fn time(time: Option<Micros>) -> Value {
    json!(time.map(Micros::rfc3339))
}

/// A part of a list.
pub(super) fn list(items: Vec<Value>, next_cursor: Option<String>) -> Value {
    json!({"items": items, "next_cursor": next_cursor})
}

pub(super) fn balance(balance: &Balance) -> Value {
    json!({"available": balance.available(), "held": balance.held, "debt": balance.debt})
}

pub(super) fn person(person: &Person) -> Value {
    let user = &person.user;
    json!({
        "id": user.id, "email": user.email, "full_name": user.full_name, "role": user.role.as_str(), "plan": user.plan,
        "suspended_at": time(user.suspended_at), "suspended_reason": user.suspended_reason,
        "deleted_at": time(user.deleted_at), "created_at": user.created_at.rfc3339(),
        "last_sign_in_at": time(user.last_sign_in_at), "balance": balance(&person.balance),
    })
}

pub(super) fn line(line: &StatementLine) -> Value {
    json!({
        "id": line.id, "transaction_type": line.line_type.as_str(), "amount": line.amount,
        "balance_after": line.balance_after, "description": line.description, "generation_id": line.generation_id,
        "created_at": line.created_at.rfc3339(),
    })
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "id": attempt.id, "ordinal": attempt.ordinal, "provider": attempt.provider, "state": attempt.state.as_str(),
        "remote_id": attempt.remote_id, "steps": attempt.steps, "created_at": attempt.created_at.rfc3339(),
        "due_at": attempt.due_at.rfc3339(), "deadline_at": attempt.deadline_at.rfc3339(),
    })
}

pub(super) fn case(case: &Case) -> Value {
    let generation = &case.generation;
    let error = generation.error.as_ref();
    let outputs = generation.outputs.iter();
    json!({
        "id": generation.id, "user_id": generation.user_id, "email": case.email, "model_id": generation.model_id,
        "provider": generation.provider, "media_type": generation.media_type.as_str(),
        "status": generation.status.as_str(), "price": generation.price, "captured": generation.captured,
        "refunded": generation.refunded, "cancel_requested": generation.cancel_requested,
        "error": error.map(|e| json!({"code": e.code, "message": e.message})),
        "outputs": outputs.map(|o| json!({"key": o.key, "content_type": o.content_type, "bytes": o.bytes}))
            .collect::<Vec<_>>(),
        "created_at": generation.created_at.rfc3339(), "started_at": time(generation.started_at),
        "completed_at": time(generation.completed_at), "attempt": case.attempt.as_ref().map(attempt),
    })
}

pub(super) fn note(note: &crate::store::AttemptNote) -> Value {
    let mut value = attempt(&note.attempt);
    value["lease_owner"] = json!(note.lease_owner);
    value["detail"] = json!(note.detail);
    value["updated_at"] = json!(note.updated_at.rfc3339());
    value
}

pub(super) fn entry(entry: &AuditEntry) -> Value {
    json!({
        "seq": entry.seq, "actor": entry.actor, "action": entry.action, "subject": entry.subject, "reason": entry.reason,
        "details": entry.details, "created_at": entry.created_at.rfc3339(),
    })
}

pub(super) fn code(code: &RedeemCode) -> Value {
    json!({
        "id": code.id, "hint": code.hint, "credits": code.credits, "max_uses": code.max_uses, "uses": code.uses,
        "per_user_limit": code.per_user_limit, "note": code.note, "created_by": code.created_by,
        "created_at": code.created_at.rfc3339(), "expires_at": time(code.expires_at),
        "disabled_at": time(code.disabled_at),
    })
}

pub(super) fn redemption(use_of: &Redemption) -> Value {
    json!({
        "user_id": use_of.user_id, "email": use_of.email, "ordinal": use_of.ordinal, "credits": use_of.credits,
        "created_at": use_of.created_at.rfc3339(),
    })
}

pub(super) fn pause(pause: &Pause) -> Value {
    json!({
        "scope": pause.scope.to_string(), "mode": pause.mode.as_str(), "reason": pause.reason, "actor": pause.actor,
        "created_at": pause.created_at.rfc3339(),
    })
}
