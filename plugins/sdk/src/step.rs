//! What a provider answers: the next action, and the constructors that keep providers short.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The answer of one step.
#[derive(Debug, Clone)]
pub struct Step {
    /// New saved state; `None` leaves it unchanged.
    pub state: Option<Vec<u8>>,
    /// What the host does next.
    pub action: Action,
    /// The provider's own job id. The first step after a paid submit must name it, unless it ends the job: it is the
    /// host's only proof that the job was accepted, and without it the outcome counts as unknown.
    pub remote_id: Option<String>,
    /// How far the job is, if the provider said so.
    pub progress: Option<Progress>,
}

/// What the host does next.
#[derive(Debug, Clone)]
pub enum Action {
    /// Perform this request, then call with `Http` or `Failed`.
    Http(HttpRequest),
    /// Call again with `Timer` after this long, or earlier with `Webhook` or `Cancel`.
    Wait {
        /// Milliseconds; the host clamps to 100 ms .. 10 min.
        ms: u64,
    },
    /// The job is finished.
    Done(Outcome),
    /// The job failed.
    Fail(Failure),
    /// Streaming: pass on to the client, then feed the next chunk.
    Emit(Vec<Value>),
}

/// HTTP methods a provider may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
    Head,
}

/// May the host repeat the request by itself?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Freely.
    Read,
    /// It costs money: never, once a byte has left.
    Submit,
    /// It costs money and carries an idempotency key that the provider honours.
    SubmitIdempotent,
    /// A repeatable write, such as a cancel or an upload.
    Write,
}

impl Effect {
    /// True when the request may buy something.
    pub fn is_submit(self) -> bool {
        matches!(self, Effect::Submit | Effect::SubmitIdempotent)
    }
}

/// A request the host performs for the provider.
///
/// `{{secret:NAME}}` in the query of the URL and in header values is replaced by the host, for hosts of the
/// manifest only; a provider never sees a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Absolute URL.
    pub url: String,
    /// Headers.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// Body; empty for none.
    pub body: Vec<u8>,
    /// Whether the host may repeat it.
    pub effect: Effect,
    /// Deliver the answer in chunks.
    pub stream: bool,
    /// Milliseconds until the host gives up; 0 takes the host's default.
    pub timeout_ms: u32,
}

impl std::fmt::Debug for HttpRequest {
    /// Leaves out header values and the body: they hold prompts and placeholders of secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("effect", &self.effect)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// A request with no headers and no body.
    pub fn new(method: Method, url: impl Into<String>, effect: Effect) -> Self {
        HttpRequest {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            effect,
            stream: false,
            timeout_ms: 0,
        }
    }

    /// A repeatable GET.
    pub fn get(url: impl Into<String>) -> Self {
        HttpRequest::new(Method::Get, url, Effect::Read)
    }

    /// A POST that costs money and is never repeated by the host.
    pub fn submit(url: impl Into<String>) -> Self {
        HttpRequest::new(Method::Post, url, Effect::Submit)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets a JSON body and its content type.
    #[must_use]
    pub fn json_body(mut self, json: impl Into<Vec<u8>>) -> Self {
        self.body = json.into();
        self.header("content-type", "application/json")
    }

    /// Sets the time-out in milliseconds.
    #[must_use]
    pub fn timeout_ms(mut self, ms: u32) -> Self {
        self.timeout_ms = ms;
        self
    }
}

/// What a finished job delivered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// In the provider's order; never empty for a success.
    pub outputs: Vec<Output>,
    /// What the provider billed, if it says so.
    pub billed: Option<Quote>,
    /// Anything worth keeping, such as the seed that was used.
    #[serde(default)]
    pub meta: Map<String, Value>,
}

/// One delivered file or value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// `image`, `video` or `audio` if the provider knows: a file that is something else is refused. `file` if it does not:
    /// the host looks at the bytes.
    pub kind: String,
    /// Where the host finds the bytes.
    pub source: Source,
    /// What the provider says it is; the host looks for itself.
    pub content_type: Option<String>,
    /// Width, height, file name and so on, as the provider gave them.
    #[serde(default)]
    pub meta: Map<String, Value>,
}

impl Output {
    /// An output behind a URL.
    pub fn url(kind: &str, url: impl Into<String>) -> Self {
        Output {
            kind: kind.into(),
            source: Source::Url(url.into()),
            content_type: None,
            meta: Map::new(),
        }
    }

    /// An output described by an object with a `url`, as most APIs answer; `None` without one.
    pub fn file(kind: &str, file: &Value) -> Option<Self> {
        let mut output = Output::url(kind, file.get("url")?.as_str()?);
        for (key, value) in file.as_object()? {
            match key.as_str() {
                "url" => {}
                "content_type" => output.content_type = value.as_str().map(str::to_owned),
                _ if value.is_null() => {}
                _ => drop(output.meta.insert(key.clone(), value.clone())),
            }
        }
        Some(output)
    }
}

