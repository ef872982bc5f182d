//! Buying credits: packages, purchases, orders, and Stripe's webhook.

use salvo::http::header::{HeaderName, HeaderValue};
use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Response, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use url::Url;

use super::call::key_of;
use super::checkout_pages::{self, result_url};
use super::person::gone;
use crate::http::hoops::authenticated;
use crate::http::input::{Faults, Query, body, json, path_id, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Code, FieldError, Problem, Result};
use crate::http::{Caller, Services};
use crate::id::OrderId;
use crate::payments::stripe::{Returns, StripeError};
use crate::payments::{Heard, HookRefused, Purchase, PurchaseRefused};
use crate::purchase::{Order, OrderStatus, Package};
use crate::store::{IdempotencyKey, OrderFilter};

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Largest event of Stripe, in bytes; real ones have some thousand.
const MAX_EVENT_BYTES: u64 = 1 << 20;
/// Longest return URL, in characters; Stripe takes 5000.
const MAX_URL_CHARS: usize = 2048;

/// Routes below `/api/v1/credits`.
pub fn router() -> Router {
    Router::new()
        .push(
            Router::with_path("packages")
                .hoop(limit(Policy::Api))
                .get(credit_packages),
        )
        .push(checkout_pages::router())
        .push(
            Router::with_hoop(authenticated)
                .push(
                    Router::with_path("purchase")
                        .hoop(limit(Policy::Purchase))
                        .post(buy_credits),
                )
                .push(
                    Router::with_path("orders")
                        .hoop(limit(Policy::Api))
                        .get(credit_orders)
                        .push(Router::with_path("{order_id}").get(credit_order)),
                ),
        )
}

/// `/api/v1/webhooks/stripe`.
pub fn webhook_router() -> Router {
    Router::with_path("webhooks/stripe").post(stripe_webhook)
}

/// A package on sale.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CreditPackage"))]
struct PackageView {
    /// Order by it.
    id: String,
    name: String,
    credits: i64,
    /// A decimal number as text.
    #[salvo(schema(example = json!("9.99")))]
    price: String,
    /// In the currency's smallest unit.
    amount_minor: i64,
    /// Three letters, lower case.
    currency: String,
}

impl PackageView {
    fn of(package: &Package) -> PackageView {
        PackageView {
            id: package.id.clone(),
            name: package.name.clone(),
            credits: package.credits.0,
            price: package.price.number(),
            amount_minor: package.price.amount_minor,
            currency: package.price.currency.as_str().to_owned(),
        }
    }
}

/// What can be bought.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CreditPackages"))]
struct PackageList {
    packages: Vec<PackageView>,
    /// Who takes the money: `stripe`, `sandbox` (development, no money moves), or null: nothing can be bought here.
    #[salvo(schema(required = true))]
    payment: Option<String>,
}

/// What can be bought
#[endpoint(tags("credits"), status_codes(200, 429, 500))]
async fn credit_packages(depot: &mut Depot) -> Result<Json<PackageList>> {
    let payments = &services(depot)?.payments;
    Ok(Json(PackageList {
        packages: payments.packages().iter().map(PackageView::of).collect(),
        payment: payments.payment().map(|p| p.as_str().to_owned()),
    }))
}

/// What to buy: a package by its id, or by its number of credits where only one has that many.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "PurchaseCall", example = json!({"package_id": "plus"})))]
struct PurchaseBody {
    /// Id of a package.
    #[serde(default)]
    package_id: Option<String>,
    /// Credits of a package.
    #[serde(default)]
    credit_amount: Option<i64>,
    /// Accepted and ignored: how to pay is chosen on the payment page.
    #[serde(default)]
    #[allow(dead_code, reason = "its type is checked, nothing else")]
    payment_method_id: Option<String>,
    /// Where to go after the payment; on an origin that may call this API. `{CHECKOUT_SESSION_ID}` is filled in.
    #[serde(default)]
    success_url: Option<String>,
    /// Where to go without one.
    #[serde(default)]
    cancel_url: Option<String>,
}

