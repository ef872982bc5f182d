//! `/api/v1/operator/codes`: redeem codes.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::Reason;
use super::view::{CodeView, UseView};
use crate::clock;
use crate::desk::code;
use crate::http::Caller;
use crate::http::input::{Faults, json, path_id, services};
use crate::http::operator::{by, check_reason, page};
use crate::http::problem::{Code, Problem, Result};
use crate::id::RedeemCodeId;
use crate::ledger::Credits;
use crate::store::{Created, NewCode};

/// Most credits of one use.
const MOST_CREDITS: i64 = 1_000_000_000;

/// Most uses of a code.
const MOST_USES: u32 = 1_000_000;

/// Longest life of a code, in seconds: ten years.
const LONGEST_LIFE: u64 = 3650 * 86_400;

/// Routes below `/api/v1/operator/codes`.
pub(super) fn router() -> Router {
    Router::new().get(list_codes).post(create_code).push(
        Router::with_path("{code_id}")
            .get(show_code)
            .push(Router::with_path("disable").post(disable_code)),
    )
}

/// A code to make.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "NewRedeemCode"))]
struct NewBody {
    /// What one use gives.
    #[salvo(schema(minimum = 1, maximum = 1000000000))]
    credits: i64,
    /// How often it can be used in all; 1 by default.
    #[serde(default = "once")]
    #[salvo(schema(minimum = 1, maximum = 1000000))]
    max_uses: u32,
    /// How often one person may use it; 1 by default.
    #[serde(default = "once")]
    #[salvo(schema(minimum = 1, maximum = 1000000))]
    per_user_limit: u32,
    /// How long it is good for; for ever by default.
    #[serde(default)]
    #[salvo(schema(minimum = 1, maximum = 315360000))]
    expires_in_seconds: Option<u64>,
    /// A code of your own: 8 to 64 letters and digits; spaces and hyphens do not count. A random one by default.
    #[serde(default)]
    #[salvo(schema(max_length = 200))]
    code: Option<String>,
    /// What it is for; for the audit log too.
    #[salvo(schema(min_length = 1, max_length = 500))]
    note: String,
}

fn once() -> u32 {
    1
}

/// A code that was made, with the code itself: it is not shown again.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CreatedRedeemCode"))]
struct Made {
    /// As people type it.
    code: String,
    details: CodeView,
}

/// Make a redeem code
///
/// For operators. The code is in this answer and nowhere else: only its hash is stored.
#[endpoint(
    tags("operator"),
    request_body = NewBody,
    status_codes(200, 400, 401, 403, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn create_code(req: &mut Request, depot: &mut Depot) -> Result<Json<Made>> {
    let services = services(depot)?;
    let body: NewBody = json(req, services.config.max_body_bytes).await?;
    let mut faults = Faults::default();
    let rule = format!("must be between 1 and {MOST_CREDITS}");
    let fits = (1..=MOST_CREDITS).contains(&body.credits);
    faults.unless(fits, &["body", "credits"], rule, "range");
    for (name, uses) in [("max_uses", body.max_uses), ("per_user_limit", body.per_user_limit)] {
        let rule = format!("must be between 1 and {MOST_USES}");
        faults.unless((1..=MOST_USES).contains(&uses), &["body", name], rule, "range");
    }
    let life = body.expires_in_seconds;
    faults.unless(
        life.is_none_or(|seconds| (1..=LONGEST_LIFE).contains(&seconds)),
        &["body", "expires_in_seconds"],
        format!("must be between 1 and {LONGEST_LIFE}"),
        "range",
    );
    let chosen = body.code.as_deref().map(code::chosen);
    faults.unless(
        !matches!(chosen, Some(None)),
        &["body", "code"],
        code::CHOSEN_RULE,
        "code",
    );
    check_reason(&mut faults, &body.note, "note");
    faults.finish()?;
    let fresh = match chosen.flatten() {
        Some(chosen) => chosen,
        None => code::generated().map_err(Problem::internal)?,
    };
    let by = by(Caller::of(depot)?, &body.note);
    let new = NewCode {
        id: RedeemCodeId::new(),
        hash: fresh.hash,
        hint: fresh.hint,
        credits: Credits(body.credits),
        max_uses: body.max_uses,
        per_user_limit: body.per_user_limit,
        note: by.reason.clone(),
        expires_at: life.map(|seconds| clock::now().plus(Duration::from_secs(seconds))),
        by,
    };
    match services.store.create_code(new).await? {
        Created::New(stored) => Ok(Json(Made {
            code: fresh.text,
            details: (&stored).into(),
        })),
        Created::Taken => Err(Problem::new(
            Code::Conflict,
            "There is such a code already; nothing was made",
        )),
    }
}

/// A part of the list of codes.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "RedeemCodes"))]
struct Codes {
    items: Vec<CodeView>,
    /// `null` at the end.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
}

/// Redeem codes
///
/// For operators. Newest first.
#[endpoint(
    tags("operator"),
    parameters(
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the answer before."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 50 by default."),
    ),
    status_codes(200, 401, 403, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn list_codes(req: &mut Request, depot: &mut Depot) -> Result<Json<Codes>> {
    let (_, after, limit) = page(req)?;
    let found = services(depot)?.store.codes(after, limit).await?;
    let last = found.items.last().filter(|_| found.more);
    Ok(Json(Codes {
        next_cursor: last.map(|code| code.id.to_string()),
        items: found.items.iter().map(Into::into).collect(),
    }))
}

/// A code with its newest uses.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "RedeemCodeFile"))]
struct CodeFile {
    details: CodeView,
    redemptions: Vec<UseView>,
}

/// A redeem code and who used it
///
/// For operators.
#[endpoint(
    tags("operator"),
    parameters(("code_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 403, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn show_code(req: &mut Request, depot: &mut Depot) -> Result<Json<CodeFile>> {
    let id: RedeemCodeId = path_id(req, "code_id")?;
    let found = services(depot)?.store.code(id).await?;
    let (code, uses) = found.ok_or_else(no_such_code)?;
    Ok(Json(CodeFile {
        details: (&code).into(),
        redemptions: uses.iter().map(Into::into).collect(),
    }))
}

fn no_such_code() -> Problem {
    Problem::not_found("Code")
}

/// End a redeem code
///
/// For operators. What it has given stays.
#[endpoint(
    tags("operator"),
    parameters(("code_id" = String, Path, format = "uuid")),
    request_body = Reason,
    status_codes(200, 400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn disable_code(req: &mut Request, depot: &mut Depot) -> Result<Json<CodeView>> {
    let services = services(depot)?;
    let id: RedeemCodeId = path_id(req, "code_id")?;
    let body: Reason = json(req, services.config.max_body_bytes).await?;
    body.check()?;
    let by = by(Caller::of(depot)?, &body.reason);
    let done = services.store.disable_code(id, by).await?;
    let (code, _) = done.ok_or_else(no_such_code)?;
    Ok(Json((&code).into()))
}
