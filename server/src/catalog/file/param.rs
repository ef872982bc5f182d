//! `[models.params.NAME]`: a client parameter and how it reaches the provider.

use serde_json::{Map, Value};

use crate::catalog::{InputRule, Param, ParamType};
use crate::document::{DeValue, Section, Spot};

const TYPES: [(&str, ParamType); 4] = [
    ("string", ParamType::String),
    ("integer", ParamType::Integer),
    ("number", ParamType::Number),
    ("boolean", ParamType::Boolean),
];
/// Bounds beyond this could not be compared exactly.
const MAX_BOUND: f64 = 9_007_199_254_740_992.0;

/// Reads a parameter; `None` when something in it is wrong (which has been noted).
pub(super) fn read(name: &str, mut section: Section<'_, '_>) -> Option<Param> {
    let line = section.line;
    let well_formed = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !well_formed || ["prompt", "negative_prompt", "reference_image_url"].contains(&name) {
        section.fault(
            line,
            "the name cannot be used",
            "begin with a letter, use only a-z, 0-9 and `_`, and none of the fields every call has",
        );
    }
    let param_type = section.choice("type", &TYPES).map(|spot| spot.value);
    if section.raw("type").is_none() {
        section.missing("type", "\"string\", \"integer\", \"number\" or \"boolean\"");
    }
    let required = section.boolean("required").is_some_and(|spot| spot.value);
    let description = section.text("description").map_or("", |spot| spot.value).to_owned();
    let (min, max) = read_bounds(&mut section, param_type);
    let max_length = section.integer("max_length", 1..=100_000);
    let max_length = max_length.and_then(|spot| usize::try_from(spot.value).ok());
    let input = read_input(name, &mut section);
    let default = section.json("default");
    let allowed = section.json("allowed");

    let mut param = Param {
        name: name.to_owned(),
        param_type: param_type.unwrap_or(ParamType::String),
        required,
        default: None,
        allowed: Vec::new(),
        min,
        max,
        max_length,
        description,
        input: input.unwrap_or_else(|| InputRule::Same(name.to_owned())),
    };
    // Without a type the values cannot be judged.
    if param_type.is_some() {
        if let Some(spot) = allowed {
            param.allowed = read_allowed(&param, &section, &spot.value, spot.line);
        }
        if let Some(spot) = default {
            match param.accept(&spot.value) {
                Ok(value) => param.default = Some(value),
                Err(refusal) => section.fault(
                    spot.line,
                    format_args!("`default` is not allowed: {}", refusal.msg),
                    "correct the default or the rule",
                ),
            }
            if required {
                section.fault(
                    spot.line,
                    "a required parameter has no use for a `default`",
                    "remove one of them",
                );
            }
        }
        check_shape(&param, &section);
        check_input(&param, &section, section.line_of("input"));
    }
    section.finish();
    param_type.map(|_| param)
}

fn read_bounds(section: &mut Section<'_, '_>, param_type: Option<ParamType>) -> (Option<f64>, Option<f64>) {
    let mut bound = |key| {
        let spot = section.number(key)?;
        let whole = param_type != Some(ParamType::Integer) || spot.value.fract() == 0.0;
        if spot.value.abs() > MAX_BOUND || !whole {
            let remedy = "write a bound of the parameter's type, within plus or minus 2^53";
            section.fault(spot.line, format_args!("`{key}` is {}", spot.value), remedy);
        }
        Some(spot)
    };
    let (min, max) = (bound("min"), bound("max"));
    if let (Some(min), Some(max)) = (&min, &max)
        && min.value > max.value
    {
        section.fault(max.line, "`max` is below `min`", "exchange them");
    }
    let numeric = matches!(param_type, None | Some(ParamType::Integer | ParamType::Number));
    if let (Some(spot), false) = (min.as_ref().or(max.as_ref()), numeric) {
        section.fault(spot.line, "`min` and `max` are for numbers", "remove them");
    }
    (min.map(|spot| spot.value), max.map(|spot| spot.value))
}

