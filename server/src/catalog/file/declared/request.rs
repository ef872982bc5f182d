//! Requests in templates: what may stand where.

use toml::Spanned;
use toml::de::DeValue;
use velro_plugin::Method;

use super::{answer, parse_pointer};
use crate::catalog::declaration::{Hole, Json, Piece, Request, Template};
use crate::document::{self, Section, Spot};

/// Which request is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// All of them: common headers.
    Any,
    Submit,
    Status,
    Result,
    Cancel,
}

/// Where in a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Query,
    Header,
    Body,
}

const METHODS: [(&str, Method); 6] = [
    ("GET", Method::Get),
    ("POST", Method::Post),
    ("PUT", Method::Put),
    ("PATCH", Method::Patch),
    ("DELETE", Method::Delete),
    ("HEAD", Method::Head),
];

/// Headers that `upstream` sends nobody's word for; it would refuse the whole request. (A test holds the two together.)
const OURS: [&str; 12] = [
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Reads a request; `None` when something in it is wrong (which has been noted).
pub(super) fn read(s: &mut Section<'_, '_>, op: Op) -> Option<Request> {
    let method = match s.choice("method", &METHODS) {
        Some(spot) => Some(spot.value),
        None if s.raw("method").is_some() => None,
        None if matches!(op, Op::Submit | Op::Cancel) => Some(Method::Post),
        None => Some(Method::Get),
    };
    let path = s.text("path").map(|spot| path(s, &spot, op));
    let url = match op {
        Op::Submit => None,
        _ => s.text("url"),
    };
    let url = url.map(|spot| parse_pointer(s, spot.line, "url", spot.value));
    let path = match (path, &url, op) {
        // The base URL itself is where it goes.
        (None, _, Op::Submit) if s.raw("path").is_none() => Some(Some(Template::default())),
        (None, None, _) if s.raw("path").is_none() && s.raw("url").is_none() => {
            s.fault(
                s.line,
                "nothing says where it goes",
                "add `path`, as in \"/jobs/{id}\", or `url`, a pointer to an address in the answer to the submit",
            );
            None
        }
        (Some(None), ..) => None,
        (Some(path), ..) => Some(path),
        (None, ..) => Some(None),
    };
    let query = named(s, "query", op, Part::Query);
    let headers = headers(s, op);
    let body = s.raw("body").map(|spot| json(s, spot.value, spot.line, op));
    if let (Some(Method::Get | Method::Head), Some(_)) = (method, &body) {
        let what = "a GET has no body";
        s.fault(s.line_of("body"), what, "add method = \"POST\", or move it to `query`");
    }
    let timeout_ms = s.integer("timeout_ms", 100..=600_000).map_or(0, |spot| spot.value);
    let states = match op {
        Op::Result => Some(Default::default()),
        _ => answer::states(s),
    };
    Some(Request {
        method: method?,
        url: match url {
            Some(url) => Some(url?),
            None => None,
        },
        path: path?,
        query: query?,
        headers: headers?,
        body: match body {
            Some(body) => Some(body?),
            None => None,
        },
        timeout_ms: u32::try_from(timeout_ms).ok()?,
        states: states?,
    })
}

/// `headers = { name = "template" }`; none when the key is not there.
pub(super) fn headers(s: &mut Section<'_, '_>, op: Op) -> Option<Vec<(String, Template)>> {
    let mut headers = named(s, "headers", op, Part::Header)?;
    for (name, _) in &mut headers {
        name.make_ascii_lowercase();
    }
    Some(headers)
}

fn named(s: &mut Section<'_, '_>, key: &'static str, op: Op, part: Part) -> Option<Vec<(String, Template)>> {
    let Some(entries) = s.entries(key) else {
        return s.raw(key).is_none().then(Vec::new);
    };
    let mut read = Vec::new();
    let mut whole = true;
    for entry in entries {
        let place = format!("{key}.{}", entry.name);
        if part == Part::Header && !header_allowed(s, entry.name, entry.line) {
            whole = false;
        }
        // Numbers and flags are texts here.
        let text = match document::json(entry.value) {
            Some(serde_json::Value::String(text)) => Some(text),
            Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => Some(value.to_string()),
            _ => None,
        };
        let Some(text) = text else {
            s.fault(
                entry.line,
                format_args!("`{place}` is not a text"),
                "write a text in quotes",
            );
            whole = false;
            continue;
        };
        match template(s, &text, entry.line, &place, op, part) {
            Some(template) => read.push((entry.name.to_owned(), template)),
            None => whole = false,
        }
    }
    whole.then_some(read)
}

fn header_allowed(s: &Section<'_, '_>, name: &str, line: usize) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        s.fault(line, format_args!("`{name}` is not a name of a header"), "correct it");
        return false;
    }
    if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        let what = format!("the header `{name}` belongs to the connection");
        s.fault(line, what, "remove it: Velro sets it");
        return false;
    }
    true
}

