//! Care of one's own account: password, sessions, leaving. Export is in [`super::export`]. For people only, not for keys.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Response, Router};
use serde::{Deserialize, Serialize};

use super::auth::{Done, guess};
use crate::auth::{MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS};
use crate::http::Caller;
use crate::http::hoops::{authenticated, credential};
use crate::http::input::{Faults, json, path_id, services};
use crate::http::limits::{Key, Policy, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::id::SessionId;
use crate::store::OpenSession;

/// Routes below `/api/v1/auth`, with their hoops.
pub fn auth_router() -> Router {
    Router::with_hoop(authenticated)
        .hoop(limit(Policy::Api))
        .push(Router::with_path("change-password").post(change_password))
        .push(
            Router::with_path("sessions")
                .get(list_sessions)
                .delete(end_other_sessions)
                .push(Router::with_path("{session_id}").delete(end_session)),
        )
}

/// Routes below `/api/v1/user`, with their hoops.
pub fn user_router() -> Router {
    Router::with_hoop(authenticated)
        .hoop(limit(Policy::Api))
        .push(Router::with_path("account").delete(delete_account))
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "PasswordChange"))]
struct PasswordChange {
    #[salvo(schema(min_length = 1, max_length = 128, example = json!("correct horse battery")))]
    current_password: String,
    #[salvo(schema(min_length = 8, max_length = 128, example = json!("wrong horse battery")))]
    new_password: String,
}

/// Change the password
///
/// All other sessions end; this one and API keys go on. Wrong passwords are limited like those of a login.
#[endpoint(
    tags("auth"),
    request_body = PasswordChange,
    status_codes(200, 400, 401, 403, 413, 415, 422, 429, 500, 503, 504),
    security(["bearer" = []])
)]
async fn change_password(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<Json<Done>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let body: PasswordChange = json(req, services.config.max_body_bytes).await?;
    let mut faults = Faults::default();
    faults.password(&body.current_password, &["body", "current_password"], 1);
    faults.password(&body.new_password, &["body", "new_password"], MIN_PASSWORD_CHARS);
    faults.finish()?;
    let token = credential(req)?;
    let change = services
        .auth
        .change_password(caller, token, body.current_password, body.new_password);
    guess(services, res, account_key(caller), change).await?;
    Ok(Json(Done {
        message: "Password changed; all other sessions have ended",
    }))
}

/// What guesses at the caller's password are counted by.
fn account_key(caller: &Caller) -> Key {
    Key::account(&caller.user_id.to_string())
}

/// A sign-in that goes on.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OpenSession"))]
pub(super) struct SessionView {
    #[salvo(schema(format = "uuid"))]
    id: String,
    /// Whether it is the one that asks.
    current: bool,
    /// What the program called itself.
    #[salvo(schema(required = true))]
    user_agent: Option<String>,
    /// The address it called from last.
    #[salvo(schema(required = true))]
    address: Option<String>,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    /// When its tokens were last renewed.
    #[salvo(schema(format = "date-time"))]
    last_used_at: String,
}

impl SessionView {
    pub(super) fn of(session: OpenSession, current: SessionId) -> SessionView {
        SessionView {
            id: session.id.to_string(),
            current: session.id == current,
            user_agent: session.origin.user_agent,
            address: session.origin.address,
            created_at: session.created_at.rfc3339(),
            last_used_at: session.last_used_at.rfc3339(),
        }
    }
}

/// All of them.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "OpenSessions"))]
struct SessionList {
    /// The one used last first.
    sessions: Vec<SessionView>,
}

/// Your sessions
///
/// Every sign-in that goes on. With Supabase, which keeps sessions itself, this is a 501.
#[endpoint(
    tags("auth"),
    status_codes(200, 401, 429, 500, 501, 503),
    security(["bearer" = []])
)]
async fn list_sessions(depot: &mut Depot) -> Result<Json<SessionList>> {
    let caller = Caller::of(depot)?;
    let sessions = services(depot)?
        .auth
        .sessions(caller)
        .await?
        .ok_or_else(kept_elsewhere)?;
    let sessions = sessions.into_iter();
    Ok(Json(SessionList {
        sessions: sessions.map(|s| SessionView::of(s, caller.session_id)).collect(),
    }))
}

fn kept_elsewhere() -> Problem {
    Problem::new(
        Code::NotImplemented,
        "Sessions are kept by the account service; DELETE /api/v1/auth/sessions ends all but this one",
    )
}

/// End a session
///
/// Its tokens are refused from now on, at other servers within seconds.
#[endpoint(
    tags("auth"),
    parameters(("session_id" = String, Path, format = "uuid", description = "Id of the session.")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn end_session(req: &mut Request, depot: &mut Depot) -> Result<Json<Done>> {
    let id: SessionId = path_id(req, "session_id")?;
    match services(depot)?.auth.end_session(Caller::of(depot)?, id).await? {
        true => Ok(Json(Done {
            message: "Session ended",
        })),
        false => Err(Problem::not_found("Session")),
    }
}

/// End all other sessions
///
/// Every sign-in but the present one.
#[endpoint(
    tags("auth"),
    status_codes(200, 401, 403, 429, 500, 503, 504),
    security(["bearer" = []])
)]
async fn end_other_sessions(req: &mut Request, depot: &mut Depot) -> Result<Json<Done>> {
    let auth = &services(depot)?.auth;
    auth.end_other_sessions(Caller::of(depot)?, credential(req)?).await?;
    Ok(Json(Done {
        message: "All other sessions have ended",
    }))
}

/// To leave.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "AccountDeletion"))]
struct AccountDeletion {
    /// The e-mail of the account, so that nobody leaves by mistake; its id, when it has none.
    #[salvo(schema(example = json!("ada@example.com")))]
    confirm: String,
    /// The account's password. With Supabase it may be left out, for people who have none.
    #[serde(default)]
    #[salvo(schema(max_length = 128, example = json!("correct horse battery")))]
    password: Option<String>,
}

/// Delete the account
///
/// At once and for good: every session and key ends, the e-mail is free again, and what you made is erased: waiting
/// generations are cancelled, running ones are erased after they have ended. Credits that are left are lost. The books keep
/// their amounts under an id that is nobody's.
#[endpoint(
    tags("user"),
    request_body = AccountDeletion,
    status_codes(200, 400, 401, 403, 413, 415, 422, 429, 500, 503, 504),
    security(["bearer" = []])
)]
async fn delete_account(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<Json<Done>> {
    let services = services(depot)?;
    let caller = Caller::of(depot)?;
    let body: AccountDeletion = json(req, services.config.max_body_bytes).await?;
    let user = services
        .store
        .user(caller.user_id)
        .await?
        .ok_or_else(super::person::gone)?;
    let name = match user.shown_email() {
        "" => user.id.to_string(),
        email => email.to_owned(),
    };
    let mut faults = Faults::default();
    faults.unless(
        body.confirm.trim().to_lowercase() == name,
        &["body", "confirm"],
        "must be the e-mail of this account (its id, when it has none)",
        "confirmation",
    );
    faults.unless(
        body.password
            .as_ref()
            .is_none_or(|p| p.chars().count() <= MAX_PASSWORD_CHARS),
        &["body", "password"],
        format!("must have at most {MAX_PASSWORD_CHARS} characters"),
        "length",
    );
    faults.finish()?;
    let leave = services.auth.delete_account(caller, body.password);
    guess(services, res, account_key(caller), leave).await?;
    Ok(Json(Done {
        message: "Account deleted; what is left of it is being erased",
    }))
}