fn read_allowed(param: &Param, section: &Section<'_, '_>, value: &Value, line: usize) -> Vec<Value> {
    let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
        section.fault(
            line,
            "`allowed` must be a list with values",
            "list the values, or remove it",
        );
        return Vec::new();
    };
    let mut allowed = Vec::new();
    for item in items {
        // `param` has no allowed values yet: type, bounds and length are judged.
        match param.accept(item) {
            Ok(value) if allowed.contains(&value) => {
                section.fault(line, format_args!("{value} is allowed twice"), "remove one");
            }
            Ok(value) => allowed.push(value),
            Err(refusal) => section.fault(
                line,
                format_args!("{item} cannot be allowed: {}", refusal.msg),
                "correct the value or the rule",
            ),
        }
    }
    allowed
}

fn check_shape(param: &Param, section: &Section<'_, '_>) {
    let text = param.param_type == ParamType::String;
    if param.max_length.is_some() && !text {
        section.fault(
            section.line_of("max_length"),
            "`max_length` is for strings",
            "remove it",
        );
    }
    if text && param.allowed.is_empty() && param.max_length.is_none() {
        section.fault(
            section.line,
            "a free string needs a bound",
            "add `max_length` or `allowed`",
        );
    }
}

/// The rule of `input`: absent (sent under its own name), a name, or a table. `None` when it is wrong.
fn read_input(param: &str, section: &mut Section<'_, '_>) -> Option<InputRule> {
    let Some(raw) = section.raw("input") else {
        return Some(InputRule::Same(param.to_owned()));
    };
    let label = format!("{}.input", section.label);
    read_written(section, "input", label, &raw)
}

/// A rule as it is written under `key`.
fn read_written<'a, 't>(
    section: &Section<'a, 't>,
    key: &str,
    label: String,
    written: &Spot<&'a DeValue<'t>>,
) -> Option<InputRule> {
    if let Some(name) = written.value.as_str() {
        return Some(InputRule::Same(name.to_owned()));
    }
    let Some(mut rule) = section.below(label, written) else {
        section.fault(
            written.line,
            format_args!("`{key}` must be a name or a table"),
            "write the provider's name of it, or { not_sent = \"why\" }",
        );
        return None;
    };
    let read = read_rule(&mut rule);
    rule.finish();
    read
}

/// `[models.fallbacks.inputs]`: how the parameter reaches another provider.
pub(super) fn read_other_input<'a, 't>(
    param: &Param,
    section: &Section<'a, 't>,
    written: &Spot<&'a DeValue<'t>>,
) -> Option<InputRule> {
    let label = format!("{}.inputs.{}", section.label, param.name);
    let input = read_written(section, &format!("inputs.{}", param.name), label, written)?;
    let there = Param {
        input: input.clone(),
        ..param.clone()
    };
    check_input(&there, section, written.line);
    Some(input)
}

fn read_rule(rule: &mut Section<'_, '_>) -> Option<InputRule> {
    let not_sent = rule.text("not_sent");
    let text = rule.boolean("text").filter(|spot| spot.value);
    let table = rule.json_table("table");
    let nearest = rule.json("nearest");
    let pattern = rule.text("pattern");
    let (times, plus) = (rule.number("times"), rule.number("plus"));
    let name = rule.text("name");
    let linear = times.is_some() || plus.is_some();
    let kinds = [
        not_sent.is_some(),
        text.is_some(),
        table.is_some(),
        nearest.is_some(),
        linear,
    ];
    if kinds.iter().filter(|&&given| given).count() > 1 {
        rule.fault(
            rule.line,
            "says more than one thing",
            "keep one of `not_sent`, `text`, `table`, `nearest` or `times`/`plus`",
        );
        return None;
    }
    if let (Some(spot), None) = (&pattern, &nearest) {
        rule.fault(spot.line, "`pattern` belongs to `nearest`", "remove it");
    }
    if let Some(spot) = not_sent {
        if spot.value.trim().is_empty() {
            rule.fault(
                spot.line,
                "the reason is empty",
                "say why it has no effect; clients read it",
            );
        }
        return Some(InputRule::NotSent(spot.value.to_owned()));
    }
    let Some(name) = name.filter(|spot| !spot.value.is_empty()) else {
        rule.missing("name", "\"the provider's name of it\"");
        return None;
    };
    let name = name.value.to_owned();
    if text.is_some() {
        return Some(InputRule::Text(name));
    }
    if let Some(spot) = table {
        return Some(InputRule::Table(name, spot.value));
    }
    if let Some(spot) = nearest {
        let pattern = pattern.map_or("", |spot| spot.value).to_owned();
        return read_nearest(rule, name, &spot.value, spot.line, pattern);
    }
    if linear {
        return Some(InputRule::Linear {
            name,
            times: times.map_or(1.0, |spot| spot.value),
            plus: plus.map_or(0.0, |spot| spot.value),
        });
    }
    Some(InputRule::Same(name))
}

