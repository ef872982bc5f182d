//! `/api/v1/user`: the caller's profile.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};

use super::person::{account, gone};
use crate::clock;
use crate::http::Caller;
use crate::http::hoops::{authenticated, credential};
use crate::http::input::{Faults, json, present, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::Result;
use crate::ledger::Credits;
use crate::store::{ProfileChange, Role, User};

const FULL_NAME_MAX_CHARS: usize = 200;
const DISPLAY_NAME_MAX_CHARS: usize = 100;
const AVATAR_URL_MAX_CHARS: usize = 2048;

/// Routes below `/api/v1/user`, with their hoops.
pub fn router() -> Router {
    Router::with_hoop(authenticated)
        .hoop(limit(Policy::Api))
        .push(Router::with_path("profile").get(profile).put(update_profile))
        .push(Router::with_path("credits").get(user_credits))
        .push(Router::with_path("info").get(user_info))
}

/// A person's profile.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "Profile"))]
struct Profile {
    #[salvo(schema(format = "uuid"))]
    id: String,
    email: String,
    #[salvo(schema(required = true))]
    display_name: Option<String>,
    #[salvo(schema(required = true))]
    full_name: Option<String>,
    #[salvo(schema(required = true))]
    avatar_url: Option<String>,
    /// What can be spent.
    credits_balance: i64,
    current_plan: String,
    /// `viewer` or `operator`.
    role: &'static str,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
    #[salvo(schema(format = "date-time"))]
    email_confirmed_at: String,
    /// Always `null`.
    #[salvo(schema(required = true))]
    phone: Option<String>,
    /// Always `null`.
    #[salvo(schema(required = true))]
    phone_confirmed_at: Option<String>,
}

impl Profile {
    fn new(user: User, available: Credits) -> Self {
        Profile {
            id: user.id.to_string(),
            email: user.shown_email().to_owned(),
            display_name: user.display_name,
            full_name: user.full_name,
            avatar_url: user.avatar_url,
            credits_balance: available.0,
            current_plan: user.plan,
            role: match user.role {
                Role::User => "viewer",
                Role::Operator => "operator",
            },
            created_at: user.created_at.rfc3339(),
            updated_at: user.updated_at.rfc3339(),
            email_confirmed_at: user.created_at.rfc3339(),
            phone: None,
            phone_confirmed_at: None,
        }
    }
}

/// Own profile
#[endpoint(
    tags("user"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
async fn profile(depot: &mut Depot) -> Result<Json<Profile>> {
    let (user, available) = account(depot).await?;
    Ok(Json(Profile::new(user, available)))
}

/// What to change; what is left out stays, `null` clears.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "ProfileUpdate"))]
struct ProfileUpdate {
    /// Letters, spaces, hyphens, apostrophes and dots.
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<String>, max_length = 200, example = json!("Ada Lovelace")))]
    full_name: Option<Option<String>>,
    /// What others see.
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<String>, max_length = 100, example = json!("ada")))]
    display_name: Option<Option<String>>,
    /// An https URL.
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<String>, format = "uri", max_length = 2048, example = json!("https://example.com/ada.png")))]
    avatar_url: Option<Option<String>>,
}

/// Change own profile
#[endpoint(
    tags("user"),
    request_body = ProfileUpdate,
    status_codes(200, 400, 401, 403, 413, 415, 422, 429, 500, 503, 504),
    security(["bearer" = []])
)]
async fn update_profile(req: &mut Request, depot: &mut Depot) -> Result<Json<Profile>> {
    let services = services(depot)?;
    let id = Caller::of(depot)?.user_id;
    let body: ProfileUpdate = json(req, services.config.max_body_bytes).await?;
    let change = ProfileChange {
        full_name: body.full_name.map(none_if_empty),
        display_name: body.display_name.map(none_if_empty),
        avatar_url: body.avatar_url.map(none_if_empty),
    };
    check(&change)?;
    if let Some(full_name) = &change.full_name {
        services.auth.rename(credential(req)?, full_name.as_deref()).await?;
    }
    let user = services
        .store
        .update_profile(id, change, clock::now())
        .await?
        .ok_or_else(gone)?;
    let balance = services.store.balance(id).await?.ok_or_else(gone)?;
    Ok(Json(Profile::new(user, balance.available())))
}

