//! Accounts at Supabase: passwords and sessions are GoTrue's, credits and everything else are ours.
//!
//! Registration, login, refresh and logout are calls to it; a token is checked here ([`tokens`]) with its published keys
//! ([`jwks`]). Somebody with a valid token who is not known yet gets a row, an account and the start credits, once.
//!
//! Invariants:
//! - nothing of its texts reaches a client, nothing of tokens, passwords and e-mails a log;
//! - what changes something there is never repeated on a doubt;
//! - while it is away, tokens that were signed with known keys go on working.

mod care;
mod checked;
mod errors;
mod gotrue;
mod jwks;
mod tokens;

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Auth, AuthError, Caller, Refusal, Session, normal_email};
use crate::clock;
use crate::config::SupabaseConfig;
use crate::id::UserId;
use crate::store::{Arrival, FORMER_EMAIL_DOMAIN, NO_EMAIL_DOMAIN, Role, User};
use gotrue::{AUTO_CONFIRMED, GoTrue, Granted, PATIENCE, Person, SHORT_PATIENCE, SignedUp};
use tokens::{Fault, Proof, Tokens};

/// Longest life that a project can give its tokens.
pub(super) const LONGEST_TOKEN: Duration = Duration::from_secs(7 * 86_400);
/// How long what a project allows is believed.
const SETTINGS_KEPT: Duration = Duration::from_secs(60);
/// After a question that it did not answer, the service is not asked what can do without it for so long.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// How long somebody is remembered as known: then it is looked up again whether they have left.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// People that are remembered as known; then the memory begins anew.
const MOST_KNOWN: usize = 1_000_000;
/// Longest name of a person, in characters.
const NAME_MAX_CHARS: usize = 200;

/// What the account service knows about a person beyond our row, for the answers that show it.
pub struct Elsewhere {
    /// Empty for none.
    pub phone: String,
    /// RFC 3339; `None` while it is not confirmed.
    pub email_confirmed_at: Option<String>,
    /// The same of e-mail or phone, whichever was first.
    pub confirmed_at: Option<String>,
    /// RFC 3339.
    pub last_sign_in_at: Option<String>,
    /// How the person signs in.
    pub provider: String,
    /// All ways that were used.
    pub providers: Vec<String>,
    /// Third-party identities, as the service gives them.
    pub identities: Vec<Value>,
}

/// The account service and what is remembered of it.
pub(super) struct Supabase {
    gotrue: GoTrue,
    tokens: Tokens,
    /// Who has a row here, so that a request does not have to look.
    known: RwLock<HashMap<UserId, Instant>>,
    /// Whether people may register, and until when that is believed.
    open: Mutex<Option<(bool, Instant)>>,
    /// Until when it is left alone, by our clock.
    alone_until: AtomicI64,
}

impl Supabase {
    /// `None` when accounts are local.
    pub(super) fn new(config: &SupabaseConfig) -> anyhow::Result<Option<Supabase>> {
        let (Some(auth_url), Some(issuer)) = (config.auth_url(), config.issuer()) else {
            return Ok(None);
        };
        Ok(Some(Supabase {
            gotrue: GoTrue::new(&auth_url, config)?,
            tokens: Tokens::new(&issuer, config.jwt_secret.as_ref()),
            known: RwLock::default(),
            open: Mutex::default(),
            alone_until: AtomicI64::new(0),
        }))
    }

    /// Keeps the keys fresh until told to stop.
    pub(super) async fn keep_keys(&self, stop: CancellationToken) {
        let secret = self.tokens.has_secret();
        self.tokens.keys.keep(&self.gotrue, secret, stop).await;
    }

    /// Whether it is there and takes our key.
    pub(super) async fn health(&self) -> Result<(), AuthError> {
        self.gotrue.health(Instant::now() + SHORT_PATIENCE).await
    }

    /// Who brought a token.
    async fn verify(&self, token: &str) -> Result<Proof, AuthError> {
        self.tokens.verify(token).await.map_err(|fault| match fault {
            Fault::KeysAway => AuthError::ServiceAway,
            fault => {
                tracing::debug!(fault = %fault, "a token was refused");
                AuthError::InvalidToken
            }
        })
    }

    fn is_known(&self, id: UserId) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&id).is_some_and(|since| since.elapsed() < KNOWN_FOR)
    }

    fn remember(&self, id: UserId) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(id, Instant::now());
    }

    /// Refuses a registration that the project does not allow: the admin route would not.
    async fn is_open(&self, until: Instant) -> Result<(), AuthError> {
        let now = Instant::now();
        let kept = *self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match kept.filter(|(_, kept_until)| *kept_until > now) {
            Some((open, _)) => open,
            None => {
                let open = self.gotrue.settings(until).await?.is_open();
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some((open, now + SETTINGS_KEPT));
                open
            }
        };
        match open {
            true => Ok(()),
            false => Err(AuthError::Refused(Refusal::RegistrationClosed)),
        }
    }
}

