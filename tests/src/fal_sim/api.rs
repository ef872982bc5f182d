//! Routing, and the queue's operations on accepted requests.
//!
//! Paths are split by hand because an endpoint id is a path of any length: `POST` to anything without a segment
//! `requests` is a submit, and status, result and cancel are addressed by `[owner/alias | whole id]/requests/{id}`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream;
use salvo::http::Method;
use salvo::{Depot, FlowCtrl, Handler, Request, Response, async_trait};
use serde_json::{Value, json};

use super::faults::Point;
use super::job::{Outcome, Phase, Via, failed};
use super::reply::{self, Reply};
use super::state::{Inner, State};
use super::submit::submit;
use super::{control, media_api, outputs, storage};

/// Inputs may carry data URIs.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;

/// The whole simulator behind one handler.
#[derive(Debug)]
pub(super) struct Api(pub(super) Arc<Inner>);

#[async_trait]
impl Handler for Api {
    async fn handle(&self, req: &mut Request, _depot: &mut Depot, res: &mut Response, _ctrl: &mut FlowCtrl) {
        let inner = &self.0;
        let path = req.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let post = req.method() == Method::POST;
        let plain = match segments.as_slice() {
            ["_sim", rest @ ..] => control::handle(inner, rest, req).await,
            [".well-known", "jwks.json"] => Reply::json(200, &inner.signer.jwks()),
            ["media", request_id, file] => {
                return media_api::serve(inner, request_id, file, req, res).await;
            }
            ["storage" | "uploads" | "files", ..] => storage::handle(inner, &segments, req).await,
            ["run", endpoint @ ..] if post => {
                return submit(inner, &endpoint.join("/"), Via::Run, req, res).await;
            }
            _ => match segments.iter().position(|part| *part == "requests") {
                Some(at) => return on_request(inner, &segments, at, req, res).await,
                None if post => {
                    return submit(inner, &segments.join("/"), Via::Queue, req, res).await;
                }
                None => Reply::detail(404, "Not Found"),
            },
        };
        reply::write(plain, None, None, res).await;
    }
}

/// The 401 that the request deserves, if it does.
pub(super) fn unauthorized(inner: &Inner, req: &Request) -> Option<Reply> {
    let header = req
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (scheme, key) = header.split_once(' ').unwrap_or((header, ""));
    let key = key.trim();
    let known_scheme = scheme.eq_ignore_ascii_case("key") || scheme.eq_ignore_ascii_case("bearer");
    if !known_scheme || key.is_empty() {
        return Some(Reply::detail(
            401,
            "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.",
        ));
    }
    let required = inner.lock().settings.required_key.clone();
    required
        .is_some_and(|required| required != key)
        .then(|| Reply::detail(401, "No user found for Key ID and Secret"))
}

