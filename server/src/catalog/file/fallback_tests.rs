//! Models with several providers: how they are read, what is refused, and what each provider is sent.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::{Map, Value, json};

use super::*;
use crate::catalog::{ClientCall, Feature, InputRule};
use crate::generation::Route;

const FILE: &str = r#"
[providers.first]
kind = "sandbox"
[providers.second]
kind = "sandbox"

[[models]]
id = "a/b"
provider = "first"
media_type = "image"
description = "d"
credits = 5
max_resolution = "8x8"
formats = ["png"]
typical_ms = 1
deadline_ms = 2
poll_ceiling_ms = 1
negative_prompt = { input = "negative" }
reference_image = { input = "image_url" }
fixed = { sync = false }

[models.params.n]
type = "integer"
default = 1
min = 1
max = 4

[models.params.size]
type = "string"
default = "s"
allowed = ["s", "l"]

[[models.fallbacks]]
provider = "second"
provider_model = "other/b"

[[models.fallbacks]]
provider = "second"
provider_model = "third/b"
prompt_input = "text"
negative_prompt = { refused = "it has none" }
reference_image = { input = "source", provider_model = "third/edit" }
fixed = { quality = "high" }

[models.fallbacks.inputs]
n = "count"
size = { name = "shape", table = { s = "1:1", l = "16:9" } }
"#;

fn load(text: &str) -> Result<Registry, RegistryErrors> {
    Registry::from_toml(text, Path::new("providers.toml"), Micros(7))
}

fn routes(negative_prompt: Option<&str>, reference_image_url: Option<&str>, parameters: Value) -> Vec<Route> {
    let parameters: Map<String, Value> = parameters.as_object().unwrap().clone();
    let call = ClientCall {
        prompt: "a cat",
        negative_prompt,
        reference_image_url,
        parameters: &parameters,
    };
    let registry = load(FILE).unwrap_or_else(|e| panic!("{e}"));
    let valid = registry.model("a/b").unwrap().check(&call).unwrap();
    let first = Route {
        provider: valid.provider,
        provider_model: valid.provider_model,
        provider_input: valid.provider_input,
    };
    std::iter::once(first).chain(valid.fallbacks).collect()
}

fn route(provider: &str, provider_model: &str, provider_input: &str) -> Route {
    Route {
        provider: provider.into(),
        provider_model: provider_model.into(),
        provider_input: provider_input.into(),
    }
}

#[test]
fn what_a_fallback_leaves_out_is_the_model_s() {
    let registry = load(FILE).unwrap_or_else(|e| panic!("{e}"));
    let model = registry.model("a/b").unwrap();
    assert_eq!(model.providers().collect::<Vec<_>>(), ["first", "second", "second"]);
    let [plain, own] = &model.fallbacks[..] else {
        panic!("{:?}", model.fallbacks)
    };
    assert_eq!(
        (plain.provider.as_str(), plain.provider_model.as_str()),
        ("second", "other/b")
    );
    assert_eq!((&plain.prompt_input, &plain.fixed), (&model.prompt_input, &model.fixed));
    assert_eq!(
        (&plain.negative_prompt, &plain.reference_image),
        (&model.negative_prompt, &model.reference_image)
    );
    assert!(plain.inputs.is_empty() && plain.provider_model_with_reference.is_none());
    assert_eq!(own.negative_prompt, Feature::Refused("it has none".into()));
    assert_eq!(own.provider_model_with_reference.as_deref(), Some("third/edit"));
    assert_eq!(own.inputs["n"], InputRule::Same("count".into()));
}

