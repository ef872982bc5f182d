//! Supabase's account service (GoTrue), as its official clients see it.
//!
//! Registration by the public and the admin route, password and refresh grants with rotation and reuse, the own user,
//! logout, settings, health and the published keys. It signs with ES256, RS256 or the legacy secret, and a [`GoTrueSim`]
//! in a test's hands turns keys, bans people, and makes routes fail, stall or answer in the style of old versions. Its
//! errors have the codes, statuses and both body styles of the real one.

mod api;
mod keys;
mod people;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use salvo::conn::tcp::TcpAcceptor;
use salvo::{Router, Server};
use serde_json::{Value, json};
use uuid::Uuid;

pub use keys::{Kind, SECRET};
pub use people::Person;

use crate::harness::Options;

/// The public key that is accepted.
pub const ANON_KEY: &str = "sb_publishable_simulated";

/// The secret key that is accepted.
pub const SERVICE_KEY: &str = "sb_secret_simulated";

/// Everybody's password in its tests; it keeps the strictest of its rules.
pub const PASSWORD: &str = "Correct-horse-42";

/// How the service behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whoever registers by the public route is signed in at once.
    pub autoconfirm: bool,
    /// Nobody may register by the public route.
    pub disable_signup: bool,
    /// Passwords are shorter at their peril.
    pub min_password_chars: usize,
    /// Passwords need a digit and both cases.
    pub strict_characters: bool,
    /// Every error has the body of versions before 2024-01-01, whatever is asked for.
    pub legacy_errors: bool,
    /// What the keys' answer allows caches.
    pub jwks_max_age: Duration,
    /// What signs at first.
    pub kind: Kind,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            autoconfirm: true,
            disable_signup: false,
            min_password_chars: 6,
            strict_characters: false,
            legacy_errors: false,
            jwks_max_age: Duration::from_secs(600),
            kind: Kind::Es256,
        }
    }
}

/// What a route does instead of its work.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with this status, code and message in the present style.
    Error(u16, &'static str, &'static str),
    /// Answers with this status and body, as a gateway in front would.
    Gateway(u16, &'static str),
    /// The same with `Retry-After`.
    Throttled(u64),
    /// Works, but only after a while.
    Late(Duration),
}

/// What everything shares.
struct Inner {
    base_url: String,
    settings: Mutex<Settings>,
    book: Mutex<people::Book>,
    keys: Mutex<keys::Keys>,
    faults: Mutex<BTreeMap<String, Fault>>,
    requests: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The simulator; it ends with the runtime of its test.
pub struct GoTrueSim {
    /// `http://127.0.0.1:PORT`, as a project's URL.
    pub project_url: String,
    /// The same as an address.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

impl GoTrueSim {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(settings: Settings) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let project_url = format!("http://{address}");
        let kind = settings.kind;
        let inner = Arc::new(Inner {
            base_url: format!("{project_url}/auth/v1"),
            settings: Mutex::new(settings),
            book: Mutex::default(),
            keys: Mutex::new(keys::Keys::new(kind)),
            faults: Mutex::default(),
            requests: Mutex::default(),
        });
        let router = Router::with_path("{**path}").goal(api::Api(Arc::clone(&inner)));
        tokio::spawn(Server::new(TcpAcceptor::try_from(listener)?).serve(router));
        Ok(GoTrueSim {
            project_url,
            address,
            inner,
        })
    }

    /// The issuer of its tokens, and the base of its routes.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.inner.base_url
    }

    /// A server whose accounts are here, with both keys.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::new()
            .env("SUPABASE_URL", &self.project_url)
            .env("SUPABASE_ANON_KEY", ANON_KEY)
            .env("SUPABASE_SERVICE_ROLE_KEY", SERVICE_KEY)
    }

    /// Changes how it behaves.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.inner.settings));
    }

    /// Makes a route fail until [`Self::heal`]; `path` is what follows the base, with `?grant_type=` where there is one.
    pub fn fault(&self, path: &str, fault: Fault) {
        lock(&self.inner.faults).insert(path.to_owned(), fault);
    }

    /// Every route works again.
    pub fn heal(&self) {
        lock(&self.inner.faults).clear();
    }

    /// How often a route was asked.
    #[must_use]
    pub fn asked(&self, path: &str) -> usize {
        lock(&self.inner.requests).iter().filter(|p| *p == path).count()
    }

    /// Somebody with a confirmed e-mail who registered elsewhere; gives the id.
    pub fn add_person(&self, email: &str) -> Uuid {
        lock(&self.inner.book).add(email, PASSWORD, true, json!({ "full_name": "Test Person" }), json!({}))
    }

    /// Changes a person.
    pub fn change(&self, id: Uuid, change: impl FnOnce(&mut Person)) {
        change(lock(&self.inner.book).person_mut(id).expect("there is such a person"));
    }

    /// Removes a person, as the dashboard does.
    pub fn remove(&self, id: Uuid) {
        lock(&self.inner.book).remove(id);
    }

    /// Ends all sessions of a person, as the dashboard does.
    pub fn end_sessions(&self, id: Uuid) {
        lock(&self.inner.book).end_sessions(id);
    }

    /// The person with an e-mail.
    #[must_use]
    pub fn person(&self, email: &str) -> Option<Person> {
        lock(&self.inner.book).by_email(email).cloned()
    }

    /// A session of a person, without a call: its access token.
    #[must_use]
    pub fn token(&self, id: Uuid) -> String {
        self.sign(&self.claims(id))
    }

    /// The claims of a person's token, to be spoilt one at a time.
    #[must_use]
    pub fn claims(&self, id: Uuid) -> Value {
        let mut book = lock(&self.inner.book);
        let session = book.open_session(id);
        book.claims(&self.inner.base_url, id, session)
    }

    /// A token with these claims, signed as tokens are at present.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        lock(&self.inner.keys).sign(claims)
    }

    /// Signs with a new key from now on; the old ones stay published. Gives the id of the new one.
    pub fn rotate(&self, kind: Kind) -> String {
        lock(&self.inner.keys).rotate(kind)
    }

    /// Takes a key out of what is published.
    pub fn retire(&self, kid: &str) {
        lock(&self.inner.keys).retire(kid);
    }

    /// The id of the key that signs, and its public part as a JWK.
    #[must_use]
    pub fn signing_key(&self) -> (String, Value) {
        lock(&self.inner.keys).signing_key()
    }
}
