//! `/api/v1/operator/audit`: what operators did.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::Serialize;

use super::view::AuditView;
use crate::clock::Micros;
use crate::http::input::services;
use crate::http::operator::page;
use crate::http::problem::Result;
use crate::store::AuditFilter;

/// Routes below `/api/v1/operator/audit`.
pub(super) fn router() -> Router {
    Router::new().get(operator_audit)
}

/// A part of the audit.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Audit"))]
struct Audit {
    items: Vec<AuditView>,
    /// `null` at the end.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
}

/// What operators did
///
/// For operators. Newest first. Every action, through the API or on the command line, has an entry that nothing can change.
#[endpoint(
    tags("operator"),
    parameters(
        ("actor" = Option<String>, Query, description = "`operator USER_ID` or `cli:NAME`."),
        ("subject" = Option<String>, Query, description = "An id, `queue` or `provider:NAME`."),
        ("action" = Option<String>, Query, description = "Such as `generation.refund`."),
        ("since" = Option<String>, Query, format = "date-time", description = "From this moment on."),
        ("until" = Option<String>, Query, format = "date-time", description = "Before this moment."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the answer before."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 50 by default."),
    ),
    status_codes(200, 401, 403, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_audit(req: &mut Request, depot: &mut Depot) -> Result<Json<Audit>> {
    let (query, after, limit) = page(req)?;
    let rule = "must be a time such as 2026-11-23T01:14:06Z";
    let text = |name: &str| query.text(name).map(str::to_owned);
    let filter = AuditFilter {
        actor: text("actor"),
        subject: text("subject"),
        action: text("action"),
        since: query.parsed("since", rule, moment)?,
        until: query.parsed("until", rule, moment)?,
        after,
        limit,
    };
    let found = services(depot)?.store.audit(filter).await?;
    let last = found.items.last().filter(|_| found.more);
    Ok(Json(Audit {
        next_cursor: last.map(|entry| entry.seq.to_string()),
        items: found.items.iter().map(Into::into).collect(),
    }))
}

/// An RFC 3339 time. A `+` in a query is a space unless it was escaped; that is forgiven.
fn moment(text: &str) -> Option<Micros> {
    Micros::parse_rfc3339(&text.replace(' ', "+"))
}