/// How a purchase stands, in the contract's words.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "PurchaseStatus"))]
#[serde(rename_all = "snake_case")]
enum PurchaseStatus {
    /// Not paid yet, or the money is on its way.
    Pending,
    /// Paid, and the credits are booked.
    Completed,
    /// The payment did not come about.
    Failed,
    /// Not paid in time, or turned back.
    Cancelled,
}

impl From<OrderStatus> for PurchaseStatus {
    fn from(status: OrderStatus) -> Self {
        match status {
            OrderStatus::Created | OrderStatus::Open | OrderStatus::Processing => PurchaseStatus::Pending,
            OrderStatus::Paid => PurchaseStatus::Completed,
            OrderStatus::Failed => PurchaseStatus::Failed,
            OrderStatus::Expired => PurchaseStatus::Cancelled,
        }
    }
}

/// A purchase.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Purchase"))]
pub(super) struct PurchaseView {
    /// The same as `order_id`.
    #[salvo(schema(format = "uuid"))]
    transaction_id: String,
    #[salvo(schema(format = "uuid"))]
    order_id: String,
    package_id: String,
    /// The same as `credits`.
    amount_purchased: i64,
    credits: i64,
    /// Null in another currency.
    #[salvo(schema(required = true))]
    total_cost_usd: Option<f64>,
    /// A decimal number as text.
    price: String,
    /// In the currency's smallest unit.
    amount_minor: i64,
    /// Three letters, lower case.
    currency: String,
    status: PurchaseStatus,
    /// Null until the payment provider has told.
    #[salvo(schema(required = true))]
    stripe_payment_intent_id: Option<String>,
    /// Send the buyer there. Null when there is nothing to pay any more.
    #[salvo(schema(required = true))]
    checkout_url: Option<String>,
    /// Credits that refunds and disputes have taken back.
    reversed_credits: i64,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    /// Until when it can be paid.
    #[salvo(schema(required = true, format = "date-time"))]
    expires_at: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    paid_at: Option<String>,
}

impl From<Order> for PurchaseView {
    fn from(order: Order) -> Self {
        let is_usd = order.price.currency.as_str() == "usd";
        PurchaseView {
            transaction_id: order.id.to_string(),
            order_id: order.id.to_string(),
            package_id: order.package_id,
            amount_purchased: order.credits.0,
            credits: order.credits.0,
            total_cost_usd: is_usd.then(|| order.price.amount_minor as f64 / 100.0),
            price: order.price.number(),
            amount_minor: order.price.amount_minor,
            currency: order.price.currency.as_str().to_owned(),
            status: order.status.into(),
            stripe_payment_intent_id: order.payment_intent,
            checkout_url: order.checkout_url.filter(|_| !order.status.is_over()),
            reversed_credits: order.reversed.0,
            created_at: order.created_at.rfc3339(),
            expires_at: order.expires_at.map(|at| at.rfc3339()),
            paid_at: order.paid_at.map(|at| at.rfc3339()),
        }
    }
}

