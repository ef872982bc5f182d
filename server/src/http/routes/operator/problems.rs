//! `/api/v1/operator/problems`: generations that need a hand.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::Serialize;
use std::time::Duration;

use super::view::CaseView;
use crate::clock;
use crate::desk::{Kind, Seeker};
use crate::http::input::services;
use crate::http::operator::page;
use crate::http::problem::{Problem, Result};
use crate::store::StoreError;

/// Candidates that one request looks at; the cursor goes on behind them.
const MOST_LOOKED_AT: u64 = 500;

/// Longest time that can be asked for, in seconds: ten years.
const LONGEST: i64 = 3650 * 86_400;

/// Routes below `/api/v1/operator/problems`.
pub(super) fn router() -> Router {
    Router::new().get(operator_problems)
}

/// A generation that needs a hand.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorProblem"))]
struct ProblemView {
    /// `unknown`, `charged_without_output` or `held_too_long`.
    kind: &'static str,
    /// What is wrong, in a few words.
    note: String,
    generation: CaseView,
}

/// A part of the list of problems.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorProblems"))]
struct Problems {
    /// May be empty although there is a next cursor: so many candidates were fine.
    items: Vec<ProblemView>,
    /// `null` at the end.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
    /// Candidates that this request looked at.
    looked_at: u64,
}

/// What needs a hand
///
/// For operators. `unknown`: nobody knows whether the provider took it. `charged_without_output`: charged, but no file is
/// recorded, or one that is recorded is not in the storage. `held_too_long`: queued or processing for longer than the deadline
/// of its model. Oldest first; a request looks at a few hundred candidates, so go on while there is a `next_cursor`.
#[endpoint(
    tags("operator"),
    parameters(
        ("kind" = String, Query, description = "`unknown`, `charged_without_output` or `held_too_long`."),
        ("older_than_seconds" = Option<i64>, Query, minimum = 0, maximum = 315360000, description = "What is too long; the model's deadline by default."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the answer before."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 50 by default."),
    ),
    status_codes(200, 401, 403, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_problems(req: &mut Request, depot: &mut Depot) -> Result<Json<Problems>> {
    let services = services(depot)?;
    let (query, after, limit) = page(req)?;
    let rule = "must be unknown, charged_without_output or held_too_long";
    let kind = query.parsed("kind", rule, Kind::parse)?;
    let kind = kind.ok_or_else(|| Problem::field(&["query", "kind"], rule, "missing"))?;
    let older_than = match query.text("older_than_seconds") {
        None => None,
        Some(_) => Some(query.integer("older_than_seconds", 0, 0, LONGEST)?.unsigned_abs()),
    };
    let seeker = Seeker {
        store: services.store.as_ref(),
        outputs: &services.outputs,
        registry: services.shelf.get(),
        older_than: older_than.map(Duration::from_secs),
        now: clock::now(),
    };
    let found = seeker.look(kind, after, limit as usize, MOST_LOOKED_AT, |_| {}).await;
    let found = found.map_err(|error| match error.downcast::<StoreError>() {
        Ok(error) => error.into(),
        Err(error) => Problem::internal(format!("{error:#}")),
    })?;
    Ok(Json(Problems {
        items: found
            .findings
            .iter()
            .map(|finding| ProblemView {
                kind: finding.kind.as_str(),
                note: finding.note.clone(),
                generation: (&finding.case).into(),
            })
            .collect(),
        next_cursor: found.next.map(|id| id.to_string()),
        looked_at: found.looked_at,
    }))
}
