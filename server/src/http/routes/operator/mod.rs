//! `/api/v1/operator`: the operator's desk. For operators only; every change has a reason and an entry in the audit.
//!
//! Lists are read from a cursor on: `?cursor=&limit=`, answered by `items` and `next_cursor`. What moves credits takes an
//! `Idempotency-Key`.

mod audit;
mod codes;
mod credits;
mod generations;
mod lanes;
mod logs;
mod orders;
mod problems;
mod users;
mod view;

use salvo::Router;
use salvo::oapi::ToSchema;
use serde::Deserialize;

use crate::http::hoops::authenticated;
use crate::http::input::Faults;
use crate::http::limits::{Policy, limit};
use crate::http::operator::{check_reason, operator};
use crate::http::problem::Result;

/// Routes below `/api/v1/operator`, with their hoops.
pub fn router() -> Router {
    Router::with_hoop(authenticated)
        .hoop(limit(Policy::Api))
        .hoop(operator)
        .push(Router::with_path("users").push(users::router()).push(credits::router()))
        .push(Router::with_path("generations").push(generations::router()))
        .push(Router::with_path("problems").push(problems::router()))
        .push(Router::with_path("orders").push(orders::router()))
        .push(Router::with_path("codes").push(codes::router()))
        .push(Router::with_path("audit").push(audit::router()))
        .push(Router::with_path("providers").push(lanes::providers_router()))
        .push(Router::with_path("pauses").push(lanes::router()))
        .push(Router::with_path("log-level").push(logs::router()))
}

/// Why.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "OperatorReason"))]
pub(super) struct Reason {
    /// For the audit log.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

impl Reason {
    fn check(&self) -> Result<()> {
        let mut faults = Faults::default();
        check_reason(&mut faults, &self.reason, "reason");
        faults.finish()
    }
}
