//! The shipped `providers.toml`: it sells what the contract says, and everything it lets through is an input that FAL's
//! published schemas accept.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::*;
use crate::clock::Micros;
use crate::ledger::Credits;

pub(super) fn shipped() -> &'static Registry {
    static SHIPPED: LazyLock<Registry> = LazyLock::new(|| {
        let text = include_str!("../../../providers.toml");
        Registry::from_toml(text, Path::new("providers.toml"), Micros(0)).unwrap_or_else(|e| panic!("{e}"))
    });
    &SHIPPED
}

pub(super) fn model(id: &str) -> Arc<Model> {
    shipped()
        .model(id)
        .unwrap_or_else(|| panic!("{id} is not shipped"))
        .clone()
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is not an object"),
    }
}

pub(super) fn call(parameters: &Map<String, Value>) -> ClientCall<'_> {
    ClientCall {
        prompt: "a cat",
        negative_prompt: None,
        reference_image_url: None,
        parameters,
    }
}

pub(super) fn input_of(valid: &ValidCall) -> Map<String, Value> {
    object(serde_json::from_str(&valid.provider_input).unwrap())
}

/// Contract §7.1: id, type, credits, formats, then parameter: type, default, and `min..max` or the allowed values.
#[test]
fn the_seed_models_are_the_contract_s() {
    let sizes = "square_hd|square|portrait_4_3|portrait_16_9|landscape_4_3|landscape_16_9";
    let flux = format!(
        "image_size string \"landscape_4_3\" {sizes}; num_images integer 1 1..4; output_format string \"jpeg\" jpeg|png; \
         guidance_scale number 3.5 1..20; num_inference_steps integer 28 1..50; safety_tolerance integer 2 1..6"
    );
    let imagen = format!(
        "image_size string \"landscape_4_3\" {sizes}; num_images integer 1 1..4; output_format string \"jpeg\" jpeg|png; \
         safety_tolerance integer 2 1..6"
    );
    let ratio = "aspect_ratio string \"16:9\" 16:9|9:16|1:1";
    let rows: [(&str, &str, i64, &str, String); 7] = [
        (
            "fal-ai/flux-pro/v1.1-ultra",
            "2048x2048",
            50,
            "jpg png webp",
            flux.clone(),
        ),
        ("fal-ai/flux-pro/kontext/max", "2048x2048", 60, "jpg png", flux),
        ("fal-ai/imagen4/preview/ultra", "2048x2048", 45, "jpg png", imagen),
        (
            "fal-ai/veo3",
            "1280x720",
            500,
            "mp4",
            format!(
                "duration number 5.0 1..10; {ratio}; quality string \"high\" medium|high; \
                 enable_prompt_expansion boolean true any"
            ),
        ),
        (
            "fal-ai/minimax/hailuo-02/pro/text-to-video",
            "1280x720",
            400,
            "mp4",
            format!(
                "duration number 6.0 1..10; {ratio}; fps integer 25 24|25|30; quality string \"high\" low|medium|high"
            ),
        ),
        (
            "fal-ai/kling-video/v2.1/master/text-to-video",
            "1280x720",
            350,
            "mp4",
            format!(
                "duration number 5.0 1..10; {ratio}; creativity number 0.7 0..1; \
                 camera_motion string \"none\" none|horizontal|vertical|zoom|pan"
            ),
        ),
        (
            "fal-ai/wan-pro/text-to-video",
            "1280x720",
            300,
            "mp4",
            format!("duration number 5.0 1..10; {ratio}; quality string \"high\" medium|high"),
        ),
    ];
    for (id, resolution, credits, formats, params) in rows {
        let model = model(id);
        assert_eq!(model.credits, Credits(credits), "{id}");
        assert_eq!(model.max_resolution, resolution, "{id}");
        assert_eq!(model.formats.join(" "), formats, "{id}");
        assert_eq!(model.max_prompt_chars, 2000, "{id}");
        let shown: Vec<String> = model.params.iter().map(param_line).collect();
        assert_eq!(shown.join("; "), params, "{id}");
        assert!(model.is_active(), "{id}");
    }
    assert_eq!(shipped().models.len(), 9);
    assert_eq!(model("fal-ai/imagen4/preview/ultra").status, ModelStatus::Deprecated);
}