/// Buy credits
///
/// Stores an order and answers the page where it is paid; the credits come when the payment provider says that it is. A
/// repeated call with the same `Idempotency-Key` answers the same order and the same page.
#[endpoint(
    tags("credits"),
    parameters(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Makes a repeated call harmless; tied to your account and to the body.")),
    request_body = PurchaseBody,
    status_codes(200, 400, 401, 403, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn buy_credits(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<Json<PurchaseView>> {
    let services = services(depot)?;
    let user_id = Caller::of(depot)?.user_id;
    let body: PurchaseBody = json(req, services.config.max_body_bytes).await?;
    let package = chosen(&body, services.payments.packages())?;
    let returns = returns(&body, services)?;
    let idempotency = key_of(req)?.map(|key| IdempotencyKey {
        key,
        fingerprint: fingerprint(package, &returns),
    });
    let purchase = Purchase {
        user_id,
        package,
        returns,
        idempotency,
    };
    let bought = services.payments.purchase(purchase).await.map_err(refused)?;
    if bought.order.status == OrderStatus::Created {
        return Err(Problem::new(
            Code::Conflict,
            "This order was not brought to the payment provider in time; order again with a new Idempotency-Key",
        ));
    }
    if bought.replayed {
        res.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(Json(bought.order.into()))
}

/// The package that is meant.
fn chosen<'p>(body: &PurchaseBody, packages: &'p [Package]) -> Result<&'p Package> {
    let ids = || packages.iter().map(|p| p.id.as_str()).collect::<Vec<_>>().join(", ");
    let wrong = |field: &str, rule: String| Problem::fields(vec![FieldError::new(&["body", field], rule, "enum")]);
    if let Some(id) = body.package_id.as_deref() {
        let package = packages.iter().find(|p| p.id == id);
        let package = package.ok_or_else(|| wrong("package_id", format!("must be one of: {}", ids())))?;
        return match body.credit_amount {
            Some(amount) if amount != package.credits.0 => {
                let rule = format!("must be {}, as the package has, or be left out", package.credits);
                Err(wrong("credit_amount", rule))
            }
            _ => Ok(package),
        };
    }
    let Some(amount) = body.credit_amount else {
        let rule = format!("is needed: one of {}", ids());
        return Err(Problem::field(&["body", "package_id"], rule, "missing"));
    };
    let mut fitting = packages.iter().filter(|p| p.credits.0 == amount);
    match (fitting.next(), fitting.next()) {
        (Some(package), None) => Ok(package),
        (Some(_), Some(_)) => {
            let rule = format!("several packages have {amount} credits; name one of {}", ids());
            Err(wrong("package_id", rule))
        }
        _ => {
            let amounts: Vec<String> = packages.iter().map(|p| p.credits.to_string()).collect();
            Err(wrong(
                "credit_amount",
                format!("must be one of: {}", amounts.join(", ")),
            ))
        }
    }
}

/// Where the buyer goes afterwards. A client may name pages of known origins only: others could pretend to be ours.
fn returns(body: &PurchaseBody, services: &Services) -> Result<Returns> {
    let config = &services.config;
    let configured = [&config.payments.success_url, &config.payments.cancel_url];
    let ours = configured.into_iter().flatten().chain([&config.public_url]);
    let ours: Vec<String> = ours
        .filter_map(|url| Some(Url::parse(url).ok()?.origin().ascii_serialization()))
        .collect();
    let known = |origin: &String| config.cors_origins.contains(origin) || ours.contains(origin);
    let mut faults = Faults::default();
    let mut check = |name: &str, url: &Option<String>| {
        let Some(url) = url else { return };
        faults.text(url, &["body", name], MAX_URL_CHARS, false);
        let parsed = Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
        let origin = parsed.filter(|u| u.username().is_empty()).map(|u| u.origin());
        faults.unless(
            origin.is_some_and(|o| known(&o.ascii_serialization())) && url.is_ascii(),
            &["body", name],
            "must be an http or https URL on an origin that may call this API (CORS_ORIGINS)",
            "origin",
        );
    };
    check("success_url", &body.success_url);
    check("cancel_url", &body.cancel_url);
    faults.finish()?;
    let page = |given: &Option<String>, set: &Option<String>, outcome| {
        let own = || result_url(&config.public_url, outcome);
        given.clone().or_else(|| set.clone()).unwrap_or_else(own)
    };
    Ok(Returns {
        success_url: page(&body.success_url, &config.payments.success_url, "success"),
        cancel_url: page(&body.cancel_url, &config.payments.cancel_url, "cancel"),
    })
}

/// SHA-256 of what is asked for, hex.
fn fingerprint(package: &Package, returns: &Returns) -> String {
    let canonical = json!({
        "package_id": package.id,
        "success_url": returns.success_url,
        "cancel_url": returns.cancel_url,
    });
    hex::encode(Sha256::digest(canonical.to_string()))
}

fn refused(refusal: PurchaseRefused) -> Problem {
    let reused = || {
        Problem::new(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key was used for another request; send a new key for a new request",
        )
    };
    match refusal {
        PurchaseRefused::NotConfigured => Problem::new(
            Code::PurchasesNotConfigured,
            "Credits cannot be bought here: the operator has not set up payments. Ask the operator for a grant",
        ),
        PurchaseRefused::KeyReused | PurchaseRefused::Provider(StripeError::KeyReused) => reused(),
        PurchaseRefused::Suspended => Problem::new(
            Code::AccountSuspended,
            "This account is suspended and cannot buy credits; contact the operator",
        ),
        PurchaseRefused::NoSuchUser => gone(),
        // What Stripe said is in the log.
        PurchaseRefused::Provider(_) => Problem::new(
            Code::PaymentUnavailable,
            "The payment provider does not answer; nothing was charged. Try again with the same Idempotency-Key",
        )
        .retry_after(5),
        PurchaseRefused::Store(error) => error.into(),
    }
}

/// A part of the orders.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Orders"))]
struct OrderList {
    /// Newest first.
    orders: Vec<PurchaseView>,
    /// Send it as `before` to go on; null at the end.
    #[salvo(schema(required = true, format = "uuid"))]
    next_before: Option<String>,
}

/// Your orders
#[endpoint(
    tags("credits"),
    parameters(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Orders at most; 50 by default."),
        ("before" = Option<String>, Query, format = "uuid", description = "Only orders older than this one."),
    ),
    status_codes(200, 401, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn credit_orders(req: &mut Request, depot: &mut Depot) -> Result<Json<OrderList>> {
    let services = services(depot)?;
    let query = Query::of(req);
    let limit = query.integer("limit", 50, 1, 100)? as u32;
    let filter = OrderFilter {
        user_id: Some(Caller::of(depot)?.user_id),
        before: query.parsed("before", "must be the id of an order", |text| text.parse().ok())?,
        limit: limit + 1,
        ..OrderFilter::default()
    };
    let mut orders = services.store.orders(filter).await?;
    let more = orders.len() > limit as usize;
    orders.truncate(limit as usize);
    let next_before = orders.last().filter(|_| more).map(|o| o.id.to_string());
    Ok(Json(OrderList {
        orders: orders.into_iter().map(Into::into).collect(),
        next_before,
    }))
}

/// One of your orders
#[endpoint(
    tags("credits"),
    parameters(("order_id" = String, Path, format = "uuid", description = "As answered by the purchase.")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn credit_order(req: &mut Request, depot: &mut Depot) -> Result<Json<PurchaseView>> {
    let services = services(depot)?;
    let user_id = Caller::of(depot)?.user_id;
    let id: OrderId = path_id(req, "order_id")?;
    let record = services.store.order(id).await?;
    let order = record.map(|r| r.order).filter(|o| o.user_id == user_id);
    Ok(Json(order.ok_or_else(|| Problem::not_found("Order"))?.into()))
}

/// What became of an event.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "StripeWebhookAnswer"))]
struct StripeWebhookAnswer {
    /// What was done, or `ignored`.
    status: String,
}

/// Stripe's webhook
///
/// For Stripe only. Checked by the `Stripe-Signature` over the raw body; answered when it is booked. Delivering twice is
/// harmless, and so is another order.
#[endpoint(
    tags("webhooks"),
    parameters(("Stripe-Signature" = Option<String>, Header, description = "As Stripe makes it.")),
    request_body(content = serde_json::Value, content_type = "application/json", description = "An event of Stripe."),
    status_codes(200, 400, 404, 413, 500, 503)
)]
async fn stripe_webhook(req: &mut Request, depot: &mut Depot) -> Result<Json<StripeWebhookAnswer>> {
    let services = services(depot)?;
    let header = req.headers().get("stripe-signature");
    let header = header.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let event = body(req, MAX_EVENT_BYTES).await?;
    let heard = services.payments.hear(&header, event).await;
    let status = match heard {
        Ok(Heard::Recorded(outcome)) => outcome,
        Ok(Heard::Ignored) => "ignored",
        Err(HookRefused::NotConfigured) => return Err(Problem::not_found("Webhook endpoint")),
        Err(HookRefused::Store(error)) => return Err(error.into()),
        Err(refused) => return Err(Problem::new(Code::BadRequest, format!("Refused: {refused}"))),
    };
    Ok(Json(StripeWebhookAnswer {
        status: status.to_owned(),
    }))
}
