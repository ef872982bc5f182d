//! Runs a provider against recorded exchanges: no network, no host, no clock.
//!
//! A recording is a JSON file that tells one job from its first event to its last action:
//!
//! ```json
//! {
//!   "about": "a picture after one poll",
//!   "config": {},
//!   "model": "acme/draw",
//!   "params": { "prompt": "a fox" },
//!   "exchange": [
//!     { "when": "start",
//!       "then": { "http": { "method": "POST", "url": "https://api.acme.example/v1/jobs", "effect": "submit",
//!                           "headers": { "authorization": "Bearer {{secret:ACME_KEY}}" }, "body": { "prompt": "a fox" } } } },
//!     { "when": { "http": { "status": 201, "body": { "id": "job-1" } } },
//!       "then": { "wait": {}, "remote_id": "job-1" } },
//!     { "when": "timer",
//!       "then": { "http": { "method": "GET", "url": "https://api.acme.example/v1/jobs/job-1", "effect": "read" } } },
//!     { "when": { "http": { "status": 200, "body": { "status": "done", "url": "https://cdn.example/1.png" } } },
//!       "then": { "done": { "outputs": [ { "kind": "image", "source": { "url": "https://cdn.example/1.png" } } ] } } }
//!   ]
//! }
//! ```
//!
//! What `then` names must be so; what it leaves out may be anything. Every step is asked twice: a provider that answers
//! the same question differently fails. `velro plugin check --exchanges FOLDER` runs the same files against the
//! built library.

mod storm;

pub use storm::Storm;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::{
    Action, ErrorKind, Event, Failure, Fault, FaultCode, Header, HttpRequest, Job, Method, Params, Provider, Response,
    Retry, Step, Transport,
};

/// The moment every recording begins at, in milliseconds since the Unix epoch.
pub const BEGIN_MS: u64 = 1_767_225_600_000;

/// How long the job of a recording may take, in milliseconds.
const PATIENCE_MS: u64 = 3_600_000;

/// One recorded job.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// What it shows.
    pub about: String,
    /// The provider's configuration.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// The provider's name of the model.
    pub model: String,
    /// The provider's input.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// Where the provider may report the end.
    #[serde(default)]
    pub webhook_url: Option<String>,
    /// Events and what the provider has to do about them.
    pub exchange: Vec<Turn>,
}

/// An event and the expected action.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// What happened.
    pub when: When,
    /// What the provider has to do.
    pub then: Then,
}

/// A recorded event.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum When {
    Start,
    Timer,
    Cancel,
    Interrupted,
    Http(Answer),
    Webhook(Answer),
    Failed(Lost),
}

/// A recorded answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// HTTP status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// The body as text, when it is not JSON.
    #[serde(default)]
    pub body_text: Option<String>,
}

fn ok() -> u16 {
    200
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Lost {
    NotSent,
    Timeout,
    Reset,
    BodyTooLarge,
    CircuitOpen,
    HostDenied,
}

impl From<Lost> for Transport {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::NotSent => Transport::NotSent,
            Lost::Timeout => Transport::Timeout,
            Lost::Reset => Transport::Reset,
            Lost::BodyTooLarge => Transport::BodyTooLarge,
            Lost::CircuitOpen => Transport::CircuitOpen,
            Lost::HostDenied => Transport::HostDenied,
        }
    }
}

/// What the provider has to do; exactly one of the actions, and more about it if it matters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Then {
    /// It wants a request sent.
    pub http: Option<Request>,
    /// It waits.
    pub wait: Option<Wait>,
    /// It is done; what is given of the outcome must be so.
    pub done: Option<Value>,
    /// The job failed.
    pub fail: Option<Failed>,
    /// The provider does not know what to do (a fault, not a failure).
    pub fault: Option<String>,
    /// It named the provider's own job id.
    pub remote_id: Option<String>,
    /// It reported progress; what is given must be so.
    pub progress: Option<Value>,
}

