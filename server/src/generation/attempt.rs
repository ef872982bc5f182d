//! One submission of a generation to a provider.

use serde::{Deserialize, Serialize};
use velro_plugin::{Effect, HttpRequest, Method, Outcome};

use crate::clock::Micros;
use crate::id::{AttemptId, GenerationId};

/// See the [module](super) for the transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Nothing was sent.
    Prepared,
    /// The paid request may have left.
    Sending,
    /// The provider has the job.
    Accepted,
    /// Settled, one way or the other.
    Finished,
    /// The provider said no; nothing was bought.
    Rejected,
    /// Whether anything was bought is not known. Only a webhook or an operator ends this.
    Unknown,
}

impl AttemptState {
    /// The database form.
    pub fn as_str(self) -> &'static str {
        match self {
            AttemptState::Prepared => "prepared",
            AttemptState::Sending => "sending",
            AttemptState::Accepted => "accepted",
            AttemptState::Finished => "finished",
            AttemptState::Rejected => "rejected",
            AttemptState::Unknown => "unknown",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<AttemptState> {
        use AttemptState::*;
        [Prepared, Sending, Accepted, Finished, Rejected, Unknown]
            .into_iter()
            .find(|s| s.as_str() == text)
    }

    /// True when the attempt takes no further step.
    pub fn is_over(self) -> bool {
        matches!(self, AttemptState::Finished | AttemptState::Rejected)
    }
}

/// An attempt as stored.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Also the idempotency key towards the provider, and part of the webhook URL.
    pub id: AttemptId,
    /// What it is for.
    pub generation_id: GenerationId,
    /// 1 for the first.
    pub ordinal: u32,
    /// The provider entry.
    pub provider: String,
    /// Where it stands.
    pub state: AttemptState,
    /// The provider's own job id.
    pub remote_id: Option<String>,
    /// The provider's opaque state; empty before the first step that stored one.
    pub plugin_state: Vec<u8>,
    /// What the host was about to do when this was stored.
    pub pending: Pending,
    /// Steps taken; guards every write against a second worker.
    pub steps: u32,
    /// When the next step is due.
    pub due_at: Micros,
    /// When the host gives up.
    pub deadline_at: Micros,
    /// A verified webhook body that has not been stepped yet.
    pub inbox: Option<Vec<u8>>,
    /// When it began.
    pub created_at: Micros,
}

/// What the host was about to do when the step was stored. After a crash it says how to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Pending {
    /// No step yet: call with `Start`.
    Start,
    /// A paid request may be in flight: after a crash call with `Interrupted`, never send it again. The request
    /// itself is not stored, because nothing may ever read it back.
    Submit,
    /// A repeatable request: send it (again).
    Request(StoredRequest),
    /// Call with `Timer` at the attempt's `due_at`.
    Wait,
    /// The provider is done: copy the outputs to our storage, then settle.
    Collect {
        /// What the provider delivered.
        outcome: Outcome,
        /// How often copying has failed.
        tries: u32,
    },
    /// Parked: only a webhook or an operator goes on.
    Nothing,
}

/// A repeatable request in a form that can be stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StoredRequest {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub effect: Effect,
    pub timeout_ms: u32,
}

impl From<&HttpRequest> for StoredRequest {
    fn from(r: &HttpRequest) -> Self {
        StoredRequest {
            method: r.method,
            url: r.url.clone(),
            headers: r.headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            body: r.body.clone(),
            effect: r.effect,
            timeout_ms: r.timeout_ms,
        }
    }
}

impl From<StoredRequest> for HttpRequest {
    fn from(r: StoredRequest) -> Self {
        let mut request = HttpRequest::new(r.method, r.url, r.effect).timeout_ms(r.timeout_ms);
        request.headers = r.headers.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        request.body = r.body;
        request
    }
}
