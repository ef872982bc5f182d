//! Clients that behave well: many calls of all kinds, each with its key, repeated until there is an answer.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Client, Reply, SUBMIT, id_of};

/// How long a client repeats a submit.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(90);

/// Pause before a submit is repeated. (The server asks for longer; short is harder for it.)
const REPEAT_AFTER: Duration = Duration::from_millis(200);

/// A submit that was answered.
#[derive(Debug, Clone)]
pub struct Job {
    /// The number of its owner.
    pub person: usize,
    /// Id of the generation.
    pub id: String,
    /// How often the answer was that the service is not available.
    pub unavailable: usize,
    /// How often there was no answer.
    pub unanswered: usize,
}

/// FAL takes the call of this number, nobody here knows, and FAL does not say: a case for the operator in every storm.
#[must_use]
pub fn stays_open(number: usize) -> bool {
    number % 16 == 6
}

/// The call number `number` of `person`: sandbox and FAL, good ones, failing ones and ones with trouble on the way.
#[must_use]
pub fn call(person: usize, number: usize) -> Value {
    let prompt = format!("storm {person} {number}");
    if stays_open(number) {
        let prompt = format!("{prompt} [sim:submit=accept_then_cut*1] [sim:webhook=drop]");
        return json!({"model_id": "fal-ai/imagen4/preview/ultra", "prompt": prompt});
    }
    match number % 4 {
        0 => json!({"model_id": "sandbox/image", "prompt": prompt,
                    "parameters": {"image_size": "square", "latency_ms": number % 16 * 50}}),
        1 => json!({"model_id": "sandbox/image", "prompt": prompt,
                    "parameters": {"image_size": "square", "latency_ms": 200, "outcome": "fail"}}),
        2 => json!({"model_id": "fal-ai/imagen4/preview/ultra", "prompt": prompt}),
        _ => json!({"model_id": "fal-ai/imagen4/preview/ultra",
                    "prompt": format!("{prompt} [sim:status=503*1] [sim:media=cut*1] [sim:webhook=drop]")}),
    }
}

/// Submits `body` until it is accepted, with one key, as a good client does. The only other answer a client may get is
/// that the service is not available, and when to try again.
pub async fn submit(client: &Client, person: usize, body: &Value, key: &str) -> Job {
    let (mut unavailable, mut unanswered) = (0, 0);
    let deadline = Instant::now() + SUBMIT_PATIENCE;
    loop {
        let request = client.request(Method::POST, SUBMIT).json(body);
        let request = request.header("Idempotency-Key", key);
        match client.try_send(request).await {
            Ok(answer) if answer.status == 503 => {
                assert_unavailable(&answer);
                unavailable += 1;
            }
            Ok(answer) => {
                return Job {
                    person,
                    id: id_of(&answer.ok()),
                    unavailable,
                    unanswered,
                };
            }
            Err(_) => unanswered += 1,
        }
        assert!(
            Instant::now() < deadline,
            "not accepted within {SUBMIT_PATIENCE:?}: {body}; 503: {unavailable}, no answer: {unanswered}"
        );
        // A crowd that repeats at once would be a storm of its own.
        tokio::time::sleep(REPEAT_AFTER).await;
    }
}

/// A problem document with its code, and `Retry-After`.
#[track_caller]
pub(super) fn assert_unavailable(answer: &Reply) {
    let seconds: u64 = answer.header("retry-after").parse().unwrap_or_default();
    assert!(
        seconds > 0,
        "{}: 503 without Retry-After: {}",
        answer.request,
        answer.text()
    );
    answer.clone().problem(503, "service_unavailable");
}

/// Every person makes `each` calls, one every `gap`; the people take turns. `changes_their_mind` says after which of
/// their calls they cancel it.
pub fn crowd(people: &[Client], each: usize, gap: Duration, changes_their_mind: fn(usize) -> bool) -> JoinSet<Job> {
    let mut crowd = JoinSet::new();
    for number in 0..each {
        for (person, client) in people.iter().enumerate() {
            let client = client.clone();
            let before = u32::try_from(number * people.len() + person).unwrap_or(u32::MAX);
            crowd.spawn(async move {
                // The pace of the load, not a wait for anything.
                tokio::time::sleep(gap * before).await;
                let job = submit(&client, person, &call(person, number), &format!("{person}-{number}")).await;
                if changes_their_mind(number) {
                    cancel(&client, &job.id).await;
                }
                job
            });
        }
    }
    crowd
}

/// Cancels once. It may come too late, or not arrive; it must not break anything.
async fn cancel(client: &Client, id: &str) {
    let request = client.request(Method::DELETE, &format!("/api/v1/generations/async/{id}/cancel"));
    if let Ok(answer) = client.try_send(request).await {
        match answer.status.as_u16() {
            200 | 409 => {}
            503 => assert_unavailable(&answer),
            _ => panic!("{}: {} {}", answer.request, answer.status, answer.text()),
        }
    }
}

/// Waits until every client of the crowd has its answer.
///
/// # Panics
/// If one of them did.
pub async fn answers(mut crowd: JoinSet<Job>) -> Vec<Job> {
    let mut jobs = Vec::new();
    while let Some(job) = crowd.join_next().await {
        jobs.push(job.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    }
    jobs
}
