//! Workflows with placeholders.
//!
//! `"{{width}}"` alone becomes the parameter's own value, a number if it is one; inside a longer text it is text.
//! `"{{cfg=7.5}}"` has a default for a parameter that was not sent. What is filled in is never looked at again, so a
//! prompt with braces in it stays a prompt.

use std::collections::BTreeSet;
use velro_plugin::{Map, Value};

/// Deepest nesting of a workflow.
const DEPTH: u32 = 64;

/// A workflow whose placeholders have been checked.
#[derive(Debug)]
pub(crate) struct Template {
    graph: Value,
    names: BTreeSet<String>,
}

/// A part of a text.
enum Piece<'t> {
    Text(&'t str),
    Slot { name: &'t str, default: Option<&'t str> },
}

impl Template {
    pub(crate) fn parse(graph: Value) -> Result<Self, String> {
        let mut names = BTreeSet::new();
        check(&graph, 0, &mut names)?;
        Ok(Template { graph, names })
    }

    /// Whether a placeholder names this parameter.
    pub(crate) fn uses(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The workflow with values for its placeholders. The error names the parameter that is missing.
    pub(crate) fn fill(&self, values: &Map<String, Value>) -> Result<Value, String> {
        fill(&self.graph, values)
    }
}

fn check(value: &Value, depth: u32, names: &mut BTreeSet<String>) -> Result<(), String> {
    if depth > DEPTH {
        return Err("is nested too deeply".into());
    }
    match value {
        Value::String(text) => {
            for piece in pieces(text)? {
                if let Piece::Slot { name, .. } = piece {
                    names.insert(name.to_owned());
                }
            }
            Ok(())
        }
        Value::Array(list) => list.iter().try_for_each(|one| check(one, depth + 1, names)),
        Value::Object(map) => map.values().try_for_each(|one| check(one, depth + 1, names)),
        _ => Ok(()),
    }
}

fn fill(value: &Value, values: &Map<String, Value>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => match pieces(text)?.as_slice() {
            [Piece::Slot { name, default }] => value_of(values, name, *default)?,
            pieces => {
                let mut filled = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => filled.push_str(text),
                        Piece::Slot { name, default } => match value_of(values, name, *default)? {
                            Value::String(text) => filled.push_str(&text),
                            other => filled.push_str(&other.to_string()),
                        },
                    }
                }
                Value::String(filled)
            }
        },
        Value::Array(list) => Value::Array(list.iter().map(|one| fill(one, values)).collect::<Result<_, _>>()?),
        Value::Object(map) => {
            let filled = map.iter().map(|(key, one)| Ok((key.clone(), fill(one, values)?)));
            Value::Object(filled.collect::<Result<_, String>>()?)
        }
        other => other.clone(),
    })
}

fn value_of(values: &Map<String, Value>, name: &str, default: Option<&str>) -> Result<Value, String> {
    match (values.get(name), default) {
        (Some(value), _) if !value.is_null() => Ok(value.clone()),
        // 7.5, true and "7.5" are what they are in JSON; everything else is a text.
        (_, Some(text)) => Ok(serde_json::from_str(text).unwrap_or_else(|_| text.into())),
        (_, None) => Err(name.to_owned()),
    }
}

/// Splits a text at its placeholders.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (slot, after) = after
            .split_once("}}")
            .ok_or_else(|| format!("a placeholder is not closed: {text:?}"))?;
        let (name, default) = match slot.split_once('=') {
            Some((name, default)) => (name.trim(), Some(default.trim())),
            None => (slot.trim(), None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            return Err(format!(
                "`{{{{{slot}}}}}` is no placeholder: write {{{{name}}}} or {{{{name=default}}}}"
            ));
        }
        if !before.is_empty() {
            found.push(Piece::Text(before));
        }
        found.push(Piece::Slot { name, default });
        rest = after;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn placeholders_keep_their_types() {
        let template = Template::parse(json!({"a": {"inputs": {
            "width": "{{width}}", "text": "{{prompt}}, {{style=photo}}, {{width}} px", "cfg": "{{ cfg = 7.5 }}",
            "negative": "{{negative=}}", "link": ["4", 0], "on": "{{on=true}}", "plain": "a { b } c"}}}))
        .unwrap();
        let values = json!({"width": 512, "prompt": "a {{width}} \"fox\"", "negative": null});
        let filled = template.fill(values.as_object().unwrap()).unwrap();
        assert_eq!(
            filled["a"]["inputs"],
            json!({"width": 512, "text": "a {{width}} \"fox\", photo, 512 px", "cfg": 7.5, "negative": "",
                   "link": ["4", 0], "on": true, "plain": "a { b } c"})
        );
        assert!(template.uses("width") && !template.uses("height"));
        assert_eq!(template.fill(&Map::new()), Err("prompt".into()));
    }

    #[test]
    fn what_is_no_placeholder_says_so() {
        for text in ["{{", "a {{b", "{{}}", "{{a b}}", "{{=1}}", "{{secret:KEY}}"] {
            assert!(Template::parse(json!([text])).is_err(), "{text}");
        }
    }
}
