//! One parameter: is a value allowed, what is its canonical form, and what does the provider get for it.
//!
//! No coercion: a string is never taken for a number. Only `5.0` counts as the integer 5, because JSON has one kind of
//! number. Canonical forms: integers without a fraction, numbers as floats, strings as given.

use serde_json::{Number, Value};

use super::{InputRule, Param, ParamType};
use crate::document::one_of;

/// Largest integer that a float holds exactly; larger ones written as floats are refused.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Why a value is not allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The rule and the fix.
    pub msg: String,
    /// Machine code, see [`super::ParamFault::fault`].
    pub fault: &'static str,
}

impl Param {
    /// The canonical form of a value, or why it is not allowed.
    pub fn accept(&self, value: &Value) -> Result<Value, Refusal> {
        let Some(canonical) = self.canonical(value) else {
            return Err(self.refuse("type", &format!("{} was given", kind_of(value))));
        };
        if canonical.as_str().is_some_and(|text| text.contains('\0')) {
            return Err(self.refuse("type", "the character U+0000 was given"));
        }
        if !self.allowed.is_empty() && !self.allowed.contains(&canonical) {
            return Err(self.refuse("enum", "another value was given"));
        }
        if let Some(number) = canonical.as_f64() {
            if self.min.is_some_and(|min| number < min) {
                return Err(self.refuse("greater_than_equal", &format!("{canonical} is too small")));
            }
            if self.max.is_some_and(|max| number > max) {
                return Err(self.refuse("less_than_equal", &format!("{canonical} is too large")));
            }
        }
        if let (Some(text), Some(longest)) = (canonical.as_str(), self.max_length) {
            let length = text.chars().count();
            if length > longest {
                return Err(self.refuse("too_long", &format!("{length} characters were given")));
            }
        }
        Ok(canonical)
    }

    /// The value in the form everybody else sees, if it is of the parameter's type.
    pub fn canonical(&self, value: &Value) -> Option<Value> {
        match self.param_type {
            ParamType::String => value.as_str().map(Value::from),
            ParamType::Boolean => value.as_bool().map(Value::from),
            ParamType::Number => value.as_f64().and_then(Number::from_f64).map(Value::from),
            ParamType::Integer => match value {
                Value::Number(n) if n.is_i64() || n.is_u64() => Some(value.clone()),
                Value::Number(n) => n
                    .as_f64()
                    .filter(|f| f.fract() == 0.0 && f.abs() <= EXACT)
                    .map(|f| Value::from(f as i64)),
                _ => None,
            },
        }
    }

    /// The rule in words, for messages and `/docs`: `an integer between 1 and 4`.
    pub fn rule(&self) -> String {
        if !self.allowed.is_empty() {
            let allowed: Vec<String> = self.allowed.iter().map(key_text).collect();
            return format!("one of {}", one_of(&allowed).replace('`', "\""));
        }
        let noun = match self.param_type {
            ParamType::String => "a string",
            ParamType::Integer => "an integer",
            ParamType::Number => "a number",
            ParamType::Boolean => "true or false",
        };
        match (self.min, self.max, self.max_length) {
            (Some(min), Some(max), _) => format!("{noun} between {min} and {max}"),
            (Some(min), None, _) => format!("{noun} of at least {min}"),
            (None, Some(max), _) => format!("{noun} of at most {max}"),
            (None, None, Some(longest)) => format!("{noun} of at most {longest} characters"),
            (None, None, None) => noun.to_owned(),
        }
    }

    fn refuse(&self, fault: &'static str, given: &str) -> Refusal {
        Refusal {
            msg: format!("{} must be {}; {given}", self.name, self.rule()),
            fault,
        }
    }
}

impl InputRule {
    /// What the provider gets for a canonical client value, and under which name. `None` when nothing is sent, or
    /// (which the reader of the file excludes) when a table has no entry for the value.
    pub fn apply(&self, value: &Value) -> Option<(&str, Value)> {
        match self {
            InputRule::NotSent(_) => None,
            InputRule::Same(name) => Some((name, value.clone())),
            InputRule::Text(name) => Some((name, Value::from(key_text(value)))),
            InputRule::Table(name, table) => Some((name, table.get(&key_text(value))?.clone())),
            InputRule::Nearest { name, choices, pattern } => {
                let wanted = value.as_f64()?;
                let chosen = choices.iter().find(|&&c| f64::from(c) >= wanted).or(choices.last())?;
                let sent = match pattern.as_str() {
                    "" => Value::from(*chosen),
                    pattern => Value::from(pattern.replace("{}", &chosen.to_string())),
                };
                Some((name, sent))
            }
            InputRule::Linear { name, times, plus } => {
                let exact = times * value.as_f64()? + plus;
                // Adding zero turns -0.0 into 0.0.
                let rounded = (exact * 1e6).round() / 1e6 + 0.0;
                Some((name, Number::from_f64(rounded)?.into()))
            }
        }
    }
}

