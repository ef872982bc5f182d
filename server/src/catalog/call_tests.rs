//! Calls against the shipped models: what is accepted, what is refused, what the provider gets, what it costs.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::*;
use crate::clock::Micros;
use crate::ledger::Credits;

fn shipped() -> &'static Registry {
    static SHIPPED: LazyLock<Registry> = LazyLock::new(|| {
        let text = include_str!("../../../providers.toml");
        Registry::from_toml(text, Path::new("providers.toml"), Micros(0)).unwrap_or_else(|e| panic!("{e}"))
    });
    &SHIPPED
}

fn model(id: &str) -> Arc<Model> {
    shipped()
        .model(id)
        .unwrap_or_else(|| panic!("{id} is not shipped"))
        .clone()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is not an object"),
    }
}

fn call(parameters: &Map<String, Value>) -> ClientCall<'_> {
    ClientCall {
        prompt: "a cat",
        negative_prompt: None,
        reference_image_url: None,
        parameters,
    }
}

fn check(id: &str, parameters: Value) -> Result<ValidCall, Vec<ParamFault>> {
    model(id).check(&call(&object(parameters)))
}

fn input_of(valid: &ValidCall) -> Map<String, Value> {
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

fn assert_fits_fal(valid: &ValidCall) {
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

#[test]
fn inputs_are_canonical_text() {
    let input = |id, parameters| check(id, parameters).unwrap().provider_input;
    assert_eq!(
        input(
            "fal-ai/flux-pro/v1.1-ultra",
            json!({"image_size": "portrait_16_9", "num_images": 2})
        ),
        r#"{"aspect_ratio":"9:16","num_images":2,"output_format":"jpeg","prompt":"a cat","safety_tolerance":"2","sync_mode":false}"#
    );
    assert_eq!(
        input("fal-ai/veo3", json!({})),
        r#"{"aspect_ratio":"16:9","auto_fix":true,"duration":"6s","generate_audio":true,"prompt":"a cat","resolution":"1080p"}"#
    );
    assert_eq!(
        input(
            "fal-ai/kling-video/v2.1/master/text-to-video",
            json!({"duration": 6, "camera_motion": "zoom"})
        ),
        r#"{"aspect_ratio":"16:9","cfg_scale":0.3,"duration":"10","prompt":"a cat"}"#
    );
    assert_eq!(
        input("fal-ai/minimax/hailuo-02/pro/text-to-video", json!({})),
        r#"{"prompt":"a cat","prompt_optimizer":true}"#
    );
    assert_eq!(
        input("sandbox/image", json!({"seed": 18446744073709551615u64})),
        r#"{"image_size":"landscape_4_3","latency_ms":2000,"num_images":1,"outcome":"ok","prompt":"a cat","seed":18446744073709551615}"#
    );
    // The same call in other words is the same input.
    assert_eq!(
        input("sandbox/image", json!({"num_images": 2.0, "seed": null})),
        input("sandbox/image", json!({"num_images": 2}))
    );
}

#[test]
fn kontext_has_an_endpoint_with_and_one_without_an_image() {
    let model = model("fal-ai/flux-pro/kontext/max");
    let none = Map::new();
    let valid = model.check(&call(&none)).unwrap();
    assert_eq!(valid.provider_model, "fal-ai/flux-pro/kontext/max/text-to-image");
    let with = ClientCall {
        reference_image_url: Some(" https://example.com/a.png "),
        ..call(&none)
    };
    let valid = model.check(&with).unwrap();
    assert_eq!(valid.provider_model, "fal-ai/flux-pro/kontext/max");
    assert_eq!(valid.reference_image_url.as_deref(), Some("https://example.com/a.png"));
    assert_eq!(input_of(&valid)["image_url"], "https://example.com/a.png");
}

#[test]
fn the_price_counts_images_and_says_how() {
    let valid = check("sandbox/image", json!({"num_images": 3})).unwrap();
    assert_eq!(valid.price, Credits(15));
    assert_eq!(valid.price_basis.base, Credits(5));
    assert_eq!(valid.price_basis.factors, [("num_images".to_owned(), 3)]);
    assert_eq!(valid.price_basis.count, Some(3));
    let valid = check("fal-ai/veo3", json!({"duration": 10})).unwrap();
    assert_eq!((valid.price, valid.price_basis.count), (Credits(500), None));
}

#[test]
fn a_price_that_cannot_be_counted_is_refused() {
    let mut model = (*model("sandbox/image")).clone();
    model.credits = Credits(i64::MAX / 2);
    let parameters = object(json!({"num_images": 3}));
    let faults = model.check(&call(&parameters)).unwrap_err();
    assert_eq!(faults[0].loc, ["parameters", "num_images"]);
    assert!(faults[0].msg.contains("too large"));
}

#[test]
fn all_faults_come_at_once() {
    let parameters = object(json!({
        "num_images": 9, "image_size": "huge", "seed": -1, "latency_ms": "5", "outcome": ["ok"], "steps": 3,
    }));
    let call = ClientCall {
        prompt: "  \n ",
        negative_prompt: Some("blur"),
        reference_image_url: Some("https://example.com/a.png"),
        parameters: &parameters,
    };
    let faults = model("sandbox/image").check(&call).unwrap_err();
    let shown: Vec<String> = faults
        .iter()
        .map(|f| format!("{} {}: {}", f.loc.join("."), f.fault, f.msg))
        .collect();
    assert_eq!(
        shown,
        [
            "prompt blank: prompt must not be blank: describe what to generate",
            "negative_prompt not_supported: negative_prompt is not supported by sandbox/image: the sandbox draws from the \
             prompt alone",
            "reference_image_url not_supported: reference_image_url is not supported by sandbox/image: the sandbox draws \
             from the prompt alone",
            "parameters.image_size enum: image_size must be one of \"square_hd\", \"square\", \"portrait_4_3\", \
             \"portrait_16_9\", \"landscape_4_3\" or \"landscape_16_9\"; another value was given",
            "parameters.num_images less_than_equal: num_images must be an integer between 1 and 4; 9 is too large",
            "parameters.seed greater_than_equal: seed must be an integer of at least 0; -1 is too small",
            "parameters.latency_ms type: latency_ms must be an integer between 0 and 600000; a string was given",
            "parameters.outcome type: outcome must be one of \"ok\", \"fail\", \"refuse\" or \"hang\"; an array was given",
        ]
    );
}

#[test]
fn unknown_names_are_dropped_and_named() {
    let valid = check(
        "sandbox/image",
        json!({"steps": 3, "prompt": "other", "fal_webhook": {"a": [1]}}),
    )
    .unwrap();
    assert_eq!(valid.dropped, ["fal_webhook", "prompt", "steps"]);
    assert_eq!(valid.prompt, "a cat");
    assert!(!valid.provider_input.contains("fal_webhook") && !valid.provider_input.contains("other"));
    let many: Map<String, Value> = (0..101).map(|i| (format!("p{i}"), Value::Null)).collect();
    assert_eq!(
        model("sandbox/image").check(&call(&many)).unwrap_err()[0].fault,
        "too_long"
    );
    let long = object(json!({ "x".repeat(5000): 1 }));
    assert_eq!(
        model("sandbox/image").check(&call(&long)).unwrap().dropped,
        ["x".repeat(100)]
    );
}

#[test]
fn prompts_are_trimmed_and_bounded_in_characters() {
    let none = Map::new();
    let with = |prompt: &str| {
        let call = ClientCall { prompt, ..call(&none) };
        model("sandbox/image").check(&call)
    };
    assert_eq!(with("  a cat\n").unwrap().prompt, "a cat");
    assert!(with(&"é".repeat(2000)).is_ok());
    let faults = with(&"é".repeat(2001)).unwrap_err();
    assert_eq!(faults[0].msg, "prompt must have at most 2000 characters; it has 2001");
    assert_eq!(faults[0].fault, "too_long");
    assert_eq!(with("a\0b").unwrap_err()[0].fault, "type");
}

#[test]
fn reference_images_are_plain_web_addresses() {
    let none = Map::new();
    let with = |url: &str| {
        let call = ClientCall {
            reference_image_url: Some(url),
            ..call(&none)
        };
        model("fal-ai/flux-pro/v1.1-ultra").check(&call)
    };
    for url in [
        "ftp://a/b",
        "file:///etc/passwd",
        "data:image/png;base64,AA",
        "/a.png",
        "a.png",
        "https://u:p@a/b",
        "http://",
    ] {
        assert_eq!(with(url).unwrap_err()[0].fault, "url", "{url}");
    }
    assert_eq!(
        with(&format!("https://a/{}", "x".repeat(2048))).unwrap_err()[0].fault,
        "too_long"
    );
    assert_eq!(with("  ").unwrap().reference_image_url, None);
    assert!(with("http://a.example/b?c=d").is_ok());

    let mut edits_only = (*model("fal-ai/flux-pro/v1.1-ultra")).clone();
    edits_only.reference_image_required = true;
    let faults = edits_only.check(&call(&none)).unwrap_err();
    assert_eq!(
        (faults[0].fault, faults[0].loc[0].as_str()),
        ("missing", "reference_image_url")
    );
}

#[test]
fn a_required_parameter_must_be_given() {
    let mut model = (*model("sandbox/image")).clone();
    model.params[2].required = true;
    let null = object(json!({"seed": null}));
    let faults = model.check(&call(&null)).unwrap_err();
    assert_eq!(faults[0].fault, "missing");
    assert_eq!(faults[0].msg, "seed must be given: an integer of at least 0");
}

#[test]
fn the_listing_is_sorted_and_specified() {
    let mut models = shipped().models.clone();
    by_type_then_credits(&mut models);
    let credits: Vec<i64> = models.iter().map(|m| m.credits.0).collect();
    assert_eq!(credits, [5, 45, 50, 60, 20, 300, 350, 400, 500]);
    let specs = model("fal-ai/veo3").parameter_specs();
    assert_eq!(specs["prompt"]["required"], true);
    assert_eq!(specs["prompt"]["max_length"], 2000);
    assert_eq!(specs["duration"]["default"], 5.0);
    assert_eq!(specs["quality"]["enum"], json!(["medium", "high"]));
    let specs = model("sandbox/image").parameter_specs();
    assert_eq!(
        (&specs["num_images"]["min"], &specs["num_images"]["max"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(specs["seed"].get("default"), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-20i64..20).prop_map(Value::from),
    ];
    let word = prop_oneof![
        ".*",
        Just("landscape_4_3".to_owned()),
        Just("16:9".to_owned()),
        Just("high".to_owned())
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        word.prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".*", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Never panics; what is accepted costs at least the base price, fits FAL and survives being checked again.
    #[test]
    fn any_parameters_are_judged(
        values in prop::collection::vec(any_json(), 12),
        given in prop::collection::vec(any::<bool>(), 12),
        prompt in ".{0,40}",
        reference in prop::option::of(".{0,40}"),
    ) {
        for model in &shipped().models {
            let named = model.params.iter().map(|p| p.name.clone()).chain(["other".to_owned()]);
            let chosen = named.zip(values.iter().zip(&given)).filter(|(_, (_, given))| **given);
            let parameters: Map<String, Value> = chosen.map(|(name, (value, _))| (name, value.clone())).collect();
            let call = ClientCall {
                prompt: &prompt,
                negative_prompt: None,
                reference_image_url: reference.as_deref(),
                parameters: &parameters,
            };
            match model.check(&call) {
                Ok(valid) => {
                    prop_assert!(valid.price >= model.credits);
                    if model.provider == "fal" {
                        assert_fits_fal(&valid);
                    }
                    let again = ClientCall { prompt: &valid.prompt, parameters: &valid.parameters, ..call };
                    let again = model.check(&again).unwrap();
                    prop_assert_eq!(again.provider_input, valid.provider_input);
                    prop_assert_eq!(again.price, valid.price);
                }
                Err(faults) => prop_assert!(!faults.is_empty() && faults.iter().all(|f| !f.msg.is_empty())),
            }
        }
    }
}