/// The parts of [`Auth`] for accounts at Supabase.
impl Auth {
    pub(super) async fn register_there(
        &self,
        there: &Supabase,
        email: &str,
        password: &str,
        full_name: Option<&str>,
    ) -> Result<Session, AuthError> {
        let until = Instant::now() + PATIENCE;
        let granted = if there.gotrue.confirms_at_once() {
            there.is_open(until).await?;
            there.gotrue.create(email, password, full_name, until).await?;
            // Should this fail, the account is there, and the person signs in as usual.
            there.gotrue.password(email, password, until).await?
        } else {
            match there.gotrue.sign_up(email, password, full_name, until).await? {
                SignedUp::Session(granted) => *granted,
                SignedUp::Unconfirmed => return Err(AuthError::Refused(Refusal::ConfirmationSent)),
                SignedUp::Taken => return Err(AuthError::EmailTaken),
            }
        };
        self.arrive(there, granted).await
    }

    pub(super) async fn login_there(
        &self,
        there: &Supabase,
        email: &str,
        password: &str,
    ) -> Result<Session, AuthError> {
        let granted = there
            .gotrue
            .password(email, password, Instant::now() + PATIENCE)
            .await?;
        self.arrive(there, granted).await
    }

    pub(super) async fn refresh_there(&self, there: &Supabase, refresh_token: &str) -> Result<Session, AuthError> {
        let granted = there.gotrue.refresh(refresh_token, Instant::now() + PATIENCE).await?;
        self.arrive(there, granted).await
    }

    /// Ends a session here, which is what our routes go by, and there, so that it is not refreshed. False when only the
    /// first could be done.
    pub(super) async fn logout_there(
        &self,
        there: &Supabase,
        caller: &Caller,
        token: Option<&str>,
    ) -> Result<bool, AuthError> {
        let now = clock::now();
        self.store
            .end_foreign_session(caller.session_id, caller.user_id, now)
            .await?;
        self.revoked.add(caller.session_id, now);
        let Some(token) = token.filter(|t| is_jwt(t)) else {
            return Ok(true);
        };
        Ok(there
            .gotrue
            .logout(token, Instant::now() + SHORT_PATIENCE)
            .await
            .is_ok())
    }

    /// The owner of a valid token, who has a row and an account after this.
    pub(super) async fn verify_there(&self, there: &Supabase, token: &str) -> Result<Caller, AuthError> {
        let Proof { caller, full_name } = there.verify(token).await?;
        let caller = self.living(Ok(caller))?;
        if !there.is_known(caller.user_id) {
            let arrival = Arrival {
                id: caller.user_id,
                email: caller.email.clone(),
                full_name,
                // A token does not say whether the e-mail was confirmed.
                role: Role::User,
                fresh: false,
                signed_in: false,
                start_credits: self.start_credits,
                now: clock::now(),
            };
            if self.store.ensure_user(arrival).await?.deleted_at.is_some() {
                return Err(AuthError::InvalidToken);
            }
            there.remember(caller.user_id);
        }
        Ok(caller)
    }

