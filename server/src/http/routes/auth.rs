//! `/api/v1/auth`: accounts, sessions and tokens.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Response, Router};
use serde::{Deserialize, Serialize};

use super::person::{GoTrueUser, UserMetadata, account};
use crate::auth::{AuthError, MIN_PASSWORD_CHARS, STREAM_TOKEN_TTL, Session, normal_email};
use crate::clock;
use crate::http::caller::origin;
use crate::http::hoops::{authenticated, credential};
use crate::http::input::{Faults, Query, body, from_json, json, services};
use crate::http::limits::{Key, Policy, count, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::http::{Caller, Services};
use crate::id::GenerationId;
use crate::store::Role;

const EMAIL_RULE: &str = "must be an e-mail address, such as ada@example.com (ASCII; at most 254 characters)";
/// Longest name of a person, in characters.
const NAME_MAX_CHARS: usize = 200;

/// Routes below `/api/v1/auth`, with their hoops.
pub fn router() -> Router {
    let counted = |path: &str, policy| Router::with_path(path).hoop(limit(policy));
    Router::new()
        .push(counted("login", Policy::Login).post(login))
        .push(counted("register", Policy::Register).post(register))
        .push(counted("refresh", Policy::Refresh).post(refresh))
        .push(counted("check-email", Policy::CheckEmail).post(check_email))
        .push(counted("health", Policy::AuthHealth).get(auth_health))
        .push(
            Router::with_hoop(authenticated)
                .hoop(limit(Policy::Api))
                .push(Router::with_path("me").get(me))
                .push(Router::with_path("whoami").get(whoami))
                .push(Router::with_path("logout").post(logout))
                .push(Router::with_path("stream-token").post(stream_token)),
        )
}

/// To open an account.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "RegisterRequest"))]
struct RegisterRequest {
    #[salvo(schema(format = "email", max_length = 254, example = json!("ada@example.com")))]
    email: String,
    #[salvo(schema(min_length = 8, max_length = 128, example = json!("correct horse battery")))]
    password: String,
    #[serde(default)]
    #[salvo(schema(max_length = 200, example = json!("Ada Lovelace")))]
    full_name: Option<String>,
}

/// To sign in.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "LoginRequest"))]
struct LoginRequest {
    #[salvo(schema(format = "email", max_length = 254, example = json!("ada@example.com")))]
    email: String,
    #[salvo(schema(min_length = 1, max_length = 128, example = json!("correct horse battery")))]
    password: String,
}

/// To exchange a refresh token.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "RefreshRequest"))]
struct RefreshRequest {
    /// From the newest session answer; it is good for one use.
    #[salvo(schema(min_length = 1, max_length = 512))]
    refresh_token: String,
}

/// A signed-in person.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "TokenResponse"))]
struct TokenResponse {
    /// JWT; send it as `Authorization: Bearer`.
    access_token: String,
    /// Opaque; good for one refresh.
    refresh_token: String,
    /// Always `Bearer`.
    #[salvo(schema(example = json!("Bearer")))]
    token_type: &'static str,
    /// Life of the access token, in seconds.
    expires_in: u64,
    user: GoTrueUser,
}

impl From<Session> for TokenResponse {
    fn from(session: Session) -> Self {
        TokenResponse {
            user: GoTrueUser::new(&session.user, session.available, session.elsewhere.as_deref()),
            access_token: session.access_token,
            refresh_token: session.refresh_token,
            token_type: "Bearer",
            expires_in: session.expires_in.as_secs(),
        }
    }
}

/// Register
///
/// Opens an account with its start credits and signs in. The e-mail is kept in lower case.
#[endpoint(
    tags("auth"),
    request_body = RegisterRequest,
    status_codes(200, 400, 403, 409, 413, 415, 422, 429, 500, 503, 504)
)]
async fn register(req: &mut Request, depot: &mut Depot) -> Result<Json<TokenResponse>> {
    let services = services(depot)?;
    let origin = origin(req, services.config.trust_proxy_headers);
    let body: RegisterRequest = json(req, services.config.max_body_bytes).await?;
    let email = normal_email(&body.email);
    let mut faults = Faults::default();
    faults.unless(email.is_some(), &["body", "email"], EMAIL_RULE, "email");
    faults.password(&body.password, &["body", "password"], MIN_PASSWORD_CHARS);
    let full_name = body.full_name.filter(|name| !name.is_empty());
    if let Some(name) = &full_name {
        faults.text(name, &["body", "full_name"], NAME_MAX_CHARS, false);
    }
    faults.finish()?;
    let email = email.unwrap_or_default();
    Ok(Json(
        services
            .auth
            .register(&email, body.password, full_name, origin)
            .await?
            .into(),
    ))
}

