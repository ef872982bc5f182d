//! The routes.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use salvo::http::{Method, ResBody};
use salvo::prelude::*;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::life::{Status, Times, live};
use super::models::{HIDDEN, Model, deployed, named, of_version};
use super::{Inner, Prediction, lock};

const EVENTS: [&str; 4] = ["start", "output", "logs", "completed"];

/// Everything is answered by it.
pub(super) struct Api(pub(super) Arc<Inner>);

/// What is answered.
enum Reply {
    Json(u16, Value),
    Png,
}

/// An error: Replicate's problem documents.
struct Problem(u16, Value);

impl Problem {
    fn new(status: u16, title: &str, detail: &str) -> Self {
        Problem(status, json!({ "title": title, "detail": detail, "status": status }))
    }

    fn not_found() -> Self {
        Problem(
            404,
            json!({ "detail": "The requested resource could not be found.", "status": 404 }),
        )
    }

    fn invalid(faults: &[Value]) -> Self {
        let line = |fault: &Value| {
            let text = |name: &str| fault[name].as_str().unwrap_or_default().to_owned();
            format!("- {}: {}\n", text("field"), text("description"))
        };
        let detail: String = faults.iter().map(line).collect();
        let title = "Input validation failed";
        Problem(
            422,
            json!({ "title": title, "detail": detail, "status": 422, "invalid_fields": faults }),
        )
    }

    fn invalid_field(kind: &str, field: &str, description: &str) -> Self {
        Problem::invalid(&[json!({ "type": kind, "field": field, "description": description })])
    }
}

/// Where a prediction is created.
enum Place<'a> {
    Official(&'a str, &'a str),
    Version,
    Deployment(&'a str, &'a str),
}

#[async_trait]
impl Handler for Api {
    async fn handle(&self, req: &mut Request, _: &mut Depot, res: &mut Response, _: &mut FlowCtrl) {
        let reply = self.answer(req).await;
        let (status, body) = match reply {
            Ok(Reply::Json(status, body)) => (status, body),
            Ok(Reply::Png) => return png(res),
            Err(Problem(status, body)) => (status, body),
        };
        if status == 429 {
            drop(res.add_header("retry-after", "1", true));
        }
        let kind = match status {
            400.. => "application/problem+json",
            _ => "application/json",
        };
        res.status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        drop(res.add_header("content-type", kind, true));
        res.body(ResBody::Once(body.to_string().into()));
    }
}

impl Api {
    async fn answer(&self, req: &mut Request) -> Result<Reply, Problem> {
        let path = req.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let read = req.method() == Method::GET;
        match parts.as_slice() {
            ["files", _] if read => return Ok(Reply::Png),
            ["_sim", "predictions", id, "nudge"] => {
                let found = self.0.with(id, |p| p.nudges += 1);
                return found
                    .map(|()| Reply::Json(200, json!({})))
                    .ok_or_else(Problem::not_found);
            }
            _ => {}
        }
        let place = match (read, parts.as_slice()) {
            (false, ["v1", "models", owner, name, "predictions"]) => Place::Official(owner, name),
            (false, ["v1", "deployments", owner, name, "predictions"]) => Place::Deployment(owner, name),
            (false, ["v1", "predictions"]) => Place::Version,
            _ => {
                self.authorize(req)?;
                return self.look(req, read, &parts);
            }
        };
        let created = match self.authorize(req) {
            Ok(()) => self.create(req, &path, place).await,
            Err(problem) => Err(problem),
        };
        if let Err(Problem(status @ ..500, _)) = &created {
            lock(&self.0.book).refused.push(*status);
        }
        created
    }

    fn authorize(&self, req: &Request) -> Result<(), Problem> {
        let expected = format!("Bearer {}", self.0.settings.token);
        match req.header::<String>("authorization") == Some(expected) {
            true => Ok(()),
            false => {
                let detail = "You did not pass a valid authentication token";
                Err(Problem::new(401, "Unauthenticated", detail))
            }
        }
    }

    /// Everything that buys nothing.
    fn look(&self, req: &Request, read: bool, parts: &[&str]) -> Result<Reply, Problem> {
        let url = self.0.public_url();
        let found = match (read, parts) {
            (true, ["v1", "predictions"]) => return self.list(req),
            (true, ["v1", "predictions", id]) => self.0.with(id, |p| {
                p.polls += 1;
                p.show(&url)
            }),
            (false, ["v1", "predictions", id, "cancel"]) => self.0.with(id, |p| {
                p.cancels += 1;
                p.end(Status::Canceled);
                p.show(&url)
            }),
            (true, ["v1", "models", owner, name]) => named(owner, name).map(|m| m.describe(&url)),
            (true, ["v1", "models", owner, name, "versions", id]) => {
                let model = named(owner, name).filter(|m| m.version == Some(*id));
                model.map(Model::latest)
            }
            (true, ["v1", "webhooks", "default", "secret"]) => Some(json!({ "key": self.0.settings.secret })),
            _ => None,
        };
        found.map(|body| Reply::Json(200, body)).ok_or_else(Problem::not_found)
    }