/// Where the host finds the bytes: big payloads are named, never copied through the provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Behind this URL (`https:`, `data:`).
    Url(String),
    /// This text.
    Text(String),
    /// This value.
    Json(Value),
    /// The body of the answer just delivered.
    Body,
    /// Base64 at this JSON pointer of the answer just delivered.
    BodyBase64(String),
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Done so far, in thousandths.
    pub permille: Option<u16>,
    /// Jobs ahead in the provider's own queue.
    pub queue_position: Option<u32>,
    /// The newest log line worth showing to the user.
    pub message: Option<String>,
}

/// A price or a bill of the provider, in integers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Millionths of a US dollar; 0 when only the units are known.
    pub usd_micros: u64,
    /// What is counted, for example `image` or `second`.
    pub unit: String,
    /// How many units, in thousandths.
    pub units_milli: u64,
}

/// Why a job failed, and what the host may do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Class of the failure.
    pub kind: ErrorKind,
    /// Whether another try makes sense. The same provider is never asked again for a job that it has accepted; another one
    /// is, when this is not [`Retry::Never`], the kind says that the job itself failed ([`ErrorKind::Upstream`],
    /// [`ErrorKind::Unavailable`], [`ErrorKind::Timeout`]) and the code is more than a status (`http_503`). So a look-up that
    /// fails is a reason to wait, not to fail.
    pub retry: Retry,
    /// The provider's own code, short and stable.
    pub code: String,
    /// One sentence for the user; no secret, no internal text.
    pub message: String,
    /// Earliest next try in milliseconds; 0 when the provider did not say.
    pub retry_after_ms: u64,
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The provider refuses this input.
    InvalidInput,
    /// The host's key is missing, wrong or locked.
    Auth,
    /// The host's account with the provider is out of money.
    Quota,
    /// Too many requests.
    RateLimited,
    /// The provider's safety system refused the prompt or the result.
    ContentPolicy,
    /// The model or the job does not exist.
    NotFound,
    /// The provider is down or overloaded.
    Unavailable,
    /// The provider ran out of time.
    Timeout,
    /// Cancelled by the user.
    Cancelled,
    /// An answer that makes no sense.
    BadResponse,
    /// Whether the job was bought is not known: never retried, never refunded by itself.
    UnknownOutcome,
    /// The provider reported a failure of its own.
    Upstream,
}

/// Advice about another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It would fail again.
    Never,
    /// The same provider may succeed later.
    SameProvider,
    /// Only another provider may succeed.
    OtherProvider,
}

impl Step {
    fn new(action: Action) -> Self {
        Step {
            state: None,
            action,
            remote_id: None,
            progress: None,
        }
    }

    /// Call again after `ms` milliseconds.
    pub fn wait(ms: u64) -> Self {
        Step::new(Action::Wait { ms })
    }

    /// Finished with these outputs; without any it is a failure.
    pub fn done(outputs: Vec<Output>) -> Self {
        if outputs.is_empty() {
            return Step::fail(
                ErrorKind::BadResponse,
                Retry::Never,
                "no_output",
                "the result has no output",
            );
        }
        Step::new(Action::Done(Outcome {
            outputs,
            ..Outcome::default()
        }))
    }

    /// Failed.
    pub fn fail(kind: ErrorKind, retry: Retry, code: &str, message: &str) -> Self {
        Failure {
            kind,
            retry,
            code: code.into(),
            message: message.into(),
            retry_after_ms: 0,
        }
        .into()
    }

    /// Stores this state.
    #[must_use]
    pub fn state_json(mut self, state: &impl Serialize) -> Self {
        // Serialising a plain struct to memory cannot fail; a state that does is a bug the next step reports.
        self.state = serde_json::to_vec(state).ok();
        self
    }

    /// Names the provider's own job id.
    #[must_use]
    pub fn remote_id(mut self, id: impl Into<String>) -> Self {
        self.remote_id = Some(id.into());
        self
    }

    /// Reports progress.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl From<HttpRequest> for Step {
    fn from(request: HttpRequest) -> Self {
        Step::new(Action::Http(request))
    }
}

impl From<Failure> for Step {
    fn from(failure: Failure) -> Self {
        Step::new(Action::Fail(failure))
    }
}

impl From<Outcome> for Step {
    fn from(outcome: Outcome) -> Self {
        Step::new(Action::Done(outcome))
    }
}

/// Percent-encodes everything but unreserved characters, for a URL's path segment or query value.
pub fn escape(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}