    /// Asks the service how the caller's account is now: our row follows, and a session that was ended there ends here.
    /// While the service is away, what is known is good enough.
    pub(super) async fn look_there(&self, there: &Supabase, caller: &Caller, token: &str) -> Result<(), AuthError> {
        let now = clock::now();
        if !is_jwt(token) || there.alone_until.load(Ordering::Relaxed) > now.0 {
            return Ok(());
        }
        match there.gotrue.user(token, Instant::now() + SHORT_PATIENCE).await {
            Ok(person) if person.id == caller.user_id => {
                let user = self.store.user(caller.user_id).await?;
                let arrival = self.arrival(&person, false);
                if user.is_none_or(|user| arrival.differs_from(&user)) {
                    self.store.ensure_user(arrival).await?;
                }
                Ok(())
            }
            Ok(_) | Err(AuthError::InvalidToken) => {
                self.store
                    .end_foreign_session(caller.session_id, caller.user_id, now)
                    .await?;
                self.revoked.add(caller.session_id, now);
                Err(AuthError::InvalidToken)
            }
            Err(refused @ AuthError::Refused(_)) => Err(refused),
            Err(_) => {
                there.alone_until.store(now.plus(LEFT_ALONE).0, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    pub(super) async fn rename_there(
        &self,
        there: &Supabase,
        token: &str,
        full_name: Option<&str>,
    ) -> Result<(), AuthError> {
        match is_jwt(token) {
            true => there.gotrue.rename(token, full_name, Instant::now() + PATIENCE).await,
            false => Ok(()),
        }
    }

    /// Somebody has signed in there: the row here follows.
    async fn arrive(&self, there: &Supabase, granted: Granted) -> Result<Session, AuthError> {
        // Whoever is given a token that no route takes would search for long: better told here.
        match there.tokens.verify(&granted.access_token).await {
            Ok(proof) if proof.caller.user_id == granted.user.id => {}
            // It may be right; the service has just given it.
            Err(Fault::KeysAway) => {}
            Err(Fault::Nobody) => return Err(AuthError::InvalidToken),
            _ if granted.user.is_anonymous == Some(true) => return Err(AuthError::InvalidToken),
            Ok(_) => return Err(misfit("it names somebody else")),
            Err(fault) => return Err(misfit(&fault.to_string())),
        }
        let user = self.store.ensure_user(self.arrival(&granted.user, true)).await?;
        if user.deleted_at.is_some() {
            // Their account here is closed, and the one there about to be.
            return Err(AuthError::InvalidCredentials);
        }
        there.remember(user.id);
        self.signed_in_there(user, granted).await
    }

    async fn signed_in_there(&self, user: User, granted: Granted) -> Result<Session, AuthError> {
        let balance = self.store.balance(user.id).await?;
        Ok(Session {
            available: balance.unwrap_or_default().available(),
            access_token: granted.access_token,
            refresh_token: granted.refresh_token,
            expires_in: Duration::from_secs(granted.expires_in),
            elsewhere: Some(Box::new(granted.user.into())),
            user,
        })
    }

    /// A person as the service has them now.
    fn arrival(&self, person: &Person, signed_in: bool) -> Arrival {
        let email = email(person.email.as_deref());
        // Whoever was confirmed without a mail has not shown that the address is theirs.
        let without_mail = person
            .app_metadata
            .as_ref()
            .is_some_and(|m| m.contains_key(AUTO_CONFIRMED));
        let confirmed = person.email_confirmed_at.is_some() && !without_mail;
        let role = match confirmed && self.operator_emails.contains(&email) {
            true => Role::Operator,
            false => Role::User,
        };
        Arrival {
            id: person.id,
            email,
            full_name: full_name(person.user_metadata.as_ref()),
            role,
            fresh: true,
            signed_in,
            start_credits: self.start_credits,
            now: clock::now(),
        }
    }
}

/// The service and this server do not agree about tokens.
fn misfit(why: &str) -> AuthError {
    tracing::error!(
        why,
        "the account service gives tokens that are refused here: check SUPABASE_URL, SUPABASE_JWT_ISSUER and SUPABASE_JWT_SECRET"
    );
    AuthError::ServiceAway
}

/// Other ways to prove who one is, such as API keys, are nothing to ask the service about.
fn is_jwt(token: &str) -> bool {
    token.bytes().filter(|b| *b == b'.').count() == 2
}

/// An e-mail as our rows have it; empty for none, and for what is no address.
fn email(text: Option<&str>) -> String {
    let normal = text.and_then(normal_email).unwrap_or_default();
    match [NO_EMAIL_DOMAIN, FORMER_EMAIL_DOMAIN]
        .iter()
        .any(|d| normal.ends_with(d))
    {
        true => String::new(),
        false => normal,
    }
}

/// The name that people give themselves, or that their provider gives, within our bounds.
fn full_name(metadata: Option<&Map<String, Value>>) -> Option<String> {
    let named = |name: &str| {
        metadata?
            .get(name)?
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let text = named("full_name").or_else(|| named("name"))?;
    let clean: String = text.chars().filter(|c| !c.is_control()).take(NAME_MAX_CHARS).collect();
    Some(clean).filter(|clean| !clean.is_empty())
}

impl From<Person> for Elsewhere {
    fn from(person: Person) -> Self {
        let app = person.app_metadata.unwrap_or_default();
        let providers = app.get("providers").and_then(Value::as_array).into_iter().flatten();
        Elsewhere {
            phone: person.phone.unwrap_or_default(),
            email_confirmed_at: person.email_confirmed_at,
            confirmed_at: person.confirmed_at,
            last_sign_in_at: person.last_sign_in_at,
            provider: app
                .get("provider")
                .and_then(Value::as_str)
                .unwrap_or("email")
                .to_owned(),
            providers: providers.filter_map(Value::as_str).map(str::to_owned).collect(),
            identities: person.identities.unwrap_or_default(),
        }
    }
}
