//! `/api/v1/keys`: API keys of the signed-in person. No key can make, see or change keys.

use salvo::oapi::{ToSchema, endpoint};
use salvo::prelude::Json;
use salvo::{Depot, Request, Router};
use serde::{Deserialize, Serialize};

use crate::auth::{MOST_KEYS, fresh_key};
use crate::clock::{self, Micros};
use crate::http::hoops::authenticated;
use crate::http::input::{Faults, json, path_id, present, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::http::{Caller, Services};
use crate::id::ApiKeyId;
use crate::ledger::Credits;
use crate::store::{ApiKey, ApiKeyChange, Created, NewApiKey, Scope};

const NAME_MAX_CHARS: usize = 100;
const MODELS_MAX: usize = 100;
const CAP_MAX: i64 = 1_000_000_000_000;
const EXPIRY_RULE: &str = "must be a time to come, such as 2030-01-31T00:00:00Z, or null for no end";

/// Routes below `/api/v1/keys`, with their hoops.
pub fn router() -> Router {
    Router::with_hoop(authenticated)
        .hoop(limit(Policy::Api))
        .get(list_keys)
        .post(create_key)
        .push(
            Router::with_path("{key_id}")
                .get(get_key)
                .patch(change_key)
                .delete(revoke_key),
        )
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[salvo(schema(name = "KeyScope"))]
enum ScopeName {
    /// Submit generations, watch, cancel and delete them, and change projects.
    Generate,
    /// See generations, projects and the profile.
    Read,
    /// See balance, statement and orders, buy and redeem.
    Billing,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Generate => Scope::Generate,
            ScopeName::Read => Scope::Read,
            ScopeName::Billing => Scope::Billing,
        }
    }
}

impl From<Scope> for ScopeName {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Generate => ScopeName::Generate,
            Scope::Read => ScopeName::Read,
            Scope::Billing => ScopeName::Billing,
        }
    }
}

/// Whether a key is good.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[salvo(schema(name = "KeyStatus"))]
enum KeyStatus {
    Active,
    Expired,
    Revoked,
}

/// An API key. The key itself is shown once, when it is made.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "ApiKey"))]
pub(super) struct KeyView {
    #[salvo(schema(format = "uuid"))]
    id: String,
    name: String,
    /// The first characters of the key.
    #[salvo(schema(example = json!("velro_sk_x3Tf")))]
    hint: String,
    status: KeyStatus,
    scopes: Vec<ScopeName>,
    /// Models it may use; `null` for all.
    #[salvo(schema(required = true))]
    models: Option<Vec<String>>,
    /// Credits it may spend in its life; `null` without a limit.
    #[salvo(schema(required = true))]
    spending_cap: Option<i64>,
    /// Credits its generations hold or were charged for.
    spent: i64,
    #[salvo(schema(format = "date-time"))]
    created_at: String,
    #[salvo(schema(format = "date-time"))]
    updated_at: String,
    #[salvo(schema(required = true, format = "date-time"))]
    expires_at: Option<String>,
    #[salvo(schema(required = true, format = "date-time"))]
    revoked_at: Option<String>,
    /// To within a minute.
    #[salvo(schema(required = true, format = "date-time"))]
    last_used_at: Option<String>,
}

impl KeyView {
    pub(super) fn of(key: ApiKey, now: Micros) -> KeyView {
        let status = match key {
            ApiKey {
                revoked_at: Some(_), ..
            } => KeyStatus::Revoked,
            ApiKey {
                expires_at: Some(expires_at),
                ..
            } if expires_at <= now => KeyStatus::Expired,
            _ => KeyStatus::Active,
        };
        KeyView {
            id: key.id.to_string(),
            name: key.name,
            hint: key.hint,
            status,
            scopes: key.scopes.into_iter().map(Into::into).collect(),
            models: key.models,
            spending_cap: key.spending_cap.map(|cap| cap.0),
            spent: key.spent.0,
            created_at: key.created_at.rfc3339(),
            updated_at: key.updated_at.rfc3339(),
            expires_at: key.expires_at.map(Micros::rfc3339),
            revoked_at: key.revoked_at.map(Micros::rfc3339),
            last_used_at: key.last_used_at.map(Micros::rfc3339),
        }
    }
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "NewApiKey"))]
struct NewKeyView {
    /// The key. Keep it now: it is not stored and not shown again.
    #[salvo(schema(example = json!("velro_sk_x3Tf...")))]
    key: String,
    api_key: KeyView,
}

