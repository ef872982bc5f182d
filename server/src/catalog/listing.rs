//! What the contract's listings show of a model besides its plain fields.

use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::{Model, Param};

/// The order of `GET /generations/models/supported`: by type, then by credits; ties keep the order of the file.
pub fn by_type_then_credits(models: &mut [Arc<Model>]) {
    models.sort_by_key(|m| (m.media_type, m.credits));
}

impl Model {
    /// The contract's map of parameter specifications, the prompt included. Keys of a specification: `type`,
    /// `required` (only when true), `max_length`, `default`, `enum`, `min`, `max`, and our own `description`.
    pub fn parameter_specs(&self) -> Map<String, Value> {
        let prompt = json!({
            "type": "string",
            "required": true,
            "max_length": self.max_prompt_chars,
            "description": "What to generate.",
        });
        let mut specs = Map::from_iter([("prompt".to_owned(), prompt)]);
        specs.extend(self.params.iter().map(|p| (p.name.clone(), p.spec())));
        specs
    }
}

impl Param {
    fn spec(&self) -> Value {
        let integer = self.param_type == super::ParamType::Integer;
        let bound = |bound: f64| if integer { json!(bound as i64) } else { json!(bound) };
        let mut spec = Map::from_iter([("type".to_owned(), Value::from(self.param_type.as_str()))]);
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec.insert(key.to_owned(), value);
            }
        };
        put("required", self.required.then_some(Value::Bool(true)));
        put("default", self.default.clone());
        put("enum", (!self.allowed.is_empty()).then(|| json!(self.allowed)));
        put("min", self.min.map(bound));
        put("max", self.max.map(bound));
        put("max_length", self.max_length.map(Value::from));
        put(
            "description",
            (!self.description.is_empty()).then(|| Value::from(self.description.clone())),
        );
        Value::Object(spec)
    }
}
