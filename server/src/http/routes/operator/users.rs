//! `/api/v1/operator/users`: find people, give roles, suspend.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};

use super::Reason;
use super::view::{AuditView, LineView, UserView};
use crate::http::input::{Faults, json, path_id, services};
use crate::http::operator::{by, check_reason, page};
use crate::http::problem::{Code, Problem, Result};
use crate::http::{Caller, Services};
use crate::id::UserId;
use crate::store::{AuditFilter, ChangeUser, Person, Role, StatementFilter, UserChange, UserChanged, UserFilter};

/// Lines and entries that a person is shown with.
const SHOWN: u32 = 20;

/// Longest part of an address that is looked for, in characters.
const TEXT_MAX_CHARS: usize = 254;

/// Routes below `/api/v1/operator/users`.
pub(super) fn router() -> Router {
    Router::new().get(operator_users).push(
        Router::with_path("{user_id}")
            .get(operator_user)
            .push(Router::with_path("role").put(set_user_role))
            .push(Router::with_path("suspend").post(suspend_user))
            .push(Router::with_path("unsuspend").post(unsuspend_user)),
    )
}

/// A part of the list of people.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorUsers"))]
struct Users {
    items: Vec<UserView>,
    /// `null` at the end.
    #[salvo(schema(required = true))]
    next_cursor: Option<String>,
}

/// People
///
/// For operators. Newest first.
#[endpoint(
    tags("operator"),
    parameters(
        ("email" = Option<String>, Query, max_length = 254, description = "A part of the e-mail address."),
        ("role" = Option<String>, Query, description = "`user` or `operator`."),
        ("suspended" = Option<bool>, Query, description = "Only those that are suspended, or are not."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the answer before."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "How many; 50 by default."),
    ),
    status_codes(200, 401, 403, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_users(req: &mut Request, depot: &mut Depot) -> Result<Json<Users>> {
    let (query, after, limit) = page(req)?;
    let email = query.text("email").map(str::to_lowercase);
    let mut faults = Faults::default();
    faults.text(
        email.as_deref().unwrap_or_default(),
        &["query", "email"],
        TEXT_MAX_CHARS,
        false,
    );
    faults.finish()?;
    let suspended = match query.text("suspended") {
        None => None,
        Some(_) => Some(query.boolean("suspended", false)?),
    };
    let filter = UserFilter {
        email,
        role: query.parsed("role", "must be user or operator", Role::parse)?,
        suspended,
        after,
        limit,
    };
    let found = services(depot)?.store.people(filter).await?;
    let last = found.items.last().filter(|_| found.more);
    Ok(Json(Users {
        next_cursor: last.map(|person| person.user.id.to_string()),
        items: found.items.iter().map(Into::into).collect(),
    }))
}

/// A person with the newest lines of the statement, and what operators did.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OperatorUserFile"))]
struct UserFile {
    user: UserView,
    transactions: Vec<LineView>,
    audit: Vec<AuditView>,
}

/// A person
///
/// For operators: the account, the newest lines of the statement, what operators did.
#[endpoint(
    tags("operator"),
    parameters(("user_id" = String, Path, format = "uuid")),
    status_codes(200, 401, 403, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn operator_user(req: &mut Request, depot: &mut Depot) -> Result<Json<UserFile>> {
    let store = &services(depot)?.store;
    let id: UserId = path_id(req, "user_id")?;
    let user = store.user(id).await?.ok_or_else(no_such_user)?;
    let balance = store.balance(id).await?.unwrap_or_default();
    let filter = StatementFilter {
        limit: SHOWN,
        ..StatementFilter::default()
    };
    let lines = store.statement(id, filter).await?.items;
    let filter = AuditFilter {
        subject: Some(id.to_string()),
        limit: SHOWN,
        ..AuditFilter::default()
    };
    let audit = store.audit(filter).await?.items;
    Ok(Json(UserFile {
        user: (&Person { user, balance }).into(),
        transactions: lines.iter().map(Into::into).collect(),
        audit: audit.iter().map(Into::into).collect(),
    }))
}

pub(super) fn no_such_user() -> Problem {
    Problem::not_found("User")
}

/// A role.
#[derive(Debug, Deserialize, ToSchema)]
#[salvo(schema(name = "OperatorRoleChange"))]
struct RoleChange {
    /// `user` or `operator`.
    role: String,
    /// For the audit log.
    #[salvo(schema(min_length = 1, max_length = 500))]
    reason: String,
}

/// Give a role
///
/// For operators. The last operator stays one. The answer is the same when it was so before.
#[endpoint(
    tags("operator"),
    parameters(("user_id" = String, Path, format = "uuid")),
    request_body = RoleChange,
    status_codes(200, 400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn set_user_role(req: &mut Request, depot: &mut Depot) -> Result<Json<UserView>> {
    let services = services(depot)?;
    let id: UserId = path_id(req, "user_id")?;
    let body: RoleChange = json(req, services.config.max_body_bytes).await?;
    let role = Role::parse(&body.role);
    let mut faults = Faults::default();
    faults.unless(role.is_some(), &["body", "role"], "must be user or operator", "enum");
    check_reason(&mut faults, &body.reason, "reason");
    faults.finish()?;
    let change = UserChange::Role(role.unwrap_or(Role::User));
    changed(services, Caller::of(depot)?, id, change, &body.reason).await
}

/// Suspend
///
/// For operators. The person may look and spend nothing until it is taken back.
#[endpoint(
    tags("operator"),
    parameters(("user_id" = String, Path, format = "uuid")),
    request_body = Reason,
    status_codes(200, 400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn suspend_user(req: &mut Request, depot: &mut Depot) -> Result<Json<UserView>> {
    let services = services(depot)?;
    let id: UserId = path_id(req, "user_id")?;
    let body: Reason = json(req, services.config.max_body_bytes).await?;
    body.check()?;
    changed(services, Caller::of(depot)?, id, UserChange::Suspend, &body.reason).await
}

/// Take a suspension back
///
/// For operators.
#[endpoint(
    tags("operator"),
    parameters(("user_id" = String, Path, format = "uuid")),
    request_body = Reason,
    status_codes(200, 400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn unsuspend_user(req: &mut Request, depot: &mut Depot) -> Result<Json<UserView>> {
    let services = services(depot)?;
    let id: UserId = path_id(req, "user_id")?;
    let body: Reason = json(req, services.config.max_body_bytes).await?;
    body.check()?;
    changed(services, Caller::of(depot)?, id, UserChange::Unsuspend, &body.reason).await
}

async fn changed(
    services: &Services,
    caller: &Caller,
    user_id: UserId,
    change: UserChange,
    reason: &str,
) -> Result<Json<UserView>> {
    let change = ChangeUser {
        user_id,
        change,
        by: by(caller, reason),
    };
    match services.store.change_user(change).await? {
        UserChanged::Done { user, .. } => {
            let balance = services.store.balance(user_id).await?.unwrap_or_default();
            Ok(Json((&Person { user: *user, balance }).into()))
        }
        UserChanged::LastOperator => Err(Problem::new(
            Code::Conflict,
            "This is the last operator; promote somebody else first",
        )),
        UserChanged::Missing => Err(no_such_user()),
    }
}
