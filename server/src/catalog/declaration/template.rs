//! Texts with placeholders: `{model}`, `{param.NAME}`, `{{secret:NAME}}` and so on.

use serde_json::Value;

use crate::document::nearest;

/// A text with holes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// In their order; never two texts in a row.
    pub pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// To be filled in by us.
    Hole(Hole),
    /// To be filled in by the host, which alone knows it: the secret's name.
    Secret(String),
}

/// What is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hole {
    /// `{params}`: the whole input, an object.
    Params,
    /// `{param.NAME}`: one value of the input.
    Param(String),
    /// `{model}`: the provider's name of the model.
    Model,
    /// `{model.N}`: its first N segments.
    ModelHead(usize),
    /// `{id}`: the API's id of the job.
    Id,
    /// `{webhook_url}`: where the API may report the end.
    WebhookUrl,
    /// `{idempotency_key}`: stable within one attempt.
    IdempotencyKey,
    /// `{deadline_seconds}`: seconds until the host gives up.
    DeadlineSeconds,
}

impl Hole {
    /// As it is written.
    pub fn written(&self) -> String {
        match self {
            Hole::Params => "{params}".into(),
            Hole::Param(name) => format!("{{param.{name}}}"),
            Hole::Model => "{model}".into(),
            Hole::ModelHead(n) => format!("{{model.{n}}}"),
            Hole::Id => "{id}".into(),
            Hole::WebhookUrl => "{webhook_url}".into(),
            Hole::IdempotencyKey => "{idempotency_key}".into(),
            Hole::DeadlineSeconds => "{deadline_seconds}".into(),
        }
    }

    fn of(name: &str) -> Option<Hole> {
        Some(match name {
            "params" => Hole::Params,
            "model" => Hole::Model,
            "id" => Hole::Id,
            "webhook_url" => Hole::WebhookUrl,
            "idempotency_key" => Hole::IdempotencyKey,
            "deadline_seconds" => Hole::DeadlineSeconds,
            _ => match name.split_once('.')? {
                ("param", name) if !name.is_empty() => Hole::Param(name.to_owned()),
                ("model", n) => Hole::ModelHead(n.parse().ok().filter(|n| (1..=9).contains(n))?),
                _ => return None,
            },
        })
    }
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    /// What is wrong, to be read behind the name of the place.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

const NAMES: [&str; 6] = [
    "params",
    "model",
    "id",
    "webhook_url",
    "idempotency_key",
    "deadline_seconds",
];

impl Template {
    /// Reads a text. `{{` and `}}` are braces, except in `{{secret:NAME}}`.
    pub fn parse(text: &str) -> Result<Template, TemplateFault> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            let piece = if let Some(after) = rest.strip_prefix("{{secret:") {
                let (name, after) = after.split_once("}}").ok_or_else(not_closed)?;
                rest = after;
                Piece::Secret(secret_name(name)?)
            } else if let Some(after) = rest.strip_prefix("{{") {
                plain.push('{');
                rest = after;
                continue;
            } else if let Some(after) = rest.strip_prefix("}}") {
                plain.push('}');
                rest = after;
                continue;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or_else(not_closed)?;
                rest = after;
                Piece::Hole(Hole::of(name).ok_or_else(|| unknown(name))?)
            } else {
                return Err(TemplateFault {
                    what: "has a `}` without its `{`".into(),
                    remedy: "write `}}` for a brace".into(),
                });
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template { pieces })
    }

    /// The holes in it.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Hole(hole) => Some(hole),
            _ => None,
        })
    }

    /// The names of the secrets in it.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Secret(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The one hole that is all of it.
    pub fn only_hole(&self) -> Option<&Hole> {
        match self.pieces.as_slice() {
            [Piece::Hole(hole)] => Some(hole),
            _ => None,
        }
    }
}

fn not_closed() -> TemplateFault {
    TemplateFault {
        what: "has a placeholder that is not closed".into(),
        remedy: "close it with `}` (a secret with `}}`), or write `{{` for a brace".into(),
    }
}

fn unknown(name: &str) -> TemplateFault {
    let remedy = match nearest(name, NAMES) {
        Some(known) => format!("did you mean `{{{known}}}`? Write `{{{{` for a brace"),
        None => "known are {params}, {param.NAME}, {model}, {model.N}, {id}, {webhook_url}, {idempotency_key}, \
                 {deadline_seconds} and {{secret:NAME}}; write `{{` for a brace"
            .into(),
    };
    TemplateFault {
        what: format!("has the unknown placeholder `{{{name}}}`"),
        remedy,
    }
}

fn secret_name(name: &str) -> Result<String, TemplateFault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.is_empty() && name.chars().all(plain) {
        return Ok(name.to_owned());
    }
    Err(TemplateFault {
        what: format!("names the secret `{name}`"),
        remedy: "write letters, digits and `_` only, as in {{secret:ACME_KEY}}".into(),
    })
}

/// A JSON value with holes in its texts.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// As it is.
    Value(Value),
    /// A text: with nothing but a hole it takes the hole's value and type, otherwise it is text.
    Text(Template),
    /// A list; elements without a value are left out.
    List(Vec<Json>),
    /// An object; members without a value are left out. In the order of the file.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The templates in it.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Json::Value(_) => Vec::new(),
            Json::Text(template) => vec![template],
            Json::List(items) => items.iter().flat_map(Json::templates).collect(),
            Json::Object(members) => members.iter().flat_map(|(_, value)| value.templates()).collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        let pieces = |text: &str| Template::parse(text).unwrap().pieces;
        assert_eq!(pieces(""), []);
        assert_eq!(
            pieces("/v1/{model}/x"),
            [
                Piece::Text("/v1/".into()),
                Piece::Hole(Hole::Model),
                Piece::Text("/x".into())
            ]
        );
        assert_eq!(
            pieces("Bearer {{secret:ACME_KEY}}"),
            [Piece::Text("Bearer ".into()), Piece::Secret("ACME_KEY".into())]
        );
        assert_eq!(pieces("{{a}} {{"), [Piece::Text("{a} {".into())]);
        assert_eq!(
            pieces("{param.a.b}{model.2}"),
            [Piece::Hole(Hole::Param("a.b".into())), Piece::Hole(Hole::ModelHead(2))]
        );
        for hole in ["{params}", "{param.x}", "{model}", "{model.3}", "{id}", "{webhook_url}"] {
            assert_eq!(Template::parse(hole).unwrap().only_hole().unwrap().written(), hole);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let fault = |text: &str| {
            let fault = Template::parse(text).unwrap_err();
            format!("{}; {}", fault.what, fault.remedy)
        };
        assert_eq!(
            fault("/{modle}"),
            "has the unknown placeholder `{modle}`; did you mean `{model}`? Write `{{` for a brace"
        );
        for text in ["{}", "{zzzz}"] {
            assert!(fault(text).contains("known are {params}, {param.NAME}"), "{text}");
        }
        for text in ["{param.}", "{model.0}", "{model.10}", "{Id}"] {
            assert!(fault(text).contains("unknown placeholder"), "{text}");
        }
        assert!(fault("a {id").contains("not closed"));
        assert!(fault("{{secret:A").contains("not closed"));
        assert!(fault("a } b").contains("without its `{`"));
        assert!(fault("{{secret:a b}}").starts_with("names the secret `a b`"));
    }
}
