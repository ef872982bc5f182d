//! A client's call against a model: validation, defaults, mapping, price.
//!
//! Nothing is clamped, cut or coerced silently: a call is valid as a whole, or every fault in it is named. The only
//! thing that is left out is a parameter the model does not know, and its name is given back.

use serde_json::{Map, Value};
use url::Url;

use super::{Fallback, Feature, InputRule, Model};
use crate::generation::{PriceBasis, Route};
use crate::ledger::Credits;

/// Most parameters of one call, known or not; keeps what is stored with a generation small.
const MAX_PARAMETERS: usize = 100;
/// Longest kept name of a dropped parameter, in characters.
const MAX_DROPPED_NAME: usize = 100;
/// Longest URL, in bytes.
const MAX_URL: usize = 2048;

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
    /// Known parameters, defaults applied.
    pub parameters: Map<String, Value>,
    /// Names the model does not know.
    pub dropped: Vec<String>,
    /// Name of the provider entry.
    pub provider: String,
    /// The provider's own name of the model.
    pub provider_model: String,
    /// The provider's input as canonical JSON text: keys in alphabetical order, no white space.
    pub provider_input: String,
    /// The other ways to go, in order of preference.
    pub fallbacks: Vec<Route>,
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
    /// The rule and the fix, for example `num_images must be an integer between 1 and 4; 9 is too large`.
    pub msg: String,
    /// Machine code: `missing`, `type`, `enum`, `less_than_equal`, `greater_than_equal`, `too_long`, `blank`, `url`,
    /// `not_supported`.
    pub fault: &'static str,
}

impl ParamFault {
    fn new(loc: &[&str], fault: &'static str, msg: impl Into<String>) -> Self {
        ParamFault {
            loc: loc.iter().map(|&part| part.to_owned()).collect(),
            msg: msg.into(),
            fault,
        }
    }
}

impl Model {
    /// Checks a call and prepares everything that submitting it needs. All faults at once.
    pub fn check(&self, call: &ClientCall<'_>) -> Result<ValidCall, Vec<ParamFault>> {
        let mut faults = Vec::new();
        let prompt = self.check_prompt(call.prompt, &mut faults);
        let negative_prompt = self.check_negative_prompt(call.negative_prompt, &mut faults);
        let reference_image_url = self.check_reference(call.reference_image_url, &mut faults);
        let parameters = self.check_parameters(call.parameters, &mut faults);
        let price = if faults.is_empty() {
            self.price(&parameters).map_err(|fault| faults.push(fault)).ok()
        } else {
            None
        };
        let (Some((price, price_basis)), []) = (price, faults.as_slice()) else {
            return Err(faults);
        };

        let checked = Checked {
            prompt: &prompt,
            negative_prompt: negative_prompt.as_deref(),
            reference_image_url: reference_image_url.as_deref(),
            parameters: &parameters,
        };
        let first = self.route(&checked);
        let fallbacks = self.fallbacks.iter().filter_map(|f| f.route(self, &checked)).collect();
        Ok(ValidCall {
            provider: first.provider,
            provider_model: first.provider_model,
            provider_input: first.provider_input,
            fallbacks,
            dropped: self.dropped(call.parameters),
            prompt,
            negative_prompt,
            reference_image_url,
            parameters,
            price,
            price_basis,
        })
    }

    /// The way to the model's own provider.
    fn route(&self, call: &Checked<'_>) -> Route {
        Way {
            provider: &self.provider,
            provider_model: &self.provider_model,
            provider_model_with_reference: self.provider_model_with_reference.as_deref(),
            prompt_input: &self.prompt_input,
            negative_prompt: &self.negative_prompt,
            reference_image: &self.reference_image,
            fixed: &self.fixed,
        }
        .route(self, call, |_| None)
    }