/// All keys of a person.
#[derive(Serialize, ToSchema)]
#[salvo(schema(name = "ApiKeys"))]
struct KeyList {
    /// Newest first, revoked ones too.
    keys: Vec<KeyView>,
}

/// A new key.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "ApiKeyCreate", example = json!({"name": "nightly renders", "scopes": ["generate"], "spending_cap": 5000})))]
struct KeyCreate {
    /// For you to know it by.
    #[salvo(schema(min_length = 1, max_length = 100, example = json!("nightly renders")))]
    name: String,
    /// `generate` and `read` by default.
    #[serde(default)]
    #[salvo(schema(value_type = Option<Vec<ScopeName>>))]
    scopes: Option<Vec<ScopeName>>,
    /// Ids of the models it may use; all by default.
    #[serde(default)]
    models: Option<Vec<String>>,
    /// Credits it may spend in its life; no limit by default.
    #[serde(default)]
    #[salvo(schema(minimum = 0, maximum = 1000000000000_i64))]
    spending_cap: Option<i64>,
    /// From when on it is refused; never by default.
    #[serde(default)]
    #[salvo(schema(format = "date-time"))]
    expires_at: Option<String>,
}

/// What to change; what is left out stays, `null` lifts a limit.
#[derive(Deserialize, ToSchema)]
#[salvo(schema(name = "ApiKeyUpdate", example = json!({"name": "weekly renders"})))]
struct KeyUpdate {
    #[serde(default)]
    #[salvo(schema(min_length = 1, max_length = 100))]
    name: Option<String>,
    #[serde(default)]
    #[salvo(schema(value_type = Option<Vec<ScopeName>>))]
    scopes: Option<Vec<ScopeName>>,
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<Vec<String>>))]
    models: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<i64>, minimum = 0, maximum = 1000000000000_i64))]
    spending_cap: Option<Option<i64>>,
    #[serde(default, deserialize_with = "present")]
    #[salvo(schema(value_type = Option<String>, format = "date-time"))]
    expires_at: Option<Option<String>>,
}

impl KeyUpdate {
    /// The rules, for both ways in.
    fn check(self, services: &Services) -> Result<ApiKeyChange> {
        let mut faults = Faults::default();
        if let Some(name) = &self.name {
            faults.unless(!name.trim().is_empty(), &["body", "name"], "must not be blank", "blank");
            faults.text(name, &["body", "name"], NAME_MAX_CHARS, false);
        }
        let scopes = self.scopes.map(|names| {
            let mut scopes: Vec<Scope> = names.into_iter().map(Scope::from).collect();
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        });
        faults.unless(
            scopes.as_ref().is_none_or(|scopes| !scopes.is_empty()),
            &["body", "scopes"],
            "must name at least one of generate, read and billing",
            "length",
        );
        if let Some(Some(models)) = &self.models {
            check_models(models, services, &mut faults);
        }
        let cap = self.spending_cap;
        faults.unless(
            cap.flatten().is_none_or(|cap| (0..=CAP_MAX).contains(&cap)),
            &["body", "spending_cap"],
            format!("must be a whole number from 0 to {CAP_MAX}, or null for no limit"),
            "range",
        );
        let expires_at = self
            .expires_at
            .map(|given| given.map(|text| Micros::parse_rfc3339(&text)));
        let in_future = |at: Option<Micros>| at.is_some_and(|at| at > clock::now());
        faults.unless(
            expires_at.flatten().is_none_or(in_future),
            &["body", "expires_at"],
            EXPIRY_RULE,
            "date_time",
        );
        faults.finish()?;
        Ok(ApiKeyChange {
            name: self.name.map(|name| name.trim().to_owned()),
            scopes,
            models: self.models,
            spending_cap: cap.map(|cap| cap.map(Credits)),
            expires_at: expires_at.map(Option::flatten),
        })
    }
}

fn check_models(models: &[String], services: &Services, faults: &mut Faults) {
    let loc = ["body", "models"];
    faults.unless(
        (1..=MODELS_MAX).contains(&models.len()),
        &loc,
        format!("must name 1 to {MODELS_MAX} models, or be null for all"),
        "length",
    );
    let registry = services.shelf.get();
    for (index, model) in models.iter().enumerate().take(MODELS_MAX) {
        faults.unless(
            registry.model(model).is_some(),
            &["body", "models", &index.to_string()],
            "must be the id of a model, as /api/v1/models lists them",
            "unknown_model",
        );
    }
}

