//! `GET /api/v1/generations/async/{generation_id}/stream`: what happens to a generation, live (contract §4.3, design §8).
//!
//! A frame is `id: <seq>`, `data: {"event": ..., "data": ...}` and an empty line. The first one tells the present state
//! at once; the stream ends after the final event. The body pulls: there is no task and no channel per watcher, and a
//! client that goes away takes everything with it. Events come from [`Live`](crate::queue::live::Live), which is
//! subscribed before the store is read, so that nothing falls between; what comes twice is told once, by its number.

use salvo::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use salvo::http::{ResBody, StatusCode};
use salvo::oapi::{ToSchema, endpoint};
use salvo::{Depot, FlowCtrl, Request, Response, Router, handler};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::generation_view::{output_urls, progress};
use super::submissions::{any_id, missing};
use super::watching::{MOST_STREAMS, Ports, Presence, Tower};
use crate::clock;
use crate::generation::{Event, EventKind, Generation, Status};
use crate::http::hoops::caller_of;
use crate::http::input::{Query, services};
use crate::http::limits::{Policy, limit};
use crate::http::problem::{Code, Problem, Result};
use crate::http::{Caller, Services};
use crate::id::{GenerationId, UserId};
use crate::queue::live::{Seen, Watch};
use crate::store;
use crate::telemetry::StreamGuard;

/// Longest silence; proxies close connections that are silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);
const HEARTBEAT_FRAME: &str = ": heartbeat\n\n";

/// The route below `/api/v1/generations/async`.
pub fn router() -> Router {
    Router::with_path("{generation_id}/stream")
        .hoop(watching_caller)
        .hoop(limit(Policy::Status))
        .get(StreamGeneration::default())
}

/// One event of a stream.
#[derive(ToSchema)]
#[salvo(schema(name = "StreamEvent"))]
#[allow(dead_code, reason = "documentation: frames are written by hand, see `frame`")]
struct StreamEvent {
    /// Number of the event, for `Last-Event-ID`.
    #[salvo(schema(pattern = "^[0-9]+$", example = json!("91")))]
    id: String,
    /// JSON text: `{"event": <name>, "data": {...}}`.
    #[salvo(schema(example = json!("{\"event\":\"queued\",\"data\":{\"status\":\"queued\",\"position\":0}}")))]
    data: String,
}

/// The handler with what its watchers share.
#[derive(Default)]
pub struct StreamGeneration {
    tower: Arc<Tower>,
}

/// Watch a generation
///
/// Server-sent events, each `id: <number>` and `data: {"event": <name>, "data": {...}}`:
///
/// | event | data |
/// |---|---|
/// | `queued` | `status`, `position` (0 is next); again whenever the position changes |
/// | `processing` | `status`, `progress` (0 to 1) and `message` when the provider tells them |
/// | `completed` | `status`, `output_urls` (signed) |
/// | `error` | `status` (`failed`), `error`, `code` |
/// | `cancelled` | `status` |
///
/// The first event is the present state, at once; the stream ends after `completed`, `error` or `cancelled`. Comments
/// (`: heartbeat`) fill the silence. A client that was cut off sends the last number it saw as `Last-Event-ID` (or
/// `?last_event_id=`) and gets what it missed; after the final event the answer to that is 204, so that an `EventSource`
/// does not come again. `EventSource` cannot send headers: give it a stream token as `?token=`.
#[endpoint(
    operation_id = "stream_generation",
    tags("async generations"),
    parameters(
        ("generation_id" = String, Path, description = "As answered by submit."),
        ("Last-Event-ID" = Option<String>, Header, description = "Number of the last event seen."),
        ("last_event_id" = Option<String>, Query, description = "The same, where headers cannot be set."),
        ("token" = Option<String>, Query, description = "A stream token, instead of the Authorization header."),
    ),
    responses(
        (status_code = 200, description = "Events until the generation has ended", body = StreamEvent, content_type = "text/event-stream"),
        (status_code = 204, description = "The final event was the last one seen: nothing follows"),
    ),
    status_codes(200, 204, 401, 404, 429, 500, 503),
    security(["bearer" = []])
)]
impl StreamGeneration {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response) -> Result<()> {
        let services = services(depot)?;
        let owner = Caller::of(depot)?.user_id;
        let id = any_id(req)?;
        let last_seen = last_event_id(req);
        let Some(watcher) = Watcher::open(&self.tower, services, owner, id, last_seen).await? else {
            res.status_code(StatusCode::NO_CONTENT);
            return Ok(());
        };
        let headers = res.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
        res.status_code(StatusCode::OK);
        res.replace_body(ResBody::stream(futures_util::stream::unfold(watcher, Watcher::next)));
        Ok(())
    }
}

