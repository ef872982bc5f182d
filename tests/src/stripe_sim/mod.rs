//! Stripe's Checkout, refunds and disputes, as its official libraries see them, and what happens in the world outside:
//! buyers pay, banks dispute. Each thing that happens gives the events that Stripe would send; the test delivers them, in
//! whatever order and as often as it likes.

mod api;
mod objects;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use aws_lc_rs::hmac;
use salvo::conn::tcp::TcpAcceptor;
use salvo::{Router, Server};
use serde_json::{Value, json};

/// The key that is accepted.
pub const SECRET_KEY: &str = "sk_test_simulated";
/// Signs events by default.
pub const WEBHOOK_SECRET: &str = "whsec_simulated";

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status; nothing is done and nothing remembered.
    Status(u16),
    /// Done, remembered, and answered with a 502 that says nothing of it.
    Lost,
}

/// A request that was made.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `POST /v1/checkout/sessions`.
    pub what: String,
    /// Its idempotency key.
    pub key: Option<String>,
    /// Its parameters, flat: `line_items[0][quantity]`.
    pub form: BTreeMap<String, String>,
    /// The version of the API it wants.
    pub version: Option<String>,
    /// The status it was answered with.
    pub answered: u16,
}

#[derive(Default)]
struct Book {
    sessions: Vec<Value>,
    charges: Vec<Value>,
    refunds: Vec<Value>,
    disputes: Vec<Value>,
    /// By idempotency key: path and parameters, then the answer.
    answers: BTreeMap<String, (String, u16, Value)>,
    faults: VecDeque<Fault>,
    asked: Vec<Asked>,
    made: u64,
}

impl Book {
    fn id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}_{:x}{:08}", now_us(), self.made)
    }
}

fn now_us() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros()
}

/// Seconds since the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    (now_us() / 1_000_000) as i64
}

/// The simulator; it ends with the runtime of its test.
pub struct StripeSim {
    /// `http://127.0.0.1:PORT`.
    pub base_url: String,
    book: Arc<Mutex<Book>>,
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A `Stripe-Signature` header made the way Stripe says; the official libraries are asked whether they agree.
#[must_use]
pub fn sign(body: &str, secret: &str, at: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(tag))
}

impl StripeSim {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let book = Arc::<Mutex<Book>>::default();
        let router = Router::with_path("{**path}").goal(api::Api(Arc::clone(&book)));
        tokio::spawn(Server::new(TcpAcceptor::try_from(listener)?).serve(router));
        Ok(StripeSim { base_url, book })
    }

    /// The next requests go wrong, in this order.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.book).faults.extend(faults);
    }

    /// Every request so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.book).asked.clone()
    }

    /// Every checkout session so far.
    #[must_use]
    pub fn sessions(&self) -> Vec<Value> {
        lock(&self.book).sessions.clone()
    }

    /// The session of an order.
    ///
    /// # Errors
    /// When there is none.
    pub fn session_of(&self, order_id: &str) -> Result<String> {
        let sessions = self.sessions();
        let found = sessions.iter().find(|s| s["client_reference_id"] == order_id);
        let found = found.with_context(|| format!("no session of order {order_id}"))?;
        Ok(found["id"].as_str().unwrap_or_default().to_owned())
    }

    /// The buyer pays by card.
    pub fn pay(&self, session: &str) -> Value {
        lock(&self.book).complete(session, true)
    }

    /// The buyer has ordered a transfer, which is on its way.
    pub fn pay_later(&self, session: &str) -> Value {
        lock(&self.book).complete(session, false)
    }

    /// The transfer has arrived, or not.
    pub fn transfer_ends(&self, session: &str, arrived: bool) -> Value {
        lock(&self.book).transfer_ends(session, arrived)
    }

    /// Nobody paid in time.
    pub fn expire(&self, session: &str) -> Value {
        lock(&self.book).expire(session)
    }

    /// The merchant refunds a part: `refund.created` and `charge.refunded`.
    pub fn refund(&self, session: &str, amount: i64) -> [Value; 2] {
        lock(&self.book).refund_of_session(session, amount)
    }

    /// The bank does not take the newest refund of a session.
    pub fn refund_fails(&self, session: &str) -> Value {
        lock(&self.book).refund_fails(session)
    }

    /// The buyer's bank takes the money back.
    pub fn dispute(&self, session: &str) -> Value {
        lock(&self.book).dispute(session)
    }

    /// The bank decides.
    pub fn dispute_closes(&self, session: &str, won: bool) -> Value {
        lock(&self.book).dispute_closes(session, won)
    }

    /// An event of ours about anything.
    pub fn event(&self, kind: &str, object: Value) -> Value {
        lock(&self.book).event(kind, object)
    }
}

/// What Stripe answers when it refuses.
struct Refusal(u16, Value);

impl Refusal {
    fn new(status: u16, kind: &str, code: &str, param: &str, message: &str) -> Self {
        let mut error = json!({ "type": kind, "message": message });
        for (name, value) in [("code", code), ("param", param)] {
            if !value.is_empty() {
                error[name] = json!(value);
            }
        }
        Refusal(status, json!({ "error": error }))
    }

    fn invalid(code: &str, param: &str, message: &str) -> Self {
        Refusal::new(400, "invalid_request_error", code, param, message)
    }

    fn missing(what: &str, id: &str) -> Self {
        let message = format!("No such {what}: '{id}'");
        Refusal::new(404, "invalid_request_error", "resource_missing", "id", &message)
    }
}