/// An expected request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// `read`, `submit`, `submit_idempotent` or `write`.
    pub effect: crate::Effect,
    /// Headers that must be there; names in any case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; exactly this.
    #[serde(default)]
    pub body: Option<Value>,
    /// Texts that the body contains, for bodies that are not JSON.
    #[serde(default)]
    pub body_contains: Vec<String>,
}

/// An expected wait.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// How long, in milliseconds.
    pub ms: Option<u64>,
}

/// An expected failure.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Class.
    pub kind: ErrorKind,
    /// Advice.
    pub retry: Option<Retry>,
    /// The provider's code.
    pub code: Option<String>,
    /// For the user.
    pub message: Option<String>,
    /// Earliest next try, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// Why a recording does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The turn, from 1; 0 for the recording as a whole.
    pub turn: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.turn {
            0 => f.write_str(&self.what),
            turn => write!(f, "turn {turn}: {}", self.what),
        }
    }
}

impl Recording {
    /// Reads a recording.
    pub fn parse(text: &str) -> Result<Recording, Mismatch> {
        serde_json::from_str(text).map_err(|e| Mismatch {
            turn: 0,
            what: format!("not a recording: {e}"),
        })
    }

    /// Plays the recording to a provider.
    pub fn play(&self, provider: &dyn Provider) -> Result<(), Mismatch> {
        self.play_heard(provider, &mut |_| {})
    }

    /// Plays the recording as far as it holds and gives every state that the provider stores to `heard`.
    pub fn walk(&self, provider: &dyn Provider, heard: &mut dyn FnMut(&[u8])) {
        // What does not hold is said by `play`.
        let _ = self.play_heard(provider, heard);
    }

    fn play_heard(&self, provider: &dyn Provider, heard: &mut dyn FnMut(&[u8])) -> Result<(), Mismatch> {
        let params = Value::Object(self.params.clone()).to_string();
        let (mut state, mut now_ms) = (Vec::new(), BEGIN_MS);
        for (index, turn) in self.exchange.iter().enumerate() {
            let at = |what| Mismatch { turn: index + 1, what };
            let ask = || {
                let job = Job {
                    id: "00000000-0000-7000-8000-000000000001",
                    model: &self.model,
                    params: Params::new(&params),
                    state: &state,
                    idempotency_key: "00000000-0000-7000-8000-000000000001",
                    webhook_url: self.webhook_url.as_deref(),
                    now_ms,
                    deadline_ms: BEGIN_MS + PATIENCE_MS,
                    attempt: 1,
                    steps: index as u32,
                };
                turn.when.tell(provider, &job)
            };
            let (first, second) = (ask(), ask());
            if describe(&first) != describe(&second) {
                return Err(at(
                    "the same question was answered in two ways: a provider must be deterministic".into(),
                ));
            }
            turn.then.compare(&first).map_err(at)?;
            let Ok(step) = first else { return Ok(()) };
            if let Some(new) = step.state {
                heard(&new);
                state = new;
            }
            if let Action::Wait { ms } = step.action {
                now_ms += ms;
            }
        }
        Ok(())
    }
}

impl When {
    fn tell(&self, provider: &dyn Provider, job: &Job<'_>) -> Result<Step, Fault> {
        let mut bytes = Vec::new();
        let mut headers = Vec::new();
        if let When::Http(answer) | When::Webhook(answer) = self {
            bytes = match (&answer.body, &answer.body_text) {
                (Some(json), _) => json.to_string().into_bytes(),
                (None, Some(text)) => text.clone().into_bytes(),
                (None, None) => Vec::new(),
            };
            headers = answer
                .headers
                .iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
                .collect();
        }
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| Header { name, value }).collect();
        let response = |status| Response {
            status,
            headers: &headers,
            body: &bytes,
        };
        provider.step(
            job,
            match self {
                When::Start => Event::Start,
                When::Timer => Event::Timer,
                When::Cancel => Event::Cancel,
                When::Interrupted => Event::Interrupted,
                When::Http(answer) => Event::Http(response(answer.status)),
                When::Webhook(_) => Event::Webhook(response(200)),
                When::Failed(lost) => Event::Failed((*lost).into()),
            },
        )
    }
}

