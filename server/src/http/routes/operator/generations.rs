//! `/api/v1/operator/generations`: of all users; give back what was charged, settle what is open.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};

use super::credits::key_reused;
use super::view::{AuditView, CaseView, NoteView};
use crate::desk::{self, Undelivered};
use crate::generation::{Generation, Status, StoredOutput};
use crate::http::input::{Faults, json, path_id, services};
use crate::http::operator::{by, check_reason, page};
use crate::http::problem::{Code, FieldError, Problem, Result};
use crate::http::routes::call::key_of;
use crate::http::{Caller, Services};
use crate::id::{GenerationId, UserId};
use crate::ledger::Credits;
use crate::store::{CaseFilter, Refund, Refunded, Resolution, Resolve, Resolved};

/// Most files that are fetched for one generation.
const MOST_FILES: usize = 32;

/// Most credits that are given back at once.
const MOST: i64 = 1_000_000_000;

/// Routes below `/api/v1/operator/generations`.
pub(super) fn router() -> Router {
    Router::new().get(operator_generations).push(
        Router::with_path("{generation_id}")
            .get(operator_generation)
            .push(Router::with_path("refund").post(refund_generation))
            .push(Router::with_path("resolve").post(resolve_generation)),
    )
}

/// A part of the list of generations.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorGenerations"))]
struct Cases {
    items: Vec<CaseView>,
    /// `null` at the end.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
}

