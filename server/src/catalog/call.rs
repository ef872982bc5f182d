//! A client's call against a model: validation, defaults, mapping, price.

use serde_json::{Map, Value};

use crate::generation::PriceBasis;
use crate::ledger::Credits;

/// What a client asked for.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct ClientCall<'a> {
    pub prompt: &'a str,
    pub negative_prompt: Option<&'a str>,
    pub reference_image_url: Option<&'a str>,
    pub parameters: &'a Map<String, Value>,
}

/// A call that can be submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidCall {
    /// Trimmed.
    pub prompt: String,
    /// Trimmed; an empty one is none.
    pub negative_prompt: Option<String>,
    /// A valid http(s) URL.
    pub reference_image_url: Option<String>,
    /// Known parameters, defaults applied, in the order of the model.
    pub parameters: Map<String, Value>,
    /// Names the model does not know.
    pub dropped: Vec<String>,
    /// The provider's own name of the model.
    pub provider_model: String,
    /// The provider's input as canonical JSON text.
    pub provider_input: String,
    /// What it costs.
    pub price: Credits,
    /// How the price came about.
    pub price_basis: PriceBasis,
}

/// What is wrong with a part of a call; becomes an item of the problem document's `errors`.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamFault {
    /// Where, for example `["parameters", "num_images"]` or `["prompt"]`.
    pub loc: Vec<String>,
    /// The rule and the fix, for example `must be between 1 and 4`.
    pub msg: String,
    /// Machine code: `missing`, `type`, `enum`, `less_than_equal`, `greater_than_equal`, `too_long`, `blank`, `url`,
    /// `not_supported`.
    pub fault: &'static str,
}

impl super::Model {
    /// Checks a call against the model: everything that is wrong at once, or the call ready to submit.
    pub fn check(&self, _call: &ClientCall<'_>) -> Result<ValidCall, Vec<ParamFault>> {
        Err(Vec::new())
    }
}
