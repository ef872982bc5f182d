//! The models the simulator knows, and what their inputs must be.

use serde_json::{Map, Value, json};

/// The version of `stability-ai/sdxl`, which is no official model, and of the deployment `acme/fast`.
pub const VERSION: &str = "7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc";

/// What Replicate calls the version of an official model.
pub(super) const HIDDEN: &str = "hidden";

/// A model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) owner: &'static str,
    pub(super) name: &'static str,
    /// None of an official model.
    pub(super) version: Option<&'static str>,
    /// The output is a list, with as many files as this field of the input says.
    pub(super) count: Option<&'static str>,
    pub(super) ratios: &'static [&'static str],
}

static ALL: [Model; 3] = [
    Model {
        owner: "black-forest-labs",
        name: "flux-1.1-pro-ultra",
        version: None,
        count: None,
        ratios: &["21:9", "16:9", "4:3", "1:1", "3:4", "9:16"],
    },
    Model {
        owner: "black-forest-labs",
        name: "flux-schnell",
        version: None,
        count: Some("num_outputs"),
        ratios: &["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "9:16"],
    },
    Model {
        owner: "stability-ai",
        name: "sdxl",
        version: Some(VERSION),
        count: Some("num_outputs"),
        ratios: &[],
    },
];

/// The model with this name.
pub(super) fn named(owner: &str, name: &str) -> Option<&'static Model> {
    ALL.iter().find(|m| (m.owner, m.name) == (owner, name))
}

/// The model behind a deployment.
pub(super) fn deployed(owner: &str, name: &str) -> Option<&'static Model> {
    match (owner, name) {
        ("acme", "fast") => named("stability-ai", "sdxl"),
        _ => None,
    }
}

/// The model of the `version` of a request: 64 hex digits, `owner/name` or `owner/name:version`.
pub(super) fn of_version(text: &str) -> Option<&'static Model> {
    match text.split_once('/') {
        None => ALL.iter().find(|m| m.version == Some(text)),
        Some((owner, rest)) => match rest.split_once(':') {
            None => named(owner, rest),
            Some((name, version)) => named(owner, name).filter(|m| m.version == Some(version)),
        },
    }
}

impl Model {
    /// What is wrong with an input: `invalid_fields` of the answer.
    pub(super) fn faults(&self, input: &Map<String, Value>) -> Vec<Value> {
        let mut faults = Vec::new();
        let mut fault = |kind: &str, field: &str, description: String| {
            faults.push(json!({ "type": kind, "field": field, "description": description }));
        };
        if !input.contains_key("prompt") {
            fault("required", "input", "prompt is required".to_owned());
        }
        for (name, value) in input {
            let field = format!("input.{name}");
            let wanted = match name.as_str() {
                "prompt" | "aspect_ratio" | "output_format" => "string",
                "seed" | "num_outputs" => "integer",
                _ => continue,
            };
            let given = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(number) if number.is_f64() => "number",
                Value::Number(_) => "integer",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            if given != wanted {
                fault(
                    "invalid_type",
                    &field,
                    format!("Invalid type. Expected: {wanted}, given: {given}"),
                );
            } else if name == "aspect_ratio" && !self.ratios.is_empty() && !self.ratios.iter().any(|r| value == r) {
                let list = self.ratios.join(", ");
                fault("enum", &field, format!("{field} must be one of the following: {list}"));
            } else if name == "num_outputs" && !(1..=4).contains(&value.as_i64().unwrap_or_default()) {
                fault("number_lte", &field, "Must be between 1 and 4".to_owned());
            }
        }
        faults
    }

    /// `GET /v1/models/{owner}/{name}`.
    pub(super) fn describe(&self, public_url: &str) -> Value {
        json!({
            "url": format!("https://replicate.com/{}/{}", self.owner, self.name),
            "owner": self.owner,
            "name": self.name,
            "description": "A simulated model.",
            "visibility": "public",
            "is_official": self.version.is_none(),
            "github_url": null,
            "paper_url": null,
            "license_url": null,
            "run_count": 7,
            "cover_image_url": format!("{public_url}/files/cover.png"),
            "default_example": null,
            "latest_version": self.latest(),
        })
    }

    /// Its version, as the API shows one.
    pub(super) fn latest(&self) -> Value {
        let file = json!({ "type": "string", "format": "uri" });
        let output = match self.count {
            Some(_) => json!({ "type": "array", "items": file }),
            None => file,
        };
        let input =
            json!({ "type": "object", "required": ["prompt"], "properties": { "prompt": { "type": "string" } } });
        json!({
            "id": self.version.unwrap_or(HIDDEN),
            "created_at": "2026-01-01T00:00:00.000000Z",
            "cog_version": "0.16.8",
            "openapi_schema": { "openapi": "3.0.2", "components": { "schemas": { "Input": input, "Output": output } } },
        })
    }
}
