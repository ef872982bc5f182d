//! `[[models]]`.

use serde_json::Map;

use super::{fallback, param, rules};
use crate::catalog::{Feature, Model, ModelStatus, Param, names};
use crate::document::{Section, Spot};
use crate::generation::MediaType;
use crate::ledger::Credits;

const MEDIA_TYPES: [(&str, MediaType); 3] = [
    ("image", MediaType::Image),
    ("video", MediaType::Video),
    ("audio", MediaType::Audio),
];
const STATUSES: [(&str, ModelStatus); 3] = [
    ("active", ModelStatus::Active),
    ("deprecated", ModelStatus::Deprecated),
    ("disabled", ModelStatus::Disabled),
];
/// A day: no provider works longer on a generation.
const DAY_MS: i64 = 24 * 3600 * 1000;
/// A price above this is a mistake.
const MAX_CREDITS: i64 = 1_000_000_000;

/// What a model does with a reference image.
pub(super) struct Reference {
    pub(super) feature: Feature,
    pub(super) required: bool,
    pub(super) provider_model: Option<String>,
}

/// Reads a model; `None` when something in it is wrong (which has been noted).
pub(super) fn read(mut s: Section<'_, '_>, providers: &[&str]) -> Option<Model> {
    let id = s.required_text("id", "\"vendor/model\"");
    if let Some(spot) = &id {
        check_id(&s, spot);
    }
    let provider = s.required_text("provider", "\"the name of a [providers.NAME]\"");
    let provider_model = s.text("provider_model");
    if let Some(spot) = &provider_model {
        check_provider_model(&s, spot);
    }
    let media_type = s.choice("media_type", &MEDIA_TYPES);
    if s.raw("media_type").is_none() {
        s.missing("media_type", "\"image\", \"video\" or \"audio\"");
    }
    let name = s.text("name");
    let description = s.required_text("description", "\"one line for clients\"");
    let credits = s.integer("credits", 0..=MAX_CREDITS);
    if s.raw("credits").is_none() {
        s.missing("credits", "the base price, a whole number");
    }
    let credits_per = s.texts("credits_per");
    let count_param = s.text("count_param");
    let max_resolution = s.required_text("max_resolution", "\"2048x2048\"");
    let formats = s.texts("formats");
    if s.raw("formats").is_none() {
        s.missing("formats", "[\"png\"]");
    }
    let status = s
        .choice("status", &STATUSES)
        .map_or(ModelStatus::Active, |spot| spot.value);
    let mut times = ["typical_ms", "deadline_ms", "poll_ceiling_ms"].map(|key| {
        if s.raw(key).is_none() {
            s.missing(key, "a time in milliseconds");
        }
        s.integer(key, 1..=DAY_MS)
    });
    if let [Some(typical), Some(deadline), _] = &times
        && deadline.value < typical.value
    {
        let line = deadline.line;
        s.fault(
            line,
            "`deadline_ms` is below `typical_ms`",
            "a deadline needs room above the typical time",
        );
    }
    let mut time = |i: usize| times[i].take().and_then(|spot| u64::try_from(spot.value).ok());
    let (typical_ms, deadline_ms, poll_ceiling_ms) = (time(0), time(1), time(2));
    let max_prompt_chars = s
        .integer("max_prompt_chars", 1..=100_000)
        .map_or(2000, |spot| spot.value);
    let prompt_input = s.text("prompt_input").map_or("prompt", |spot| spot.value);
    let negative_prompt = read_negative(&mut s);
    let reference = read_reference(&mut s);
    let fixed = s.json_table("fixed").map(|spot| spot.value).unwrap_or_default();
    let example = s.json_table("example");
    let mut params = Vec::new();
    let mut complete = true;
    let model = s.label.clone();
    for (name, section) in s.named_sections("params", |name| format!("{model}, parameter `{name}`")) {
        match param::read(name, section) {
            Some(param) => params.push(param),
            None => complete = false,
        }
    }
    let facts = rules::Facts {
        params: &params,
        complete,
        credits: credits.as_ref(),
        credits_per: credits_per.as_ref(),
        count_param: count_param.as_ref(),
        prompt_input,
        negative_prompt: negative_prompt.as_ref(),
        reference: reference.as_ref().map(|r| &r.feature),
        fixed: &fixed,
        example: example.as_ref(),
    };
    rules::check(&s, &facts);
    let main = fallback::Main {
        provider: provider.as_ref().map(|spot| spot.value),
        provider_model: provider_model.as_ref().or(id.as_ref()).map(|spot| spot.value),
        reference: reference.as_ref(),
        facts: &facts,
    };
    let fallbacks = fallback::read_all(&mut s, providers, &main);
    s.finish();

    let (id, reference) = (id?.value, reference?);
    Some(Model {
        id: id.to_owned(),
        provider: provider?.value.to_owned(),
        provider_model: provider_model.map_or(id, |spot| spot.value).to_owned(),
        provider_model_with_reference: reference.provider_model,
        media_type: media_type?.value,
        name: name.map_or_else(|| names::long_name(id), |spot| spot.value.to_owned()),
        description: description?.value.to_owned(),
        credits: Credits(credits?.value),
        credits_per: credits_per.map(|spot| spot.value).unwrap_or_default(),
        count_param: count_param.map(|spot| spot.value.to_owned()),
        max_resolution: max_resolution?.value.to_owned(),
        formats: formats?.value,
        status,
        typical_ms: typical_ms?,
        deadline_ms: deadline_ms?,
        poll_ceiling_ms: poll_ceiling_ms?,
        max_prompt_chars: usize::try_from(max_prompt_chars).ok()?,
        negative_prompt: negative_prompt?,
        reference_image: reference.feature,
        reference_image_required: reference.required,
        example: example_in_canonical_form(&params, example),
        params,
        fixed,
        prompt_input: prompt_input.to_owned(),
        fallbacks,
    })
}

