//! The account service's API (GoTrue): what is asked for, within which time, and what its answers hold.
//!
//! One budget of time for everything that one request of ours needs of it. Reads are tried a second time when the
//! connection failed; what changes something is not, because it may have happened.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;
use velro_plugin::Transport;

use super::errors::Told;
use crate::auth::AuthError;
use crate::config::{Secret, SupabaseConfig};
use crate::id::UserId;
use crate::upstream::{Service, ServiceAnswer, ServiceCall, ServiceMethod};

/// For all calls that one request needs; existing clients wait five seconds.
pub(super) const PATIENCE: Duration = Duration::from_millis(3500);
/// The same where the answer is only of use when it is quick.
pub(super) const SHORT_PATIENCE: Duration = Duration::from_millis(1500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest answer: a person with many identities, a set of keys.
const MAX_BODY_BYTES: usize = 512 << 10;
/// The style of error bodies that is asked for. Both are understood.
const API_VERSION: &str = "2024-01-01";

/// A person as the service has them.
#[derive(Deserialize)]
pub(super) struct Person {
    pub(super) id: UserId,
    pub(super) email: Option<String>,
    pub(super) phone: Option<String>,
    pub(super) email_confirmed_at: Option<String>,
    pub(super) confirmed_at: Option<String>,
    pub(super) last_sign_in_at: Option<String>,
    pub(super) app_metadata: Option<Map<String, Value>>,
    pub(super) user_metadata: Option<Map<String, Value>>,
    pub(super) identities: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) is_anonymous: Option<bool>,
}

/// A session that was granted.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    #[serde(default = "an_hour")]
    pub(super) expires_in: u64,
    pub(super) user: Person,
}

fn an_hour() -> u64 {
    3600
}

/// What became of a registration by the public route.
pub(super) enum SignedUp {
    /// Signed in at once.
    Session(Box<Granted>),
    /// A mail was sent.
    Unconfirmed,
    /// The answer for an address that has an account: a made-up person without identities.
    Taken,
}

/// What the project allows.
#[derive(Deserialize)]
pub(super) struct ProjectSettings {
    #[serde(default)]
    disable_signup: bool,
    external: Option<Map<String, Value>>,
}

impl ProjectSettings {
    /// Whether people may register with e-mail and password.
    pub(super) fn is_open(&self) -> bool {
        let email = self.external.as_ref().and_then(|external| external.get("email"));
        !self.disable_signup && email.and_then(Value::as_bool).unwrap_or(true)
    }
}