    /// Newest first. A cursor is the number of predictions that are on its page or older.
    fn list(&self, req: &Request) -> Result<Reply, Problem> {
        let url = self.0.public_url();
        let page = self.0.settings.page;
        let bought = lock(&self.0.book).predictions.clone();
        let end = match req.query::<String>("cursor") {
            None => bought.len(),
            Some(cursor) => {
                let text = URL_SAFE_NO_PAD.decode(cursor).ok();
                let end = text.and_then(|text| String::from_utf8(text).ok()?.strip_prefix("p=")?.parse().ok());
                end.filter(|end| *end <= bought.len())
                    .ok_or_else(|| Problem::new(400, "Bad request", "Invalid cursor"))?
            }
        };
        let from_web = req.query::<String>("source").is_some_and(|source| source == "web");
        let begin = end.saturating_sub(page);
        let link = |end: usize| {
            let cursor = URL_SAFE_NO_PAD.encode(format!("p={end}"));
            json!(format!("{url}/v1/predictions?cursor={cursor}"))
        };
        let shown = bought[begin..end].iter().rev().map(|p| p.show(&url));
        let results: Vec<Value> = shown.filter(|_| !from_web).collect();
        let next = (begin > 0 && !from_web).then(|| link(begin));
        let previous = (end < bought.len()).then(|| link((end + page).min(bought.len())));
        Ok(Reply::Json(
            200,
            json!({ "previous": previous, "next": next, "results": results }),
        ))
    }

    async fn create(&self, req: &mut Request, path: &str, place: Place<'_>) -> Result<Reply, Problem> {
        let body = req.parse_json::<Value>().await.unwrap_or_default();
        let Value::Object(body) = body else {
            return Err(Problem::new(
                400,
                "Bad request",
                "The request body is not a JSON object",
            ));
        };
        let wait = req.header::<String>("prefer").and_then(|text| wait(&text));
        let deadline = match req.header::<String>("cancel-after") {
            None => None,
            Some(text) => Some(duration(&text).ok_or_else(|| {
                let detail = "Cancel-After must be a duration of at least 5 seconds, like 30s or 1m30s";
                Problem::new(422, "Invalid Cancel-After header", detail)
            })?),
        };
        let mut prediction = self.checked(path, &body, place)?;
        for (name, value) in req.headers() {
            let value = value.to_str().unwrap_or_default().to_owned();
            prediction.headers.insert(name.as_str().to_owned(), value);
        }
        let id = prediction.id.clone();
        let [early, lost] = ["early", "lost"].map(|mark| prediction.marked(mark));
        let url = self.0.public_url();
        let created = prediction.show(&url);
        lock(&self.0.book).predictions.push(prediction);
        self.0.changed.send_replace(());
        tokio::spawn(live(Arc::clone(&self.0), id.clone(), deadline));
        if lost {
            return Err(Problem(502, Value::Null));
        }
        let Some(wait) = wait else {
            return Ok(Reply::Json(201, created));
        };
        let end = self.0.until(&id, |p| p.status.is_end());
        if tokio::time::timeout(wait, end).await.is_err() {
            // Whatever it does meanwhile, it is shown as it was.
            return Ok(Reply::Json(202, created));
        }
        let mut shown = self.0.with(&id, |p| p.show(&url)).unwrap_or_default();
        if early && shown["status"] == Status::Succeeded.text() {
            shown["status"] = json!(Status::Processing.text());
        }
        Ok(Reply::Json(201, shown))
    }