fn path(s: &Section<'_, '_>, spot: &Spot<&str>, op: Op) -> Option<Template> {
    let read = template(s, spot.value, spot.line, "path", op, Part::Path)?;
    let bad = |c: char| !c.is_ascii_graphic() || "?#\\<>\"".contains(c);
    let literal: String = read
        .pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            _ => "x",
        })
        .collect();
    let odd = literal.split('/').any(|segment| matches!(segment, "." | ".."));
    if !(spot.value.is_empty() || spot.value.starts_with('/')) || literal.contains(bad) || odd {
        s.fault(
            spot.line,
            format_args!("`path` is `{}`", spot.value),
            "begin with `/`, write no host, no spaces and no `..`, and put what follows a `?` into `query`",
        );
        return None;
    }
    Some(read)
}

fn template(s: &Section<'_, '_>, text: &str, line: usize, place: &str, op: Op, part: Part) -> Option<Template> {
    let read = match Template::parse(text) {
        Ok(read) => read,
        Err(fault) => {
            s.fault(line, format_args!("`{place}` {}", fault.what), fault.remedy);
            return None;
        }
    };
    let mut fine = true;
    if part == Part::Header && !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        let what = format!("`{place}` cannot stand in a header");
        s.fault(line, what, "write printable ASCII only");
        fine = false;
    }
    for hole in read.holes() {
        let remedy = match hole {
            Hole::Params if part != Part::Body || read.only_hole().is_none() => {
                "it is the whole input: write it alone, in the body"
            }
            // The host looks for secrets in headers, and users choose this text.
            Hole::Param(_) if part == Part::Header => "send it in the query or the body",
            Hole::Id if matches!(op, Op::Any | Op::Submit) => "there is no id before the submit was answered",
            Hole::WebhookUrl if op != Op::Submit => "only `submit` can name it",
            _ => continue,
        };
        s.fault(
            line,
            format_args!("`{place}` uses `{}`, which cannot stand there", hole.written()),
            remedy,
        );
        fine = false;
    }
    if matches!(part, Part::Path | Part::Body)
        && let Some(secret) = read.secrets().next()
    {
        let what = format!("`{place}` uses the secret `{secret}`");
        s.fault(line, what, "secrets stand in header values and the query only");
        fine = false;
    }
    fine.then_some(read)
}

/// A body: its texts are templates.
fn json(s: &Section<'_, '_>, value: &DeValue<'_>, line: usize, op: Op) -> Option<Json> {
    let line_of = |value: &Spanned<DeValue<'_>>| s.line_at(value.span().start);
    Some(match value {
        DeValue::String(text) => {
            let read = template(s, text, line, "body", op, Part::Body)?;
            let plain = read.holes().next().is_none();
            match plain {
                true => Json::Value(literal(&read).into()),
                false => Json::Text(read),
            }
        }
        DeValue::Array(items) => {
            let items: Vec<_> = items
                .iter()
                .map(|item| json(s, item.get_ref(), line_of(item), op))
                .collect();
            Json::List(items.into_iter().collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(name, _)| name.span().start);
            let members: Vec<_> = entries
                .into_iter()
                .map(|(name, value)| {
                    Some((
                        name.get_ref().to_string(),
                        json(s, value.get_ref(), line_of(value), op)?,
                    ))
                })
                .collect();
            Json::Object(members.into_iter().collect::<Option<_>>()?)
        }
        other => match document::json(other) {
            Some(value) => Json::Value(value),
            None => {
                let what = "`body` has a value that JSON does not have";
                s.fault(line, what, "write a text, a number, `true`, `false`, a list or a table");
                return None;
            }
        },
    })
}

/// A template without holes, with its doubled braces undone.
fn literal(template: &Template) -> String {
    let texts = template.pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.as_str(),
        _ => "",
    });
    texts.collect()
}