/// Generations of all users
///
/// For operators. Newest first.
#[endpoint(
    tags("operator"),
    parameters(
        ("user_id" = Option<String>, Query, format = "uuid", description = "Only those of this person."),
        ("status" = Option<String>, Query, description = "`queued`, `processing`, `completed`, `failed` or `cancelled`."),
        ("provider" = Option<String>, Query, description = "Only those at this provider."),
        ("model_id" = Option<String>, Query, description = "Only those of this model."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the answer before."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 50 by default."),
    ),
    status_codes(200, 401, 403, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_generations(req: &mut Request, depot: &mut Depot) -> Result<Json<Cases>> {
    let (query, after, limit) = page(req)?;
    let rule = "must be queued, processing, completed, failed or cancelled";
    let filter = CaseFilter {
        user_id: query.parsed("user_id", "must be a UUID", |text| text.parse::<UserId>().ok())?,
        status: query.parsed("status", rule, Status::parse)?,
        provider: query.text("provider").map(str::to_owned),
        model_id: query.text("model_id").map(str::to_owned),
        after,
        limit,
    };
    let found = services(depot)?.store.cases(filter).await?;
    let last = found.items.last().filter(|_| found.more);
    Ok(Json(Cases {
        next_cursor: last.map(|case| case.generation.id.to_string()),
        items: found.items.iter().map(Into::into).collect(),
    }))
}

/// All that is known of a generation.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorGenerationFile"))]
struct CaseFileView {
    generation: CaseView,
    prompt: String,
    /// Oldest first.
    attempts: Vec<NoteView>,
    /// What operators did, oldest first.
    audit: Vec<AuditView>,
}

/// A generation with its attempts
///
/// For operators.
#[endpoint(
    tags("operator"),
    parameters(("generation_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 403, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<CaseFileView>> {
    shown(services(depot)?, path_id(req, "generation_id")?).await
}

fn missing() -> Problem {
    Problem::not_found("Generation")
}

/// What to give back.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "OperatorRefund"))]
struct RefundBody {
    /// How many credits; all that was charged and has not been given back when it is left out.
    #[serde(default)]
    #[salvo(schema(minimum = 1, maximum = 1000000000))]
    amount: Option<i64>,
    /// Shown to the person, and for the audit log.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

/// What was given back.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorRefunded"))]
struct RefundView {
    #[salvo(schema(format = "uuid"))]
    generation_id: String,
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    /// By this request; 0 when everything had been given back before.
    amount: i64,
    /// What was charged.
    captured: i64,
    /// What has been given back of it in all.
    refunded: i64,
    /// The same request was carried out before, or nothing was left; nothing was moved.
    replayed: bool,
}

impl RefundView {
    fn of(generation: &Generation, amount: Credits, replayed: bool) -> Self {
        RefundView {
            generation_id: generation.id.to_string(),
            user_id: generation.user_id.to_string(),
            amount: amount.0,
            captured: generation.captured.unwrap_or_default().0,
            refunded: generation.refunded.0,
            replayed,
        }
    }
}

/// Give back what was charged
///
/// For operators. In whole or in part, and never more than was charged (409). A part needs an `Idempotency-Key`.
#[endpoint(
    tags("operator"),
    parameters(
        ("generation_id" = String, Path, format = "uuid"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated request harmless; tied to the generation."),
    ),
    request_body = RefundBody,
    status_codes(200, 400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn refund_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<RefundView>> {
    let services = services(depot)?;
    let id: GenerationId = path_id(req, "generation_id")?;
    let body: RefundBody = json(req, services.config.max_body_bytes).await?;
    let key = key_of(req)?;
    let mut faults = Faults::default();
    let fits = body.amount.is_none_or(|amount| (1..=MOST).contains(&amount));
    faults.unless(
        fits,
        &["body", "amount"],
        format!("must be between 1 and {MOST}"),
        "range",
    );
    faults.unless(
        body.amount.is_none() || key.is_some(),
        &["header", "idempotency-key"],
        "is needed to give a part back, so that a repeated request gives it once",
        "missing",
    );
    check_reason(&mut faults, &body.reason, "reason");
    faults.finish()?;
    let refund = Refund {
        generation_id: id,
        amount: body.amount.map(Credits),
        by: by(Caller::of(depot)?, &body.reason),
        idempotency_key: key,
    };
    match services.store.refund(refund).await? {
        Refunded::Done {
            generation,
            amount,
            replayed,
            ..
        } => Ok(Json(RefundView::of(&generation, amount, replayed))),
        Refunded::NothingLeft(generation) => Ok(Json(RefundView::of(&generation, Credits::ZERO, true))),
        Refunded::TooMuch { left } => Err(Problem::new(
            Code::Conflict,
            format!("Only {left} of what was charged have not been given back; nothing was changed"),
        )),
        Refunded::KeyReused => Err(key_reused()),
        Refunded::NotCharged(status) => Err(Problem::new(
            Code::Conflict,
            format!("The generation is {}: nothing was charged for it", status.as_str()),
        )),
        Refunded::Missing => Err(missing()),
    }
}

/// What happened at the provider.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "OperatorResolution"))]
struct ResolveBody {
    /// `refund`: nothing usable came of it; `retry`: it never took it; `deliver`: it made the files of `urls`.
    outcome: String,
    /// The delivered files, in order.
    #[serde(default)]
    #[salvo(schema(max_items = 32))]
    urls: Vec<String>,
    /// With `refund`: also when it is queued or in work. Whatever the provider makes of it is lost.
    #[serde(default)]
    force: bool,
    /// For the audit log.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

/// Settle an open case
///
/// For operators. Says what became of a paid request whose answer was lost; with `force`, a refund also ends what is queued
/// or in work. 409 when there is nothing to settle.
#[endpoint(
    tags("operator"),
    parameters(("generation_id" = String, Path, format = "uuid")),
    request_body = ResolveBody,
    status_codes(200, 400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn resolve_generation(req: &mut Request, depot: &mut Depot) -> Result<Json<CaseFileView>> {
    let services = services(depot)?;
    let id: GenerationId = path_id(req, "generation_id")?;
    let body: ResolveBody = json(req, services.config.max_body_bytes).await?;
    let mut faults = Faults::default();
    faults.unless(
        ["refund", "retry", "deliver"].contains(&body.outcome.as_str()),
        &["body", "outcome"],
        "must be refund, retry or deliver",
        "enum",
    );
    let delivers = body.outcome == "deliver";
    faults.unless(
        body.urls.is_empty() != delivers && body.urls.len() <= MOST_FILES,
        &["body", "urls"],
        format!("must name 1 to {MOST_FILES} files with deliver, and none otherwise"),
        "urls",
    );
    faults.unless(
        !body.force || body.outcome == "refund",
        &["body", "force"],
        "goes with refund only",
        "force",
    );
    check_reason(&mut faults, &body.reason, "reason");
    faults.finish()?;
    let file = services.store.case(id).await?.ok_or_else(missing)?;
    let (generation, attempt) = (&file.case.generation, file.case.attempt.as_ref());
    let resolution = match body.outcome.as_str() {
        "retry" => Resolution::Retry,
        "deliver" => {
            let is_unknown = attempt.is_some_and(|a| a.state == crate::generation::AttemptState::Unknown);
            if !is_unknown {
                return Err(nothing_to_resolve(generation.status));
            }
            Resolution::Deliver(fetch(services, generation, &body.urls).await?)
        }
        _ => Resolution::Refund,
    };
    let by = by(Caller::of(depot)?, &body.reason);
    let resolve = Resolve {
        generation_id: id,
        resolution,
        even_running: body.force,
        actor: by.actor,
        reason: by.reason,
        now: by.now,
    };
    match services.store.resolve_unknown(resolve).await? {
        Resolved::Done { generation, events } => {
            let attempt = attempt.map(|attempt| attempt.id);
            services.intake.was_resolved(&generation, &events, attempt).await;
        }
        Resolved::NotUnknown(_) => return Err(nothing_to_resolve(generation.status)),
        Resolved::Missing => return Err(missing()),
    }
    shown(services, id).await
}

async fn shown(services: &Services, id: GenerationId) -> Result<Json<CaseFileView>> {
    let file = services.store.case(id).await?.ok_or_else(missing)?;
    Ok(Json(CaseFileView {
        generation: (&file.case).into(),
        prompt: file.case.generation.prompt.clone(),
        attempts: file.attempts.iter().map(Into::into).collect(),
        audit: file.audit.iter().map(Into::into).collect(),
    }))
}

fn nothing_to_resolve(status: Status) -> Problem {
    let fix = match status.is_terminal() {
        true => "there is nothing to settle",
        false => "its outcome is not unknown; a refund with `force` ends it all the same",
    };
    Problem::new(Code::Conflict, format!("The generation is {}: {fix}", status.as_str()))
}

async fn fetch(services: &Services, generation: &Generation, urls: &[String]) -> Result<Vec<StoredOutput>> {
    let (upstream, outputs, providers) = (&services.upstream, &services.outputs, &services.providers);
    let fetched = desk::deliver(upstream, outputs, providers, generation, urls, |_| {}).await;
    fetched.map_err(|error| match &error {
        Undelivered::NoProvider(_) => Problem::new(Code::Conflict, error.to_string()),
        Undelivered::File { .. } => {
            tracing::info!(generation_id = %generation.id, error = %error, "an operator's delivery was not fetched");
            let fault = FieldError::new(
                &["body", "urls"],
                "could not be fetched, or is no image, video or audio file of the announced kind; the log says which",
                "not_fetched",
            );
            Problem::fields(vec![fault])
        }
    })
}
