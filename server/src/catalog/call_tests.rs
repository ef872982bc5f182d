//! Calls against the shipped models: what is accepted, what is refused, what the provider gets, what it costs.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::shipped_tests::{assert_fits_fal, call, input_of, model, object, shipped};
use super::*;
use crate::ledger::Credits;

fn check(id: &str, parameters: Value) -> Result<ValidCall, Vec<ParamFault>> {
    model(id).check(&call(&object(parameters)))
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
