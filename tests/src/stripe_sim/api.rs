//! The routes: authentication, idempotency, lists.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use salvo::http::{Method, ResBody};
use salvo::prelude::*;
use serde_json::{Value, json};

use super::{Asked, Book, Fault, Refusal, SECRET_KEY, lock};

/// Everything is answered by it.
pub(super) struct Api(pub(super) Arc<Mutex<Book>>);

#[async_trait]
impl Handler for Api {
    async fn handle(&self, req: &mut Request, _: &mut Depot, res: &mut Response, _: &mut FlowCtrl) {
        let body = req.payload().await.cloned().unwrap_or_default();
        let header = |name: &str| req.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let query = req.uri().query().unwrap_or_default().as_bytes();
        let pairs = url::form_urlencoded::parse(query).chain(url::form_urlencoded::parse(&body));
        let call = Call {
            method: req.method().clone(),
            path: req.uri().path().to_owned(),
            form: pairs.map(|(k, v)| (k.into_owned(), v.into_owned())).collect(),
            key: header("idempotency-key"),
            token: header("authorization").unwrap_or_default(),
        };
        let version = header("stripe-version");
        let mut book = lock(&self.0);
        let fault = book.faults.pop_front();
        let (mut status, mut body, replayed) = match fault {
            Some(Fault::Status(status)) => {
                let error = json!({"error": {"type": "api_error", "message": "simulated"}});
                (status, error, false)
            }
            _ => call.answer(&mut book),
        };
        if fault == Some(Fault::Lost) {
            (status, body) = (502, json!("bad gateway"));
        }
        book.asked.push(Asked {
            what: format!("{} {}", call.method, call.path),
            key: call.key,
            form: call.form,
            version,
            answered: status,
        });
        if replayed {
            drop(res.add_header("idempotent-replayed", "true", true));
        }
        drop(res.add_header("request-id", format!("req_{}", book.asked.len()), true));
        drop(res.add_header("content-type", "application/json", true));
        res.status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        res.body(ResBody::Once(body.to_string().into()));
    }
}

struct Call {
    method: Method,
    path: String,
    form: BTreeMap<String, String>,
    key: Option<String>,
    token: String,
}

impl Call {
    /// Status, body, and whether it is the answer of an earlier call.
    fn answer(&self, book: &mut Book) -> (u16, Value, bool) {
        if self.token != format!("Bearer {SECRET_KEY}") {
            let message = format!("Invalid API Key provided: {}", self.token);
            let Refusal(status, body) = Refusal::new(401, "invalid_request_error", "", "", &message);
            return (status, body, false);
        }
        let print = format!("{} {} {:?}", self.method, self.path, self.form);
        let key = self.key.as_ref().filter(|_| self.method == Method::POST);
        if let Some((known, status, body)) = key.and_then(|key| book.answers.get(key)) {
            if *known == print {
                return (*status, body.clone(), true);
            }
            let message =
                "Keys for idempotent requests can only be used with the same parameters they were first used with.";
            let Refusal(status, body) = Refusal::new(400, "idempotency_error", "", "", message);
            return (status, body, false);
        }
        let (status, body) = match self.act(book) {
            Ok(body) => (200, body),
            // Not remembered: nothing was begun.
            Err(Refusal(status, body)) => return (status, body, false),
        };
        if let Some(key) = key {
            book.answers.insert(key.clone(), (print, status, body.clone()));
        }
        (status, body, false)
    }

    fn act(&self, book: &mut Book) -> Result<Value, Refusal> {
        let parts: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        let one = |list: &[Value], what: &str, id: &str| {
            let found = list.iter().find(|o| o["id"] == id).cloned();
            found.ok_or_else(|| Refusal::missing(what, id))
        };
        match (self.method.as_str(), parts.as_slice()) {
            ("POST", ["v1", "checkout", "sessions"]) => book.create_session(&self.form),
            ("GET", ["v1", "checkout", "sessions"]) => self.list(&book.sessions),
            ("GET", ["v1", "checkout", "sessions", id]) => one(&book.sessions, "checkout.session", id),
            ("POST", ["v1", "checkout", "sessions", id, "expire"]) => {
                let session = one(&book.sessions, "checkout.session", id)?;
                if session["status"] != "open" {
                    let message = "Only Checkout Sessions with a status in [\"open\"] can be expired.";
                    return Err(Refusal::invalid("", "", message));
                }
                Ok(book.expire(id)["data"]["object"].clone())
            }
            ("POST", ["v1", "refunds"]) => {
                let intent = self.form.get("payment_intent").cloned().unwrap_or_default();
                let amount = self.form.get("amount").and_then(|a| a.parse().ok());
                book.refund(&intent, amount)
            }
            ("GET", ["v1", "refunds"]) => self.list(&book.refunds),
            ("GET", ["v1", "refunds", id]) => one(&book.refunds, "refund", id),
            ("GET", ["v1", "disputes"]) => self.list(&book.disputes),
            _ => {
                let message = format!("Unrecognized request URL ({}: {}).", self.method, self.path);
                Err(Refusal::new(404, "invalid_request_error", "", "", &message))
            }
        }
    }

    /// Newest first, filtered, a page at a time.
    fn list(&self, all: &[Value]) -> Result<Value, Refusal> {
        let get = |name: &str| self.form.get(name).map(String::as_str);
        let number = |name: &str| get(name).and_then(|n| n.parse::<i64>().ok());
        let limit = number("limit").unwrap_or(10);
        if !(1..=100).contains(&limit) {
            let message = "This value must be less than or equal to 100.";
            return Err(Refusal::invalid("parameter_invalid_integer", "limit", message));
        }
        let wanted = |object: &&Value| {
            let created = object["created"].as_i64().unwrap_or_default();
            get("payment_intent").is_none_or(|intent| object["payment_intent"] == intent)
                && number("created[gte]").is_none_or(|from| created >= from)
                && number("created[lte]").is_none_or(|to| created <= to)
        };
        let mut rest: Vec<&Value> = all.iter().rev().filter(wanted).collect();
        if let Some(after) = get("starting_after") {
            let at = rest.iter().position(|o| o["id"] == after);
            rest.drain(..at.map_or(0, |at| at + 1));
        }
        let page: Vec<&Value> = rest.iter().take(limit as usize).copied().collect();
        Ok(json!({ "object": "list", "url": self.path, "has_more": rest.len() > page.len(), "data": page }))
    }
}
