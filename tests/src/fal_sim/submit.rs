//! Accepting a request, from the queue or as a direct run: the moment something is bought.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use salvo::{Request, Response};
use serde_json::{Map, Value, json};

use super::api::{MAX_BODY_BYTES, base_url, not_found, result, unauthorized};
use super::errors::{Failure, detail_item};
use super::faults::{Action, Point, rules_in_prompt, strike, strike_all};
use super::job::{Counts, Job, Outcome, Phase, Via, failed};
use super::models::Model;
use super::reply::{self, Reply};
use super::state::{Inner, Refusal, State, unix_ms};
use super::{outputs, webhook};

/// Headers worth keeping for assertions; credentials never are.
fn headers_of(req: &Request) -> BTreeMap<String, String> {
    const HIDDEN: &[&str] = &["authorization", "cookie", "proxy-authorization"];
    req.headers()
        .iter()
        .filter(|(name, _)| !HIDDEN.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// Submit to the queue, or run directly: the same checks, the same ledger.
pub(super) async fn submit(inner: &Arc<Inner>, endpoint: &str, via: Via, req: &mut Request, res: &mut Response) {
    let conn = reply::connection(req);
    let body = match req.payload_with_max_size(MAX_BODY_BYTES).await {
        Ok(body) => body.clone(),
        // The client went away in the middle of its body, or sent too much of it.
        Err(_) => {
            return reply::write(Reply::detail(400, "Unreadable body"), None, conn, res).await;
        }
    };
    let input: Option<Map<String, Value>> = serde_json::from_slice(&body).ok();
    let prompt = input
        .as_ref()
        .and_then(|input| input.get("prompt"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let refuse = |answer: String| {
        inner.lock().refusals.push(Refusal {
            at_ms: unix_ms(),
            endpoint: endpoint.to_owned(),
            prompt: prompt.clone(),
            answer,
        });
        inner.notify();
    };
    let point = match via {
        Via::Queue => Point::Submit,
        Via::Run => Point::Run,
    };

    let refusal = unauthorized(inner, req).or_else(|| match (&input, Model::find(endpoint)) {
        (_, None) => Some(Reply::detail(404, &format!("Application '{endpoint}' not found"))),
        (None, _) => Some(Reply::failure(&Failure::validation(vec![detail_item(
            &["body"],
            "json_invalid",
            "JSON decode error: the body is not a JSON object",
            json!({}),
            json!({}),
        )]))),
        _ => rules_in_prompt(&prompt)
            .err()
            .map(|error| Reply::detail(400, &format!("fal-sim: {error}"))),
    });
    let (Some(model), Some(input), None) = (Model::find(endpoint), input, &refusal) else {
        let refusal = refusal.unwrap_or_else(|| Reply::detail(404, "Not Found"));
        refuse(refusal.status.to_string());
        return reply::write(refusal, None, conn, res).await;
    };

    let fault = strike_submit(&mut inner.lock(), point, endpoint, &prompt);
    match &fault {
        Some(Action::Status(status)) => refuse(status.to_string()),
        Some(Action::Cut) => refuse("cut".to_owned()),
        Some(Action::Hang) => refuse("hang".to_owned()),
        _ => {}
    }
    if let Some(answer) = reply::before(fault.as_ref(), conn.clone()).await {
        return reply::write(answer, None, conn, res).await;
    }

    let accepted = accept(inner, model, via, input, req);
    let answer = match accepted {
        Err(answer) => {
            refuse(answer.status.to_string());
            answer
        }
        Ok((request_id, answer)) => {
            inner.notify();
            let has_webhook = inner
                .with_job(&request_id, |state, index, _| {
                    state.settings.webhooks && state.jobs[index].webhook_url.is_some()
                })
                .unwrap_or(false);
            if has_webhook {
                let delivery = webhook::deliver(Arc::clone(inner), request_id.clone());
                tokio::spawn(inner.stop.clone().run_until_cancelled_owned(delivery));
            }
            // A direct run answers with the result; a damaged answer must still come after the purchase.
            match via {
                Via::Queue => answer,
                Via::Run if matches!(fault, Some(Action::ThenCut | Action::ThenHang)) => answer,
                Via::Run => finished(inner, &request_id).await,
            }
        }
    };
    reply::write(answer, fault.as_ref(), conn, res).await;
}

/// The fault for this submission: those its prompt names keep their counts from one submit to the next.
fn strike_submit(state: &mut State, point: Point, endpoint: &str, prompt: &str) -> Option<Action> {
    if !state.prompt_rules.contains_key(prompt)
        && let Ok(rules) = rules_in_prompt(prompt)
        && !rules.is_empty()
    {
        state.prompt_rules.insert(prompt.to_owned(), rules);
    }
    state
        .prompt_rules
        .get_mut(prompt)
        .and_then(|rules| strike(rules, point, endpoint, prompt))
        .or_else(|| strike(&mut state.rules, point, endpoint, prompt))
}

/// Creates the job and its answer. From here on it is bought.
fn accept(
    inner: &Inner,
    model: &'static Model,
    via: Via,
    input: Map<String, Value>,
    req: &Request,
) -> Result<(String, Reply), Reply> {
    let now = Instant::now();
    let base_url = base_url(inner, req);
    let request_id = uuid::Uuid::new_v4().to_string();
    let webhook_url: Option<String> = req.query("fal_webhook");
    let max_queue_length: Option<usize> = req.query("fal_max_queue_length");
    let start_timeout = req
        .headers()
        .get("x-fal-request-timeout")
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());

    let mut state = inner.lock();
    if state.settings.balance_locked {
        return Err(Reply::detail(
            403,
            "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.",
        ));
    }
    if webhook_url.as_deref().is_some_and(|url| url::Url::parse(url).is_err()) {
        return Err(Reply::detail(400, "fal_webhook is not a URL"));
    }
    if let Some(limit) = max_queue_length
        && let count = state.jobs.len()
        && state.waiting_before(count, now) > limit
    {
        return Err(Reply::detail(429, "Queue is longer than requested"));
    }

    let mut rules = rules_in_prompt(&input_prompt(&input)).unwrap_or_default();
    let settings = &state.settings;
    let (mut queue_ms, mut run_ms, mut never) = (settings.queue_ms, settings.run_ms, false);
    let manual = settings.manual;
    let asked = model.asked_outputs(&input);
    let mut outcome = Outcome::Deliver { outputs: asked };
    if let Err(failure) = model.validate(&input, settings.reject_unknown_fields) {
        outcome = Outcome::Fail(failure);
    }
    let prompt = input_prompt(&input);
    let mut actions = strike_all(&mut state.rules, Point::Job, model.endpoint, &prompt);
    actions.extend(strike_all(&mut rules, Point::Job, model.endpoint, &prompt));
    for action in actions {
        match (action, &outcome) {
            (Action::QueueMs(ms), _) => queue_ms = ms,
            (Action::RunMs(ms), _) => run_ms = ms,
            (Action::Never, _) => never = true,
            // A refused input stays refused.
            (Action::Fail(error_type), Outcome::Deliver { .. }) => outcome = failed(&error_type),
            (Action::Fewer, Outcome::Deliver { .. }) => {
                outcome = Outcome::Deliver {
                    outputs: asked.saturating_sub(1),
                };
            }
            (Action::NoMedia, Outcome::Deliver { .. }) => {
                outcome = Outcome::Deliver { outputs: 0 };
            }
            _ => {}
        }
    }
    let held = manual && via == Via::Queue;
    let run_for = (!held && !never).then(|| Duration::from_millis(run_ms));
    let start = match via {
        Via::Queue => now + Duration::from_millis(queue_ms),
        Via::Run => now,
    };
    state.add(Job {
        request_id: request_id.clone(),
        model,
        via,
        headers: headers_of(req),
        webhook_url,
        base_url,
        accepted: now,
        accepted_at_ms: unix_ms(),
        start_at: (!held).then_some(start),
        end_at: run_for.map(|run_for| start + run_for),
        run_for,
        start_deadline: start_timeout.map(|timeout| now + timeout),
        outcome,
        rules,
        counts: Counts::default(),
        deliveries: Vec::new(),
        input,
    });
    let index = state.jobs.len() - 1;
    // Even a queue time of zero answers IN_QUEUE: the submit's answer is given before the job moves.
    let mut body = outputs::status(&state.jobs[index], now, 0, false, true);
    body["status"] = Phase::InQueue.name().into();
    body["queue_position"] = state.waiting_before(index, now).into();
    body["logs"] = Value::Null;
    body["metrics"] = json!({});
    drop(state);
    let answer = Reply::json(200, &body).header("x-fal-request-id", request_id.clone());
    Ok((request_id, answer))
}

fn input_prompt(input: &Map<String, Value>) -> String {
    let prompt = input.get("prompt").and_then(Value::as_str);
    prompt.unwrap_or_default().to_owned()
}

/// Waits for the end of a job and gives its result.
async fn finished(inner: &Inner, request_id: &str) -> Reply {
    let mut changed = inner.changed.subscribe();
    loop {
        let now = Instant::now();
        let look = inner.with_job(request_id, |state, index, now| {
            let job = &state.jobs[index];
            match job.phase(now) {
                Phase::Completed => Ok(result(state, index, now)),
                _ => Err(job.next_change(now)),
            }
        });
        let wait = match look {
            None => return not_found(),
            Some(Ok(reply)) => return reply,
            Some(Err(Some(at))) => at.duration_since(now),
            Some(Err(None)) => Duration::from_secs(3600),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = changed.changed() => {}
        }
    }
}
