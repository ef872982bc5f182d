//! `/api/v1/credits`: balance and statement.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::Duration;

use super::auth::Done;
use super::person::gone;
use super::purchases;
use super::system::Pong;
use crate::clock;
use crate::http::Caller;
use crate::http::hoops::authenticated;
use crate::http::input::{Query, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::ledger::LineType;
use crate::store::{StatementFilter, StatementLine};

/// Longest period of the sums, in days: ten years.
const MAX_DAYS: i64 = 3650;

/// Routes below `/api/v1/credits`, with their hoops.
pub fn router() -> Router {
    Router::new()
        .push(Router::with_path("_ping").get(credits_ping))
        .push(purchases::router())
        .push(
            Router::with_hoop(authenticated)
                .hoop(limit(Policy::Api))
                .push(Router::with_path("balance").get(credit_balance))
                .push(Router::with_path("transactions").get(transactions))
                .push(Router::with_path("stats").get(credit_stats))
                .push(Router::with_path("redeem").post(redeem)),
        )
}

/// What can be spent, and what is set aside.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CreditBalance"))]
struct CreditBalance {
    /// What can be spent; below zero by the debt.
    balance: i64,
    /// Set aside for generations that run; charged or returned when they end.
    held: i64,
    /// What is owed because a purchase was refunded or disputed after its credits were spent; what comes in pays it first.
    debt: i64,
}

/// Balance
#[endpoint(
    tags("credits"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
async fn credit_balance(depot: &mut Depot) -> Result<Json<CreditBalance>> {
    let id = Caller::of(depot)?.user_id;
    let balance = services(depot)?.store.balance(id).await?.ok_or_else(gone)?;
    Ok(Json(CreditBalance {
        balance: balance.available().0,
        held: balance.held.0,
        debt: balance.debt.0,
    }))
}

/// A line of the statement.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CreditTransaction"))]
pub(super) struct CreditTransaction {
    #[salvo(schema(format = "uuid"))]
    id: String,
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    transaction_type: TransactionType,
    /// Negative for spending.
    amount: i64,
    /// What could be spent after this line.
    balance_after: i64,
    description: String,
    /// What it was for.
    #[salvo(schema(required = true, format = "uuid"))]
    generation_id: Option<String>,
    #[salvo(schema(value_type = Object))]
    metadata: Map<String, Value>,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
}

/// What a line is for.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "TransactionType"))]
#[serde(rename_all = "snake_case")]
enum TransactionType {
    /// Bought.
    Purchase,
    /// Spent on a generation.
    Usage,
    /// Given back.
    Refund,
    /// Start credits and grants.
    Bonus,
}

impl From<StatementLine> for CreditTransaction {
    fn from(line: StatementLine) -> Self {
        CreditTransaction {
            id: line.id.to_string(),
            user_id: line.user_id.to_string(),
            transaction_type: match line.line_type {
                LineType::Purchase => TransactionType::Purchase,
                LineType::Usage => TransactionType::Usage,
                LineType::Refund => TransactionType::Refund,
                LineType::Bonus => TransactionType::Bonus,
            },
            amount: line.amount.0,
            balance_after: line.balance_after.0,
            description: line.description,
            generation_id: line.generation_id.map(|id| id.to_string()),
            metadata: line.metadata,
            created_at: line.created_at.rfc3339(),
        }
    }
}

/// A part of the statement.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CreditTransactions"))]
struct CreditTransactions {
    /// Newest first.
    transactions: Vec<CreditTransaction>,
    /// How many lines match in all.
    total: u64,
    skip: u64,
    limit: u32,
}

/// Statement
///
/// Newest first. A generation is charged when it is accepted and refunded when it fails or is cancelled, so that the
/// amounts always add up to the balance.
#[endpoint(
    tags("credits"),
    parameters(
        ("skip" = Option<u64>, Query, minimum = 0, maximum = 1000000000, description = "Lines to leave out; 0 by default."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Lines at most; 50 by default."),
        ("transaction_type" = Option<TransactionType>, Query, description = "Only lines of this type."),
    ),
    status_codes(200, 401, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn transactions(req: &mut Request, depot: &mut Depot) -> Result<Json<CreditTransactions>> {
    let services = services(depot)?;
    let query = Query::of(req);
    let (skip, limit) = query.page(50)?;
    let rule = "must be purchase, usage, refund or bonus";
    let line_type = query.parsed("transaction_type", rule, LineType::parse)?;
    let filter = StatementFilter { line_type, skip, limit };
    let page = services.store.statement(Caller::of(depot)?.user_id, filter).await?;
    Ok(Json(CreditTransactions {
        transactions: page.items.into_iter().map(Into::into).collect(),
        total: page.total,
        skip,
        limit,
    }))
}

/// Sums over the statement.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "CreditUsageStats"))]
struct CreditUsageStats {
    current_balance: i64,
    period_days: u64,
    /// Charges less refunds in the period.
    total_spent: i64,
    /// Purchases and bonuses in the period.
    total_purchased: i64,
    /// Generations charged in the period.
    generation_count: u64,
    /// Lines in the period.
    transaction_count: u64,
}

/// Sums
#[endpoint(
    tags("credits"),
    parameters(("days" = Option<u32>, Query, minimum = 1, maximum = 3650, description = "Length of the period that ends now; 30 by default.")),
    status_codes(200, 401, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn credit_stats(req: &mut Request, depot: &mut Depot) -> Result<Json<CreditUsageStats>> {
    let services = services(depot)?;
    let days = Query::of(req).integer("days", 30, 1, MAX_DAYS)?.unsigned_abs();
    let since = clock::now().minus(Duration::from_secs(days * 86_400));
    let stats = services.store.credit_stats(Caller::of(depot)?.user_id, since).await?;
    Ok(Json(CreditUsageStats {
        current_balance: stats.available.0,
        period_days: days,
        total_spent: stats.spent.0,
        total_purchased: stats.purchased.0,
        generation_count: stats.generation_count,
        transaction_count: stats.transaction_count,
    }))
}

/// Redeem a code
///
/// Not in this version; an operator grants credits with `velro credits grant`.
#[endpoint(
    tags("credits"),
    status_codes(401, 429, 501),
    security(["bearer" = []])
)]
async fn redeem() -> Result<Json<Done>> {
    Err(Problem::new(
        Code::NotImplemented,
        "Codes cannot be redeemed yet; ask the operator for a grant",
    ))
}

/// Ping
#[endpoint(tags("credits"), status_codes(200))]
async fn credits_ping() -> Json<Pong> {
    Json(Pong::of("credits"))
}
