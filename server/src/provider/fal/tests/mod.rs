//! FAL driven through `step` without a network: recorded exchanges, error classes, crashes at every point.

mod crash;
mod errors;
mod exchanges;

use serde_json::{Value, json};
use velro_plugin::{Action, Event, Header, HttpRequest, Job, Method, Params, Provider, Response, Step};

use super::Fal;
use crate::config::FalConfig;

pub(super) const ID: &str = "484c1f2e-0a6b-4d7d-9a7c-2f3d5a0c1b9e";
pub(super) const MODEL: &str = "fal-ai/flux-pro/v1.1-ultra";
pub(super) const INPUT: &str = r#"{"prompt":"a fox","num_images":2}"#;
pub(super) const HOOK: &str = "https://velro.example/hooks/fal/1/ab?x=1";
pub(super) const DEADLINE_MS: u64 = 1_000_000 + 600_000;

pub(super) fn fal() -> Fal {
    Fal::new(&FalConfig {
        key: None,
        queue_url: "https://queue.fal.run".into(),
        run_url: "https://fal.run".into(),
        rest_url: "https://rest.fal.ai".into(),
    })
}

/// What the host would keep of one attempt.
pub(super) struct Attempt {
    pub(super) model: &'static str,
    pub(super) hook: Option<&'static str>,
    pub(super) state: Vec<u8>,
    pub(super) now_ms: u64,
    pub(super) remote_id: Option<String>,
    pub(super) progress: Vec<velro_plugin::Progress>,
}

impl Attempt {
    pub(super) fn new(hook: Option<&'static str>) -> Self {
        Attempt {
            model: MODEL,
            hook,
            state: Vec::new(),
            now_ms: 1_000_000,
            remote_id: None,
            progress: Vec::new(),
        }
    }

    /// One step, with its state stored.
    pub(super) fn step(&mut self, event: Event<'_>) -> Action {
        let job = Job {
            id: "attempt-1",
            model: self.model,
            params: Params::new(INPUT),
            state: &self.state,
            idempotency_key: "attempt-1",
            webhook_url: self.hook,
            now_ms: self.now_ms,
            deadline_ms: DEADLINE_MS,
            attempt: 1,
            steps: 0,
        };
        let step: Step = fal().step(&job, event).unwrap();
        self.state = step.state.unwrap_or(std::mem::take(&mut self.state));
        assert!(self.state.len() < 4_096, "state is {} bytes", self.state.len());
        self.remote_id = step.remote_id.or(self.remote_id.take());
        self.progress.extend(step.progress);
        step.action
    }

    /// One step with an answer.
    pub(super) fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Action {
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| Header { name, value }).collect();
        self.step(Event::Http(Response {
            status,
            headers: &headers,
            body,
        }))
    }

    pub(super) fn json(&mut self, status: u16, body: &Value) -> Action {
        self.answer(status, &[], body.to_string().as_bytes())
    }

    pub(super) fn hook(&mut self, body: &Value) -> Action {
        let body = body.to_string();
        self.step(Event::Webhook(Response {
            status: 200,
            headers: &[],
            body: body.as_bytes(),
        }))
    }

    /// Lets a wait pass; answers how long it was.
    pub(super) fn timer(&mut self, action: &Action) -> Action {
        self.now_ms += wait_ms(action);
        self.step(Event::Timer)
    }

    /// An attempt that FAL has just accepted, at its first poll.
    pub(super) fn polling(hook: Option<&'static str>) -> Self {
        let mut attempt = Attempt::new(hook);
        attempt.step(Event::Start);
        let action = attempt.json(200, &submitted());
        assert_eq!(line(&attempt.timer(&action)), status_line());
        attempt
    }

    /// An attempt that is fetching its result.
    pub(super) fn fetching() -> Self {
        let mut attempt = Attempt::polling(None);
        let action = attempt.json(200, &json!({"status": "COMPLETED", "request_id": ID, "logs": null}));
        assert_eq!(line(&action), result_line());
        attempt
    }
}

pub(super) fn request(action: &Action) -> &HttpRequest {
    match action {
        Action::Http(request) => request,
        other => panic!("not a request: {other:?}"),
    }
}

/// `GET https://...` of a request.
pub(super) fn line(action: &Action) -> String {
    let request = request(action);
    let method = match request.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        other => panic!("{other:?}"),
    };
    format!("{method} {}", request.url)
}

pub(super) fn wait_ms(action: &Action) -> u64 {
    match action {
        Action::Wait { ms } => *ms,
        other => panic!("not a wait: {other:?}"),
    }
}

pub(super) fn failure(action: Action) -> velro_plugin::Failure {
    match action {
        Action::Fail(failure) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

pub(super) fn outcome(action: Action) -> velro_plugin::Outcome {
    match action {
        Action::Done(outcome) => outcome,
        other => panic!("not done: {other:?}"),
    }
}

pub(super) fn submitted() -> Value {
    let base = format!("https://queue.fal.run/fal-ai/flux-pro/requests/{ID}");
    json!({"status": "IN_QUEUE", "request_id": ID, "response_url": base, "status_url": format!("{base}/status"),
        "cancel_url": format!("{base}/cancel"), "logs": null, "metrics": {}, "queue_position": 0})
}

pub(super) fn images() -> Value {
    json!({"images": [
        {"url": "https://v3.fal.media/files/a.jpeg", "width": 2752, "height": 1536, "content_type": "image/jpeg"},
        {"url": "https://v3.fal.media/files/b.jpeg", "width": 2752, "height": 1536, "content_type": "image/jpeg"}],
        "timings": {}, "seed": 17_454_220_438_242_315_174_u64, "has_nsfw_concepts": [false, false], "prompt": "a fox"})
}

pub(super) fn status_line() -> String {
    format!("GET https://queue.fal.run/fal-ai/flux-pro/requests/{ID}/status?logs=1")
}

pub(super) fn result_line() -> String {
    format!("GET https://queue.fal.run/fal-ai/flux-pro/requests/{ID}")
}

pub(super) fn cancel_line() -> String {
    format!("PUT https://queue.fal.run/fal-ai/flux-pro/requests/{ID}/cancel")
}
