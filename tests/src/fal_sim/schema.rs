//! Checking a model's input against its schema, with FAL's error types.

use serde_json::{Map, Value, json};

use super::errors::{Failure, detail_item};

/// The rule of one input field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text {
        min: usize,
        max: usize,
    },
    OneOf(&'static [&'static str]),
    /// A file reference: `http(s)://` or a `data:` URI.
    FileUrl,
    Int {
        min: u64,
        max: u64,
    },
    /// Any integer; FAL's seeds exceed `i64`.
    Seed,
    Number {
        min: f64,
        max: f64,
    },
    Bool,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    kind: Kind,
    required: bool,
    nullable: bool,
}

pub(super) const fn required(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: true,
        nullable: false,
    }
}
pub(super) const fn optional(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: false,
        nullable: false,
    }
}
pub(super) const fn nullable(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: false,
        nullable: true,
    }
}

/// Checks an input against its fields and reports every fault at once.
///
/// # Errors
/// 422 with FAL's `detail` array.
pub(super) fn validate(
    fields: &[Field],
    input: &Map<String, Value>,
    reject_unknown_fields: bool,
) -> Result<(), Failure> {
    let mut faults = Vec::new();
    for field in fields {
        match input.get(field.name) {
            None if field.required => faults.push(detail_item(
                &["body", field.name],
                "missing",
                "Field required",
                json!({}),
                json!(input),
            )),
            None => {}
            Some(Value::Null) if field.nullable => {}
            Some(value) => {
                if let Some((error_type, msg, ctx)) = field.kind.fault(value) {
                    faults.push(detail_item(&["body", field.name], error_type, &msg, ctx, value.clone()));
                }
            }
        }
    }
    if reject_unknown_fields {
        for (name, value) in input {
            if !fields.iter().any(|field| field.name == name) {
                faults.push(detail_item(
                    &["body", name],
                    "extra_forbidden",
                    "Extra inputs are not permitted",
                    json!({}),
                    value.clone(),
                ));
            }
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::validation(faults))
    }
}

impl Kind {
    /// FAL's error type, message and context if the value breaks the rule.
    fn fault(self, value: &Value) -> Option<(&'static str, String, Value)> {
        let wrong =
            |error_type, expected: &str| Some((error_type, format!("Input should be a valid {expected}"), json!({})));
        match self {
            Self::Text { min, max } => {
                let Some(text) = value.as_str() else {
                    return wrong("string_type", "string");
                };
                let length = text.chars().count();
                if length < min {
                    return Some((
                        "sequence_too_short",
                        format!("String should have at least {min} characters"),
                        json!({ "min_length": min }),
                    ));
                }
                (length > max).then(|| {
                    (
                        "sequence_too_long",
                        format!("String should have at most {max} characters"),
                        json!({ "max_length": max }),
                    )
                })
            }
            Self::OneOf(allowed) => {
                let Some(text) = value.as_str() else {
                    return wrong("string_type", "string");
                };
                (!allowed.contains(&text)).then(|| {
                    (
                        "one_of",
                        format!("Input should be one of {}", allowed.join(", ")),
                        json!({ "expected": allowed }),
                    )
                })
            }
            Self::FileUrl => {
                let Some(text) = value.as_str() else {
                    return wrong("string_type", "string");
                };
                let known = ["http://", "https://", "data:"]
                    .iter()
                    .any(|scheme| text.starts_with(scheme));
                (!known).then(|| {
                    (
                        "file_download_error",
                        "Failed to download the file. Check that the URL is accessible.".to_owned(),
                        json!({}),
                    )
                })
            }
            Self::Int { min, max } => {
                if !(value.is_u64() || value.is_i64()) {
                    return wrong("int_type", "integer");
                }
                match value.as_u64() {
                    Some(number) if number > max => Some((
                        "less_than_equal",
                        format!("Input should be less than or equal to {max}"),
                        json!({ "le": max }),
                    )),
                    Some(number) if number >= min => None,
                    _ => Some((
                        "greater_than_equal",
                        format!("Input should be greater than or equal to {min}"),
                        json!({ "ge": min }),
                    )),
                }
            }
            Self::Seed => {
                if value.is_u64() || value.is_i64() {
                    None
                } else {
                    wrong("int_type", "integer")
                }
            }
            Self::Number { min, max } => {
                let Some(number) = value.as_f64() else {
                    return wrong("float_type", "number");
                };
                if number < min {
                    return Some((
                        "greater_than_equal",
                        format!("Input should be greater than or equal to {min}"),
                        json!({ "ge": min }),
                    ));
                }
                (number > max).then(|| {
                    (
                        "less_than_equal",
                        format!("Input should be less than or equal to {max}"),
                        json!({ "le": max }),
                    )
                })
            }
            Self::Bool => {
                if value.is_boolean() {
                    None
                } else {
                    wrong("bool_type", "boolean")
                }
            }
        }
    }
}