/// Puts the watcher into the depot: the owner of the bearer token, or of the stream token of the URL when no header was
/// sent. Whether the generation is theirs is looked up by the handler.
#[handler]
async fn watching_caller(req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
    match viewer(req, depot).await {
        Ok(caller) => {
            depot.insert_typed(caller);
            ctrl.call_next(req, depot, res).await;
        }
        Err(problem) => {
            res.render(problem);
            ctrl.skip_rest();
        }
    }
}

async fn viewer(req: &Request, depot: &Depot) -> Result<Caller> {
    let auth = &services(depot)?.auth;
    let query = Query::of(req);
    match query
        .text("token")
        .filter(|_| !req.headers().contains_key(AUTHORIZATION))
    {
        Some(token) => Ok(auth.verify_stream_token(token, any_id(req)?)?),
        None => caller_of(req, depot).await,
    }
}

/// Number of the last event the client saw; nonsense counts as none.
fn last_event_id(req: &Request) -> Option<i64> {
    let header = req.headers().get("last-event-id").and_then(|v| v.to_str().ok());
    let query = Query::of(req);
    header.or(query.text("last_event_id"))?.trim().parse().ok()
}

/// One client that watches one generation.
struct Watcher {
    services: Arc<Services>,
    owner: UserId,
    id: GenerationId,
    provider: Arc<str>,
    live: Watch,
    presence: Presence,
    /// Frames that are ready.
    ready: VecDeque<String>,
    /// Number of the newest event told.
    seen: i64,
    /// The position last told, while it waits.
    position: Option<u64>,
    queued: bool,
    ended: bool,
    heartbeat_at: Instant,
    _counted: StreamGuard,
}

impl Watcher {
    /// Subscribes and prepares the first frames; `None` when the client has seen the end already.
    async fn open(
        tower: &Arc<Tower>,
        services: &Arc<Services>,
        owner: UserId,
        id: GenerationId,
        last_seen: Option<i64>,
    ) -> Result<Option<Watcher>> {
        let live = services.live.watch(id);
        // Events before the generation: a state newer than its number is told twice, never skipped.
        let events = services.store.events(owner, id, 0).await?;
        let generation = services.store.generation(owner, id).await?.ok_or_else(missing)?;
        let newest = events.last().map_or(0, |e| e.seq);
        if last_seen.is_some_and(|seq| seq >= newest) && events.last().is_some_and(|e| e.kind.is_final()) {
            return Ok(None);
        }
        let ports = Ports {
            store: Arc::clone(&services.store),
            queue: Arc::clone(&services.queue),
            live: Arc::clone(&services.live),
        };
        let provider: Arc<str> = generation.provider.as_str().into();
        let presence = tower
            .enter(&ports, owner, id, Arc::clone(&provider))
            .ok_or_else(too_many_streams)?;
        let mut watcher = Watcher {
            services: Arc::clone(services),
            owner,
            id,
            live,
            presence,
            provider,
            ready: VecDeque::new(),
            seen: 0,
            position: None,
            queued: false,
            ended: false,
            heartbeat_at: Instant::now() + HEARTBEAT,
            _counted: services.metrics.stream_opened(),
        };
        let missed = last_seen.map_or(&[][..], |seq| &events[events.partition_point(|e| e.seq <= seq)..]);
        if missed.is_empty() {
            watcher.snapshot(&generation, events.last()).await;
        } else {
            for event in missed {
                watcher.tell(event).await?;
            }
        }
        Ok(Some(watcher))
    }

