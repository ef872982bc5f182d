//! `/api/v1/operator/users/{user_id}/credits`: give credits, set a grant right.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};

use super::users::no_such_user;
use crate::http::Caller;
use crate::http::input::{Faults, json, path_id, services};
use crate::http::operator::{by, check_reason};
use crate::http::problem::{Code, Problem, Result};
use crate::http::routes::call::key_of;
use crate::id::UserId;
use crate::ledger::Credits;
use crate::store::{Correct, Corrected, CorrectionKind};

/// Most credits that are moved at once.
const MOST: i64 = 1_000_000_000;

/// Routes below `/api/v1/operator/users`.
pub(super) fn router() -> Router {
    Router::with_path("{user_id}/credits")
        .push(Router::with_path("grant").post(grant_credits))
        .push(Router::with_path("correct").post(correct_credits))
}

/// Credits to give.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "OperatorGrant"))]
struct GrantBody {
    /// How many.
    #[salvo(schema(minimum = 1, maximum = 1000000000))]
    amount: i64,
    /// Shown to the person, and for the audit log.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

/// A correction.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "OperatorCorrection"))]
struct CorrectBody {
    /// How many more, or below zero: how many fewer.
    #[salvo(schema(minimum = -1000000000, maximum = 1000000000))]
    amount: i64,
    /// Shown to the person, and for the audit log.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

/// Credits that were moved.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorBooking"))]
struct Booked {
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    amount: i64,
    /// What can be spent now.
    available: i64,
    /// The same request was carried out before; nothing was moved again.
    replayed: bool,
}

/// Give credits
///
/// For operators. The person sees a bonus with the reason. A repeated request with the same `Idempotency-Key` gives once.
#[endpoint(
    tags("operator"),
    parameters(
        ("user_id" = String, Path, format = "uuid"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated request harmless."),
    ),
    request_body = GrantBody,
    status_codes(200, 400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn grant_credits(req: &mut Request, depot: &mut Depot) -> Result<Json<Booked>> {
    let id: UserId = path_id(req, "user_id")?;
    let body: GrantBody = json(req, services(depot)?.config.max_body_bytes).await?;
    let mut faults = Faults::default();
    let rule = format!("must be between 1 and {MOST}");
    faults.unless((1..=MOST).contains(&body.amount), &["body", "amount"], rule, "range");
    check_reason(&mut faults, &body.reason, "reason");
    faults.finish()?;
    book(req, depot, id, CorrectionKind::Grant, body.amount, &body.reason).await
}

/// Set a grant right
///
/// For operators. In either direction, and never more than the person can spend (409). A repeated request with the same
/// `Idempotency-Key` moves credits once.
#[endpoint(
    tags("operator"),
    parameters(
        ("user_id" = String, Path, format = "uuid"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated request harmless."),
    ),
    request_body = CorrectBody,
    status_codes(200, 400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn correct_credits(req: &mut Request, depot: &mut Depot) -> Result<Json<Booked>> {
    let id: UserId = path_id(req, "user_id")?;
    let body: CorrectBody = json(req, services(depot)?.config.max_body_bytes).await?;
    let mut faults = Faults::default();
    let rule = format!("must be between -{MOST} and {MOST}, and not 0");
    let fits = (-MOST..=MOST).contains(&body.amount) && body.amount != 0;
    faults.unless(fits, &["body", "amount"], rule, "range");
    check_reason(&mut faults, &body.reason, "reason");
    faults.finish()?;
    book(req, depot, id, CorrectionKind::Correction, body.amount, &body.reason).await
}

async fn book(
    req: &Request,
    depot: &Depot,
    user_id: UserId,
    kind: CorrectionKind,
    amount: i64,
    reason: &str,
) -> Result<Json<Booked>> {
    let caller = Caller::of(depot)?;
    // A key of this operator's own: what the books use as keys cannot be met by chance or by intent.
    let key = key_of(req)?.map(|key| format!("operator:{}:{key}", caller.user_id));
    let correct = Correct {
        user_id,
        kind,
        amount: Credits(amount),
        by: by(caller, reason),
        idempotency_key: key,
    };
    match services(depot)?.store.correct(correct).await? {
        Corrected::Done { available, replayed } => Ok(Json(Booked {
            user_id: user_id.to_string(),
            amount,
            available: available.0,
            replayed,
        })),
        Corrected::TooMuch { available } => Err(Problem::new(
            Code::Conflict,
            format!("The account has {available} credits to spend; nothing was taken"),
        )),
        Corrected::KeyReused => Err(key_reused()),
        Corrected::Missing => Err(no_such_user()),
    }
}

pub(super) fn key_reused() -> Problem {
    Problem::new(
        Code::IdempotencyKeyReused,
        "This Idempotency-Key was used for another request; send a new key for a new request",
    )
}
