//! `/api/v1/operator/orders`: purchases of everybody.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::Serialize;

use super::Reason;
use crate::clock::Micros;
use crate::http::Caller;
use crate::http::input::{json, path_id, services};
use crate::http::operator::{by, page};
use crate::http::problem::{Problem, Result};
use crate::id::{OrderId, UserId};
use crate::purchase::{Order, OrderStatus, Reversal};
use crate::store::{CountedEvent, Listed, OrderFilter};

/// Routes below `/api/v1/operator/orders`.
pub(super) fn router() -> Router {
    Router::new().get(list_all_orders).push(
        Router::with_path("{order_id}")
            .get(show_any_order)
            .push(Router::with_path("settle").post(settle_order)),
    )
}

/// A purchase, as an operator sees it.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorOrder"))]
struct OrderView {
    #[salvo(schema(format = "uuid"))]
    order_id: String,
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    package_id: String,
    credits: i64,
    /// In the currency's smallest unit.
    amount_minor: i64,
    currency: String,
    /// `stripe` or `sandbox`.
    payment: String,
    livemode: bool,
    /// `created`, `open`, `processing`, `paid`, `expired` or `failed`.
    status: String,
    /// Stripe's ids, once they are known.
    #[salvo(schema(required = true))]
    session_id: Option<String>,
    #[salvo(schema(required = true))]
    payment_intent: Option<String>,
    /// Credits that refunds and disputes have taken back.
    reversed: i64,
    /// Why it needs an operator.
    #[salvo(schema(required = true))]
    trouble: Option<String>,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
    #[salvo(schema(required = true, format = "date-time"))]
    expires_at: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    paid_at: Option<String>,
}

impl From<&Order> for OrderView {
    fn from(order: &Order) -> Self {
        OrderView {
            order_id: order.id.to_string(),
            user_id: order.user_id.to_string(),
            package_id: order.package_id.clone(),
            credits: order.credits.0,
            amount_minor: order.price.amount_minor,
            currency: order.price.currency.as_str().to_owned(),
            payment: order.payment.as_str().to_owned(),
            livemode: order.livemode,
            status: order.status.as_str().to_owned(),
            session_id: order.session_id.clone(),
            payment_intent: order.payment_intent.clone(),
            reversed: order.reversed.0,
            trouble: order.trouble.clone(),
            created_at: order.created_at.rfc3339(),
            updated_at: order.updated_at.rfc3339(),
            expires_at: order.expires_at.map(Micros::rfc3339),
            paid_at: order.paid_at.map(Micros::rfc3339),
        }
    }
}

/// A part of the list of purchases.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorOrders"))]
struct Orders {
    items: Vec<OrderView>,
    /// `null` at the end.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
}

/// Purchases
///
/// For operators. Newest first.
#[endpoint(
    tags("operator"),
    parameters(
        ("user_id" = Option<String>, Query, format = "uuid", description = "Only of this user."),
        ("status" = Option<String>, Query, description = "`created`, `open`, `processing`, `paid`, `expired` or `failed`."),
        ("trouble" = Option<bool>, Query, description = "Only what needs an operator."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the answer before."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 50 by default."),
    ),
    status_codes(200, 401, 403, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn list_all_orders(req: &mut Request, depot: &mut Depot) -> Result<Json<Orders>> {
    let (query, before, limit) = page(req)?;
    let states = "must be created, open, processing, paid, expired or failed";
    let user = |text: &str| text.parse::<UserId>().ok();
    let filter = OrderFilter {
        user_id: query.parsed("user_id", "must be the id of a user", user)?,
        status: query.parsed("status", states, OrderStatus::parse)?,
        trouble: query.boolean("trouble", false)?,
        since: None,
        before,
        // One more tells whether there is more.
        limit: limit + 1,
    };
    let found = Listed::of(services(depot)?.store.orders(filter).await?, limit);
    let last = found.items.last().filter(|_| found.more);
    Ok(Json(Orders {
        next_cursor: last.map(|order| order.id.to_string()),
        items: found.items.iter().map(Into::into).collect(),
    }))
}

/// What the payment provider has said.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "PaymentEvent"))]
struct EventView {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// What came of it.
    outcome: String,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    received_at: String,
}

impl From<&CountedEvent> for EventView {
    fn from(event: &CountedEvent) -> Self {
        EventView {
            id: event.id.clone(),
            kind: event.kind.clone(),
            outcome: event.outcome.clone(),
            created_at: event.created_at.rfc3339(),
            received_at: event.received_at.rfc3339(),
        }
    }
}

/// Money that went back or is disputed.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "PaymentReversal"))]
struct ReversalView {
    id: String,
    /// `refund`, `refunded_total` or `dispute`.
    kind: String,
    amount_minor: i64,
    currency: String,
    /// A refund that failed, or a dispute that was won.
    void: bool,
}

impl From<&Reversal> for ReversalView {
    fn from(reversal: &Reversal) -> Self {
        ReversalView {
            id: reversal.id.clone(),
            kind: reversal.kind.as_str().to_owned(),
            amount_minor: reversal.amount_minor,
            currency: reversal.currency.to_string(),
            void: reversal.void,
        }
    }
}

/// A purchase with all that was said about it.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorOrderFile"))]
struct OrderFile {
    details: OrderView,
    events: Vec<EventView>,
    reversals: Vec<ReversalView>,
}

/// A purchase and what was said about it
///
/// For operators.
#[endpoint(
    tags("operator"),
    parameters(("order_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 403, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn show_any_order(req: &mut Request, depot: &mut Depot) -> Result<Json<OrderFile>> {
    let id: OrderId = path_id(req, "order_id")?;
    let record = services(depot)?.store.order(id).await?.ok_or_else(no_such_order)?;
    Ok(Json(OrderFile {
        details: (&record.order).into(),
        events: record.events.iter().map(Into::into).collect(),
        reversals: record.reversals.iter().map(Into::into).collect(),
    }))
}

/// Settle a purchase in trouble
///
/// For operators. Takes it out of the list of those in trouble; its credits stay as they are.
#[endpoint(
    tags("operator"),
    parameters(("order_id" = String, Path, format = "uuid")),
    request_body = Reason,
    status_codes(200, 400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn settle_order(req: &mut Request, depot: &mut Depot) -> Result<Json<OrderView>> {
    let services = services(depot)?;
    let id: OrderId = path_id(req, "order_id")?;
    let body: Reason = json(req, services.config.max_body_bytes).await?;
    body.check()?;
    let by = by(Caller::of(depot)?, &body.reason);
    let (order, _) = services.store.settle_order(id, by).await?.ok_or_else(no_such_order)?;
    Ok(Json((&order).into()))
}

fn no_such_order() -> Problem {
    Problem::not_found("Order")
}