    /// The next piece of the body.
    async fn next(mut self) -> Option<(std::result::Result<String, Infallible>, Watcher)> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.heartbeat_at = Instant::now() + HEARTBEAT;
                return Some((Ok(frame), self));
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                () = self.services.shutdown.cancelled() => return None,
                seen = self.live.next() => {
                    let told = match seen {
                        Seen::Event(event) => self.tell(&event).await,
                        Seen::Lagged => self.catch_up().await,
                        Seen::Closed => return None,
                    };
                    if let Err(error) = told {
                        // The client comes again with the number of the last event it saw.
                        tracing::warn!(generation_id = %self.id, error = %error, "stream ended early");
                        return None;
                    }
                }
                position = self.presence.position_changed(), if self.queued => self.tell_position(position),
                () = tokio::time::sleep_until(self.heartbeat_at) => self.ready.push_back(HEARTBEAT_FRAME.to_owned()),
            }
        }
    }

    /// Tells the present state; `newest` is the newest event read before it.
    async fn snapshot(&mut self, generation: &Generation, newest: Option<&Event>) {
        let kind = kind_of(generation.status);
        let mut data = match newest {
            Some(event) if event.kind == kind => object(&event.data),
            _ => state(generation),
        };
        if let Some(urls) = output_urls(generation, &self.services.outputs, clock::now()) {
            data.insert("output_urls".to_owned(), json!(urls));
        }
        self.push(newest.map_or(0, |e| e.seq), kind, data).await;
    }

    /// Tells an event, unless it has been told.
    async fn tell(&mut self, event: &Event) -> std::result::Result<(), store::StoreError> {
        if event.seq <= self.seen {
            return Ok(());
        }
        let mut data = object(&event.data);
        if event.kind == EventKind::Completed
            && let Some(generation) = self.services.store.generation(self.owner, self.id).await?
            && let Some(urls) = output_urls(&generation, &self.services.outputs, clock::now())
        {
            data.insert("output_urls".to_owned(), json!(urls));
        }
        self.push(event.seq, event.kind, data).await;
        Ok(())
    }

    /// Reads what was missed.
    async fn catch_up(&mut self) -> std::result::Result<(), store::StoreError> {
        for event in self.services.store.events(self.owner, self.id, self.seen).await? {
            self.tell(&event).await?;
        }
        Ok(())
    }

    fn tell_position(&mut self, position: Option<u64>) {
        if position.is_some() && position != self.position {
            self.position = position;
            let data = json!({ "status": Status::Queued.as_str(), "position": position });
            self.ready.push_back(frame(self.seen, EventKind::Queued, &data));
        }
    }

    async fn push(&mut self, seq: i64, kind: EventKind, mut data: Map<String, Value>) {
        data.entry("status").or_insert_with(|| status_of(kind).as_str().into());
        self.queued = kind == EventKind::Queued;
        if self.queued {
            // Ours, not the client's: it waits for another provider now.
            if let Some(provider) = data.remove("provider").as_ref().and_then(Value::as_str) {
                self.provider = provider.into();
                self.presence.is_in(Arc::clone(&self.provider));
            }
            let position = self.services.queue.position(&self.provider, self.id).await;
            self.position = position.ok().flatten();
            data.insert("position".to_owned(), json!(self.position));
        }
        self.seen = seq;
        self.ended = kind.is_final();
        self.presence.saw(seq, kind);
        self.ready.push_back(frame(seq, kind, &Value::Object(data)));
    }
}

fn too_many_streams() -> Problem {
    let most =
        format!("You have {MOST_STREAMS} streams open, as many as one may; close one, or ask for the status instead");
    Problem::new(Code::RateLimited, most).retry_after(5)
}

fn object(data: &Value) -> Map<String, Value> {
    data.as_object().cloned().unwrap_or_default()
}

/// The state as the `data` of an event, when no stored event tells it.
fn state(generation: &Generation) -> Map<String, Value> {
    let mut data = Map::new();
    if let Some(progress) = progress(generation).filter(|_| generation.status == Status::Processing) {
        data.insert("progress".to_owned(), json!(progress));
    }
    if let Some(error) = &generation.error {
        data.insert("error".to_owned(), json!(error.message));
        data.insert("code".to_owned(), json!(error.code));
    }
    data
}

fn kind_of(status: Status) -> EventKind {
    match status {
        Status::Queued => EventKind::Queued,
        Status::Processing => EventKind::Processing,
        Status::Completed => EventKind::Completed,
        Status::Failed => EventKind::Error,
        Status::Cancelled => EventKind::Cancelled,
    }
}

fn status_of(kind: EventKind) -> Status {
    match kind {
        EventKind::Queued => Status::Queued,
        EventKind::Processing => Status::Processing,
        EventKind::Completed => Status::Completed,
        EventKind::Error => Status::Failed,
        EventKind::Cancelled => Status::Cancelled,
    }
}

/// `id:` and `data:` lines with the keys in the contract's order. JSON has no raw line ends, so one line is enough.
fn frame(seq: i64, kind: EventKind, data: &Value) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        event: &'a str,
        data: &'a Value,
    }
    let event = kind.as_str();
    let json = serde_json::to_string(&Frame { event, data }).unwrap_or_default();
    format!("id: {seq}\ndata: {json}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_a_number_and_the_contract_s_keys_in_order() {
        let data = json!({ "status": "processing", "message": "two\nlines" });
        assert_eq!(
            frame(7, EventKind::Processing, &data),
            "id: 7\ndata: {\"event\":\"processing\",\"data\":{\"message\":\"two\\nlines\",\"status\":\"processing\"}}\n\n"
        );
    }

    #[test]
    fn every_status_has_an_event_and_back() {
        for status in Status::ALL {
            assert_eq!(status_of(kind_of(status)), status);
            assert_eq!(kind_of(status).is_final(), status.is_terminal());
        }
    }

    #[test]
    fn the_header_wins_over_the_query_and_nonsense_is_none() {
        let mut req = Request::new();
        assert_eq!(last_event_id(&req), None);
        req.queries_mut().insert("last_event_id".into(), "5".into());
        assert_eq!(last_event_id(&req), Some(5));
        req.headers_mut().insert("last-event-id", HeaderValue::from_static("9"));
        assert_eq!(last_event_id(&req), Some(9));
        req.headers_mut()
            .insert("last-event-id", HeaderValue::from_static("abc"));
        assert_eq!(last_event_id(&req), None);
    }
}
