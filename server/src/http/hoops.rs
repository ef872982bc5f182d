//! What happens to every request around its handler.
//!
//! From the outside in: [`Edge`] (request id, security headers, problems for bare errors, log line, metrics), CORS,
//! catch-panic. Routes add [`authenticated`] and [`limit`](super::limits::limit) where they need them.

use salvo::catch_panic::CatchPanic;
use salvo::cors::{AllowHeaders, AllowOrigin, Cors, CorsHandler};
use salvo::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONNECTION,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use salvo::http::{Method, ResBody, StatusCode, Version};
use salvo::routing::{Filter, PathState};
use salvo::{Depot, FlowCtrl, Handler, Request, Response, Service, async_trait, handler};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::Services;
use super::caller::Caller;
use super::input::services;
use super::problem::{Code, Problem, REQUEST_ID, Result};
use super::scopes;
use crate::config::{Config, Environment};
use crate::telemetry::{UNTRACED, trace};

/// In the depot, it opens the answer to the pages of every origin, without credentials: for files whose URL is the
/// permission. The CORS hoop knows one rule for all routes.
pub struct EveryOrigin;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");

/// Puts the hoops around a service.
pub(super) fn wrap(service: Service, services: Arc<Services>) -> Service {
    let cors = cors(&services.config);
    let room = Semaphore::new(services.config.max_requests);
    service.hoop(Edge { services, room }).hoop(cors).hoop(CatchPanic::new())
}

/// The outermost hoop.
struct Edge {
    services: Arc<Services>,
    /// For requests at work.
    room: Semaphore,
}

#[async_trait]
impl Handler for Edge {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        let started = Instant::now();
        if req.extensions_mut().remove::<WasHead>().is_some() {
            *req.method_mut() = Method::HEAD;
        }
        let request_id = request_id(req.headers());
        res.headers_mut().insert(REQUEST_ID, request_id.clone());
        req.set_secure_max_size(self.services.config.max_body_bytes as usize);
        depot.insert_typed(Arc::clone(&self.services));

        let request_id = request_id.to_str().unwrap_or_default().to_owned();
        let is_probe = is_probe(req);
        let span = self.span(req, &request_id, is_probe);
        match self.room.try_acquire() {
            Ok(_place) => {
                ctrl.call_next(req, depot, res).instrument(span.clone()).await;
            }
            // Whoever asks how the server is gets an answer all the more.
            Err(_) if is_probe => {
                ctrl.call_next(req, depot, res).instrument(span.clone()).await;
            }
            Err(_) => {
                self.services.metrics.shed();
                let busy = "The server works on as many requests as it can; try again in a second";
                res.render(Problem::new(Code::Unavailable, busy).retry_after(1));
                ctrl.skip_rest();
            }
        }

        if depot.get_typed::<EveryOrigin>().is_ok() {
            let headers = res.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        }
        if self.services.leaving.is_cancelled() && req.version() < Version::HTTP_2 {
            // The next request of this client shall find another process.
            res.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        explain_bare_error(res);
        secure(res.headers_mut(), self.services.config.environment);
        self.account(req, depot, res, &request_id, started, &span);
    }
}

impl Edge {
    /// What the logs of a request carry, and its part of a trace. A proxy in front that is believed may have begun that.
    fn span(&self, req: &Request, request_id: &str, is_probe: bool) -> Span {
        if is_probe {
            return tracing::info_span!(target: UNTRACED, "request", request_id);
        }
        if !trace::is_active() {
            return tracing::info_span!("request", request_id);
        }
        let span = tracing::info_span!(
            "request",
            request_id,
            otel.kind = "server",
            http.request.method = Empty,
            http.route = Empty,
            http.response.status_code = Empty,
            otel.status_code = Empty,
        );
        if self.services.config.trust_proxy_headers {
            let parent = req.headers().get("traceparent").and_then(|value| value.to_str().ok());
            trace::follow(&span, parent);
        }
        span
    }

    /// Response time, log line and metrics.
    fn account(
        &self,
        req: &Request,
        depot: &Depot,
        res: &mut Response,
        request_id: &str,
        started: Instant,
        span: &Span,
    ) {
        let elapsed = started.elapsed();
        let ms = format!("{:.2}", elapsed.as_secs_f64() * 1000.0);
        if let Ok(value) = HeaderValue::from_str(&format!("{ms}ms")) {
            res.headers_mut().insert(RESPONSE_TIME, value);
        }
        let status = res.status_code.unwrap_or(StatusCode::OK);
        let route = match req.matched_path() {
            "" if status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED => "unmatched",
            matched => matched,
        };
        let method = known_method(req.method());
        self.services.metrics.request(method, route, status.as_u16(), elapsed);
        if trace::is_active() {
            trace::rename(span, format!("{method} /{route}"));
            span.record("http.request.method", method);
            span.record("http.route", format!("/{route}"));
            span.record("http.response.status_code", status.as_u16());
            if status.is_server_error() {
                span.record("otel.status_code", "error");
            }
        }
        let user_id = depot.get_typed::<Caller>().map(|c| c.user_id).ok();
        tracing::info!(
            target: "velro::access",
            method,
            route = format!("/{route}"),
            status = status.as_u16(),
            ms,
            request_id,
            user_id = user_id.map(tracing::field::display),
            trace_id = trace::id_of(span).map(tracing::field::display),
            "request"
        );
    }
}

