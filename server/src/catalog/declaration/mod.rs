//! A provider that is described in `providers.toml` only (`kind = "http"`), as plain checked data.
//!
//! The reader ([`super::file`]) makes it, [`crate::provider::declared`] acts on it, `docs/DECLARATIVE.md` explains the
//! keys. What is here holds together: a [`Declaration`] with a [`Polling`] has an id, a state and a way to its outputs.

mod pointer;
mod template;

pub use pointer::Pointer;
pub use template::{Hole, Json, Piece, Template, TemplateFault};

use std::collections::BTreeMap;
use velro_plugin::{ErrorKind, Method, Retry, WebhookAuth};

/// Everything the declarative provider knows about an API.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Where paths are appended to; no slash at its end.
    pub base_url: String,
    /// Hosts that requests, and with them the secrets, may go to: the base URL's first. `host` or `host:port`.
    pub hosts: Vec<String>,
    /// Host of the key document of webhooks, when it is another one. Nothing else is sent there.
    pub keys_host: Option<String>,
    /// Names of all secrets that templates use, each once.
    pub secrets: Vec<String>,
    /// Sent with every request; lower-case names.
    pub headers: Vec<(String, Template)>,
    /// The paid request.
    pub submit: Request,
    /// The submit costs nothing and may be sent again, because the machine is the operator's own.
    pub repeatable: bool,
    /// How a job is followed; `None` when the answer to the submit is the result.
    pub polling: Option<Polling>,
    /// Where things stand in the API's answers.
    pub job: JobShape,
    /// What the API's words for a state mean.
    pub states: States,
    /// Where the outputs stand; never empty.
    pub outputs: Vec<OutputRule>,
    /// Classes of error; the first that fits counts.
    pub errors: Vec<ErrorClass>,
}

/// How a job is followed after the submit.
#[derive(Debug, Clone, PartialEq)]
pub struct Polling {
    /// Where the job's id stands in the answer to the submit.
    pub id: Pointer,
    /// Where its state stands.
    pub state: Pointer,
    /// Asks how far it is.
    pub status: Request,
    /// Fetches the outputs; `None` when the answer of `status` has them.
    pub result: Option<Request>,
    /// Asks the API to stop; `None` when it cannot.
    pub cancel: Option<Request>,
    /// How often it is asked.
    pub pace: Pace,
    /// How it reports by itself.
    pub webhook: Option<Webhook>,
}

/// One request in templates.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Its whole address in the answer to the submit; believed only on a host of [`Declaration::hosts`].
    pub url: Option<Pointer>,
    /// Its path behind the base URL; `None` only when there is `url`.
    pub path: Option<Template>,
    /// Query parameters, in the order of the file.
    pub query: Vec<(String, Template)>,
    /// Headers of this request; they replace common ones of the same name. Lower-case names.
    pub headers: Vec<(String, Template)>,
    /// JSON body.
    pub body: Option<Json>,
    /// Milliseconds until the host gives up; 0 takes the provider's `timeout_ms`.
    pub timeout_ms: u32,
    /// What words mean in the answer to this request, before [`Declaration::states`].
    pub states: States,
}

/// The words of an API for a state, with their meaning.
pub type States = BTreeMap<String, Stage>;

/// What a word of the API means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting.
    Queued,
    /// Being worked on.
    Running,
    /// Finished.
    Done,
    /// Failed.
    Failed,
    /// Stopped before its end.
    Cancelled,
}

/// Where things stand in an answer that describes a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobShape {
    /// Its state, when the API is synchronous all the same; with [`Polling`] the pointer is there.
    pub state: Option<Pointer>,
    /// A number that says how far it is.
    pub progress: Option<Pointer>,
    /// The number that means finished: 1, 100 or 1000.
    pub progress_of: u64,
    /// Jobs ahead of it.
    pub queue_position: Option<Pointer>,
    /// Log text or lines, newest last.
    pub log: Option<Pointer>,
    /// The API's own code of an error; the first that is there counts.
    pub code: Vec<Pointer>,
    /// A sentence about an error that users may read; the first that is there counts.
    pub error: Vec<Pointer>,
    /// Values worth keeping, by the name they are kept under.
    pub meta: Vec<(String, Pointer)>,
    /// What the API billed.
    pub billed: Option<Billed>,
}

/// Where the bill stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Billed {
    /// The number.
    pub place: Place,
    /// What is counted.
    pub unit: String,
}

/// Somewhere in an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// In the body.
    Body(Pointer),
    /// A header, by its lower-case name.
    Header(String),
}

/// Where outputs of one kind stand.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRule {
    /// `image`, `video`, `audio`, or `any`: the file itself tells.
    pub kind: &'static str,
    /// One output or a list of them.
    pub at: Pointer,
    /// What stands there.
    pub form: OutputForm,
    /// What the API says it is, when it says so nowhere else.
    pub content_type: Option<String>,
}

/// What stands at an output's pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputForm {
    /// A URL, or an object with a `url`.
    Url,
    /// The bytes in base64.
    Base64,
    /// Nothing in a document: the answer is the file itself. The pointer is not used.
    Body,
}

/// A class of error.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorClass {
    /// Only for answers to this request; `None` for all.
    pub on: Option<On>,
    /// HTTP statuses, as inclusive ranges; empty for any.
    pub status: Vec<(u16, u16)>,
    /// Values of [`JobShape::code`]; empty for any.
    pub code: Vec<String>,
    /// A look at one more place.
    pub probe: Option<Probe>,
    /// What it means.
    pub meaning: Meaning,
    /// Whether another try makes sense.
    pub retry: Retry,
    /// One sentence for the user instead of the API's own.
    pub message: Option<String>,
}

impl ErrorClass {
    /// True when it depends on what the answer says, not on the HTTP status alone.
    pub fn reads_the_answer(&self) -> bool {
        !self.code.is_empty() || self.probe.is_some()
    }
}

/// A look at one place of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Where.
    pub place: Place,
    /// What must be there.
    pub test: Test,
}

/// What must stand at a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Anything but nothing, `null`, `false` and emptiness.
    Present,
    /// One of these.
    Is(Vec<String>),
    /// A text with one of these in it, in any case.
    Contains(Vec<String>),
}

/// What a class of error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A failure of this kind.
    Kind(ErrorKind),
    /// No failure: the result was asked for too early.
    NotYet,
}

/// Which request an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The paid one.
    Submit,
    /// The look at the state.
    Status,
    /// The fetch of the outputs.
    Result,
}

/// How often a job is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Wait before the first look, in milliseconds.
    pub first_ms: u64,
    /// Every further wait is so many hundredths of the one before.
    pub factor_percent: u64,
    /// Longest wait, in milliseconds.
    pub ceiling_ms: u64,
    /// Wait while a webhook is expected, in milliseconds.
    pub with_webhook_ms: u64,
}

/// How the API reports the end by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// How it is signed.
    pub auth: WebhookAuth,
    /// Where the job's id stands in it.
    pub id: Pointer,
    /// Where its state stands in it.
    pub state: Pointer,
    /// What words mean in it, before [`Declaration::states`].
    pub states: States,
    /// Below which pointer the outputs stand in it; `None` when it is a hint and the API is asked.
    pub result: Option<Pointer>,
}

impl Declaration {
    /// Hosts that anything is sent to, the key document's included.
    pub fn all_hosts(&self) -> Vec<String> {
        self.hosts.iter().chain(&self.keys_host).cloned().collect()
    }

    /// What a word of the API means, by a request's own table first.
    pub fn stage(&self, own: &States, word: &str) -> Option<Stage> {
        own.get(word).or_else(|| self.states.get(word)).copied()
    }
}