    /// What a call with these checked parameters costs: base credits times the declared factors.
    fn price(&self, parameters: &Map<String, Value>) -> Result<(Credits, PriceBasis), ParamFault> {
        let mut price = self.credits.0;
        let mut factors = Vec::with_capacity(self.credits_per.len());
        for name in &self.credits_per {
            let loc = ["parameters", name.as_str()];
            let Some(factor) = parameters.get(name).and_then(Value::as_i64).filter(|f| *f > 0) else {
                let msg = format!("{name} must be given as a positive integer: the price depends on it");
                return Err(ParamFault::new(&loc, "missing", msg));
            };
            price = price.checked_mul(factor).ok_or_else(|| {
                let msg = format!("{name} makes the price too large to count; ask for less");
                ParamFault::new(&loc, "less_than_equal", msg)
            })?;
            factors.push((name.clone(), factor));
        }
        let count = self.count_param.as_ref().and_then(|name| parameters.get(name));
        let basis = PriceBasis {
            base: self.credits,
            factors,
            count: count
                .and_then(Value::as_u64)
                .and_then(|count| u32::try_from(count).ok()),
        };
        Ok((Credits(price), basis))
    }

    fn check_prompt(&self, prompt: &str, faults: &mut Vec<ParamFault>) -> String {
        let prompt = prompt.trim();
        if prompt.is_empty() {
            let msg = "prompt must not be blank: describe what to generate";
            faults.push(ParamFault::new(&["prompt"], "blank", msg));
        }
        self.check_text("prompt", prompt, faults);
        prompt.to_owned()
    }

    fn check_text(&self, name: &str, text: &str, faults: &mut Vec<ParamFault>) {
        let (length, longest) = (text.chars().count(), self.max_prompt_chars);
        if length > longest {
            let msg = format!("{name} must have at most {longest} characters; it has {length}");
            faults.push(ParamFault::new(&[name], "too_long", msg));
        }
        if text.contains('\0') {
            let msg = format!("{name} must not contain the character U+0000");
            faults.push(ParamFault::new(&[name], "type", msg));
        }
    }

    fn check_negative_prompt(&self, given: Option<&str>, faults: &mut Vec<ParamFault>) -> Option<String> {
        let text = given.map(str::trim).filter(|text| !text.is_empty())?;
        match &self.negative_prompt {
            Feature::Input(_) => self.check_text("negative_prompt", text, faults),
            Feature::Refused(reason) => faults.push(not_supported("negative_prompt", &self.id, reason)),
        }
        Some(text.to_owned())
    }

    fn check_reference(&self, given: Option<&str>, faults: &mut Vec<ParamFault>) -> Option<String> {
        const NAME: &str = "reference_image_url";
        let Some(text) = given.map(str::trim).filter(|text| !text.is_empty()) else {
            if self.reference_image_required {
                let msg = format!("{NAME} must be given: {} edits an image", self.id);
                faults.push(ParamFault::new(&[NAME], "missing", msg));
            }
            return None;
        };
        if let Feature::Refused(reason) = &self.reference_image {
            faults.push(not_supported(NAME, &self.id, reason));
            return None;
        }
        if text.len() > MAX_URL {
            let msg = format!("{NAME} must have at most {MAX_URL} bytes; it has {}", text.len());
            faults.push(ParamFault::new(&[NAME], "too_long", msg));
            return None;
        }
        let url = Url::parse(text).ok().filter(|url| {
            let plain = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|h| !h.is_empty()) && plain
        });
        if url.is_none() {
            let msg = format!(
                "{NAME} must be an absolute http or https URL without user name and password, \
                 for example https://example.com/image.png"
            );
            faults.push(ParamFault::new(&[NAME], "url", msg));
        }
        // The parsed form, so that the URL that was checked is the one that is fetched.
        url.map(String::from)
    }

    fn check_parameters(&self, given: &Map<String, Value>, faults: &mut Vec<ParamFault>) -> Map<String, Value> {
        if given.len() > MAX_PARAMETERS {
            let msg = format!(
                "parameters must hold at most {MAX_PARAMETERS} names; it holds {}",
                given.len()
            );
            faults.push(ParamFault::new(&["parameters"], "too_long", msg));
        }
        let mut accepted = Map::new();
        for param in &self.params {
            let loc = ["parameters", param.name.as_str()];
            match (given.get(&param.name).filter(|value| !value.is_null()), &param.default) {
                (Some(value), _) => match param.accept(value) {
                    Ok(value) => {
                        accepted.insert(param.name.clone(), value);
                    }
                    Err(refusal) => faults.push(ParamFault::new(&loc, refusal.fault, refusal.msg)),
                },
                (None, Some(default)) => {
                    accepted.insert(param.name.clone(), default.clone());
                }
                (None, None) if param.required => {
                    let msg = format!("{} must be given: {}", param.name, param.rule());
                    faults.push(ParamFault::new(&loc, "missing", msg));
                }
                (None, None) => {}
            }
        }
        accepted
    }

    fn dropped(&self, given: &Map<String, Value>) -> Vec<String> {
        let unknown = given
            .keys()
            .filter(|name| !self.params.iter().any(|p| p.name == **name));
        unknown
            .map(|name| {
                let kept = name.chars().take(MAX_DROPPED_NAME);
                kept.map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c })
                    .collect()
            })
            .collect()
    }
}

