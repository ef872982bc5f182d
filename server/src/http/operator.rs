//! The guard of everything that concerns the whole installation, and who acts behind it.

use salvo::{Depot, FlowCtrl, Request, Response, handler};
use std::str::FromStr;

use super::caller::Caller;
use super::input::{Faults, Query, services};
use super::problem::{Code, Problem, Result};
use super::routes::person::gone;
use crate::clock;
use crate::store::{By, Role};

/// Longest reason, in characters.
const REASON_MAX_CHARS: usize = 500;

/// Longest cursor that is looked at, in characters.
const CURSOR_MAX_CHARS: usize = 100;

/// Lets operators pass; 403 for all others. The role is read from the store, so that a promotion, its end and a suspension
/// count at once. Comes after the authentication hoop; every route of the desk is behind this one place.
#[handler]
pub async fn operator(depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
    match admit(depot).await {
        Ok(()) => {}
        Err(problem) => {
            res.render(problem);
            ctrl.skip_rest();
        }
    }
}

async fn admit(depot: &Depot) -> Result<()> {
    let caller = Caller::of(depot)?;
    let user = services(depot)?.store.user(caller.user_id).await?.ok_or_else(gone)?;
    if user.deleted_at.is_some() {
        return Err(gone());
    }
    match user.role {
        Role::Operator if user.suspended_at.is_none() => Ok(()),
        _ => Err(Problem::new(Code::Forbidden, "This is for operators only")),
    }
}

/// Who acts and why. The reason has been checked by [`check_reason`].
pub fn by(caller: &Caller, reason: &str) -> By {
    By {
        actor: format!("operator {}", caller.user_id),
        reason: reason.trim().to_owned(),
        now: clock::now(),
    }
}

/// Every action of an operator has a reason.
pub fn check_reason(faults: &mut Faults, reason: &str, name: &str) {
    let loc = ["body", name];
    faults.unless(
        !reason.trim().is_empty(),
        &loc,
        "must say why, for the audit log",
        "missing",
    );
    faults.text(reason, &loc, REASON_MAX_CHARS, false);
}

/// `cursor` and `limit` of a list: at most 100 items at once, 50 by default.
pub fn page<T: FromStr>(req: &Request) -> Result<(Query, Option<T>, u32)> {
    let query = Query::of(req);
    let limit = query.integer("limit", 50, 1, 100)?.unsigned_abs();
    let parse = |text: &str| text.parse().ok().filter(|_| text.len() <= CURSOR_MAX_CHARS);
    let cursor = query.parsed("cursor", "must be the next_cursor of an answer before", parse)?;
    Ok((query, cursor, u32::try_from(limit).unwrap_or(50)))
}
