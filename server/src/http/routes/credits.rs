//! `/api/v1/credits`: balance and statement.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Response, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

use super::person::gone;
use super::purchases;
use super::system::Pong;
use crate::clock;
use crate::desk::code;
use crate::http::Caller;
use crate::http::caller::address;
use crate::http::hoops::authenticated;
use crate::http::input::{self, Faults, Query, services};
use crate::http::limits::{Key, Policy, count, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::ledger::LineType;
use crate::store::{Redeem, Redeemed, StatementFilter, StatementLine};

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

/// A code.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "RedeemRequest", example = json!({"code": "7K2M9-QXT4B-0H8VD-3CWNE"})))]
struct RedeemRequest {
    /// As it was given out; case, spaces and hyphens do not matter.
    #[salvo(schema(min_length = 1, max_length = 200))]
    code: String,
}

/// What a code gave.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Redeemed"))]
struct RedeemAnswer {
    message: String,
    /// What it gave.
    credits: i64,
    /// What can be spent now.
    balance: i64,
}

/// Redeem a code
///
/// Gives the credits of a code that an operator made. 404 for a code that is not known, 409 when you have used it as often as
/// one may, 410 when it has expired or is used up. Wrong codes are limited per account and per address.
#[endpoint(
    tags("credits"),
    request_body = RedeemRequest,
    status_codes(200, 400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn redeem(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<Json<RedeemAnswer>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let body: RedeemRequest = input::json(req, services.config.max_body_bytes).await?;
    let mut faults = Faults::default();
    let loc = ["body", "code"];
    faults.unless(
        body.code.chars().any(char::is_alphanumeric),
        &loc,
        "must be a code",
        "missing",
    );
    faults.text(&body.code, &loc, code::MAX_TYPED_CHARS, false);
    faults.finish()?;

    // Counted before the look-up, so that parallel guesses cannot slip past; what was no guess is given back.
    let (limiter, user) = (&services.limiter, Key::caller(caller));
    let place = Key::address(address(req, services.config.trust_proxy_headers));
    count(services, Policy::Redeem, user, res).await?;
    if let Err(problem) = count(services, Policy::RedeemAddress, place, res).await {
        limiter.give_back(Policy::Redeem, user).await;
        return Err(problem);
    }
    let wanted = Redeem {
        user_id: caller.user_id,
        hash: code::hash(&body.code),
        now: clock::now(),
    };
    let outcome = services.store.redeem(wanted).await;
    if !matches!(outcome, Ok(Redeemed::Unknown)) {
        limiter.give_back(Policy::Redeem, user).await;
        limiter.give_back(Policy::RedeemAddress, place).await;
    }
    match outcome? {
        Redeemed::Done { credits, available } => Ok(Json(RedeemAnswer {
            message: format!("The code gave you {credits} credits"),
            credits: credits.0,
            balance: available.0,
        })),
        Redeemed::Unknown => Err(Problem::new(
            Code::NotFound,
            "This code is not known; check every letter, or ask whoever gave it to you",
        )),
        Redeemed::Expired => Err(Problem::new(
            Code::CodeExpired,
            "This code was good until an earlier day",
        )),
        Redeemed::UsedUp => Err(Problem::new(
            Code::CodeUsedUp,
            "This code has been used as often as it may be",
        )),
        Redeemed::AlreadyRedeemed => Err(Problem::new(
            Code::CodeAlreadyRedeemed,
            "You have redeemed this code before; it cannot be used again by the same account",
        )),
        Redeemed::Suspended => Err(Problem::new(
            Code::AccountSuspended,
            "This account is suspended and cannot redeem codes; contact the operator",
        )),
        Redeemed::NoSuchUser => Err(gone()),
    }
}

/// Ping
#[endpoint(tags("credits"), status_codes(200))]
async fn credits_ping() -> Json<Pong> {
    Json(Pong::of("credits"))
}
