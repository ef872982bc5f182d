//! Reads what a client sent, strictly: bodies, queries and path ids become values or a [`Problem`] that names the
//! field, the rule and the fix.

use futures_util::StreamExt;
use salvo::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use salvo::{Depot, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::Services;
use super::problem::{Code, FieldError, Problem, Result};
use super::room::Aside;
use crate::auth::MAX_PASSWORD_CHARS;

/// How much of a body that is too large is still read, beyond what the route accepts.
const DRAIN_BYTES: u64 = 32 << 20;
/// For how long.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What the handlers work with.
pub fn services(depot: &Depot) -> Result<&Arc<Services>> {
    depot
        .get_typed::<Arc<Services>>()
        .map_err(|_| Problem::internal("the services are not in the depot"))
}

/// A JSON body. Unknown keys are ignored, as the contract wants; a wrong type names the field.
pub async fn json<T: DeserializeOwned>(req: &mut Request, max_bytes: u64) -> Result<T> {
    let is_json = req
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .map(str::trim)
        .is_none_or(|t| t.eq_ignore_ascii_case("application/json") || t.to_ascii_lowercase().ends_with("+json"));
    if !is_json {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "Send the body as application/json",
        ));
    }
    from_json(body(req, max_bytes).await?, "body")
}

/// The body, up to `max_bytes`.
pub async fn body(req: &mut Request, max_bytes: u64) -> Result<&[u8]> {
    refuse_too_large(req, max_bytes).await?;
    let aside = Aside::of(req);
    Ok(aside.read(req.payload_with_max_size(max_bytes as usize)).await??)
}

/// Refuses a body whose announced length is too large. What comes is read and thrown away, within bounds: a client that
/// is still sending when the connection closes would never see why.
pub async fn refuse_too_large(req: &mut Request, max_bytes: u64) -> Result<()> {
    let length = req.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let announced: u64 = length.and_then(|v| v.parse().ok()).unwrap_or(0);
    if announced <= max_bytes {
        return Ok(());
    }
    if announced <= max_bytes.saturating_add(DRAIN_BYTES) {
        let mut body = req.take_body();
        let drained = async { while let Some(Ok(_)) = body.next().await {} };
        // Too slow is as good as done.
        let _ = Aside::of(req).read(tokio::time::timeout(DRAIN_TIME, drained)).await;
    }
    Err(Problem::new(
        Code::TooLarge,
        format!("The body is larger than the {max_bytes} bytes that this route accepts"),
    ))
}

/// Parses JSON text; `root` is the first part of the `loc` of every error.
pub fn from_json<T: DeserializeOwned>(text: &[u8], root: &str) -> Result<T> {
    // A first pass tells text that is no JSON at all (400) from JSON of the wrong shape (422).
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|e| {
        Problem::new(
            Code::BadRequest,
            format!("The {root} is not valid JSON: line {}, column {}", e.line(), e.column()),
        )
    })?;
    // Serde would take the items of an array for the fields of a struct, in order.
    if value.is_array() {
        return Err(Problem::field(&[root], "must be a JSON object, not an array", "object"));
    }
    serde_path(value, root)
}

/// Turns a JSON value into `T`, naming the field that does not fit.
pub fn serde_path<T: DeserializeOwned>(value: serde_json::Value, root: &str) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let mut loc = vec![root.to_owned()];
        loc.extend(e.path().iter().filter_map(|segment| match segment {
            serde_path_to_error::Segment::Map { key } => Some(key.clone()),
            serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
            _ => None,
        }));
        let text = e.inner().to_string();
        let kind = if text.starts_with("missing field") {
            "missing"
        } else {
            "type"
        };
        if let Some(name) = text.strip_prefix("missing field `").and_then(|t| t.split('`').next()) {
            loc.push(name.to_owned());
        }
        Problem::fields(vec![FieldError {
            loc,
            msg: text,
            kind: kind.into(),
        }])
    })
}

/// A typed id of the path; anything that is no UUID is a 422 (contract §5c).
pub fn path_id<T: FromStr>(req: &Request, name: &str) -> Result<T> {
    let text = req.params().get(name).map(String::as_str).unwrap_or_default();
    text.parse()
        .map_err(|_| Problem::field(&["path", name], "must be a UUID", "uuid"))
}

/// The query string, read field by field; unknown keys are ignored, the last of a repeated key counts.
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads the query of a request.
    pub fn of(req: &Request) -> Self {
        Query(req.queries().iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// A text; an empty one is none.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// An integer within limits, or the default.
    pub fn integer(&self, name: &str, default: i64, min: i64, max: i64) -> Result<i64> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let number = text.parse::<i64>().ok().filter(|n| (min..=max).contains(n));
        number.ok_or_else(|| {
            Problem::field(
                &["query", name],
                format!("must be an integer between {min} and {max}"),
                "integer",
            )
        })
    }

    /// `skip` and `limit` of a list: at most 100 items at once.
    pub fn page(&self, default_limit: u32) -> Result<(u64, u32)> {
        let skip = self.integer("skip", 0, 0, 1_000_000_000)?;
        let limit = self.integer("limit", i64::from(default_limit), 1, 100)?;
        Ok((skip.unsigned_abs(), u32::try_from(limit).unwrap_or(default_limit)))
    }

    /// `true` or `false`, or the default.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "yes") => Ok(true),
            Some("false" | "0" | "no") => Ok(false),
            Some(_) => Err(Problem::field(&["query", name], "must be true or false", "boolean")),
        }
    }

    /// A value that parses, or none.
    pub fn parsed<T>(&self, name: &str, rule: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => parse(text)
                .map(Some)
                .ok_or_else(|| Problem::field(&["query", name], rule.to_owned(), "value")),
        }
    }
}

/// Tells a field that is `null` from one that is left out: for `#[serde(default, deserialize_with = "present")]`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Broken fields of one request, so that the client hears of all at once.
#[derive(Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    /// Notes a broken field unless `ok`.
    pub fn unless(&mut self, ok: bool, loc: &[&str], rule: impl Into<String>, kind: &str) {
        if !ok {
            self.0.push(FieldError::new(loc, rule, kind));
        }
    }

    /// A text of at most `max` characters without control characters (line breaks and tabs pass where `lines`).
    pub fn text(&mut self, text: &str, loc: &[&str], max: usize, lines: bool) {
        self.unless(
            text.chars().count() <= max,
            loc,
            format!("must have at most {max} characters"),
            "too_long",
        );
        let is_clean = |c: char| !c.is_control() || (lines && matches!(c, '\n' | '\r' | '\t'));
        self.unless(
            text.chars().all(is_clean),
            loc,
            "must not contain control characters",
            "control_characters",
        );
    }

    /// A password of `least` to [`MAX_PASSWORD_CHARS`] characters.
    pub fn password(&mut self, text: &str, loc: &[&str], least: usize) {
        self.unless(
            (least..=MAX_PASSWORD_CHARS).contains(&text.chars().count()),
            loc,
            format!("must have {least} to {MAX_PASSWORD_CHARS} characters"),
            "length",
        );
    }

    /// A problem when there are any.
    pub fn finish(self) -> Result<()> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Problem::fields(self.0)),
        }
    }
}