impl Then {
    fn compare(&self, answer: &Result<Step, Fault>) -> Result<(), String> {
        let told = || format!("the provider answered {}", describe(answer));
        let step = match (answer, &self.fault) {
            (Err(fault), Some(code)) if code_name(fault.code) == code => return Ok(()),
            (_, Some(code)) => return Err(format!("expected a fault `{code}`; {}", told())),
            (Err(_), None) => return Err(told()),
            (Ok(step), None) => step,
        };
        match (&step.action, self) {
            (Action::Http(request), Then { http: Some(wanted), .. }) => wanted.compare(request)?,
            (Action::Wait { ms }, Then { wait: Some(wanted), .. }) => same("wait.ms", wanted.ms.as_ref(), ms)?,
            (Action::Done(outcome), Then { done: Some(wanted), .. }) => {
                contains("done", wanted, &json!(outcome))?;
                let (expected, got) = (wanted["outputs"].as_array().map(Vec::len), outcome.outputs.len());
                same("the number of outputs", expected.as_ref(), &got)?;
            }
            (Action::Fail(failure), Then { fail: Some(wanted), .. }) => wanted.compare(failure)?,
            _ => return Err(format!("expected {}; {}", self.wanted(), told())),
        }
        if self.remote_id.is_some() && self.remote_id != step.remote_id {
            return Err(format!(
                "remote_id is {:?}, expected {:?}",
                step.remote_id, self.remote_id
            ));
        }
        match (&self.progress, &step.progress) {
            (Some(wanted), Some(progress)) => contains("progress", wanted, &json!(progress)),
            (Some(wanted), None) => Err(format!("no progress, expected {wanted}")),
            (None, _) => Ok(()),
        }
    }

    fn wanted(&self) -> &'static str {
        match self {
            Then { http: Some(_), .. } => "a request",
            Then { wait: Some(_), .. } => "a wait",
            Then { done: Some(_), .. } => "the end",
            Then { fail: Some(_), .. } => "a failure",
            _ => "nothing (`then` names no action)",
        }
    }
}

impl Request {
    fn compare(&self, request: &HttpRequest) -> Result<(), String> {
        same("method", Some(&self.method), &request.method)?;
        same("url", Some(&self.url), &request.url)?;
        same("effect", Some(&self.effect), &request.effect)?;
        for (name, value) in &self.headers {
            let mut given = request
                .headers
                .iter()
                .filter(|(given, _)| given.eq_ignore_ascii_case(name));
            match given.next() {
                Some((_, given)) if given == value => {}
                Some((_, given)) => return Err(format!("header `{name}` is {given:?}, expected {value:?}")),
                None => return Err(format!("header `{name}` is missing")),
            }
        }
        let text = String::from_utf8_lossy(&request.body);
        if let Some(wanted) = &self.body {
            let given: Value =
                serde_json::from_slice(&request.body).map_err(|e| format!("the body is not JSON: {e}"))?;
            same("body", Some(wanted), &given)?;
        }
        match self.body_contains.iter().find(|piece| !text.contains(*piece)) {
            Some(piece) => Err(format!("the body does not contain {piece:?}: {text}")),
            None => Ok(()),
        }
    }
}

