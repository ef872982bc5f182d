//! What a provider may look at: the job, the event, the answer of its API.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cell::OnceCell;

use crate::{ErrorKind, Failure, Fault, FaultCode, Retry};

/// One call, borrowed from the host until the function returns.
pub struct Job<'a> {
    /// The attempt's id; stable over restarts.
    pub id: &'a str,
    /// The provider's own name of the model, for example `fal-ai/veo3`.
    pub model: &'a str,
    /// The validated input in the provider's terms, defaults applied.
    pub params: Params<'a>,
    /// What the last step returned; empty before the first.
    pub state: &'a [u8],
    /// Stable within one attempt; for providers that honour an idempotency key.
    pub idempotency_key: &'a str,
    /// Where the provider's API may report the end; `None` means poll.
    pub webhook_url: Option<&'a str>,
    /// Now, in milliseconds since the Unix epoch. Providers have no clock of their own.
    pub now_ms: u64,
    /// When the host gives up on the job, in milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// 1 for the first attempt of a generation.
    pub attempt: u32,
    /// How many steps this attempt has taken so far.
    pub steps: u32,
}

impl Job<'_> {
    /// The saved state as JSON; `None` before the first step that stored one.
    pub fn state_json<T: DeserializeOwned>(&self) -> Result<Option<T>, Fault> {
        if self.state.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(self.state)
            .map(Some)
            .map_err(|e| Fault::new(FaultCode::BadState, e.to_string()))
    }
}

/// The provider's input: canonical JSON text, parsed at most once and only when asked for.
pub struct Params<'a> {
    raw: &'a str,
    parsed: OnceCell<Map<String, Value>>,
}

impl<'a> Params<'a> {
    /// Wraps the text of a JSON object.
    pub fn new(raw: &'a str) -> Self {
        Params {
            raw,
            parsed: OnceCell::new(),
        }
    }

    /// The JSON text as it is; what a pass-through provider sends.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// The parsed object; empty when the text is not an object (the host only sends objects).
    pub fn map(&self) -> &Map<String, Value> {
        self.parsed
            .get_or_init(|| serde_json::from_str(self.raw).unwrap_or_default())
    }

    /// A string parameter.
    pub fn str(&self, name: &str) -> Option<&str> {
        self.map().get(name)?.as_str()
    }

    /// A non-negative integer parameter.
    pub fn u64(&self, name: &str) -> Option<u64> {
        self.map().get(name)?.as_u64()
    }
}

/// What happened since the last step.
pub enum Event<'a> {
    /// First call of an attempt.
    Start,
    /// The answer to the last [`crate::Action::Http`].
    Http(Response<'a>),
    /// There was no answer to the last [`crate::Action::Http`].
    Failed(Transport),
    /// The wait is over.
    Timer,
    /// A verified webhook for this job.
    Webhook(Response<'a>),
    /// A piece of a streamed answer; an `Http` with an empty body ends the stream.
    Chunk(&'a [u8]),
    /// The user cancelled.
    Cancel,
    /// The host restarted with a submit in flight: whether it arrived is not known.
    Interrupted,
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// No byte left the host: safe to submit again.
    NotSent,
    /// No complete answer in time.
    Timeout,
    /// The connection broke after bytes were sent.
    Reset,
    /// The answer was larger than the host accepts.
    BodyTooLarge,
    /// The host has stopped talking to this provider for a while.
    CircuitOpen,
    /// The URL is not on a host of the manifest.
    HostDenied,
}

impl Transport {
    /// True when no byte can have reached the provider, so that nothing was bought.
    pub fn not_sent(self) -> bool {
        matches!(
            self,
            Transport::NotSent | Transport::CircuitOpen | Transport::HostDenied
        )
    }
}

/// A response header.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// Lower-case name.
    pub name: &'a str,
    /// Value; bytes that are not UTF-8 have been replaced.
    pub value: &'a str,
}

/// An answer of the provider's API, or the body of its webhook.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// HTTP status; 200 for a webhook.
    pub status: u16,
    /// Headers with lower-case names.
    pub headers: &'a [Header<'a>],
    /// The whole body.
    pub body: &'a [u8],
}

impl Response<'_> {
    /// True for a 2xx status.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name))
            .map(|h| h.value)
    }

    /// The body as JSON; a body that is not JSON is a fault of the answer.
    pub fn json(&self) -> Result<Value, Fault> {
        serde_json::from_slice(self.body).map_err(|e| Fault::bad_response(format!("the answer is not JSON: {e}")))
    }

    /// A failure classed by the HTTP status alone; adjust what the body says better.
    pub fn failure(&self, message: impl Into<String>) -> Failure {
        let (kind, retry) = match self.status {
            400 | 413 | 415 | 422 => (ErrorKind::InvalidInput, Retry::Never),
            401 | 403 => (ErrorKind::Auth, Retry::OtherProvider),
            402 => (ErrorKind::Quota, Retry::OtherProvider),
            404 | 410 => (ErrorKind::NotFound, Retry::OtherProvider),
            408 | 504 => (ErrorKind::Timeout, Retry::SameProvider),
            429 => (ErrorKind::RateLimited, Retry::SameProvider),
            500..=599 => (ErrorKind::Unavailable, Retry::SameProvider),
            _ => (ErrorKind::Upstream, Retry::Never),
        };
        let seconds = self
            .header("retry-after")
            .and_then(|v| v.trim().parse::<u64>().ok())
            .unwrap_or(0);
        Failure {
            kind,
            retry,
            code: format!("http_{}", self.status),
            message: message.into(),
            retry_after_ms: seconds.saturating_mul(1000),
        }
    }
}

/// A signature-checked webhook that has not been matched to a job yet.
pub struct Webhook<'a> {
    /// The raw query string, without the question mark.
    pub query: &'a str,
    /// Headers with lower-case names.
    pub headers: &'a [Header<'a>],
    /// The whole body.
    pub body: &'a [u8],
}

/// The job a webhook is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookTarget {
    /// The host's attempt id.
    Job(String),
    /// The provider's own job id.
    Remote(String),
    /// Nothing to do.
    Ignore,
}