fn param_line(p: &Param) -> String {
    let default = p.default.as_ref().map_or("none".into(), Value::to_string);
    let allowed: Vec<String> = p.allowed.iter().map(key_text).collect();
    let range = match (p.min, p.max, allowed.as_slice()) {
        (Some(min), Some(max), []) => format!("{min}..{max}"),
        (_, _, []) => "any".to_owned(),
        (_, _, allowed) => allowed.join("|"),
    };
    format!("{} {} {default} {range}", p.name, p.param_type.as_str())
}

#[test]
fn the_examples_are_the_contract_s() {
    for (id, example) in [
        (
            "fal-ai/flux-pro/v1.1-ultra",
            json!({"image_size": "landscape_4_3", "num_images": 1, "output_format": "jpeg", "guidance_scale": 3.5}),
        ),
        (
            "fal-ai/flux-pro/kontext/max",
            json!({"image_size": "portrait_4_3", "num_images": 1, "output_format": "jpeg", "guidance_scale": 3.5}),
        ),
        (
            "fal-ai/imagen4/preview/ultra",
            json!({"image_size": "landscape_16_9", "num_images": 1, "output_format": "jpeg"}),
        ),
        (
            "fal-ai/veo3",
            json!({"duration": 5.0, "aspect_ratio": "16:9", "quality": "high"}),
        ),
        (
            "fal-ai/minimax/hailuo-02/pro/text-to-video",
            json!({"duration": 6.0, "aspect_ratio": "16:9", "fps": 25, "quality": "high"}),
        ),
        (
            "fal-ai/kling-video/v2.1/master/text-to-video",
            json!({"duration": 5.0, "aspect_ratio": "16:9", "camera_motion": "pan", "creativity": 0.7}),
        ),
        (
            "fal-ai/wan-pro/text-to-video",
            json!({"duration": 5.0, "aspect_ratio": "16:9", "quality": "high"}),
        ),
    ] {
        assert_eq!(Value::Object(model(id).example.clone()), example, "{id}");
    }
}

/// What FAL accepts, from its published schemas: input name and rule. `text:` and the like say the JSON type, then the
/// allowed values or the range; `!` marks what must be there.
fn fal_schema(provider_model: &str) -> &'static [(&'static str, &'static str)] {
    const FLUX_RATIO: &str = "text:21:9,16:9,4:3,3:2,1:1,2:3,3:4,9:16,9:21";
    const TOLERANCE: &str = "text:1,2,3,4,5,6";
    match provider_model {
        "fal-ai/flux-pro/v1.1-ultra" => &[
            ("prompt", "!text"),
            ("aspect_ratio", FLUX_RATIO),
            ("num_images", "integer:1..4"),
            ("output_format", "text:jpeg,png"),
            ("safety_tolerance", TOLERANCE),
            ("seed", "integer"),
            ("raw", "boolean"),
            ("enhance_prompt", "boolean"),
            ("sync_mode", "boolean"),
            ("image_url", "text"),
            ("image_prompt_strength", "number:0..1"),
        ],
        "fal-ai/flux-pro/kontext/max" => &[
            ("prompt", "!text"),
            ("image_url", "!text"),
            ("aspect_ratio", FLUX_RATIO),
            ("guidance_scale", "number:1..20"),
            ("num_images", "integer:1..4"),
            ("output_format", "text:jpeg,png"),
            ("safety_tolerance", TOLERANCE),
            ("seed", "integer"),
            ("enhance_prompt", "boolean"),
            ("sync_mode", "boolean"),
        ],
        "fal-ai/flux-pro/kontext/max/text-to-image" => &[
            ("prompt", "!text"),
            ("aspect_ratio", FLUX_RATIO),
            ("guidance_scale", "number:1..20"),
            ("num_images", "integer:1..4"),
            ("output_format", "text:jpeg,png"),
            ("safety_tolerance", TOLERANCE),
            ("seed", "integer"),
            ("enhance_prompt", "boolean"),
            ("sync_mode", "boolean"),
        ],
        "fal-ai/imagen4/preview/ultra" => &[
            ("prompt", "!text"),
            ("aspect_ratio", "text:1:1,16:9,9:16,4:3,3:4"),
            ("num_images", "integer:1..4"),
            ("resolution", "text:1K,2K"),
            ("output_format", "text:png,jpeg,webp"),
            ("safety_tolerance", TOLERANCE),
            ("seed", "integer"),
            ("sync_mode", "boolean"),
        ],
        "fal-ai/veo3" => &[
            ("prompt", "!text"),
            ("aspect_ratio", "text:16:9,9:16"),
            ("duration", "text:4s,6s,8s"),
            ("resolution", "text:720p,1080p"),
            ("generate_audio", "boolean"),
            ("auto_fix", "boolean"),
            ("negative_prompt", "text"),
            ("seed", "integer"),
            ("safety_tolerance", TOLERANCE),
        ],
        "fal-ai/minimax/hailuo-02/pro/text-to-video" => &[("prompt", "!text"), ("prompt_optimizer", "boolean")],
        "fal-ai/kling-video/v2.1/master/text-to-video" => &[
            ("prompt", "!text"),
            ("duration", "text:5,10"),
            ("aspect_ratio", "text:16:9,9:16,1:1"),
            ("negative_prompt", "text"),
            ("cfg_scale", "number:0..1"),
        ],
        "fal-ai/wan-pro/text-to-video" => &[
            ("prompt", "!text"),
            ("seed", "integer"),
            ("enable_safety_checker", "boolean"),
        ],
        other => panic!("no schema of {other}"),
    }
}