/// Which key a call carries.
#[derive(Clone, Copy)]
enum As<'a> {
    Anybody,
    Person(&'a str),
    Service(&'a Secret),
}

/// The client.
pub(super) struct GoTrue {
    service: Service,
    anon_key: Secret,
    service_key: Option<Secret>,
}

impl GoTrue {
    /// At `auth_url`, with the keys of the configuration.
    pub(super) fn new(auth_url: &str, config: &SupabaseConfig) -> anyhow::Result<Self> {
        Ok(GoTrue {
            service: Service::new(auth_url, CONNECT_TIMEOUT, MAX_BODY_BYTES)?,
            anon_key: config.anon_key.clone().unwrap_or_else(|| Secret::new("")),
            service_key: config.service_key.clone(),
        })
    }

    /// Whether accounts are opened by the admin route, confirmed at once.
    pub(super) fn confirms_at_once(&self) -> bool {
        self.service_key.is_some()
    }

    /// Signs in with a password.
    pub(super) async fn password(&self, email: &str, password: &str, until: Instant) -> Result<Granted, AuthError> {
        let body = json!({ "email": email, "password": password });
        let answer = self.write("/token?grant_type=password", As::Anybody, Some(&body), until);
        granted(answer.await?, Told::of_login)
    }

    /// Exchanges a refresh token.
    pub(super) async fn refresh(&self, refresh_token: &str, until: Instant) -> Result<Granted, AuthError> {
        let body = json!({ "refresh_token": refresh_token });
        let answer = self.write("/token?grant_type=refresh_token", As::Anybody, Some(&body), until);
        granted(answer.await?, Told::of_refresh)
    }

    /// Opens a confirmed account by the admin route. It carries a mark, for nobody has shown that the address is theirs.
    pub(super) async fn create(
        &self,
        email: &str,
        password: &str,
        full_name: Option<&str>,
        until: Instant,
    ) -> Result<(), AuthError> {
        let Some(key) = &self.service_key else {
            return Err(AuthError::Internal(anyhow::anyhow!("there is no service key")));
        };
        let body = json!({
            "email": email, "password": password, "email_confirm": true,
            "user_metadata": metadata(full_name), "app_metadata": { AUTO_CONFIRMED: true },
        });
        let answer = self.write("/admin/users", As::Service(key), Some(&body), until).await?;
        match answer.status {
            200..300 => Ok(()),
            _ => Err(Told::of(&answer).of_registration(password)),
        }
    }

    /// Opens an account by the public route.
    pub(super) async fn sign_up(
        &self,
        email: &str,
        password: &str,
        full_name: Option<&str>,
        until: Instant,
    ) -> Result<SignedUp, AuthError> {
        let body = json!({ "email": email, "password": password, "data": metadata(full_name) });
        let answer = self.write("/signup", As::Anybody, Some(&body), until).await?;
        if !(200..300).contains(&answer.status) {
            return Err(Told::of(&answer).of_registration(password));
        }
        let body: Value = read(&answer)?;
        if body.get("access_token").is_some() {
            return Ok(SignedUp::Session(Box::new(read(&answer)?)));
        }
        Ok(match body["identities"].as_array() {
            Some(identities) if identities.is_empty() => SignedUp::Taken,
            _ => SignedUp::Unconfirmed,
        })
    }

    /// The person behind a token, asked at the service itself.
    pub(super) async fn user(&self, token: &str, until: Instant) -> Result<Person, AuthError> {
        let answer = self.read("/user", As::Person(token), until).await?;
        match answer.status {
            200 => read(&answer),
            _ => Err(Told::of(&answer).of_user()),
        }
    }

    /// Changes the name that the service has.
    pub(super) async fn rename(&self, token: &str, full_name: Option<&str>, until: Instant) -> Result<(), AuthError> {
        let body = json!({ "data": { "full_name": full_name } }).to_string();
        let answer = self.once(ServiceMethod::Put, "/user", As::Person(token), Some(&body), until);
        let answer = answer.await.map_err(unreached)?;
        match answer.status {
            200 => Ok(()),
            _ => Err(Told::of(&answer).of_user()),
        }
    }

    /// Ends the session of a token. One that is over already is as good.
    pub(super) async fn logout(&self, token: &str, until: Instant) -> Result<(), AuthError> {
        let answer = self
            .write("/logout?scope=local", As::Person(token), None, until)
            .await?;
        match (answer.status, Told::of(&answer)) {
            (200..300, _) => Ok(()),
            (_, told) => match told.of_user() {
                AuthError::InvalidToken => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Ends every session of the token's owner but this one.
    pub(super) async fn logout_others(&self, token: &str, until: Instant) -> Result<(), AuthError> {
        let answer = self
            .write("/logout?scope=others", As::Person(token), None, until)
            .await?;
        match answer.status {
            200..300 => Ok(()),
            _ => Err(Told::of(&answer).of_user()),
        }
    }

    /// Sets the password of the token's owner.
    pub(super) async fn set_password(&self, token: &str, password: &str, until: Instant) -> Result<(), AuthError> {
        let body = json!({ "password": password }).to_string();
        let answer = self.once(ServiceMethod::Put, "/user", As::Person(token), Some(&body), until);
        let answer = answer.await.map_err(unreached)?;
        match answer.status {
            200 => Ok(()),
            _ => Err(Told::of(&answer).of_registration(password)),
        }
    }

    /// Deletes an account by the admin route; one that is gone is as good. Without a service key it stays.
    pub(super) async fn delete(&self, user: UserId, until: Instant) -> Result<(), AuthError> {
        let Some(key) = &self.service_key else {
            tracing::warn!(user_id = %user, "the account stays at Supabase: without SUPABASE_SERVICE_KEY it cannot be deleted there");
            return Ok(());
        };
        let path = format!("/admin/users/{user}");
        let answer = self.once(ServiceMethod::Delete, &path, As::Service(key), None, until);
        match answer.await.map_err(unreached)?.status {
            200..300 | 404 => Ok(()),
            status => Err(AuthError::Internal(anyhow::anyhow!(
                "the account service answered {status}"
            ))),
        }
    }

    /// What the project allows.
    pub(super) async fn settings(&self, until: Instant) -> Result<ProjectSettings, AuthError> {
        self.open("/settings", until).await
    }

    /// Whether it is there and takes our key.
    pub(super) async fn health(&self, until: Instant) -> Result<(), AuthError> {
        self.open::<Value>("/health", until).await.map(drop)
    }

    /// The public keys, with how long they may be kept.
    pub(super) async fn keys(&self, until: Instant) -> Result<(Value, Option<Duration>), AuthError> {
        let answer = self.read("/.well-known/jwks.json", As::Anybody, until).await?;
        match answer.status {
            200 => Ok((read(&answer)?, max_age(answer.header("cache-control")))),
            _ => Err(Told::of(&answer).of_read()),
        }
    }

    async fn open<T: DeserializeOwned>(&self, path: &str, until: Instant) -> Result<T, AuthError> {
        let answer = self.read(path, As::Anybody, until).await?;
        match answer.status {
            200 => read(&answer),
            _ => Err(Told::of(&answer).of_read()),
        }
    }

    async fn read(&self, path: &str, who: As<'_>, until: Instant) -> Result<ServiceAnswer, AuthError> {
        match self.once(ServiceMethod::Get, path, who, None, until).await {
            Err(Transport::NotSent | Transport::Reset) => self.once(ServiceMethod::Get, path, who, None, until).await,
            answer => answer,
        }
        .map_err(unreached)
    }

    async fn write(
        &self,
        path: &str,
        who: As<'_>,
        body: Option<&Value>,
        until: Instant,
    ) -> Result<ServiceAnswer, AuthError> {
        let body = body.map(Value::to_string);
        let answer = self.once(ServiceMethod::Post, path, who, body.as_deref(), until);
        answer.await.map_err(unreached)
    }

    async fn once(
        &self,
        method: ServiceMethod,
        path: &str,
        who: As<'_>,
        json: Option<&str>,
        until: Instant,
    ) -> Result<ServiceAnswer, Transport> {
        let (key, bearer) = match who {
            As::Anybody => (&self.anon_key, None),
            As::Person(token) => (&self.anon_key, Some(format!("Bearer {token}"))),
            As::Service(key) => (key, Some(format!("Bearer {}", key.expose()))),
        };
        let mut headers = vec![("apikey", key.expose()), ("x-supabase-api-version", API_VERSION)];
        if let Some(bearer) = &bearer {
            headers.push(("authorization", bearer));
        }
        let call = ServiceCall {
            method,
            path,
            headers: &headers,
            json,
            timeout: until.saturating_duration_since(Instant::now()),
        };
        self.service.call(&call).await
    }
}

/// In `app_metadata`, which people cannot change themselves: the account was confirmed without a mail.
pub(super) const AUTO_CONFIRMED: &str = "velro_confirmed_without_mail";

fn metadata(full_name: Option<&str>) -> Value {
    full_name.map_or_else(|| json!({}), |name| json!({ "full_name": name }))
}

fn granted(answer: ServiceAnswer, refused: fn(&Told) -> AuthError) -> Result<Granted, AuthError> {
    match answer.status {
        200..300 => read(&answer),
        _ => Err(refused(&Told::of(&answer))),
    }
}

/// An answer that cannot be read is as good as none. Its text may hold tokens: only what is wrong with it is logged.
fn read<T: DeserializeOwned>(answer: &ServiceAnswer) -> Result<T, AuthError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        tracing::error!(
            status = answer.status,
            line = error.line(),
            column = error.column(),
            kind = ?error.classify(),
            "the account service answered what cannot be read: is SUPABASE_URL right?"
        );
        AuthError::ServiceAway
    })
}

fn unreached(transport: Transport) -> AuthError {
    match transport {
        Transport::Timeout => AuthError::ServiceSlow,
        _ => AuthError::ServiceAway,
    }
}

/// `max-age` of a `Cache-Control` header.
fn max_age(header: Option<&str>) -> Option<Duration> {
    let seconds = header?
        .split(',')
        .find_map(|d| d.trim().strip_prefix("max-age=")?.parse().ok());
    seconds.map(Duration::from_secs)
}
