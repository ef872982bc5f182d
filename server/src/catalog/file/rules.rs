//! Rules between the parts of a model: the price can be counted, no two things are sent under one name, the example
//! is a call that would be accepted.

use serde_json::{Map, Value};
use std::collections::HashMap;

use crate::catalog::{Feature, Param, ParamType};
use crate::document::{Section, Spot, nearest, one_of};

/// What has been read of a model so far; parts that were wrong are missing.
#[derive(Clone, Copy)]
pub(super) struct Facts<'f> {
    pub(super) params: &'f [Param],
    /// False when a parameter could not be read, so that "unknown parameter" would be a consequence, not a cause.
    pub(super) complete: bool,
    pub(super) credits: Option<&'f Spot<i64>>,
    pub(super) credits_per: Option<&'f Spot<Vec<String>>>,
    pub(super) count_param: Option<&'f Spot<&'f str>>,
    pub(super) prompt_input: &'f str,
    pub(super) negative_prompt: Option<&'f Feature>,
    pub(super) reference: Option<&'f Feature>,
    pub(super) fixed: &'f Map<String, Value>,
    pub(super) example: Option<&'f Spot<Map<String, Value>>>,
}

/// Notes every broken rule.
pub(super) fn check(s: &Section<'_, '_>, facts: &Facts<'_>) {
    check_price(s, facts);
    check_names(s, facts, facts.params);
    check_example(s, facts);
}

fn check_price(s: &Section<'_, '_>, facts: &Facts<'_>) {
    let mut highest = facts.credits.map(|spot| spot.value);
    if let Some(spot) = facts.credits_per {
        for (i, name) in spot.value.iter().enumerate() {
            if spot.value[..i].contains(name) {
                s.fault(
                    spot.line,
                    format_args!("`credits_per` names `{name}` twice"),
                    "remove one",
                );
            }
            let most = countable(s, facts, "credits_per", name, spot.line).and_then(|p| p.max);
            highest = match (highest, most) {
                (Some(price), Some(most)) => price.checked_mul(most as i64),
                (price, None) => price,
                (None, _) => None,
            };
        }
        if facts.credits.is_some() && highest.is_none() {
            s.fault(
                spot.line,
                "the highest price is too large to count",
                "lower `credits` or a `max`",
            );
        }
    }
    if let Some(spot) = facts.count_param {
        countable(s, facts, "count_param", spot.value, spot.line);
    }
}

/// A parameter that money depends on: a positive, bounded integer that every call has.
fn countable<'f>(s: &Section<'_, '_>, facts: &Facts<'f>, key: &str, name: &str, line: usize) -> Option<&'f Param> {
    let Some(param) = facts.params.iter().find(|p| p.name == name) else {
        if facts.complete {
            let names: Vec<&str> = facts.params.iter().map(|p| p.name.as_str()).collect();
            let remedy = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("name one of the model's parameters: {}", one_of(&names)),
            };
            s.fault(
                line,
                format_args!("`{key}` names `{name}`, which is not a parameter"),
                remedy,
            );
        }
        return None;
    };
    if param.param_type != ParamType::Integer {
        s.fault(
            line,
            format_args!("`{key}` names `{name}`, which is not an integer"),
            "prices are counted with integer parameters only",
        );
        return None;
    }
    if param.default.is_none() && !param.required {
        s.fault(
            line,
            format_args!("`{key}` names `{name}`, which may be missing from a call"),
            format!("give `{name}` a `default` or make it `required`"),
        );
    }
    if !param.min.is_some_and(|min| min >= 1.0) || param.max.is_none_or(|max| max > f64::from(u32::MAX)) {
        s.fault(
            line,
            format_args!("`{key}` names `{name}`, which is not bounded"),
            format!("give `{name}` a `min` of at least 1 and a `max`"),
        );
        return None;
    }
    Some(param)
}

/// No two things go to the provider under one name; `params` have the rules by which they do.
pub(super) fn check_names(s: &Section<'_, '_>, facts: &Facts<'_>, params: &[Param]) {
    let mut owners: HashMap<&str, String> = HashMap::new();
    let mut claim = |name, owner: String| {
        if let Some(first) = owners.get(name) {
            let what = format!("{first} and {owner} are both sent as `{name}`");
            s.fault(s.line, what, "send each under its own name");
        } else {
            owners.insert(name, owner);
        }
    };
    claim(facts.prompt_input, "the prompt".into());
    for (feature, owner) in [
        (facts.negative_prompt, "the negative prompt"),
        (facts.reference, "the reference image"),
    ] {
        if let Some(Feature::Input(name)) = feature {
            claim(name, owner.into());
        }
    }
    for param in params {
        if let Some(name) = param.input.input_name() {
            claim(name, format!("parameter `{}`", param.name));
        }
    }
    for name in facts.fixed.keys() {
        claim(name, format!("the constant `fixed.{name}`"));
    }
}

fn check_example(s: &Section<'_, '_>, facts: &Facts<'_>) {
    let Some(example) = facts.example else { return };
    for (name, value) in &example.value {
        match facts.params.iter().find(|p| p.name == *name) {
            Some(param) => {
                if let Err(refusal) = param.accept(value) {
                    let what = format!("`example` would be refused: {}", refusal.msg);
                    s.fault(example.line, what, "show a call that works");
                }
            }
            None if facts.complete => {
                let what = format!("`example` has `{name}`, which is not a parameter");
                s.fault(example.line, what, "remove it or declare the parameter");
            }
            None => {}
        }
    }
    for param in facts.params.iter().filter(|p| p.required) {
        if !example.value.contains_key(&param.name) {
            let what = format!("`example` lacks the required `{}`", param.name);
            s.fault(example.line, what, "add it");
        }
    }
}