fn example_in_canonical_form(
    params: &[Param],
    example: Option<Spot<Map<String, serde_json::Value>>>,
) -> Map<String, serde_json::Value> {
    let entries = example.map(|spot| spot.value).unwrap_or_default().into_iter();
    entries
        .map(|(name, value)| {
            let param = params.iter().find(|p| p.name == name);
            let canonical = param.and_then(|p| p.canonical(&value));
            (name, canonical.unwrap_or(value))
        })
        .collect()
}

fn check_id(s: &Section<'_, '_>, id: &Spot<&str>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let segment_ok = |seg: &str| seg.starts_with(|c: char| c.is_ascii_alphanumeric()) && seg.chars().all(allowed);
    if id.value.len() > 128 || !id.value.split('/').all(segment_ok) {
        s.fault(
            id.line,
            "the id cannot stand in a URL path",
            "use segments of a-z, A-Z, 0-9, `.`, `_` and `-` that begin with a letter or digit, with `/` between them, \
             at most 128 characters",
        );
    }
    // `/models/supported` and `/models/{id}/pricing` are routes of their own.
    let last = id.value.rsplit('/').next();
    if id.value == "supported" || last == Some("pricing") {
        s.fault(id.line, "the id is a route of the listings", "choose another id");
    }
}

pub(super) fn check_provider_model(s: &Section<'_, '_>, name: &Spot<&str>) {
    let bad_char = |c: char| !c.is_ascii_graphic() || "?#%\\\"<>".contains(c);
    let bad_segment = |seg: &str| seg.is_empty() || seg.chars().all(|c| c == '.');
    if name.value.chars().any(bad_char) || name.value.split('/').any(bad_segment) {
        s.fault(
            name.line,
            format_args!("the provider's model name `{}` cannot stand in a URL path", name.value),
            "write the name as the provider documents it, without host and query",
        );
    }
}

/// `{ input = "name" }` or `{ refused = "reason" }`.
fn read_feature(s: &mut Section<'_, '_>) -> Option<Feature> {
    let (input, refused) = (s.text("input"), s.text("refused"));
    let feature = match (input, refused) {
        (Some(name), None) => Feature::Input(name.value.to_owned()),
        (None, Some(reason)) => Feature::Refused(reason.value.to_owned()),
        _ => {
            s.fault(
                s.line,
                "needs one of `input` and `refused`",
                "write { input = \"the provider's name of it\" } or { refused = \"the reason clients read\" }",
            );
            return None;
        }
    };
    let (Feature::Input(text) | Feature::Refused(text)) = &feature;
    if text.trim().is_empty() {
        s.fault(s.line, "the text is empty", "write the provider's name or the reason");
        return None;
    }
    Some(feature)
}

fn open<'a, 't>(s: &mut Section<'a, 't>, key: &'static str) -> Option<Section<'a, 't>> {
    if s.raw(key).is_none() {
        s.missing(
            key,
            "{ input = \"the provider's name\" } or { refused = \"the reason clients read\" }",
        );
        return None;
    }
    let label = format!("{}, `{key}`", s.label);
    s.section(key, label)
}

pub(super) fn read_negative(s: &mut Section<'_, '_>) -> Option<Feature> {
    let mut section = open(s, "negative_prompt")?;
    let feature = read_feature(&mut section);
    section.finish();
    feature
}

pub(super) fn read_reference(s: &mut Section<'_, '_>) -> Option<Reference> {
    let mut section = open(s, "reference_image")?;
    let required = section.boolean("required");
    let provider_model = section.text("provider_model");
    if let Some(spot) = &provider_model {
        check_provider_model(&section, spot);
    }
    let feature = read_feature(&mut section);
    if matches!(feature, Some(Feature::Refused(_))) && (required.is_some() || provider_model.is_some()) {
        section.fault(
            section.line,
            "`required` and `provider_model` have no meaning for a refused image",
            "remove them",
        );
    }
    section.finish();
    Some(Reference {
        feature: feature?,
        required: required.is_some_and(|spot| spot.value),
        provider_model: provider_model.map(|spot| spot.value.to_owned()),
    })
}
