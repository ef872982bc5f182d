//! Stripe's API, the few calls we need.
//!
//! Own code over reqwest: the library for Rust (async-stripe) has no finished version with modules, and the finished one
//! compiles all of Stripe's API and a second HTTP client for five requests. A call that changes something carries an
//! idempotency key, so that it may be repeated; it is repeated where Stripe says so, a few times.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use thiserror::Error;

use super::event::{Back, Session};
use crate::clock::Micros;
use crate::config::{Secret, StripeConfig};
use crate::purchase::{Order, Package};

/// The version of the API whose answers we read.
const API_VERSION: &str = "2026-10-28.endive";
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often a call is made.
const TRIES: u32 = 3;
/// Before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(250);
/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Objects of one page of a list; the most that Stripe gives.
const PAGE: usize = 100;

/// Why a call was not answered as it should.
#[derive(Debug, Error)]
pub enum StripeError {
    /// No answer, or one that says to come back. Nothing is known of what was to change.
    #[error("Stripe does not answer: {0}")]
    Unavailable(String),
    /// The idempotency key was used with other parameters.
    #[error("Stripe knows this idempotency key from another request")]
    KeyReused,
    /// There is no such object in this account and mode.
    #[error("Stripe does not know it: {0}")]
    Missing(String),
    /// A clear no.
    #[error("Stripe refuses: HTTP {status}, {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Type, code and parameter; Stripe's sentence.
        text: String,
    },
    /// Not what the API promises.
    #[error("Stripe's answer cannot be read: {0}")]
    Unreadable(String),
}

/// A list of Stripe's.
#[derive(Deserialize)]
struct List<T> {
    data: Vec<T>,
    has_more: bool,
}

/// An account at Stripe.
#[derive(Clone)]
pub struct Stripe {
    http: reqwest::Client,
    base: String,
    key: Secret,
}

/// Where a buyer goes afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returns {
    /// After the payment.
    pub success_url: String,
    /// When they turn back.
    pub cancel_url: String,
}