impl Failed {
    fn compare(&self, failure: &Failure) -> Result<(), String> {
        same("fail.kind", Some(&self.kind), &failure.kind)?;
        same("fail.retry", self.retry.as_ref(), &failure.retry)?;
        same("fail.code", self.code.as_ref(), &failure.code)?;
        same("fail.message", self.message.as_ref(), &failure.message)?;
        same(
            "fail.retry_after_ms",
            self.retry_after_ms.as_ref(),
            &failure.retry_after_ms,
        )
    }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, wanted: Option<&T>, given: &T) -> Result<(), String> {
    match wanted {
        Some(wanted) if wanted != given => Err(format!("{what} is {given:?}, expected {wanted:?}")),
        _ => Ok(()),
    }
}

/// Everything that `wanted` names is so in `given`.
fn contains(place: &str, wanted: &Value, given: &Value) -> Result<(), String> {
    match (wanted, given) {
        (Value::Object(wanted), Value::Object(given)) => wanted.iter().try_for_each(|(key, value)| {
            contains(&format!("{place}.{key}"), value, given.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(wanted), Value::Array(given)) if wanted.len() <= given.len() => wanted
            .iter()
            .zip(given)
            .enumerate()
            .try_for_each(|(i, (wanted, given))| contains(&format!("{place}[{i}]"), wanted, given)),
        _ => same(place, Some(wanted), given),
    }
}

fn code_name(code: FaultCode) -> &'static str {
    match code {
        FaultCode::Unsupported => "unsupported",
        FaultCode::BadInput => "bad_input",
        FaultCode::BadState => "bad_state",
        FaultCode::BadResponse => "bad_response",
        FaultCode::Internal => "internal",
        FaultCode::Panic => "panic",
        FaultCode::NoAction => "no_action",
    }
}

/// An answer in words, complete enough to tell two of them apart.
pub fn describe(answer: &Result<Step, Fault>) -> String {
    let step = match answer {
        Ok(step) => step,
        Err(fault) => return format!("a fault `{}`: {}", code_name(fault.code), fault.message),
    };
    let action = match &step.action {
        Action::Http(r) => {
            let headers: Vec<String> = r
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            let body = String::from_utf8_lossy(&r.body);
            format!("{:?} {} ({:?}) {headers:?} {body}", r.method, r.url, r.effect)
        }
        Action::Wait { ms } => format!("wait {ms} ms"),
        Action::Done(outcome) => format!("done {}", json!(outcome)),
        Action::Fail(failure) => format!("fail {}", json!(failure)),
        Action::Emit(values) => format!("emit {}", json!(values)),
    };
    let state = step.state.as_deref().map(String::from_utf8_lossy);
    let progress = step.progress.as_ref().map(|p| json!(p).to_string());
    format!(
        "{action} [remote id {:?}, progress {progress:?}, state {state:?}]",
        step.remote_id
    )
}

/// Plays every recording of a folder (`*.json`) to providers that `create` makes from each one's configuration.
///
/// Answers with one line per recording that does not hold; an empty folder does not hold either.
pub fn play_folder<P: Provider>(
    folder: impl AsRef<Path>,
    create: impl Fn(&[u8]) -> Result<P, Fault>,
) -> Result<usize, String> {
    let recordings = read_folder(folder.as_ref())?;
    let mut failed = Vec::new();
    for (name, text) in &recordings {
        let played = Recording::parse(text).map_err(|m| m.to_string()).and_then(|recording| {
            let config = Value::Object(recording.config.clone()).to_string();
            let provider = create(config.as_bytes()).map_err(|fault| format!("cannot be created: {fault}"))?;
            recording
                .play(&provider)
                .map_err(|m| format!("{m} ({})", recording.about))
        });
        if let Err(what) = played {
            failed.push(format!("{name}: {what}"));
        }
    }
    match failed.is_empty() {
        true => Ok(recordings.len()),
        false => Err(failed.join("\n")),
    }
}

/// Name and text of every recording of a folder, in the order of their names.
pub fn read_folder(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|ext| ext == "json") {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            found.push((
                path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                text,
            ));
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(format!("{}: no recording (*.json) in it", folder.display())),
        false => Ok(found),
    }
}