/// Your API keys
#[endpoint(
    tags("keys"),
    status_codes(200, 401, 429, 500, 503),
    security(["bearer" = []])
)]
async fn list_keys(depot: &mut Depot) -> Result<Json<KeyList>> {
    let services = services(depot)?;
    let keys = services.store.api_keys(Caller::of(depot)?.user_id).await?;
    let now = clock::now();
    Ok(Json(KeyList {
        keys: keys.into_iter().map(|key| KeyView::of(key, now)).collect(),
    }))
}

/// Make an API key
///
/// For programs: send it as `Authorization: Bearer`, `Authorization: Key` or `x-api-key`. It is shown in this answer only.
#[endpoint(
    tags("keys"),
    request_body = KeyCreate,
    status_codes(200, 400, 401, 409, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn create_key(req: &mut Request, depot: &mut Depot) -> Result<Json<NewKeyView>> {
    let services = services(depot)?;
    let user_id = Caller::of(depot)?.user_id;
    let body: KeyCreate = json(req, services.config.max_body_bytes).await?;
    let checked = KeyUpdate {
        name: Some(body.name),
        scopes: body.scopes,
        models: body.models.map(Some),
        spending_cap: Some(body.spending_cap),
        expires_at: body.expires_at.map(Some),
    }
    .check(services)?;
    let fresh = fresh_key()?;
    let now = clock::now();
    let new = NewApiKey {
        id: ApiKeyId::new(),
        user_id,
        name: checked.name.unwrap_or_default(),
        hash: fresh.hash,
        hint: fresh.hint,
        scopes: checked.scopes.unwrap_or_else(|| vec![Scope::Generate, Scope::Read]),
        models: checked.models.flatten(),
        spending_cap: checked.spending_cap.flatten(),
        expires_at: checked.expires_at.flatten(),
        most: MOST_KEYS,
        now,
    };
    match services.store.create_api_key(new).await? {
        Created::New(key) => Ok(Json(NewKeyView {
            key: fresh.key,
            api_key: KeyView::of(key, now),
        })),
        Created::Taken => Err(Problem::new(
            Code::Conflict,
            format!("You have {MOST_KEYS} keys; revoke one that is not used any more"),
        )),
    }
}

/// An API key
#[endpoint(
    tags("keys"),
    parameters(("key_id" = String, Path, format = "uuid", description = "Id of the key.")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn get_key(req: &mut Request, depot: &mut Depot) -> Result<Json<KeyView>> {
    let services = services(depot)?;
    let id: ApiKeyId = path_id(req, "key_id")?;
    let key = services.store.api_key(Caller::of(depot)?.user_id, id).await?;
    Ok(Json(KeyView::of(key.ok_or_else(missing)?, clock::now())))
}

/// Change an API key
///
/// Its name, scopes, models, cap and end; a raised cap counts at once, other changes within seconds. A revoked key cannot be
/// changed.
#[endpoint(
    tags("keys"),
    parameters(("key_id" = String, Path, format = "uuid", description = "Id of the key.")),
    request_body = KeyUpdate,
    status_codes(200, 400, 401, 404, 413, 415, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn change_key(req: &mut Request, depot: &mut Depot) -> Result<Json<KeyView>> {
    let services = services(depot)?;
    let owner = Caller::of(depot)?.user_id;
    let id: ApiKeyId = path_id(req, "key_id")?;
    let body: KeyUpdate = json(req, services.config.max_body_bytes).await?;
    let change = body.check(services)?;
    let now = clock::now();
    let key = services.store.change_api_key(owner, id, change, now).await?;
    services.auth.keys_changed(None);
    Ok(Json(KeyView::of(key.ok_or_else(missing)?, now)))
}

/// Revoke an API key
///
/// It is refused from now on, at other servers within seconds. What it has submitted goes on.
#[endpoint(
    tags("keys"),
    parameters(("key_id" = String, Path, format = "uuid", description = "Id of the key.")),
    status_codes(200, 401, 404, 422, 429, 500, 503),
    security(["bearer" = []])
)]
async fn revoke_key(req: &mut Request, depot: &mut Depot) -> Result<Json<KeyView>> {
    let services = services(depot)?;
    let owner = Caller::of(depot)?.user_id;
    let id: ApiKeyId = path_id(req, "key_id")?;
    let now = clock::now();
    let key = services.store.revoke_api_key(owner, id, now).await?;
    let key = key.ok_or_else(missing)?;
    services.auth.keys_changed(Some(id));
    Ok(Json(KeyView::of(key, now)))
}

fn missing() -> Problem {
    Problem::not_found("API key")
}
