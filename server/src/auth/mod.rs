//! Who is calling: passwords, tokens, sessions.
//!
//! Access tokens are JWTs (HS256, issuer and audience pinned) and are checked without a database: what a check needs
//! to know about ended sessions is kept in memory ([`revoked`]) and refreshed every few seconds, at once for what this
//! process ended itself. Refresh tokens are random, stored only as SHA-256, and good for one use: a second use ends
//! the session, whoever of the two was the thief.
//!
//! Invariants:
//! - no token, password or hash reaches a log line, an error text or `Debug`;
//! - a login for an unknown e-mail costs the same work as one with a wrong password;
//! - hashing never runs on the async threads, and only a few at once.

mod care;
mod email;
mod keys;
mod password;
mod revoked;
mod supabase;
mod token;

pub use email::normal_email;
pub use keys::{FreshKey, KEY_PREFIX, KeyRights, MOST_KEYS, fresh_key};
pub use password::{MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS};
pub use supabase::Elsewhere;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Config;
use crate::id::{ApiKeyId, GenerationId, SessionId, UserId};
use crate::ledger::Credits;
use crate::store::{Created, NewSession, NewUser, Origin, Role, Rotated, Rotation, Store, StoreError, User};
use keys::Keys;
use password::Passwords;
use revoked::Revoked;
use supabase::Supabase;
use token::{Signer, TokenFault};

/// How long a stream token opens streams: long enough for an `EventSource` to connect again a few times.
pub const STREAM_TOKEN_TTL: Duration = Duration::from_secs(300);

/// How often sessions that other replicas ended are read.
const REVOKED_EVERY: Duration = Duration::from_secs(3);

/// The owner of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Caller {
    pub user_id: UserId,
    pub session_id: SessionId,
    /// As of the token; empty for a stream token, which carries none because it appears in URLs.
    pub email: String,
    /// What the API key it came with may do; `None` for a person's session. `session_id` then has the key's id.
    pub key: Option<Arc<KeyRights>>,
}

/// A signed-in person with fresh tokens.
pub struct Session {
    /// As stored.
    pub user: User,
    /// What can be spent.
    pub available: Credits,
    /// JWT.
    pub access_token: String,
    /// Opaque, one use.
    pub refresh_token: String,
    /// Life of the access token.
    pub expires_in: Duration,
    /// What another service that keeps the account knows beyond our row.
    pub elsewhere: Option<Box<Elsewhere>>,
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The e-mail has an account.
    #[error("the e-mail is registered")]
    EmailTaken,
    /// Unknown e-mail or wrong password; deliberately not told apart.
    #[error("e-mail or password is wrong")]
    InvalidCredentials,
    /// Not a valid token: unknown, expired, used up, of an ended session, or not ours.
    #[error("the token is not valid")]
    InvalidToken,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked at once")]
    Busy,
    /// The account service asks for a better password: the rules that were broken, as far as it says.
    #[error("the password is too weak")]
    WeakPassword(Vec<&'static str>),
    /// The account service lets this person do nothing now.
    #[error("the account service refused: {0:?}")]
    Refused(Refusal),
    /// The account service has had too many requests.
    #[error("the account service limits requests")]
    Limited {
        /// When it may be tried again.
        retry_after_seconds: u64,
    },
    /// The account service does not answer, or not as it should.
    #[error("the account service is not available")]
    ServiceAway,
    /// The account service did not answer in time.
    #[error("the account service took too long")]
    ServiceSlow,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug or a broken machine.
    #[error("authentication failed")]
    Internal(#[source] anyhow::Error),
}

/// Why an account service lets somebody do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The account waits for its mail to be confirmed.
    EmailNotConfirmed,
    /// The account was opened and waits for its mail to be confirmed.
    ConfirmationSent,
    /// The account is banned.
    Banned,
    /// Nobody may register.
    RegistrationClosed,
    /// Nobody may sign in with a password.
    LoginClosed,
    /// It wants a captcha, which only its own clients can solve.
    Captcha,
    /// It wants a fresh or a second proof, which only its own clients can give.
    StrongerSignIn,
    /// It does not take the address.
    EmailRefused,
}

/// Where accounts live.
enum Accounts {
    Local,
    Supabase(Box<Supabase>),
}

/// Accounts and tokens of this installation.
pub struct Auth {
    accounts: Accounts,
    store: Arc<dyn Store>,
    passwords: Passwords,
    signer: Signer,
    revoked: Revoked,
    keys: Keys,
    refresh_token_ttl: Duration,
    start_credits: Credits,
    operator_emails: Vec<String>,
}

impl Auth {
    /// Accounts where the configuration says. Call [`Auth::load_revoked`] before serving, and keep [`Auth::watch_revoked`]
    /// and [`Auth::keep_keys`] running. Fails when the client of an account service cannot be made.
    pub fn open(config: &Config, store: Arc<dyn Store>) -> anyhow::Result<Auth> {
        let mut auth = Auth::new(config, store);
        if let Some(supabase) = Supabase::new(&config.supabase)? {
            auth.revoked = Revoked::new(supabase::LONGEST_TOKEN + token::LEEWAY);
            auth.accounts = Accounts::Supabase(Box::new(supabase));
        }
        Ok(auth)
    }

