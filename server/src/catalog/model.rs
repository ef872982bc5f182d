//! A model: what clients see of it, what it costs, how its input is mapped.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

use crate::generation::MediaType;
use crate::ledger::Credits;

/// One `[[models]]` of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Public id; may contain slashes.
    pub id: String,
    /// Name of the provider entry.
    pub provider: String,
    /// The provider's own name of the model when no reference image is given.
    pub provider_model: String,
    /// The provider's own name when a reference image is given, if it is another one.
    pub provider_model_with_reference: Option<String>,
    /// What comes out.
    pub media_type: MediaType,
    /// For people.
    pub name: String,
    /// One line.
    pub description: String,
    /// Base price.
    pub credits: Credits,
    /// Integer parameters the price is multiplied by, in order.
    pub credits_per: Vec<String>,
    /// The parameter that says how many outputs are asked for, if there is one (`num_images`).
    pub count_param: Option<String>,
    /// `2048x2048`.
    pub max_resolution: String,
    /// File formats clients are told.
    pub formats: Vec<String>,
    /// Whether it can be used.
    pub status: ModelStatus,
    /// How long it usually takes; paces polling and the estimate shown to clients. Milliseconds.
    pub typical_ms: u64,
    /// When the host gives up, from submit to the provider. Milliseconds.
    pub deadline_ms: u64,
    /// Slowest polling. Milliseconds.
    pub poll_ceiling_ms: u64,
    /// Longest prompt, in characters.
    pub max_prompt_chars: usize,
    /// What the model does with a negative prompt.
    pub negative_prompt: Feature,
    /// What the model does with a reference image.
    pub reference_image: Feature,
    /// The reference image must be given.
    pub reference_image_required: bool,
    /// Client parameters besides the prompt, in the order of the file.
    pub params: Vec<Param>,
    /// Constants added to the provider's input.
    pub fixed: Map<String, Value>,
    /// The provider's name of the prompt.
    pub prompt_input: String,
    /// Example parameters shown to clients.
    pub example: Map<String, Value>,
    /// Other providers that can do the same, in order of preference.
    pub fallbacks: Vec<Fallback>,
}

/// One `[[models.fallbacks]]`: another way to the same result, at the same price. What the file leaves out is the model's.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    /// Name of the provider entry.
    pub provider: String,
    /// As [`Model::provider_model`].
    pub provider_model: String,
    /// As [`Model::provider_model_with_reference`].
    pub provider_model_with_reference: Option<String>,
    /// As [`Model::prompt_input`].
    pub prompt_input: String,
    /// As [`Model::negative_prompt`]; a call that has one does not go here when it is refused.
    pub negative_prompt: Feature,
    /// As [`Model::reference_image`]; a call that has one does not go here when it is refused.
    pub reference_image: Feature,
    /// As [`Model::fixed`].
    pub fixed: Map<String, Value>,
    /// Rules that replace those of the model's parameters, by the parameter's name.
    pub inputs: BTreeMap<String, InputRule>,
}

impl Model {
    /// Switched on by the operator.
    pub fn is_active(&self) -> bool {
        self.status != ModelStatus::Disabled
    }

    /// Names of the provider entries it may go to, in order of preference.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        let fallbacks = self.fallbacks.iter().map(|fallback| fallback.provider.as_str());
        std::iter::once(self.provider.as_str()).chain(fallbacks)
    }
}

/// Whether a model can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelStatus {
    /// Yes.
    Active,
    /// Yes, but it is going away; shown to operators.
    Deprecated,
    /// No: refused, and left out of the listings.
    Disabled,
}

/// An optional part of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feature {
    /// Sent under this name.
    Input(String),
    /// Refused with this reason.
    Refused(String),
}

/// A client parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// The contract's name.
    pub name: String,
    /// Type of the value.
    pub param_type: ParamType,
    /// Must be given.
    pub required: bool,
    /// Used when it is not given.
    pub default: Option<Value>,
    /// Allowed values; empty for any.
    pub allowed: Vec<Value>,
    /// Smallest value.
    pub min: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
    /// Longest string, in characters.
    pub max_length: Option<usize>,
    /// One line for `/docs`.
    pub description: String,
    /// How it reaches the provider.
    pub input: InputRule,
}

/// Type of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ParamType {
    String,
    Integer,
    Number,
    Boolean,
}

impl ParamType {
    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            ParamType::String => "string",
            ParamType::Integer => "integer",
            ParamType::Number => "number",
            ParamType::Boolean => "boolean",
        }
    }
}

/// How a client parameter becomes a part of the provider's input.
#[derive(Debug, Clone, PartialEq)]
pub enum InputRule {
    /// The provider has no such input: validated, kept with the generation, not sent. The text says so to clients.
    NotSent(String),
    /// Sent under this name as it is.
    Same(String),
    /// Sent under this name as text (`2` becomes `"2"`).
    Text(String),
    /// Sent under this name, each client value translated; every allowed value has an entry. Keys are the client
    /// value's text (`landscape_4_3`, `true`, `25`).
    Table(String, Map<String, Value>),
    /// Sent under this name: the smallest choice that is not below the number, else the largest, put into
    /// `pattern` in place of `{}` (`"{}s"`); as an integer when the pattern is empty.
    Nearest {
        /// The provider's name.
        name: String,
        /// What the provider accepts, ascending.
        choices: Vec<u32>,
        /// How the provider wants it written.
        pattern: String,
    },
    /// Sent under this name as `times * value + plus`, rounded to six decimals: for a scale that the provider counts
    /// in another direction or unit.
    Linear {
        /// The provider's name.
        name: String,
        /// Factor.
        times: f64,
        /// Offset.
        plus: f64,
    },
}

impl InputRule {
    /// The provider's name of it; `None` when it is not sent.
    pub fn input_name(&self) -> Option<&str> {
        match self {
            InputRule::NotSent(_) => None,
            InputRule::Same(name) | InputRule::Text(name) | InputRule::Table(name, _) => Some(name),
            InputRule::Nearest { name, .. } | InputRule::Linear { name, .. } => Some(name),
        }
    }
}