/// Log in
///
/// Wrong passwords are limited per account, all logins per address.
#[endpoint(
    tags("auth"),
    request_body = LoginRequest,
    status_codes(200, 400, 401, 403, 413, 415, 422, 429, 500, 503, 504)
)]
async fn login(req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<Json<TokenResponse>> {
    let services = services(depot)?;
    let origin = origin(req, services.config.trust_proxy_headers);
    let body: LoginRequest = json(req, services.config.max_body_bytes).await?;
    let email = normal_email(&body.email);
    let mut faults = Faults::default();
    faults.unless(email.is_some(), &["body", "email"], EMAIL_RULE, "email");
    faults.password(&body.password, &["body", "password"], 1);
    faults.finish()?;
    let email = email.unwrap_or_default();

    let attempt = services.auth.login(&email, body.password, origin);
    let session = guess(services, res, Key::account(&email), attempt).await?;
    Ok(Json(session.into()))
}

/// Carries out what needs the password of an account, with wrong ones limited. Counted before it is checked, so that parallel
/// guesses cannot slip past; a right one is given back.
pub(super) async fn guess<T>(
    services: &Services,
    res: &mut Response,
    account: Key,
    attempt: impl Future<Output = std::result::Result<T, AuthError>>,
) -> Result<T> {
    count(services, Policy::LoginAccount, account, res).await?;
    let outcome = attempt.await;
    // Nor is it a guess when nobody could look.
    if !matches!(outcome, Err(AuthError::InvalidCredentials)) {
        services.limiter.give_back(Policy::LoginAccount, account).await;
    }
    Ok(outcome?)
}

/// Refresh
///
/// Exchanges a refresh token for a new pair. A second use of the same token ends the session.
#[endpoint(
    tags("auth"),
    request_body = RefreshRequest,
    status_codes(200, 400, 401, 403, 413, 415, 422, 429, 500, 503, 504)
)]
async fn refresh(req: &mut Request, depot: &mut Depot) -> Result<Json<TokenResponse>> {
    let services = services(depot)?;
    let origin = origin(req, services.config.trust_proxy_headers);
    let body: RefreshRequest = json(req, services.config.max_body_bytes).await?;
    let session = services
        .auth
        .refresh(&body.refresh_token, origin)
        .await
        .map_err(|e| match e {
            AuthError::InvalidToken => Problem::new(Code::Unauthorized, "Invalid refresh token"),
            other => other.into(),
        })?;
    Ok(Json(session.into()))
}

/// Whether an e-mail is free.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "EmailAvailability"))]
struct EmailAvailability {
    /// True when an account can be opened with it.
    available: bool,
}

/// Check an e-mail
///
/// Says whether an account can be opened with it.
#[endpoint(
    tags("auth"),
    parameters(("email" = String, Query, format = "email", max_length = 254, description = "The address to look up.")),
    status_codes(200, 422, 429, 500, 503)
)]
async fn check_email(req: &mut Request, depot: &mut Depot) -> Result<Json<EmailAvailability>> {
    let services = services(depot)?;
    let query = Query::of(req);
    let email = query
        .text("email")
        .and_then(normal_email)
        .ok_or_else(|| Problem::field(&["query", "email"], EMAIL_RULE, "email"))?;
    let taken = services.store.user_by_email(&email).await?;
    Ok(Json(EmailAvailability {
        available: taken.is_none(),
    }))
}

/// The caller's account.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Me"))]
struct Me {
    #[salvo(schema(format = "uuid"))]
    id: String,
    email: String,
    /// Empty when it is not known.
    full_name: String,
    #[salvo(schema(required = true))]
    display_name: Option<String>,
    #[salvo(schema(required = true))]
    avatar_url: Option<String>,
    /// What can be spent.
    credits_balance: i64,
    current_plan: String,
    /// Always `authenticated`.
    role: &'static str,
    /// Whether the account may do what concerns the whole installation.
    is_operator: bool,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
}

