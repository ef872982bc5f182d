//! Performs HTTP for providers and fetches what they deliver.
//!
//! Invariants:
//! - A request goes to a host of the provider's list or nowhere, and secrets go only there, in header values and the
//!   query, never in a path, a body, a log line or an error.
//! - No address that is private, local or otherwise not public is connected to, whatever DNS says at that moment, unless
//!   the operator allows it ([`guard`]). No proxy of the environment is used: it would see past the guard.
//! - Redirects are never followed for provider calls. The client never repeats a request.
//! - [`Transport::NotSent`] is answered only when no connection came about. Everything after is a time-out or a reset:
//!   when in doubt, the request arrived.
//! - Answers are bounded in bytes and time.

mod download;
mod guard;
mod policy;
mod service;
pub mod webhook_auth;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
pub(crate) mod tests;

pub use download::{DownloadError, Downloaded};
pub use guard::names_public_host;
pub use policy::is_header_of_ours;
pub use service::{Service, ServiceAnswer, ServiceCall, ServiceMethod};
pub use webhook_auth::{HookRefused, WebhookVerifier};

use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::field::Empty;
use tracing::{Instrument, debug, info_span, warn};
use velro_plugin::{Header, HttpRequest, Response, Transport};

use crate::config::Config;
use crate::provider::LoadedProvider;

/// Largest answer of a provider's API, in bytes. Files are fetched by [`Upstream::download`], with their own bound.
const MAX_BODY_BYTES: usize = 32 << 20;
/// Longest time-out of one request, in milliseconds, whatever a provider asks for: meanwhile it occupies the worker.
const MAX_TIMEOUT_MS: u32 = 600_000;
/// Longest wait for a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A submit uses a connection that was idle at most this long: a server that closes an idle connection just as we
/// write to it would make the outcome of a paid request unknown.
const SUBMIT_IDLE: Duration = Duration::from_secs(4);
/// The same for requests that may be repeated.
const READ_IDLE: Duration = Duration::from_secs(30);

/// An answer of a provider's API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Lower-case names; bytes that are not UTF-8 have been replaced.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The headers as a provider wants them; give them to [`Answer::response`].
    pub fn header_refs(&self) -> Vec<Header<'_>> {
        self.headers
            .iter()
            .map(|(name, value)| Header { name, value })
            .collect()
    }

    /// The answer as a provider wants it.
    pub fn response<'a>(&'a self, headers: &'a [Header<'a>]) -> Response<'a> {
        Response {
            status: self.status,
            headers,
            body: &self.body,
        }
    }
}

/// What was seen of one request; for metrics.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Name of the provider entry.
    pub provider: &'a str,
    /// `submit`, `read` or `write`.
    pub kind: &'static str,
    /// `2xx` to `5xx`, or `not_sent`, `timeout`, `reset`, `too_large`, `denied`.
    pub class: &'static str,
    /// From the call to the end of the body.
    pub elapsed: Duration,
}

/// Told of every request after it ended.
pub trait UpstreamObserver: Send + Sync {
    /// One request ended.
    fn request(&self, seen: Seen<'_>);
}

/// A client for paid requests and one for those that may be repeated.
#[derive(Clone)]
struct Clients {
    submit: reqwest::Client,
    read: reqwest::Client,
}

/// The HTTP clients of the process, shared by all providers.
#[derive(Clone)]
pub struct Upstream {
    public: Clients,
    /// For providers whose hosts may be on a private network.
    private: Clients,
    allow_private: bool,
    max_body_bytes: usize,
    observer: Option<Arc<dyn UpstreamObserver>>,
}

impl Upstream {
    /// Clients by the configuration. Fails when TLS cannot be set up.
    pub fn new(config: &Config) -> Result<Self, reqwest::Error> {
        Upstream::with(config.upstream_allow_private, MAX_BODY_BYTES, CONNECT_TIMEOUT)
    }