fn none_if_empty(text: Option<String>) -> Option<String> {
    text.filter(|t| !t.is_empty())
}

fn check(change: &ProfileChange) -> Result<()> {
    let mut faults = Faults::default();
    if let Some(Some(name)) = &change.full_name {
        let loc = ["body", "full_name"];
        faults.text(name, &loc, FULL_NAME_MAX_CHARS, false);
        faults.unless(
            name.chars().all(is_name_char),
            &loc,
            "must consist of letters, spaces, hyphens, apostrophes and dots",
            "characters",
        );
    }
    if let Some(Some(name)) = &change.display_name {
        faults.text(name, &["body", "display_name"], DISPLAY_NAME_MAX_CHARS, false);
    }
    if let Some(Some(url)) = &change.avatar_url {
        let loc = ["body", "avatar_url"];
        faults.text(url, &loc, AVATAR_URL_MAX_CHARS, false);
        let is_https = url::Url::parse(url).is_ok_and(|u| {
            u.scheme() == "https" && u.host().is_some() && u.username().is_empty() && u.password().is_none()
        });
        faults.unless(is_https, &loc, "must be an https URL", "url");
    }
    faults.finish()
}

/// Letters of any script with their combining marks, and what stands between the parts of a name.
fn is_name_char(c: char) -> bool {
    c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | '\u{2019}' | '.' | '\u{300}'..='\u{36f}')
}

/// What can be spent.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "UserCredits"))]
struct UserCredits {
    #[salvo(schema(format = "uuid"))]
    user_id: String,
    credits_balance: i64,
    /// Always `credits`.
    currency: &'static str,
}

/// Own credits
#[endpoint(
    tags("user"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
async fn user_credits(depot: &mut Depot) -> Result<Json<UserCredits>> {
    let id = Caller::of(depot)?.user_id;
    let balance = services(depot)?.store.balance(id).await?.ok_or_else(gone)?;
    Ok(Json(UserCredits {
        user_id: id.to_string(),
        credits_balance: balance.available().0,
        currency: "credits",
    }))
}

/// What the token says.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "UserInfo"))]
struct UserInfo {
    #[salvo(schema(format = "uuid"))]
    id: String,
    email: String,
    /// Always `authenticated`.
    role: &'static str,
    authenticated: bool,
}

/// What the token says
#[endpoint(
    tags("user"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
async fn user_info(depot: &mut Depot) -> Result<Json<UserInfo>> {
    let caller = Caller::of(depot)?;
    Ok(Json(UserInfo {
        id: caller.user_id.to_string(),
        email: caller.email.clone(),
        role: "authenticated",
        authenticated: true,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn named(name: &str) -> Result<()> {
        check(&ProfileChange {
            full_name: Some(Some(name.into())),
            ..ProfileChange::default()
        })
    }

    #[test]
    fn names_of_people_pass_and_markup_does_not() {
        for name in [
            "Ada Lovelace",
            "Conan O'Brien Jr.",
            "Jean-Luc",
            "Gödel",
            "Mu\u{308}ller",
            "山田 太郎",
        ] {
            assert!(named(name).is_ok(), "{name}");
        }
        for name in ["<b>", "a\u{0}b", "R2D2", &"x".repeat(201)] {
            assert!(named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn avatars_are_https_without_credentials() {
        let with = |url: &str| {
            check(&ProfileChange {
                avatar_url: Some(Some(url.into())),
                ..ProfileChange::default()
            })
        };
        assert!(with("https://example.com/a.png").is_ok());
        for url in [
            "http://example.com/a.png",
            "javascript:alert(1)",
            "https://u:p@example.com/",
            "x",
        ] {
            assert!(with(url).is_err(), "{url}");
        }
    }

    #[test]
    fn null_clears_and_absence_leaves() {
        let update: ProfileUpdate = serde_json::from_str(r#"{"full_name":null,"display_name":"x"}"#).unwrap();
        assert_eq!(update.full_name, Some(None));
        assert_eq!(update.display_name, Some(Some("x".into())));
        assert_eq!(update.avatar_url, None);
    }
}