fn read_nearest(
    rule: &Section<'_, '_>,
    name: String,
    value: &Value,
    line: usize,
    pattern: String,
) -> Option<InputRule> {
    let choices: Option<Vec<u32>> = value.as_array().and_then(|items| {
        let choices = items
            .iter()
            .map(|item| item.as_u64().and_then(|n| u32::try_from(n).ok()));
        choices.collect()
    });
    let choices = choices.filter(|c| !c.is_empty() && c.is_sorted_by(|a, b| a < b));
    if choices.is_none() {
        rule.fault(
            line,
            "`nearest` must be a list of ascending whole numbers",
            "write for example [4, 6, 8]",
        );
    }
    if !pattern.is_empty() && !pattern.contains("{}") {
        rule.fault(line, "`pattern` does not contain `{}`", "write for example \"{}s\"");
    }
    Some(InputRule::Nearest {
        name,
        choices: choices?,
        pattern,
    })
}

/// The rule fits the parameter: tables cover exactly what is allowed, arithmetic is for numbers.
fn check_input(param: &Param, section: &Section<'_, '_>, line: usize) {
    let numeric = matches!(param.param_type, ParamType::Integer | ParamType::Number);
    match &param.input {
        InputRule::Nearest { .. } | InputRule::Linear { .. } if !numeric => {
            section.fault(line, "`nearest`, `times` and `plus` are for numbers", "use a `table`");
        }
        InputRule::Table(_, table) => check_table(param, table, section, line),
        InputRule::Linear { .. } => {
            // The result lies between those of the ends, so that these two decide for all values.
            let ends = [param.min, param.max].map(|end| end.and_then(|end| param.input.apply(&Value::from(end))));
            if ends.contains(&None) {
                let remedy = "give the parameter a `min` and a `max`, and use moderate numbers";
                section.fault(line, "`times` and `plus` need bounds", remedy);
            }
        }
        InputRule::NotSent(_) | InputRule::Same(_) | InputRule::Text(_) | InputRule::Nearest { .. } => {}
    }
}

fn check_table(param: &Param, table: &Map<String, Value>, section: &Section<'_, '_>, line: usize) {
    let keys: Vec<String> = match param.param_type {
        ParamType::Boolean => vec!["true".into(), "false".into()],
        _ => param.allowed.iter().map(crate::catalog::key_text).collect(),
    };
    if keys.is_empty() {
        section.fault(line, "a `table` needs a list of `allowed` values", "add `allowed`");
    }
    for key in keys.iter().filter(|key| !table.contains_key(*key)) {
        section.fault(
            line,
            format_args!("`table` has no entry for `{key}`"),
            format!("add `{key}` to it"),
        );
    }
    for (key, value) in table {
        if !keys.contains(key) && !keys.is_empty() {
            section.fault(
                line,
                format_args!("`table` translates `{key}`, which is not allowed"),
                "add it to `allowed` or remove it",
            );
        }
        if value.is_object() || value.is_array() {
            section.fault(
                line,
                format_args!("`table` entry `{key}` is not a plain value"),
                "write a plain value",
            );
        }
    }
}
