//! The shipped declarations driven through `step` without a network, and any answer at all.

mod any;
mod replicate;
mod requests;
mod synchronous;

use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use velro_plugin::{
    Action, Event, Failure, Header, HttpRequest, Job, Outcome, Params, Progress, Provider, Response, Step, Transport,
};

use super::Declared;
use crate::catalog::{ProviderKind, Registry};
use crate::clock::Micros;

pub(super) const REPLICATE: &str = include_str!("../../../../../docs/providers/replicate.toml");
pub(super) const WEBUI: &str = include_str!("../../../../../docs/providers/stable-diffusion-webui.toml");
pub(super) const FAL: &str = include_str!("../../../../../docs/providers/fal.toml");
pub(super) const HOOK: &str = "https://velro.example/webhooks/x/1?a=b";
pub(super) const DEADLINE_MS: u64 = 1_000_000 + 600_000;

/// The only provider of a registry.
pub(super) fn declared(text: &str) -> Declared {
    let registry = Registry::from_toml(text, Path::new("p"), Micros(0)).unwrap_or_else(|errors| panic!("{errors}"));
    let (name, entry) = registry.providers.iter().next().unwrap();
    match &entry.kind {
        ProviderKind::Http(declaration) => Declared::new(name, Arc::clone(declaration)),
        other => panic!("{other:?}"),
    }
}

/// What the host would keep of one attempt.
pub(super) struct Attempt {
    pub(super) provider: Declared,
    pub(super) model: &'static str,
    pub(super) input: &'static str,
    pub(super) hook: Option<&'static str>,
    pub(super) state: Vec<u8>,
    pub(super) now_ms: u64,
    pub(super) remote_id: Option<String>,
    pub(super) progress: Vec<Progress>,
}

impl Attempt {
    pub(super) fn new(text: &str) -> Self {
        Attempt {
            provider: declared(text),
            model: "acme/flux",
            input: r#"{"prompt":"a fox","seed":18446744073709551615}"#,
            hook: None,
            state: Vec::new(),
            now_ms: 1_000_000,
            remote_id: None,
            progress: Vec::new(),
        }
    }

    pub(super) fn hooked(text: &str) -> Self {
        Attempt {
            hook: Some(HOOK),
            ..Attempt::new(text)
        }
    }

    /// One step, with its state stored.
    pub(super) fn step(&mut self, event: Event<'_>) -> Action {
        let job = Job {
            id: "attempt-1",
            model: self.model,
            params: Params::new(self.input),
            state: &self.state,
            idempotency_key: "attempt-1",
            webhook_url: self.hook,
            now_ms: self.now_ms,
            deadline_ms: DEADLINE_MS,
            attempt: 1,
            steps: 0,
        };
        let step: Step = self.provider.step(&job, event).unwrap();
        self.state = step.state.unwrap_or(std::mem::take(&mut self.state));
        assert!(self.state.len() <= 64 << 10, "state is {} bytes", self.state.len());
        self.remote_id = step.remote_id.or(self.remote_id.take());
        self.progress.extend(step.progress);
        step.action
    }

    pub(super) fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Action {
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| Header { name, value }).collect();
        self.step(Event::Http(Response {
            status,
            headers: &headers,
            body,
        }))
    }

    pub(super) fn json(&mut self, status: u16, body: &Value) -> Action {
        self.answer(
            status,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    pub(super) fn failed(&mut self, transport: Transport) -> Action {
        self.step(Event::Failed(transport))
    }

    pub(super) fn hook(&mut self, body: &Value) -> Action {
        let body = body.to_string();
        self.step(Event::Webhook(Response {
            status: 200,
            headers: &[],
            body: body.as_bytes(),
        }))
    }

    /// Waits as asked, and goes on.
    pub(super) fn timer(&mut self, action: &Action) -> Action {
        self.now_ms += wait_ms(action);
        self.step(Event::Timer)
    }
}

pub(super) fn wait_ms(action: &Action) -> u64 {
    match action {
        Action::Wait { ms } => *ms,
        other => panic!("not a wait: {other:?}"),
    }
}

pub(super) fn request(action: &Action) -> &HttpRequest {
    match action {
        Action::Http(request) => request,
        other => panic!("not a request: {other:?}"),
    }
}

/// `GET https://...`
pub(super) fn line(action: &Action) -> String {
    let request = request(action);
    format!("{} {}", json!(request.method).as_str().unwrap(), request.url)
}

pub(super) fn failure(action: Action) -> Failure {
    match action {
        Action::Fail(failure) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

pub(super) fn outcome(action: Action) -> Outcome {
    match action {
        Action::Done(outcome) => outcome,
        other => panic!("not done: {other:?}"),
    }
}

pub(super) fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    let mut all = request.headers.iter().filter(|(given, _)| given == name);
    let first = all.next().map(|(_, value)| value.as_ref());
    assert!(all.next().is_none(), "`{name}` is there twice");
    first
}

pub(super) fn body(request: &HttpRequest) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}