impl Stripe {
    /// A client by the configuration.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up.
    pub fn new(config: &StripeConfig) -> anyhow::Result<Stripe> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("velro/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Stripe {
            http,
            base: config.api_url.clone(),
            key: config.secret_key.clone(),
        })
    }

    /// Makes the checkout session of an order, or gives the one that was made for it: the order is the idempotency key, and
    /// nothing of what is sent changes between two calls.
    ///
    /// # Errors
    ///
    /// [`StripeError`]; after [`StripeError::Unavailable`] it may have been made.
    pub async fn create_session(
        &self,
        order: &Order,
        package: &Package,
        returns: &Returns,
        expires_at: Micros,
    ) -> Result<Session, StripeError> {
        let (id, amount, expires) = (
            order.id.to_string(),
            order.price.amount_minor.to_string(),
            expires_at.seconds().to_string(),
        );
        let form = [
            ("mode", "payment"),
            ("success_url", &returns.success_url),
            ("cancel_url", &returns.cancel_url),
            ("client_reference_id", &id),
            ("expires_at", &expires),
            ("line_items[0][quantity]", "1"),
            ("line_items[0][price_data][currency]", order.price.currency.as_str()),
            ("line_items[0][price_data][unit_amount]", &amount),
            ("line_items[0][price_data][product_data][name]", &package.name),
            // What is paid is what the order says, in its currency.
            ("adaptive_pricing[enabled]", "false"),
            ("metadata[order_id]", &id),
            ("payment_intent_data[metadata][order_id]", &id),
        ];
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let key = format!("velro-order-{id}");
        self.call(Method::POST, "/v1/checkout/sessions", Some((form, &key)))
            .await
    }

    /// A checkout session as it is now.
    ///
    /// # Errors
    ///
    /// [`StripeError`].
    pub async fn session(&self, id: &str) -> Result<Session, StripeError> {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        self.call(Method::GET, &format!("/v1/checkout/sessions/{id}"), None)
            .await
    }

    /// Checkout sessions that were made between two moments.
    ///
    /// # Errors
    ///
    /// [`StripeError`].
    pub async fn sessions_between(&self, from: Micros, to: Micros) -> Result<Vec<Session>, StripeError> {
        let query = format!("created[gte]={}&created[lte]={}", from.seconds(), to.seconds());
        self.list("/v1/checkout/sessions", &query, |session: &Session| session.id.clone())
            .await
    }

    /// All refunds of a payment.
    ///
    /// # Errors
    ///
    /// [`StripeError`].
    pub async fn refunds(&self, payment_intent: &str) -> Result<Vec<Back>, StripeError> {
        self.backs("/v1/refunds", payment_intent).await
    }

    /// All disputes of a payment.
    ///
    /// # Errors
    ///
    /// [`StripeError`].
    pub async fn disputes(&self, payment_intent: &str) -> Result<Vec<Back>, StripeError> {
        self.backs("/v1/disputes", payment_intent).await
    }

    async fn backs(&self, path: &str, payment_intent: &str) -> Result<Vec<Back>, StripeError> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("payment_intent", payment_intent)
            .finish();
        self.list(path, &query, |back: &Back| back.id().to_owned()).await
    }

    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &str,
        id: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, StripeError> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let after = all.last().map(|last| format!("&starting_after={}", id(last)));
            let path = format!("{path}?{query}&limit={PAGE}{}", after.unwrap_or_default());
            let page: List<T> = self.call(Method::GET, &path, None).await?;
            let is_last = !page.has_more || page.data.is_empty();
            all.extend(page.data);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(String, &str)>,
    ) -> Result<T, StripeError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.once(method.clone(), path, body.as_ref()).await {
                Err((error, true)) => tracing::debug!(path, error = %error, "asking Stripe again"),
                answer => return answer.map_err(|(error, _)| error),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.once(method, path, body.as_ref()).await.map_err(|(error, _)| error)
    }

    /// One request; with an error comes whether it may be repeated.
    async fn once<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(String, &str)>,
    ) -> Result<T, (StripeError, bool)> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.key.expose())
            .header("Stripe-Version", API_VERSION);
        if let Some((form, idempotency_key)) = body {
            request = request
                .header("Content-Type", "application/x-www-form-urlencoded")
                .header("Idempotency-Key", *idempotency_key)
                .body(form.clone());
        }
        // The URL is left out: it is long and says nothing new.
        let broken = |error: reqwest::Error| (StripeError::Unavailable(error.without_url().to_string()), true);
        let mut answer = request.send().await.map_err(broken)?;
        let status = answer.status();
        let advice = answer
            .headers()
            .get("stripe-should-retry")
            .and_then(|v| v.to_str().ok());
        let again = match advice {
            Some("true") => true,
            Some("false") => false,
            _ => status == StatusCode::CONFLICT || status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err((StripeError::Unreadable("it is too large".into()), false));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| (StripeError::Unreadable(e.to_string()), false));
        }
        Err((refusal(status, &bytes), again))
    }
}

#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    error: RefusalBody,
}

#[derive(Deserialize, Default)]
struct RefusalBody {
    #[serde(default, rename = "type")]
    kind: String,
    code: Option<String>,
    param: Option<String>,
    #[serde(default)]
    message: String,
}

/// Stripe's sentence may quote a part of the key, so that of a 401 is left out.
fn refusal(status: StatusCode, body: &[u8]) -> StripeError {
    let RefusalBody {
        kind,
        code,
        param,
        message,
    } = serde_json::from_slice::<Refusal>(body).unwrap_or_default().error;
    if kind == "idempotency_error" && status == StatusCode::BAD_REQUEST {
        return StripeError::KeyReused;
    }
    let mut text = kind;
    for part in [code, param].into_iter().flatten() {
        text.push_str(&format!(", {part}"));
    }
    if status != StatusCode::UNAUTHORIZED && !message.is_empty() {
        text.push_str(&format!(": {message}"));
    }
    match status {
        StatusCode::NOT_FOUND => StripeError::Missing(text),
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => StripeError::Unavailable(text),
        status if status.is_server_error() => StripeError::Unavailable(format!("HTTP {}, {text}", status.as_u16())),
        status => StripeError::Refused {
            status: status.as_u16(),
            text,
        },
    }
}
