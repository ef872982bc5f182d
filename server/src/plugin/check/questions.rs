//! Questions nobody would ask: random events over random bytes, reproducible by their seed.

use fastrand::Rng;
use serde_json::{Map, Value, json};
use velro_plugin::{Event, Fault, Header, Job, Params, Provider, Response, Step, Transport};

/// A question, owned, so that it can be asked twice and told to people.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) model: String,
    pub(super) params: String,
    pub(super) state: Vec<u8>,
    pub(super) webhook_url: Option<String>,
    pub(super) now_ms: u64,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Start,
    Http {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    Failed(Transport),
    Timer,
    Webhook {
        body: Vec<u8>,
    },
    Cancel,
    Interrupted,
}

impl Question {
    /// The first question of a job.
    pub(super) fn start(model: &str, params: &Map<String, Value>) -> Self {
        Question {
            model: model.to_owned(),
            params: Value::Object(params.clone()).to_string(),
            state: Vec::new(),
            webhook_url: None,
            now_ms: velro_plugin::testkit::BEGIN_MS,
            what: What::Start,
        }
    }

    pub(super) fn then(&self, what: What) -> Self {
        Question { what, ..self.clone() }
    }

    pub(super) fn ask(&self, provider: &dyn Provider) -> Result<Step, Fault> {
        let job = Job {
            id: "00000000-0000-7000-8000-00000000000a",
            model: &self.model,
            params: Params::new(&self.params),
            state: &self.state,
            idempotency_key: "00000000-0000-7000-8000-00000000000a",
            webhook_url: self.webhook_url.as_deref(),
            now_ms: self.now_ms,
            deadline_ms: self.now_ms + 600_000,
            attempt: 1,
            steps: 1,
        };
        let (mut owned, mut status, mut bytes) = (&[][..], 200, &[][..]);
        match &self.what {
            What::Http {
                status: given,
                headers,
                body,
            } => (owned, status, bytes) = (headers.as_slice(), *given, body.as_slice()),
            What::Webhook { body } => bytes = body.as_slice(),
            _ => {}
        }
        let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| Header { name, value }).collect();
        let response = Response {
            status,
            headers: &headers,
            body: bytes,
        };
        let event = match &self.what {
            What::Start => Event::Start,
            What::Http { .. } => Event::Http(response),
            What::Failed(transport) => Event::Failed(*transport),
            What::Timer => Event::Timer,
            What::Webhook { .. } => Event::Webhook(response),
            What::Cancel => Event::Cancel,
            What::Interrupted => Event::Interrupted,
        };
        provider.step(&job, event)
    }

    /// Short enough for a report.
    pub(super) fn describe(&self) -> String {
        let cut = |bytes: &[u8]| {
            let text: String = String::from_utf8_lossy(bytes).chars().take(160).collect();
            format!("{text:?}")
        };
        let state = cut(&self.state);
        match &self.what {
            What::Http { status, body, .. } => format!("HTTP {status} with body {} in state {state}", cut(body)),
            What::Webhook { body } => format!("a webhook with body {} in state {state}", cut(body)),
            other => format!("{other:?} in state {state}"),
        }
    }
}

/// Words that providers look for: they lead deeper than noise does.
const WORDS: &[&str] = &[
    "id",
    "status",
    "state",
    "result",
    "error",
    "output",
    "outputs",
    "images",
    "image",
    "video",
    "url",
    "data",
    "b64_json",
    "request_id",
    "response_url",
    "status_url",
    "cancel_url",
    "detail",
    "message",
    "code",
    "type",
    "queue_position",
    "logs",
    "prompt_id",
    "filename",
    "succeeded",
    "failed",
    "done",
    "completed",
    "COMPLETED",
    "IN_QUEUE",
    "IN_PROGRESS",
    "processing",
    "starting",
    "canceled",
    "urls",
    "get",
    "payload",
    "https://x.example/1.png",
    "",
];

fn word(rng: &mut Rng) -> String {
    match rng.u8(0..10) {
        0 => (0..rng.usize(0..40)).map(|_| rng.char(..)).collect(),
        1 => "\u{0}\u{7}\u{202e}".into(),
        _ => rng.choice(WORDS).copied().unwrap_or_default().to_owned(),
    }
}

fn value(rng: &mut Rng, depth: u8) -> Value {
    match rng.u8(0..if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(rng.i64(..)),
        3 => json!(f64::from_bits(rng.u64(..))),
        4 | 5 => json!(word(rng)),
        6 => Value::Array((0..rng.usize(0..4)).map(|_| value(rng, depth - 1)).collect()),
        _ => Value::Object(
            (0..rng.usize(0..6))
                .map(|_| (word(rng), value(rng, depth - 1)))
                .collect(),
        ),
    }
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(0..8) {
        0 => Vec::new(),
        1 => (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect(),
        2 => {
            let mut text = value(rng, 3).to_string().into_bytes();
            text.truncate(rng.usize(0..=text.len()));
            text
        }
        // Deeper than any parser should follow.
        3 => "[".repeat(rng.usize(1..5_000)).into_bytes(),
        _ => value(rng, 4).to_string().into_bytes(),
    }
}

/// A random question; `states` are states that the provider itself has stored.
pub(super) fn random(rng: &mut Rng, model: &str, params: &Map<String, Value>, states: &[Vec<u8>]) -> Question {
    const STATUSES: &[u16] = &[
        200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504, 599, 0,
    ];
    const TRANSPORTS: &[Transport] = &[
        Transport::NotSent,
        Transport::Timeout,
        Transport::Reset,
        Transport::BodyTooLarge,
        Transport::CircuitOpen,
        Transport::HostDenied,
    ];
    let state = match (rng.u8(0..10), rng.choice(states)) {
        (0, _) => bytes(rng),
        (1, Some(known)) => {
            let mut broken = known.clone();
            if let Some(byte) = rng.choice(broken.iter_mut()) {
                *byte = rng.u8(..);
            }
            broken
        }
        (2 | 3, _) | (_, None) => Vec::new(),
        (_, Some(known)) => known.clone(),
    };
    let params = match rng.u8(0..4) {
        0 => Value::Object((0..rng.usize(0..8)).map(|_| (word(rng), value(rng, 3))).collect()),
        _ => Value::Object(params.clone()),
    };
    let what = match rng.u8(0..12) {
        0 => What::Start,
        1 => What::Timer,
        2 => What::Cancel,
        3 => What::Interrupted,
        4 => What::Failed(*rng.choice(TRANSPORTS).unwrap_or(&Transport::Reset)),
        5 => What::Webhook { body: bytes(rng) },
        _ => What::Http {
            status: *rng.choice(STATUSES).unwrap_or(&200),
            headers: (0..rng.usize(0..4))
                .map(|_| ("retry-after".to_owned(), word(rng)))
                .collect(),
            body: bytes(rng),
        },
    };
    Question {
        model: if rng.u8(0..8) == 0 { word(rng) } else { model.to_owned() },
        params: params.to_string(),
        state,
        webhook_url: rng.bool().then(|| "https://velro.example/webhooks/x/1".to_owned()),
        now_ms: velro_plugin::testkit::BEGIN_MS + rng.u64(0..86_400_000),
        what,
    }
}
