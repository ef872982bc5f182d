//! Requests to FAL, and when the next one is due.

use velro_plugin::{Effect, HttpRequest, Job, Method, escape};

use super::address::Base;
use super::state::Ticket;

const AUTHORIZATION: &str = "Key {{secret:FAL_KEY}}";

/// The paid request. The body is the validated input as it is.
pub(super) fn submit(base: &Base, job: &Job<'_>) -> HttpRequest {
    let mut url = base.endpoint(job.model);
    if let Some(hook) = job.webhook_url {
        url.push_str("?fal_webhook=");
        url.push_str(&escape(hook));
    }
    let request = HttpRequest::submit(url)
        .header("authorization", AUTHORIZATION)
        .header("accept", "application/json")
        .json_body(job.params.raw());
    match start_timeout_s(job) {
        Some(seconds) => request.header("x-fal-request-timeout", seconds.to_string()),
        None => request,
    }
}

/// FAL's header limits the time until a job *starts*. A quarter of what is left is kept for running it: a job that
/// starts at our deadline would be paid for and thrown away. FAL's clients refuse values up to one second.
fn start_timeout_s(job: &Job<'_>) -> Option<u64> {
    let left_s = job.deadline_ms.saturating_sub(job.now_ms) / 1_000;
    Some(left_s - left_s / 4).filter(|&s| s > 1)
}

/// Asks how far the job is, with its log.
pub(super) fn status(ticket: &Ticket) -> HttpRequest {
    let url = &ticket.urls.status;
    let separator = if url.contains('?') { '&' } else { '?' };
    read(format!("{url}{separator}logs=1"))
}

/// Fetches the model's answer.
pub(super) fn result(ticket: &Ticket) -> HttpRequest {
    read(ticket.urls.result.clone())
}

/// Asks FAL to stop. Repeating it does no harm.
pub(super) fn cancel(ticket: &Ticket) -> HttpRequest {
    HttpRequest::new(Method::Put, ticket.urls.cancel.clone(), Effect::Write).header("authorization", AUTHORIZATION)
}

fn read(url: String) -> HttpRequest {
    HttpRequest::get(url)
        .header("authorization", AUTHORIZATION)
        .header("accept", "application/json")
}

/// Time to the next poll in milliseconds: a tenth of the time the job has taken so far, so that the answer is noticed
/// at most about ten percent late whatever the model's speed. With a webhook polling only keeps the progress fresh
/// and catches webhooks that never come.
pub(super) fn pace_ms(job: &Job<'_>, ticket: &Ticket) -> u64 {
    let elapsed = job.now_ms.saturating_sub(ticket.since_ms);
    match (job.webhook_url, ticket.stop) {
        (_, Some(_)) => (elapsed / 10).clamp(500, 3_000),
        (None, None) => (elapsed / 10).clamp(400, 10_000),
        (Some(_), None) => (elapsed / 4).clamp(3_000, 60_000),
    }
}

/// Time to the next try after the `errors`-th unhelpful answer in a row, in milliseconds.
pub(super) fn backoff_ms(errors: u32, retry_after_ms: u64) -> u64 {
    (500_u64 << errors.min(6))
        .clamp(1_000, 30_000)
        .max(retry_after_ms.min(300_000))
}
