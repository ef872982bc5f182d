//! `[[models.fallbacks]]`: the other providers of a model, in order of preference.
//!
//! What an entry leaves out is the model's. Price, parameters and what clients may send are the model's always.

use std::collections::BTreeMap;

use super::model::{self, Reference};
use super::{check_provider, param, rules};
use crate::catalog::{Fallback, Feature, InputRule, Param};
use crate::document::{Entry, Section, Spot, nearest, one_of};

/// What has been read of the model; parts that were wrong are missing.
pub(super) struct Main<'f> {
    pub(super) provider: Option<&'f str>,
    pub(super) provider_model: Option<&'f str>,
    pub(super) reference: Option<&'f Reference>,
    pub(super) facts: &'f rules::Facts<'f>,
}

/// Reads them; one that is wrong is left out (and has been noted).
pub(super) fn read_all(s: &mut Section<'_, '_>, providers: &[&str], main: &Main<'_>) -> Vec<Fallback> {
    let model = s.label.clone();
    let mut taken: Vec<(&str, &str)> = main.provider.zip(main.provider_model).into_iter().collect();
    let mut fallbacks = Vec::new();
    for (n, mut section) in (1..).zip(s.listed_sections("fallbacks")) {
        section.label = format!("{model}, fallback {n}");
        check_provider(&mut section, providers);
        let provider = section.required_text("provider", "\"the name of a [providers.NAME]\"");
        let name = section.required_text("provider_model", "\"the provider's own name of the model\"");
        if let Some(spot) = &name {
            model::check_provider_model(&section, spot);
        }
        let way = provider.as_ref().zip(name.as_ref()).map(|(p, n)| (p.value, n.value));
        if let Some(way) = way {
            if taken.contains(&way) {
                let what = format!("`{}` at provider `{}` is named before", way.1, way.0);
                section.fault(
                    section.line,
                    what,
                    "remove one; a provider that failed is not asked the same again",
                );
            }
            taken.push(way);
        }
        fallbacks.extend(read(section, way, main));
    }
    fallbacks
}

fn read(mut s: Section<'_, '_>, way: Option<(&str, &str)>, main: &Main<'_>) -> Option<Fallback> {
    let prompt_input = s
        .text("prompt_input")
        .map_or(main.facts.prompt_input, |spot| spot.value);
    let negative_prompt = match s.raw("negative_prompt") {
        Some(_) => model::read_negative(&mut s),
        None => main.facts.negative_prompt.cloned(),
    };
    let (reference_image, with_reference) = match s.raw("reference_image") {
        Some(_) => read_reference(&mut s).map(|r| (r.feature, r.provider_model)).unzip(),
        None => (main.facts.reference.cloned(), Some(None)),
    };
    check_features(&mut s, negative_prompt.as_ref(), reference_image.as_ref(), main);
    let fixed = s
        .json_table("fixed")
        .map_or_else(|| main.facts.fixed.clone(), |spot| spot.value);
    let inputs = read_inputs(&mut s, main.facts);
    let params: Vec<Param> = main.facts.params.iter().map(|param| sent_by(param, &inputs)).collect();
    let facts = rules::Facts {
        prompt_input,
        negative_prompt: negative_prompt.as_ref(),
        reference: reference_image.as_ref(),
        fixed: &fixed,
        ..*main.facts
    };
    rules::check_names(&s, &facts, &params);
    let prompt_input = prompt_input.to_owned();
    s.finish();

    let (provider, provider_model) = way?;
    Some(Fallback {
        provider: provider.to_owned(),
        provider_model: provider_model.to_owned(),
        provider_model_with_reference: with_reference?,
        prompt_input,
        negative_prompt: negative_prompt?,
        reference_image: reference_image?,
        fixed,
        inputs,
    })
}

fn read_reference(s: &mut Section<'_, '_>) -> Option<Reference> {
    let reference = model::read_reference(s)?;
    if reference.required {
        let what = "`required` in `reference_image` is a matter of the model";
        s.fault(s.line_of("reference_image"), what, "remove it here");
    }
    Some(reference)
}

/// A feature that no call has, or that every call has, is no matter of taste of a fallback.
fn check_features(s: &mut Section<'_, '_>, negative: Option<&Feature>, reference: Option<&Feature>, main: &Main<'_>) {
    for (key, there, here) in [
        ("negative_prompt", negative, main.facts.negative_prompt),
        ("reference_image", reference, main.facts.reference),
    ] {
        if let (Some(Feature::Input(_)), Some(Feature::Refused(_))) = (there, here) {
            let what = format!("`{key}` has an input, but the model refuses it");
            s.fault(s.line_of(key), what, "remove it here, or allow it in the model");
        }
    }
    let Some(model) = main.reference else { return };
    if model.required && matches!(reference, Some(Feature::Refused(_))) {
        let what = "`reference_image` is refused, but the model requires it";
        s.fault(
            s.line_of("reference_image"),
            what,
            "remove the fallback: no call could go there",
        );
    }
    // With the model's input name and this provider's other model, the image might be ignored, and paid for.
    if model.provider_model.is_some() && s.raw("reference_image").is_none() {
        let what = "`reference_image` is missing, and the model has another `provider_model` for calls with one";
        let remedy = "add `reference_image` = { input = \"...\" }, with `provider_model` if this provider has another \
                      name for it too, or { refused = \"...\" }";
        s.fault(s.line, what, remedy);
    }
}

/// `[models.fallbacks.inputs]`.
fn read_inputs(s: &mut Section<'_, '_>, facts: &rules::Facts<'_>) -> BTreeMap<String, InputRule> {
    let mut inputs = BTreeMap::new();
    for Entry { name, value, line } in s.entries("inputs").unwrap_or_default() {
        let written = Spot { value, line };
        match facts.params.iter().find(|param| param.name == name) {
            Some(param) => {
                let input = param::read_other_input(param, s, &written);
                inputs.extend(input.map(|input| (name.to_owned(), input)));
            }
            None if facts.complete => {
                let names: Vec<&str> = facts.params.iter().map(|p| p.name.as_str()).collect();
                let remedy = match nearest(name, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("name one of the model's parameters: {}", one_of(&names)),
                };
                s.fault(
                    written.line,
                    format_args!("`inputs` names `{name}`, which is not a parameter"),
                    remedy,
                );
            }
            None => {}
        }
    }
    inputs
}

/// The parameter as this provider is told of it.
fn sent_by(param: &Param, inputs: &BTreeMap<String, InputRule>) -> Param {
    let mut param = param.clone();
    if let Some(input) = inputs.get(&param.name) {
        param.input = input.clone();
    }
    param
}