/// Asked by machines, all the time: health, metrics, version.
fn is_probe(req: &Request) -> bool {
    let path = req.uri().path();
    ["/health", "/metrics", "/__"]
        .iter()
        .any(|probe| path.starts_with(probe))
}

/// The client's id when it is sane (visible ASCII, 128 characters at most), else a fresh one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|v| (1..=128).contains(&v.len()) && v.as_bytes().iter().all(u8::is_ascii_graphic))
        .cloned()
        .unwrap_or_else(|| {
            let mut buffer = Uuid::encode_buffer();
            let text = Uuid::now_v7().as_hyphenated().encode_lower(&mut buffer);
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
        })
}

/// Gives an error without a body, ours or the framework's, its problem document.
fn explain_bare_error(res: &mut Response) {
    let Some(status) = res.status_code.filter(|s| s.is_client_error() || s.is_server_error()) else {
        return;
    };
    if matches!(res.body, ResBody::None | ResBody::Error(_)) {
        let problem = Problem::for_status(status);
        res.render(problem);
    }
}

/// Headers that no answer should lack; a handler's own win.
fn secure(headers: &mut HeaderMap, environment: Environment) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(X_FRAME_OPTIONS, "DENY");
    set(REFERRER_POLICY, "no-referrer");
    set(CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if environment == Environment::Production {
        set(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    let is_json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().windows(4).any(|w| w == b"json"));
    if is_json {
        // Tokens, balances, states: nothing that a cache may keep.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
}

/// Method names with bounded cardinality.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The contract's CORS rules, without reflecting origins that are not allowed.
fn cors(config: &Config) -> CorsHandler {
    let methods = [
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
    ];
    let exposed = [
        REQUEST_ID,
        RETRY_AFTER,
        RESPONSE_TIME,
        HeaderName::from_static("ratelimit"),
        HeaderName::from_static("ratelimit-policy"),
        HeaderName::from_static("idempotent-replayed"),
    ];
    let rules = Cors::new()
        .allow_methods(methods)
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(86_400)
        .expose_headers(exposed.to_vec());
    // The configuration refuses `*`: with credentials it would open every session to every page.
    let origins = config
        .cors_origins
        .iter()
        .filter_map(|o| o.trim_end_matches('/').parse().ok());
    let rules = rules.allow_origin(AllowOrigin::list(origins)).allow_credentials(true);
    // After the handler, so that every answer has the headers, 401 and 429 included.
    CorsHandler::new(rules, salvo::cors::CallNext::Before)
}

/// The credential of a request: `Authorization: Bearer`, or for API keys also `Authorization: Key` and `x-api-key`.
pub fn credential(req: &Request) -> Result<&str> {
    let missing = || Problem::new(Code::Unauthorized, "Missing authentication token");
    let given = match req.headers().get(AUTHORIZATION) {
        Some(value) => {
            let (scheme, credential) = value
                .to_str()
                .ok()
                .and_then(|v| v.split_once(' '))
                .ok_or_else(missing)?;
            match ["bearer", "key"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
                true => credential,
                false => return Err(missing()),
            }
        }
        None => req
            .headers()
            .get(API_KEY)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(missing)?,
    };
    match given.trim() {
        "" => Err(missing()),
        credential => Ok(credential),
    }
}

/// The caller of a request, who may call what it asks for: a person, or an API key with the right scope.
pub async fn caller_of(req: &Request, depot: &Depot) -> Result<Caller> {
    let caller = services(depot)?.auth.authenticate(credential(req)?).await?;
    scopes::check(&caller, req.method(), req.matched_path())?;
    Ok(caller)
}

/// Lets requests with a valid access token or API key pass, with their [`Caller`] in the depot; 401 for all others, and 403
/// for keys without the scope. A token costs no database, a key one look every few seconds.
#[handler]
pub async fn authenticated(req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
    match caller_of(req, depot).await {
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

/// Routes `HEAD` like `GET`: Salvo matches methods exactly and drops the body of an answer to `HEAD` itself.
#[derive(Debug)]
pub(super) struct HeadIsGet;

/// Marks a request whose method [`HeadIsGet`] changed for the routing; [`Edge`] changes it back.
#[derive(Clone)]
struct WasHead;

#[async_trait]
impl Filter for HeadIsGet {
    async fn filter(&self, req: &mut Request, _: &mut PathState<'_>) -> bool {
        if req.method() == Method::HEAD {
            *req.method_mut() = Method::GET;
            req.extensions_mut().insert(WasHead);
        }
        true
    }

    async fn filter_for_method(&self, _: &mut Request, _: &mut PathState<'_>, _: &Method) -> Option<bool> {
        Some(true)
    }
}