    /// The prediction that a request asks for.
    fn checked(&self, path: &str, body: &Map<String, Value>, place: Place<'_>) -> Result<Prediction, Problem> {
        let by_version = matches!(place, Place::Version);
        for key in body.keys() {
            let known = matches!(key.as_str(), "input" | "webhook" | "webhook_events_filter" | "stream");
            let version = by_version && key == "version";
            if !known && !version {
                let description = format!("Additional property {key} is not allowed");
                return Err(Problem::invalid_field(
                    "additional_property_not_allowed",
                    key,
                    &description,
                ));
            }
        }
        let model = match place {
            // Only official models can be run without a version.
            Place::Official(owner, name) => named(owner, name).filter(|m| m.version.is_none()),
            Place::Deployment(owner, name) => deployed(owner, name),
            Place::Version => {
                let Some(version) = body.get("version").and_then(Value::as_str) else {
                    return Err(Problem::invalid_field("required", "version", "version is required"));
                };
                let detail = "The specified version does not exist (or perhaps you don't have permission to use it?)";
                let unknown = || Problem::new(422, "Invalid version or not permitted", detail);
                Some(of_version(version).ok_or_else(unknown)?)
            }
        };
        let model = model.ok_or_else(Problem::not_found)?;
        let Some(input) = body.get("input").and_then(Value::as_object) else {
            return Err(Problem::invalid_field("required", "input", "input is required"));
        };
        let faults = model.faults(input);
        if !faults.is_empty() {
            return Err(Problem::invalid(&faults));
        }
        let prediction = Prediction {
            id: uuid::Uuid::new_v4().simple().to_string()[..26].to_owned(),
            path: path.to_owned(),
            headers: BTreeMap::new(),
            input: input.clone(),
            webhook: webhook(body)?,
            events: events(body)?,
            status: Status::Starting,
            polls: 0,
            cancels: 0,
            deliveries: Vec::new(),
            model,
            version: model.version.unwrap_or(HIDDEN),
            times: Times {
                created: OffsetDateTime::now_utc(),
                started: None,
                completed: None,
            },
            nudges: 0,
            output: Value::Null,
            error: None,
            logs: String::new(),
            removed: false,
        };
        if prediction.marked("broke") {
            let detail = "You have insufficient credit to run this model.";
            return Err(Problem::new(402, "Insufficient credit", detail));
        }
        let throttled = |prompt: &str| lock(&self.0.book).throttled.insert(prompt.to_owned());
        if prediction.marked("throttled") && throttled(prediction.prompt()) {
            let detail = "Request was throttled. Expected available in 1 second.";
            return Err(Problem(429, json!({ "detail": detail, "status": 429 })));
        }
        Ok(prediction)
    }
}

/// Where webhooks go: https, or a test's own machine.
fn webhook(body: &Map<String, Value>) -> Result<Option<String>, Problem> {
    let Some(value) = body.get("webhook") else {
        return Ok(None);
    };
    let url = value.as_str().unwrap_or_default();
    let good = url::Url::parse(url).is_ok_and(|url| {
        url.scheme() == "https" || (url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "localhost")))
    });
    match good {
        true => Ok(Some(url.to_owned())),
        false => Err(Problem::invalid_field(
            "format",
            "webhook",
            "webhook must be a valid HTTPS URL",
        )),
    }
}

fn events(body: &Map<String, Value>) -> Result<Vec<String>, Problem> {
    let field = "webhook_events_filter";
    let Some(value) = body.get(field) else {
        return Ok(Vec::new());
    };
    let names: Option<Vec<String>> = value
        .as_array()
        .and_then(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
    let known = |names: &Vec<String>| names.iter().all(|name| EVENTS.contains(&name.as_str()));
    let wrong = || {
        let description = format!("{field} must be a list of: {}", EVENTS.join(", "));
        Problem::invalid_field("enum", field, &description)
    };
    names.filter(known).ok_or_else(wrong)
}

/// The time a `Prefer` header asks to wait: `wait`, or `wait=n` with one to sixty seconds.
fn wait(prefer: &str) -> Option<Duration> {
    let seconds = match prefer.trim().strip_prefix("wait")? {
        "" => 60,
        rest => rest.strip_prefix('=')?.parse::<u64>().ok()?,
    };
    Some(Duration::from_secs(seconds.clamp(1, 60)))
}

/// `30s`, `1m`, `1h30m45s`; five seconds are the least.
fn duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut number) = (0_u64, String::new());
    for character in text.trim().chars() {
        let unit = match character {
            '0'..='9' => {
                number.push(character);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && seconds >= 5).then(|| Duration::from_secs(seconds))
}

fn png(res: &mut Response) {
    let mut bytes = Cursor::new(Vec::new());
    let drawn = image::RgbImage::from_pixel(64, 48, image::Rgb([200, 90, 40]));
    match drawn.write_to(&mut bytes, image::ImageFormat::Png) {
        Ok(()) => {
            drop(res.add_header("content-type", "image/png", true));
            res.body(ResBody::Once(bytes.into_inner().into()));
        }
        Err(_) => drop(res.status_code(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}