/// Own account
#[endpoint(
    tags("auth"),
    status_codes(200, 401, 403, 429, 500, 503),
    security(["bearer" = []])
)]
async fn me(req: &mut Request, depot: &mut Depot) -> Result<Json<Me>> {
    services(depot)?.auth.look(Caller::of(depot)?, credential(req)?).await?;
    let (user, available) = account(depot).await?;
    Ok(Json(Me {
        id: user.id.to_string(),
        email: user.shown_email().to_owned(),
        full_name: user.full_name.unwrap_or_default(),
        display_name: user.display_name,
        avatar_url: user.avatar_url,
        credits_balance: available.0,
        current_plan: user.plan,
        role: "authenticated",
        is_operator: user.role == Role::Operator,
        created_at: user.created_at.rfc3339(),
        updated_at: user.updated_at.rfc3339(),
    }))
}

/// Who the token belongs to.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "WhoAmI"))]
struct WhoAmI {
    #[salvo(schema(format = "uuid"))]
    id: String,
    email: String,
    /// Always `authenticated`.
    role: &'static str,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    metadata: UserMetadata,
}

/// Who am I
#[endpoint(
    tags("auth"),
    status_codes(200, 401, 403, 429, 500, 503),
    security(["bearer" = []])
)]
async fn whoami(req: &mut Request, depot: &mut Depot) -> Result<Json<WhoAmI>> {
    services(depot)?.auth.look(Caller::of(depot)?, credential(req)?).await?;
    let (user, available) = account(depot).await?;
    Ok(Json(WhoAmI {
        id: user.id.to_string(),
        role: "authenticated",
        created_at: user.created_at.rfc3339(),
        metadata: UserMetadata::new(&user, available),
        email: user.shown_email().to_owned(),
    }))
}

/// A sentence about what was done.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Done"))]
pub(super) struct Done {
    pub(super) message: &'static str,
}

/// Log out
///
/// Ends the session: its access tokens and its refresh token are refused from now on. A body is not read.
#[endpoint(
    tags("auth"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
async fn logout(req: &mut Request, depot: &mut Depot) -> Result<Json<Done>> {
    let told = services(depot)?
        .auth
        .logout(Caller::of(depot)?, credential(req).ok())
        .await?;
    Ok(Json(Done {
        message: match told {
            true => "Logged out successfully",
            false => "Logged out",
        },
    }))
}

/// Which stream a token is for.
#[derive(Deserialize, Default, ToSchema)]
#[salvo(schema(name = "StreamTokenRequest", example = json!({})))]
struct StreamTokenRequest {
    /// One of your generations; without it the token opens the stream of any of them.
    #[serde(default)]
    #[salvo(schema(value_type = Option<String>, format = "uuid"))]
    generation_id: Option<GenerationId>,
}

/// A token for the URL of an event stream.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "StreamToken"))]
struct StreamToken {
    /// Send it as `?token=` to the stream route; no other route accepts it.
    token: String,
    /// Its life, in seconds.
    expires_in: u64,
}

/// Stream token
///
/// Makes a short-lived token for the URL of an event stream, for clients that cannot send headers, such as a browser's
/// `EventSource`. It dies with the session. The body may be left out.
#[endpoint(
    tags("auth"),
    request_body = Option<StreamTokenRequest>,
    status_codes(200, 400, 401, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn stream_token(req: &mut Request, depot: &mut Depot) -> Result<Json<StreamToken>> {
    let services = services(depot)?;
    let text = body(req, services.config.max_body_bytes).await?;
    let asked: Option<StreamTokenRequest> = match text.is_empty() {
        true => None,
        false => from_json(text, "body")?,
    };
    let generation = asked.unwrap_or_default().generation_id;
    Ok(Json(StreamToken {
        token: services.auth.stream_token(Caller::of(depot)?, generation)?,
        expires_in: STREAM_TOKEN_TTL.as_secs(),
    }))
}

/// State of the account service.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "AuthHealth"))]
struct AuthHealth {
    /// `healthy`; otherwise the answer is a 503.
    status: &'static str,
    service: &'static str,
    /// Where accounts live: `local` or `supabase`.
    provider: &'static str,
    /// `null`: accounts are local.
    #[salvo(schema(required = true, format = "uri"))]
    supabase_url: Option<String>,
    #[salvo(schema(format = "date-time"))]
    timestamp: String,
}

/// Health of the account service
#[endpoint(tags("auth"), status_codes(200, 429, 500, 503, 504))]
async fn auth_health(depot: &mut Depot) -> Result<Json<AuthHealth>> {
    let services = services(depot)?;
    services.store.ping().await?;
    services.auth.health().await?;
    Ok(Json(AuthHealth {
        status: "healthy",
        service: "auth",
        provider: services.auth.provider(),
        supabase_url: services.config.supabase.url.clone(),
        timestamp: clock::now().rfc3339(),
    }))
}