/// A scalar's text: `landscape_4_3`, `true`, `25`; 5.0 is `5`. The keys of [`InputRule::Table`] are written so.
pub fn key_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => match n.as_f64() {
            Some(f) if !(n.is_i64() || n.is_u64()) && f.fract() == 0.0 && f.abs() <= EXACT => (f as i64).to_string(),
            _ => n.to_string(),
        },
        other => other.to_string(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number with a fraction or beyond 64 bits",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use serde_json::json;

    fn param(param_type: ParamType) -> Param {
        Param {
            name: "p".into(),
            param_type,
            required: false,
            default: None,
            allowed: vec![],
            min: None,
            max: None,
            max_length: None,
            description: String::new(),
            input: InputRule::Same("p".into()),
        }
    }

    #[test]
    fn integers_may_be_written_with_a_zero_fraction_but_not_as_text() {
        let p = Param {
            min: Some(1.0),
            max: Some(4.0),
            ..param(ParamType::Integer)
        };
        assert_eq!(p.accept(&json!(4)), Ok(json!(4)));
        assert_eq!(p.accept(&json!(4.0)).unwrap().to_string(), "4");
        for (value, fault) in [
            (json!("4"), "type"),
            (json!(4.5), "type"),
            (json!(true), "type"),
            (json!([4]), "type"),
            (json!(5), "less_than_equal"),
            (json!(0), "greater_than_equal"),
            (json!(1e300), "type"),
            (json!(u64::MAX), "less_than_equal"),
        ] {
            let refusal = p.accept(&value).unwrap_err();
            assert_eq!(refusal.fault, fault, "{value}");
            assert!(
                refusal.msg.starts_with("p must be an integer between 1 and 4; "),
                "{}",
                refusal.msg
            );
        }
    }

    #[test]
    fn numbers_are_floats_in_canonical_form() {
        let p = param(ParamType::Number);
        assert_eq!(p.accept(&json!(5)).unwrap().to_string(), "5.0");
        assert_eq!(p.accept(&json!(5.0)).unwrap().to_string(), "5.0");
        assert!(p.accept(&json!("5")).is_err());
    }

    #[test]
    fn strings_are_bounded_and_enumerated() {
        let p = Param {
            allowed: vec![json!("a"), json!("b")],
            ..param(ParamType::String)
        };
        assert_eq!(
            p.accept(&json!("c")).unwrap_err().msg,
            "p must be one of \"a\" or \"b\"; another value was given"
        );
        let p = Param {
            max_length: Some(2),
            ..param(ParamType::String)
        };
        assert!(p.accept(&json!("éé")).is_ok());
        assert_eq!(p.accept(&json!("abc")).unwrap_err().fault, "too_long");
        assert_eq!(p.accept(&json!("\0")).unwrap_err().fault, "type");
    }

    #[test]
    fn rules_translate() {
        let nearest = |pattern: &str| InputRule::Nearest {
            name: "duration".into(),
            choices: vec![4, 6, 8],
            pattern: pattern.into(),
        };
        for (asked, sent) in [
            (1.0, "4s"),
            (4.0, "4s"),
            (4.1, "6s"),
            (5.0, "6s"),
            (8.0, "8s"),
            (10.0, "8s"),
        ] {
            assert_eq!(
                nearest("{}s").apply(&json!(asked)),
                Some(("duration", json!(sent))),
                "{asked}"
            );
        }
        assert_eq!(nearest("").apply(&json!(5)), Some(("duration", json!(6))));
        assert_eq!(InputRule::Text("t".into()).apply(&json!(2)), Some(("t", json!("2"))));
        assert_eq!(InputRule::Text("t".into()).apply(&json!(2.0)), Some(("t", json!("2"))));
        assert_eq!(InputRule::NotSent("why".into()).apply(&json!(2)), None);
        let inverse = InputRule::Linear {
            name: "cfg_scale".into(),
            times: -1.0,
            plus: 1.0,
        };
        for (asked, sent) in [(0.7, "0.3"), (0.0, "1.0"), (1.0, "0.0")] {
            assert_eq!(inverse.apply(&json!(asked)).unwrap().1.to_string(), sent);
        }
    }
}