/// What the client calls this simulator.
pub(super) fn base_url(inner: &Inner, req: &Request) -> String {
    if let Some(url) = inner.lock().settings.public_url.clone() {
        return url;
    }
    let header = |name: &str| {
        req.headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let scheme = header("x-forwarded-proto").unwrap_or_else(|| "http".to_owned());
    let host = header("host").unwrap_or_else(|| "127.0.0.1".to_owned());
    format!("{scheme}://{host}")
}

pub(super) fn not_found() -> Reply {
    Reply::json(404, &json!({ "status": "NOT_FOUND" }))
}

/// Status, stream, result and cancel of `segments[..at]` / `requests` / id / ...
async fn on_request(inner: &Arc<Inner>, segments: &[&str], at: usize, req: &mut Request, res: &mut Response) {
    let conn = reply::connection(req);
    if let Some(refusal) = unauthorized(inner, req) {
        return reply::write(refusal, None, conn, res).await;
    }
    let prefix = segments[..at].join("/");
    let Some((request_id, tail)) = segments[at + 1..].split_first() else {
        return reply::write(not_found(), None, conn, res).await;
    };
    let get = req.method() == Method::GET;
    let put = req.method() == Method::PUT;
    let point = match tail {
        [] | ["response"] if get => Point::Result,
        ["status"] if get => Point::Status,
        ["status", "stream"] if get => Point::Stream,
        ["cancel"] if put => Point::Cancel,
        _ => return reply::write(Reply::detail(404, "Not Found"), None, conn, res).await,
    };
    let struck = inner.with_job(request_id, |state, index, _| {
        let job = &mut state.jobs[index];
        // A request answers under its own application only.
        let mine = prefix == job.model.endpoint || prefix == job.model.app();
        if !mine {
            return None;
        }
        let counts = &mut job.counts;
        match point {
            Point::Status => counts.status += 1,
            Point::Stream => counts.stream += 1,
            Point::Result => counts.result += 1,
            _ => counts.cancel += 1,
        }
        Some(state.strike_job(index, point))
    });
    let Some(fault) = struck.flatten() else {
        return reply::write(not_found(), None, conn, res).await;
    };
    inner.notify();
    if let Some(answer) = reply::before(fault.as_ref(), conn.clone()).await {
        return reply::write(answer, None, conn, res).await;
    }
    // FAL's JavaScript client says `1`, its Python client says `true`.
    let with_logs = matches!(req.query::<String>("logs").as_deref(), Some("1" | "true" | "True"));
    let answer = match point {
        Point::Stream => return stream_status(inner, request_id, with_logs, res),
        Point::Result => inner.with_job(request_id, result),
        Point::Status => inner.with_job(request_id, |state, index, now| {
            let body = status(state, index, now, with_logs);
            let done = state.jobs[index].phase(now) == Phase::Completed;
            Reply::json(if done { 200 } else { 202 }, &body)
        }),
        _ => inner.with_job(request_id, cancel),
    };
    inner.notify();
    let answer = answer.unwrap_or_else(not_found).header("x-fal-request-id", *request_id);
    reply::write(answer, fault.as_ref(), conn, res).await;
}

fn status(state: &mut State, index: usize, now: Instant, with_logs: bool) -> Value {
    let position = state.waiting_before(index, now);
    let hide_errors = state.settings.hide_errors;
    outputs::status(&state.jobs[index], now, position, with_logs, hide_errors)
}

pub(super) fn result(state: &mut State, index: usize, now: Instant) -> Reply {
    let job = &state.jobs[index];
    let units = outputs::units_text(job.billed_milliunits(now));
    let reply = match job.ended(now) {
        None => return Reply::detail(400, "Request is still in progress"),
        Some(Outcome::Fail(failure)) => Reply::failure(failure),
        Some(Outcome::Deliver { outputs }) => match outputs::answer(job, *outputs, state.settings.media_long_edge_px) {
            Ok(body) => Reply::json(200, &body),
            Err(error) => Reply::detail(500, &format!("fal-sim: {error:#}")),
        },
    };
    reply
        .header("x-fal-billable-units", units)
        .header("x-fal-request-id", job.request_id.clone())
}

fn cancel(state: &mut State, index: usize, now: Instant) -> Reply {
    let ignored = state.settings.ignore_cancel;
    let job = &mut state.jobs[index];
    match job.phase(now) {
        Phase::Completed => {
            return Reply::json(400, &json!({ "status": "ALREADY_COMPLETED" }));
        }
        Phase::InProgress if ignored => {}
        _ => job.end(now, failed("client_cancelled")),
    }
    Reply::json(202, &json!({ "status": "CANCELLATION_REQUESTED" }))
}

/// One event per change of phase, ending with `COMPLETED`.
fn stream_status(inner: &Arc<Inner>, request_id: &str, with_logs: bool, res: &mut Response) {
    let seen = (
        Arc::clone(inner),
        request_id.to_owned(),
        None::<Phase>,
        inner.changed.subscribe(),
    );
    let events = stream::unfold(seen, move |(inner, id, last, mut changed)| async move {
        if last == Some(Phase::Completed) {
            return None;
        }
        loop {
            let (phase, next, body) = inner.with_job(&id, |state, index, now| {
                let job = &state.jobs[index];
                let (phase, next) = (job.phase(now), job.next_change(now));
                (phase, next, status(state, index, now, with_logs))
            })?;
            if last != Some(phase) {
                let event = format!("data: {body}\n\n");
                return Some((Ok::<_, Infallible>(event), (inner, id, Some(phase), changed)));
            }
            let wait = next.map_or(Duration::from_secs(5), |at| {
                at.saturating_duration_since(Instant::now())
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = changed.changed() => {}
            }
        }
    });
    for (name, value) in [("content-type", "text/event-stream"), ("cache-control", "no-cache")] {
        res.headers_mut()
            .insert(name, salvo::http::HeaderValue::from_static(value));
    }
    res.status_code(salvo::http::StatusCode::OK);
    res.stream(events);
}
