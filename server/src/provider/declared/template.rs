//! From templates to requests.

use std::borrow::Cow;
use std::fmt::Write as _;
use velro_plugin::{Effect, HttpRequest, Job, Map, Value, escape};

use crate::catalog::declaration::{Declaration, Hole, Json, Piece, Request, Template};

/// What templates are filled from.
pub(super) struct Filling<'f> {
    pub(super) declaration: &'f Declaration,
    pub(super) job: &'f Job<'f>,
    /// The API's id of the job; empty before the submit was answered.
    pub(super) id: &'f str,
}

/// Why a request cannot be made of this input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A placeholder in the path has no value.
    Missing(String),
    /// The value of a placeholder would lead to another path.
    Path(String),
}

impl Filling<'_> {
    /// The request; `taken` is its address when the API named one.
    pub(super) fn request(&self, request: &Request, taken: Option<&str>, effect: Effect) -> Result<HttpRequest, Unfit> {
        let mut url = match (taken, &request.path) {
            (Some(taken), _) => taken.to_owned(),
            (None, Some(path)) => format!("{}{}", self.declaration.base_url, self.path(path)?),
            (None, None) => return Err(Unfit::Missing("url".into())),
        };
        for (name, template) in &request.query {
            if let Some(value) = self.query(template) {
                let separator = if url.contains('?') { '&' } else { '?' };
                // Writing to a text cannot fail.
                let _ = write!(url, "{separator}{}={value}", escape(name));
            }
        }
        let mut filled = HttpRequest::new(request.method, url, effect);
        filled.timeout_ms = request.timeout_ms;
        let common = self.declaration.headers.iter();
        let common = common.filter(|(name, _)| request.headers.iter().all(|(own, _)| own != name));
        for (name, template) in common.chain(&request.headers) {
            if let Some(value) = self.text(template, |text| Cow::Borrowed(text)) {
                filled = filled.header(name.clone(), value);
            }
        }
        if let Some(body) = request.body.as_ref().and_then(|body| self.body(body)) {
            filled.body = body;
            if filled.headers.iter().all(|(name, _)| name != "content-type") {
                filled = filled.header("content-type", "application/json");
            }
        }
        Ok(filled)
    }

    fn path(&self, template: &Template) -> Result<String, Unfit> {
        let mut path = String::new();
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                // The reader lets none through.
                Piece::Secret(_) => {}
                Piece::Hole(hole) => {
                    let value = self.value(hole).map(|value| text_of(&value)).unwrap_or_default();
                    if value.is_empty() {
                        return Err(Unfit::Missing(hole.written()));
                    }
                    match hole {
                        // Their slashes are a part of the path.
                        Hole::Model | Hole::ModelHead(_) | Hole::Id => {
                            let segments: Vec<String> = value.split('/').map(escape).collect();
                            path.push_str(&segments.join("/"));
                        }
                        _ => path.push_str(&escape(&value)),
                    }
                }
            }
        }
        // Every URL parser would resolve these, and end elsewhere with our key.
        match path.split('/').any(|segment| matches!(segment, "." | "..")) {
            true => Err(Unfit::Path(path)),
            false => Ok(path),
        }
    }

    /// A query value; `None` when a placeholder in it has none.
    fn query(&self, template: &Template) -> Option<String> {
        self.text(template, |text| Cow::Owned(escape(text)))
    }

    /// Text and values, each through `encode`; secrets stay placeholders, for the host.
    fn text(&self, template: &Template, encode: impl for<'t> Fn(&'t str) -> Cow<'t, str>) -> Option<String> {
        let mut filled = String::new();
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(&encode(text)),
                Piece::Secret(name) => {
                    let _ = write!(filled, "{{{{secret:{name}}}}}");
                }
                Piece::Hole(hole) => filled.push_str(&encode(&text_of(&self.value(hole)?))),
            }
        }
        Some(filled)
    }

    fn body(&self, body: &Json) -> Option<Vec<u8>> {
        // The input as it is: no number in it is read and written again.
        if let Json::Text(template) = body
            && template.only_hole() == Some(&Hole::Params)
        {
            return Some(self.job.params.raw().as_bytes().to_vec());
        }
        self.json(body).map(|value| value.to_string().into_bytes())
    }

    fn json(&self, json: &Json) -> Option<Value> {
        Some(match json {
            Json::Value(value) => value.clone(),
            Json::Text(template) => match template.only_hole() {
                Some(hole) => self.value(hole)?,
                None => self.text(template, |text| Cow::Borrowed(text))?.into(),
            },
            Json::List(items) => items.iter().filter_map(|item| self.json(item)).collect(),
            Json::Object(members) => {
                let members = members.iter();
                let members = members.filter_map(|(name, value)| Some((name.clone(), self.json(value)?)));
                Value::Object(members.collect::<Map<_, _>>())
            }
        })
    }

    fn value(&self, hole: &Hole) -> Option<Value> {
        let job = self.job;
        match hole {
            Hole::Params => Some(Value::Object(job.params.map().clone())),
            Hole::Param(name) => job.params.map().get(name).filter(|value| !value.is_null()).cloned(),
            Hole::Model => Some(job.model.into()),
            Hole::ModelHead(n) => {
                let head: Vec<&str> = job.model.split('/').take(*n).collect();
                Some(head.join("/").into())
            }
            Hole::Id => Some(self.id.into()),
            Hole::WebhookUrl => job.webhook_url.map(Value::from),
            Hole::IdempotencyKey => Some(job.idempotency_key.into()),
            Hole::DeadlineSeconds => Some((job.deadline_ms.saturating_sub(job.now_ms) / 1_000).max(1).into()),
        }
    }
}

/// A value inside a text: texts without their quotes, everything else as JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