/// The parts of a call that go to a provider, checked.
struct Checked<'a> {
    prompt: &'a str,
    negative_prompt: Option<&'a str>,
    reference_image_url: Option<&'a str>,
    parameters: &'a Map<String, Value>,
}

/// How a provider wants to be told.
struct Way<'a> {
    provider: &'a str,
    provider_model: &'a str,
    provider_model_with_reference: Option<&'a str>,
    prompt_input: &'a str,
    negative_prompt: &'a Feature,
    reference_image: &'a Feature,
    fixed: &'a Map<String, Value>,
}

impl Way<'_> {
    /// `rule` may say otherwise than the parameter how it is sent.
    fn route<'r>(&self, model: &Model, call: &Checked<'_>, rule: impl Fn(&str) -> Option<&'r InputRule>) -> Route {
        let mut input = self.fixed.clone();
        input.insert(self.prompt_input.to_owned(), Value::from(call.prompt));
        for (feature, text) in [
            (self.negative_prompt, call.negative_prompt),
            (self.reference_image, call.reference_image_url),
        ] {
            if let (Feature::Input(name), Some(text)) = (feature, text) {
                input.insert(name.clone(), Value::from(text));
            }
        }
        for param in &model.params {
            let rule = rule(&param.name).unwrap_or(&param.input);
            let sent = call.parameters.get(&param.name).and_then(|value| rule.apply(value));
            if let Some((name, value)) = sent {
                input.insert(name.to_owned(), value);
            }
        }
        let with_reference = self.provider_model_with_reference;
        let with_reference = with_reference.filter(|_| call.reference_image_url.is_some());
        Route {
            provider: self.provider.to_owned(),
            provider_model: with_reference.unwrap_or(self.provider_model).to_owned(),
            provider_input: canonical_text(input),
        }
    }
}

impl Fallback {
    /// The way to this provider; `None` when it cannot do what the call asks for.
    fn route(&self, model: &Model, call: &Checked<'_>) -> Option<Route> {
        let asked = [
            (&self.negative_prompt, call.negative_prompt),
            (&self.reference_image, call.reference_image_url),
        ];
        if asked
            .iter()
            .any(|(feature, given)| given.is_some() && matches!(feature, Feature::Refused(_)))
        {
            return None;
        }
        let way = Way {
            provider: &self.provider,
            provider_model: &self.provider_model,
            provider_model_with_reference: self.provider_model_with_reference.as_deref(),
            prompt_input: &self.prompt_input,
            negative_prompt: &self.negative_prompt,
            reference_image: &self.reference_image,
            fixed: &self.fixed,
        };
        Some(way.route(model, call, |name| self.inputs.get(name)))
    }
}

fn not_supported(name: &str, model: &str, reason: &str) -> ParamFault {
    ParamFault::new(
        &[name],
        "not_supported",
        format!("{name} is not supported by {model}: {reason}"),
    )
}

/// JSON text with all keys in alphabetical order, whatever map serde_json was built with.
fn canonical_text(map: Map<String, Value>) -> String {
    let mut value = Value::Object(map);
    value.sort_all_objects();
    value.to_string()
}
