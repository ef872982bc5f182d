//! Reads FAL's answers and webhooks.

use velro_plugin::{Job, Map, Outcome, Output, Quote, Response, Value};

use super::address::Base;
use super::code_of;
use super::state::Ticket;
use crate::provider::reading;

/// The ticket of an accepted submit; `None` for everything that does not clearly say so.
pub(super) fn submitted(base: &Base, job: &Job<'_>, answer: &Response<'_>) -> Option<Ticket> {
    if !answer.ok() {
        return None;
    }
    let body = answer.json().ok()?;
    let id = request_id(&body)?;
    let urls = base.urls_of(&body, job.model, &id);
    Some(Ticket::new(urls, id, job.now_ms))
}

/// FAL's id of a job, if it looks like one: it becomes a part of URLs.
fn request_id(body: &Value) -> Option<String> {
    let id = body["request_id"].as_str()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    ((1..=128).contains(&id.len()) && id.bytes().all(plain)).then(|| id.to_owned())
}

/// The job a webhook is about.
pub(super) fn hook_request_id(body: &[u8]) -> Option<String> {
    request_id(&serde_json::from_slice(body).ok()?)
}

/// Remembers that a webhook called the job failed; the details are in the result.
pub(super) fn note_hook(ticket: &mut Ticket, body: &[u8]) {
    let hook: Value = serde_json::from_slice(body).unwrap_or_default();
    if hook["status"] == "ERROR" && ticket.verdict.is_none() {
        ticket.verdict = Some("error".into());
    }
}

/// Remembers that a final status called the job failed.
pub(super) fn note_verdict(ticket: &mut Ticket, status: &Value) {
    if let Some(code) = code_of(&status["error_type"]) {
        ticket.verdict = Some(code.to_owned());
    } else if !status["error"].is_null() && ticket.verdict.is_none() {
        ticket.verdict = Some("error".into());
    }
}

/// What the model delivered, in its order; `None` when nothing in the answer is an output.
pub(super) fn outcome(body: &Value, answer: &Response<'_>) -> Option<Outcome> {
    const PLACES: [(&str, &str); 7] = [
        ("images", "image"),
        ("image", "image"),
        ("video", "video"),
        ("videos", "video"),
        ("audio", "audio"),
        ("audio_file", "audio"),
        ("audio_url", "audio"),
    ];
    let mut outputs: Vec<Output> = Vec::new();
    for (name, kind) in PLACES {
        let files = match &body[name] {
            Value::Array(files) => files.as_slice(),
            one => std::slice::from_ref(one),
        };
        outputs.extend(files.iter().filter_map(|file| match file {
            Value::String(url) if url.contains(':') => Some(Output::url(kind, url.as_str())),
            file => Output::file(kind, file),
        }));
    }
    if outputs.is_empty() {
        return None;
    }
    // Values are passed on as they are: a seed may be larger than an i64.
    let meta: Map<String, Value> = ["seed", "has_nsfw_concepts"]
        .into_iter()
        .filter(|name| !body[*name].is_null())
        .map(|name| (name.to_owned(), body[name].clone()))
        .collect();
    Some(Outcome {
        outputs,
        billed: answer
            .header("x-fal-billable-units")
            .and_then(reading::milli)
            .map(|units_milli| Quote {
                usd_micros: 0,
                unit: "billable_unit".into(),
                units_milli,
            }),
        meta,
    })
}

/// The result's address answered with a status: too early.
pub(super) fn is_unfinished(body: &Value) -> bool {
    matches!(body["status"].as_str(), Some("IN_QUEUE" | "IN_PROGRESS"))
}

/// FAL's text for a result that is asked for too early.
pub(super) fn says_in_progress(body: &Value) -> bool {
    body["detail"]
        .as_str()
        .is_some_and(|d| d.to_ascii_lowercase().contains("still in progress"))
}

/// True when FAL or the model wrote this error, as opposed to a proxy on the way.
pub(super) fn is_fal_error(body: &Value, answer: &Response<'_>) -> bool {
    !body["detail"].is_null() || !body["error_type"].is_null() || answer.header("x-fal-error-type").is_some()
}