    /// The same with local accounts, whatever the configuration says.
    pub fn new(config: &Config, store: Arc<dyn Store>) -> Auth {
        let longest = config.access_token_ttl.max(STREAM_TOKEN_TTL) + token::LEEWAY;
        Auth {
            keys: Keys::new(Arc::clone(&store)),
            accounts: Accounts::Local,
            store,
            passwords: Passwords::new(),
            signer: Signer::new(&config.jwt_secret, config.access_token_ttl),
            revoked: Revoked::new(longest),
            refresh_token_ttl: config.refresh_token_ttl,
            start_credits: Credits(config.default_user_credits),
            operator_emails: config.operator_emails.clone(),
        }
    }

    /// Creates an account with its start credits and signs in. `email` is [normal](normal_email), the password has been
    /// measured. Should the process die after the account is stored, the person signs in as usual.
    pub async fn register(
        &self,
        email: &str,
        password: String,
        full_name: Option<String>,
        origin: Origin,
    ) -> Result<Session, AuthError> {
        if let Accounts::Supabase(there) = &self.accounts {
            return self.register_there(there, email, &password, full_name.as_deref()).await;
        }
        let password_hash = self.passwords.hash(password).await?;
        let role = match self.operator_emails.iter().any(|e| e == email) {
            true => Role::Operator,
            false => Role::User,
        };
        let new = NewUser {
            id: UserId::new(),
            email: email.to_owned(),
            password_hash: Some(password_hash),
            full_name,
            role,
            start_credits: self.start_credits,
            now: clock::now(),
        };
        match self.store.create_user(new).await? {
            Created::New(user) => self.open_session(user, origin).await,
            Created::Taken => Err(AuthError::EmailTaken),
        }
    }

    /// Signs in.
    pub async fn login(&self, email: &str, password: String, origin: Origin) -> Result<Session, AuthError> {
        if let Accounts::Supabase(there) = &self.accounts {
            return self.login_there(there, email, &password).await;
        }
        let user = self.store.user_by_email(email).await?;
        let hash = user.as_ref().and_then(|u| u.password_hash.clone());
        let right = self.passwords.verify(password, hash).await?;
        match user {
            Some(user) if right => self.open_session(user, origin).await,
            _ => Err(AuthError::InvalidCredentials),
        }
    }

    /// Exchanges a refresh token for a new pair, once.
    pub async fn refresh(&self, refresh_token: &str, origin: Origin) -> Result<Session, AuthError> {
        if let Accounts::Supabase(there) = &self.accounts {
            return self.refresh_there(there, refresh_token).await;
        }
        let now = clock::now();
        let new_token = random_token()?;
        let rotation = Rotation {
            old_hash: hash_token(refresh_token),
            new_hash: hash_token(&new_token),
            new_expires_at: now.plus(self.refresh_token_ttl),
            origin,
            now,
        };
        match self.store.rotate_refresh(rotation).await? {
            Rotated::Ok { user, session } => self.session(user, session, new_token).await,
            Rotated::Reused { session } => {
                self.revoked.add(session, now);
                tracing::warn!(session_id = %session, "a refresh token was used twice; the session is revoked");
                Err(AuthError::InvalidToken)
            }
            Rotated::Invalid => Err(AuthError::InvalidToken),
        }
    }

    /// Ends the caller's session; harmless when it is over. `token` is what the request came with. False when it ended here,
    /// but the service that keeps the account could not be told.
    pub async fn logout(&self, caller: &Caller, token: Option<&str>) -> Result<bool, AuthError> {
        if let Accounts::Supabase(there) = &self.accounts {
            return self.logout_there(there, caller, token).await;
        }
        let now = clock::now();
        self.store.revoke_session(caller.session_id, now).await?;
        self.revoked.add(caller.session_id, now);
        Ok(true)
    }

    /// The owner of an access token. No database, and no call to another service unless the token's key is a new one; the
    /// first token of somebody who registered elsewhere makes their row and account.
    pub async fn verify(&self, token: &str) -> Result<Caller, AuthError> {
        match &self.accounts {
            Accounts::Local => self.living(self.signer.verify_access(token)),
            Accounts::Supabase(there) => self.still(self.verify_there(there, token).await?),
        }
    }

    /// Brings the caller's row up to date with the service that keeps their account, as far as it can be asked. `token` is
    /// what the request came with. Nothing when accounts are local, or for an API key, which that service does not know.
    pub async fn look(&self, caller: &Caller, token: &str) -> Result<(), AuthError> {
        match &self.accounts {
            Accounts::Supabase(there) if caller.key.is_none() => self.look_there(there, caller, token).await,
            _ => Ok(()),
        }
    }

    /// Tells the service that keeps the caller's account their new name, before our row says so. Nothing when accounts are
    /// local.
    pub async fn rename(&self, token: &str, full_name: Option<&str>) -> Result<(), AuthError> {
        match &self.accounts {
            Accounts::Local => Ok(()),
            Accounts::Supabase(there) => self.rename_there(there, token, full_name).await,
        }
    }