    /// Clients with bounds of one's own: whether private addresses may be connected to, the largest answer in bytes, the
    /// longest wait for a connection.
    pub fn with(allow_private: bool, max_body_bytes: usize, connect_timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = |idle: Duration, private: bool| {
            reqwest::Client::builder()
                .user_agent(concat!("velro/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .connect_timeout(connect_timeout)
                .pool_idle_timeout(idle)
                .dns_resolver(guard::PublicOnly::new(private))
                .build()
        };
        let clients = |private: bool| {
            Ok(Clients {
                submit: client(SUBMIT_IDLE, private)?,
                read: client(READ_IDLE, private)?,
            })
        };
        Ok(Upstream {
            public: clients(allow_private)?,
            private: clients(true)?,
            allow_private,
            max_body_bytes,
            observer: None,
        })
    }

    /// Reports every request to `observer`.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn UpstreamObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Performs a provider's request, once. An HTTP error status is an answer.
    pub async fn perform(&self, provider: &LoadedProvider, request: &HttpRequest) -> Result<Answer, Transport> {
        let span = info_span!(
            "upstream",
            provider = %provider.name,
            method = ?request.method,
            effect = ?request.effect,
            status = Empty
        );
        let began = Instant::now();
        let result = self.exchange(provider, request).instrument(span.clone()).await;
        let elapsed = began.elapsed();
        let class = class_of(&result);
        if let Ok(answer) = &result {
            span.record("status", answer.status);
        }
        span.in_scope(|| {
            debug!(
                target = policy::loggable(&request.url),
                class,
                ?elapsed,
                "request ended"
            )
        });
        if let Some(observer) = &self.observer {
            observer.request(Seen {
                provider: &provider.name,
                kind: kind_of(request),
                class,
                elapsed,
            });
        }
        result
    }

    fn clients(&self, private: bool) -> &Clients {
        if private { &self.private } else { &self.public }
    }

    async fn exchange(&self, provider: &LoadedProvider, request: &HttpRequest) -> Result<Answer, Transport> {
        let private = self.allow_private || provider.allow_private;
        let clients = self.clients(private);
        let client = if request.effect.is_submit() {
            &clients.submit
        } else {
            &clients.read
        };
        let filled = policy::fill(provider, request, private).map_err(|refusal| {
            warn!(%refusal, target = policy::loggable(&request.url), "request refused before it was sent");
            Transport::HostDenied
        })?;
        let timeout_ms = if request.timeout_ms > 0 {
            request.timeout_ms
        } else {
            provider.timeout_ms
        };
        let answer = client
            .execute(filled.into_request(Duration::from_millis(u64::from(timeout_ms.clamp(1, MAX_TIMEOUT_MS)))))
            .await
            .map_err(|e| transport_of(e, "no answer"))?;
        let status = answer.status().as_u16();
        let headers = answer.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let headers = headers.collect();
        let body = self.bounded_body(answer).await?;
        Ok(Answer { status, headers, body })
    }

    async fn bounded_body(&self, mut answer: reqwest::Response) -> Result<Bytes, Transport> {
        if answer.content_length().is_some_and(|n| n > self.max_body_bytes as u64) {
            return Err(Transport::BodyTooLarge);
        }
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| transport_of(e, "broken answer"))? {
            if body.len() + piece.len() > self.max_body_bytes {
                return Err(Transport::BodyTooLarge);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }
}

/// What the error says about whether the request arrived. Logs it without the URL, which may hold a secret.
fn transport_of(error: reqwest::Error, what: &'static str) -> Transport {
    // Covers name resolution, the TCP connection and the TLS handshake. A time-out of the whole request that strikes
    // while it connects is not recognised and counts as sent, to be on the safe side.
    let transport = if error.is_connect() || error.is_builder() {
        Transport::NotSent
    } else if error.is_timeout() {
        Transport::Timeout
    } else {
        Transport::Reset
    };
    warn!(error = %chain(&error.without_url()), ?transport, "{what}");
    transport
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn kind_of(request: &HttpRequest) -> &'static str {
    use velro_plugin::Effect::*;
    match request.effect {
        Submit | SubmitIdempotent => "submit",
        Read => "read",
        Write => "write",
    }
}

fn class_of(result: &Result<Answer, Transport>) -> &'static str {
    match result {
        Ok(answer) => match answer.status / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "1xx",
        },
        Err(Transport::NotSent | Transport::CircuitOpen) => "not_sent",
        Err(Transport::HostDenied) => "denied",
        Err(Transport::Timeout) => "timeout",
        Err(Transport::Reset) => "reset",
        Err(Transport::BodyTooLarge) => "too_large",
    }
}