#[test]
fn every_provider_is_sent_its_own_words() {
    let plain = routes(None, None, json!({"n": 2, "size": "l"}));
    assert_eq!(
        plain,
        [
            route("first", "a/b", r#"{"n":2,"prompt":"a cat","size":"l","sync":false}"#),
            route(
                "second",
                "other/b",
                r#"{"n":2,"prompt":"a cat","size":"l","sync":false}"#
            ),
            route(
                "second",
                "third/b",
                r#"{"count":2,"quality":"high","shape":"16:9","text":"a cat"}"#
            ),
        ]
    );
    let image = routes(None, Some("https://example.com/a.png"), json!({}));
    assert_eq!(
        image[2],
        route(
            "second",
            "third/edit",
            r#"{"count":1,"quality":"high","shape":"1:1","source":"https://example.com/a.png","text":"a cat"}"#
        )
    );
}

#[test]
fn a_call_does_not_go_where_a_part_of_it_is_refused() {
    let routes = routes(Some("blur"), None, json!({}));
    let models: Vec<&str> = routes.iter().map(|r| r.provider_model.as_str()).collect();
    assert_eq!(models, ["a/b", "other/b"]);
    assert!(routes[1].provider_input.contains(r#""negative":"blur""#), "{routes:?}");
}

/// What to replace in the file, and every fault that it makes.
#[test]
fn each_mistake_of_a_fallback_is_named_with_its_line() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "provider = \"second\"\nprovider_model = \"other/b\"",
            "provider = \"secnd\"\nprovider_model = \"other/b\"",
            &["34: model `a/b`, fallback 1: there is no provider `secnd`; did you mean `second`?"],
        ),
        (
            "provider = \"second\"\nprovider_model = \"other/b\"",
            "provider = \"zzz\"\nprovider_model = \"other/b\"",
            &[
                "34: model `a/b`, fallback 1: there is no provider `zzz`; write `first` or `second` or add [providers.zzz]",
            ],
        ),
        (
            "provider = \"second\"\nprovider_model = \"other/b\"",
            "provider = \"second\"",
            &[
                "33: model `a/b`, fallback 1: `provider_model` is missing; add `provider_model` = \"the provider's own name of the model\"",
            ],
        ),
        (
            "provider_model = \"other/b\"",
            "provider_model = \"third/b\"",
            &[
                "37: model `a/b`, fallback 2: `third/b` at provider `second` is named before; remove one; a provider that failed is not asked the same again",
            ],
        ),
        (
            "provider = \"second\"\nprovider_model = \"other/b\"",
            "provider = \"first\"\nprovider_model = \"a/b\"",
            &[
                "33: model `a/b`, fallback 1: `a/b` at provider `first` is named before; remove one; a provider that failed is not asked the same again",
            ],
        ),
        (
            "provider_model = \"other/b\"",
            "provider_model = \"other/b?x\"",
            &[
                "35: model `a/b`, fallback 1: the provider's model name `other/b?x` cannot stand in a URL path; write the name as the provider documents it, without host and query",
            ],
        ),
        (
            "provider_model = \"other/b\"",
            "provider_model = \"other/b\"\nprompt_imput = \"text\"",
            &["36: model `a/b`, fallback 1: `prompt_imput` is not a known key; did you mean `prompt_input`?"],
        ),
        (
            "n = \"count\"",
            "m = \"count\"",
            &[
                "46: model `a/b`, fallback 2: `inputs` names `m`, which is not a parameter; name one of the model's parameters: `n` or `size`",
            ],
        ),
        (
            "n = \"count\"",
            "n = 7",
            &[
                "46: model `a/b`, fallback 2: `inputs.n` must be a name or a table; write the provider's name of it, or { not_sent = \"why\" }",
            ],
        ),
        (
            "n = \"count\"",
            "n = \"text\"",
            &[
                "37: model `a/b`, fallback 2: the prompt and parameter `n` are both sent as `text`; send each under its own name",
            ],
        ),
        (
            "table = { s = \"1:1\", l = \"16:9\" }",
            "table = { s = \"1:1\" }",
            &["47: model `a/b`, fallback 2: `table` has no entry for `l`; add `l` to it"],
        ),
        (
            "negative_prompt = { input = \"negative\" }",
            "negative_prompt = { refused = \"no\" }\n# a comment",
            &[],
        ),
        (
            "negative_prompt = { refused = \"it has none\" }",
            "negative_prompt = { input = \"a\", refused = \"b\" }",
            &[
                "41: model `a/b`, fallback 2, `negative_prompt`: needs one of `input` and `refused`; write { input = \"the provider's name of it\" } or { refused = \"the reason clients read\" }",
            ],
        ),
        (
            "reference_image = { input = \"source\", provider_model",
            "reference_image = { input = \"source\", required = true, provider_model",
            &["42: model `a/b`, fallback 2: `required` in `reference_image` is a matter of the model; remove it here"],
        ),
        (
            "reference_image = { input = \"image_url\" }",
            "reference_image = { refused = \"no\" }",
            &[
                "42: model `a/b`, fallback 2: `reference_image` has an input, but the model refuses it; remove it here, or allow it in the model",
            ],
        ),
        (
            "reference_image = { input = \"source\", provider_model = \"third/edit\" }",
            "reference_image = { refused = \"no\" }",
            &[],
        ),
        (
            "reference_image = { input = \"image_url\" }",
            "reference_image = { input = \"image_url\", provider_model = \"a/edit\" }",
            &[
                "33: model `a/b`, fallback 1: `reference_image` is missing, and the model has another `provider_model` for calls with one; add `reference_image` = { input = \"...\" }, with `provider_model` if this provider has another name for it too, or { refused = \"...\" }",
            ],
        ),
    ];
    for (old, new, expected) in cases {
        assert!(FILE.contains(old), "{old}");
        let shown: Vec<String> = match load(&FILE.replacen(old, new, 1)) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.faults.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(&shown, expected, "`{new}`");
    }
}

#[test]
fn a_fallback_without_what_the_model_requires_is_refused() {
    let text = FILE
        .replace(
            "{ input = \"image_url\" }",
            "{ input = \"image_url\", required = true }",
        )
        .replace(
            "{ input = \"source\", provider_model = \"third/edit\" }",
            "{ refused = \"no\" }",
        );
    let shown = load(&text).unwrap_err().to_string();
    assert_eq!(
        shown,
        "providers.toml:42: model `a/b`, fallback 2: `reference_image` is refused, but the model requires it; remove the \
         fallback: no call could go there"
    );
}

#[test]
fn a_model_is_available_while_one_of_its_providers_is_switched_on() {
    let off = |text: &str, name: &str| {
        let entry = format!("[providers.{name}]\nkind = \"sandbox\"\n");
        text.replace(&entry, &format!("{entry}enabled = false\n"))
    };
    let available = |text: &str| load(text).unwrap().available(None).count();
    let first_off = off(FILE, "first");
    assert_eq!((available(FILE), available(&first_off)), (1, 1));
    assert_eq!(available(&off(&first_off, "second")), 0);
}