    /// Whether people can sign in: the service that keeps their accounts answers. The database is for the caller to ask.
    pub async fn health(&self) -> Result<(), AuthError> {
        match &self.accounts {
            Accounts::Local => Ok(()),
            Accounts::Supabase(there) => there.health().await,
        }
    }

    /// Where accounts live: `local` or `supabase`.
    pub fn provider(&self) -> &'static str {
        match &self.accounts {
            Accounts::Local => "local",
            Accounts::Supabase(_) => "supabase",
        }
    }

    /// Keeps the public keys of an account service, until cancelled. Nothing when accounts are local.
    pub async fn keep_keys(self: Arc<Self>, stop: CancellationToken) {
        match &self.accounts {
            Accounts::Local => {}
            Accounts::Supabase(there) => there.keep_keys(stop).await,
        }
    }

    /// The owner of an access token or an API key. An access token costs no database, a key one look every few seconds.
    pub async fn authenticate(&self, credential: &str) -> Result<Caller, AuthError> {
        match keys::looks_like_a_key(credential) {
            true => self.still(self.keys.verify(credential).await?),
            false => self.verify(credential).await,
        }
    }

    /// Takes note that keys of this process's callers were changed or revoked.
    pub fn keys_changed(&self, revoked: Option<ApiKeyId>) {
        if let Some(id) = revoked {
            self.revoked.add(SessionId::from(id.uuid()), clock::now());
        }
        self.keys.forget();
    }

    /// A token for the URL of an event stream, of one generation or of all of the caller's.
    pub fn stream_token(&self, caller: &Caller, generation: Option<GenerationId>) -> Result<String, AuthError> {
        self.signer.sign_stream(caller, generation, STREAM_TOKEN_TTL)
    }

    /// The owner of a stream token that opens this generation's stream. The stream route must still look the
    /// generation up as this caller's. No database.
    pub fn verify_stream_token(&self, token: &str, generation: GenerationId) -> Result<Caller, AuthError> {
        self.living(self.signer.verify_stream(token, generation))
    }

    /// Reads which sessions were ended, as far as a token of theirs may still be valid. Before serving.
    pub async fn load_revoked(&self) -> Result<(), StoreError> {
        let now = clock::now();
        let rows = self.store.revoked_since(self.revoked.since(now)).await?;
        self.revoked.merge(rows, now);
        Ok(())
    }

    /// Keeps reading which sessions other replicas ended, until cancelled. While the database is away, what is known
    /// stays known.
    pub async fn watch_revoked(self: Arc<Self>, stop: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REVOKED_EVERY) => {}
            }
            if let Err(error) = self.keys.note_uses().await {
                tracing::debug!(error = %error, "the use of keys is noted later");
            }
            match self.load_revoked().await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(error = %error, "ended sessions cannot be read; tokens are checked against the last list");
                }
                Err(_) => {}
            }
        }
    }

    fn living(&self, verified: Result<Caller, TokenFault>) -> Result<Caller, AuthError> {
        let caller = verified.map_err(|fault| {
            tracing::debug!(fault = %fault, "a token was refused");
            AuthError::InvalidToken
        })?;
        self.still(caller)
    }

    /// Refuses who has ended: the session, the key or the account.
    fn still(&self, caller: Caller) -> Result<Caller, AuthError> {
        let gone =
            self.revoked.contains(caller.session_id) || self.revoked.contains(SessionId::from(caller.user_id.uuid()));
        match gone {
            true => Err(AuthError::InvalidToken),
            false => Ok(caller),
        }
    }

    async fn open_session(&self, mut user: User, origin: Origin) -> Result<Session, AuthError> {
        let now = clock::now();
        let id = SessionId::new();
        let refresh_token = random_token()?;
        let opened = self
            .store
            .open_session(NewSession {
                id,
                user_id: user.id,
                refresh_hash: hash_token(&refresh_token),
                refresh_expires_at: now.plus(self.refresh_token_ttl),
                password_hash: user.password_hash.clone(),
                origin,
                now,
            })
            .await?;
        if !opened {
            return Err(AuthError::InvalidCredentials);
        }
        user.last_sign_in_at = Some(now);
        self.session(user, id, refresh_token).await
    }

    async fn session(&self, user: User, id: SessionId, refresh_token: String) -> Result<Session, AuthError> {
        let balance = self.store.balance(user.id).await?;
        let access_token = self.signer.sign_access(&user, id)?;
        Ok(Session {
            available: balance.unwrap_or_default().available(),
            access_token,
            refresh_token,
            expires_in: self.signer.access_token_ttl(),
            elsewhere: None,
            user,
        })
    }
}

/// 32 random bytes, URL-safe.
fn random_token() -> Result<String, AuthError> {
    let mut bytes = [0u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AuthError::Internal(anyhow::anyhow!("the system gives no random bytes")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The form of a refresh token in the store. A plain hash is enough: the token has 256 random bits.
fn hash_token(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests;
