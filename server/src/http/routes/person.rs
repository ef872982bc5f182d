//! How a person is shown: the GoTrue shape that existing frontends know, and what the other routes share.

use salvo::Depot;
use salvo::oapi::ToSchema;
use serde::Serialize;

use crate::auth::Elsewhere;
use crate::http::Caller;
use crate::http::input::services;
use crate::http::problem::{Code, Problem, Result};
use crate::ledger::Credits;
use crate::store::User;

/// The caller as stored, with what can be spent.
pub(super) async fn account(depot: &Depot) -> Result<(User, Credits)> {
    let services = services(depot)?;
    let id = Caller::of(depot)?.user_id;
    let user = services.store.user(id).await?.ok_or_else(gone)?;
    let balance = services.store.balance(id).await?.ok_or_else(gone)?;
    Ok((user, balance.available()))
}

/// A valid token whose account does not exist any more.
pub(in crate::http) fn gone() -> Problem {
    Problem::new(Code::Unauthorized, "The account does not exist any more")
}

/// A person in GoTrue's fields, with what the scripts of the existing frontend look for beside them.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "User"))]
pub(super) struct GoTrueUser {
    #[salvo(schema(format = "uuid"))]
    id: String,
    /// Always `authenticated`.
    aud: &'static str,
    /// Always `authenticated`.
    role: &'static str,
    email: String,
    #[salvo(schema(required = true, format = "date-time"))]
    email_confirmed_at: Option<String>,
    /// Empty when there is none.
    phone: String,
    #[salvo(schema(required = true, format = "date-time"))]
    confirmed_at: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    last_sign_in_at: Option<String>,
    app_metadata: AppMetadata,
    user_metadata: UserMetadata,
    /// Third-party identities, as the account service gives them; empty when accounts are local.
    #[salvo(schema(value_type = Vec<Object>))]
    identities: Vec<serde_json::Value>,
    is_anonymous: bool,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
    #[salvo(schema(required = true))]
    full_name: Option<String>,
    #[salvo(schema(required = true))]
    display_name: Option<String>,
    #[salvo(schema(required = true))]
    avatar_url: Option<String>,
    /// What can be spent.
    credits_balance: i64,
    current_plan: String,
}

/// How the person signs in.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "AppMetadata"))]
struct AppMetadata {
    provider: String,
    providers: Vec<String>,
}

/// What the person says about themselves, and their plan.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "UserMetadata"))]
pub(super) struct UserMetadata {
    #[salvo(schema(required = true))]
    full_name: Option<String>,
    #[salvo(schema(required = true))]
    display_name: Option<String>,
    #[salvo(schema(required = true))]
    avatar_url: Option<String>,
    credits_balance: i64,
    current_plan: String,
}

impl UserMetadata {
    pub(super) fn new(user: &User, available: Credits) -> Self {
        UserMetadata {
            full_name: user.full_name.clone(),
            display_name: user.display_name.clone(),
            avatar_url: user.avatar_url.clone(),
            credits_balance: available.0,
            current_plan: user.plan.clone(),
        }
    }
}

impl GoTrueUser {
    pub(super) fn new(user: &User, available: Credits, elsewhere: Option<&Elsewhere>) -> Self {
        // Local accounts are confirmed when they are opened.
        let opened_at = || Some(user.created_at.rfc3339());
        let confirmed = |at: fn(&Elsewhere) -> &Option<String>| elsewhere.map_or_else(opened_at, |e| at(e).clone());
        let own_sign_in = || user.last_sign_in_at.map(|t| t.rfc3339());
        GoTrueUser {
            id: user.id.to_string(),
            aud: "authenticated",
            role: "authenticated",
            email: user.shown_email().to_owned(),
            email_confirmed_at: confirmed(|e| &e.email_confirmed_at),
            phone: elsewhere.map(|e| e.phone.clone()).unwrap_or_default(),
            confirmed_at: confirmed(|e| &e.confirmed_at),
            last_sign_in_at: elsewhere.and_then(|e| e.last_sign_in_at.clone()).or_else(own_sign_in),
            app_metadata: AppMetadata {
                provider: elsewhere.map_or_else(|| "email".to_owned(), |e| e.provider.clone()),
                providers: elsewhere.map_or_else(|| vec!["email".to_owned()], |e| e.providers.clone()),
            },
            user_metadata: UserMetadata::new(user, available),
            identities: elsewhere.map(|e| e.identities.clone()).unwrap_or_default(),
            is_anonymous: false,
            created_at: user.created_at.rfc3339(),
            updated_at: user.updated_at.rfc3339(),
            full_name: user.full_name.clone(),
            display_name: user.display_name.clone(),
            avatar_url: user.avatar_url.clone(),
            credits_balance: available.0,
            current_plan: user.plan.clone(),
        }
    }
}