pub(super) fn assert_fits_fal(valid: &ValidCall) {
    let schema = fal_schema(&valid.provider_model);
    let input = input_of(valid);
    let shown = format!("{}: {}", valid.provider_model, valid.provider_input);
    for (name, value) in &input {
        let rule = schema
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, rule)| rule.trim_start_matches('!'));
        let rule = rule.unwrap_or_else(|| panic!("`{name}` is not an input of {shown}"));
        let (kind, limits) = rule.split_once(':').unwrap_or((rule, ""));
        let number_in = |limits: &str| {
            limits.split_once("..").is_none_or(|(min, max)| {
                let n = value.as_f64().unwrap();
                min.parse::<f64>().unwrap() <= n && n <= max.parse::<f64>().unwrap()
            })
        };
        let fits = match kind {
            "text" => value
                .as_str()
                .is_some_and(|t| !t.is_empty() && (limits.is_empty() || limits.split(',').any(|l| l == t))),
            "integer" => (value.is_i64() || value.is_u64()) && number_in(limits),
            "number" => value.is_number() && number_in(limits),
            "boolean" => value.is_boolean(),
            other => panic!("unknown kind {other}"),
        };
        assert!(fits, "`{name}` must be {rule} in {shown}");
    }
    for (name, rule) in schema {
        assert!(
            !rule.starts_with('!') || input.contains_key(*name),
            "`{name}` is missing in {shown}"
        );
    }
}

/// Every allowed value, and for numbers the ends, the middle and what lies between the provider's choices.
fn values_of(param: &Param) -> Vec<Value> {
    if !param.allowed.is_empty() {
        return param.allowed.clone();
    }
    let (min, max) = (param.min.unwrap_or(0.0), param.max.unwrap_or(1000.0));
    match param.param_type {
        ParamType::Boolean => vec![json!(true), json!(false)],
        ParamType::Integer => (min as i64..=max.min(min + 100.0) as i64).map(Value::from).collect(),
        ParamType::Number => (0..=40)
            .map(|i| json!(min + (max - min) * f64::from(i) / 40.0))
            .collect(),
        ParamType::String => vec![json!("text")],
    }
}

#[test]
fn every_value_of_every_fal_model_becomes_an_input_that_fal_accepts() {
    let registry = shipped();
    let mut calls = 0;
    for model in registry.models.iter().filter(|m| m.provider == "fal") {
        let reference = matches!(model.reference_image, Feature::Input(_)).then_some("https://example.com/a.png");
        let negative = matches!(model.negative_prompt, Feature::Input(_)).then_some("blur");
        let mut cases = vec![Map::new(), model.example.clone()];
        for param in &model.params {
            cases.extend(
                values_of(param)
                    .into_iter()
                    .map(|v| Map::from_iter([(param.name.clone(), v)])),
            );
        }
        for parameters in &cases {
            for (negative_prompt, reference_image_url) in [(None, None), (negative, reference)] {
                let call = ClientCall {
                    negative_prompt,
                    reference_image_url,
                    ..call(parameters)
                };
                let valid = model
                    .check(&call)
                    .unwrap_or_else(|e| panic!("{}: {parameters:?}: {e:?}", model.id));
                assert_fits_fal(&valid);
                calls += 1;
            }
        }
    }
    assert!(calls > 500, "{calls}");
}
