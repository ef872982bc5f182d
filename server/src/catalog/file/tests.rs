//! The reader against broken files.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::catalog::{Feature, InputRule, ModelStatus};
use serde_json::json;

const SHIPPED: &str = include_str!("../../../../providers.toml");

const SMALL: &str = r#"
[providers.sandbox]
kind = "sandbox"

[[models]]
id = "a/b"
provider = "sandbox"
media_type = "image"
description = "d"
credits = 5
credits_per = ["n"]
count_param = "n"
max_resolution = "8x8"
formats = ["png"]
typical_ms = 1
deadline_ms = 2
poll_ceiling_ms = 1
negative_prompt = { refused = "no" }
reference_image = { input = "image_url" }

[models.params.n]
type = "integer"
default = 1
min = 1
max = 4

[models.params.size]
type = "string"
default = "s"
allowed = ["s", "l"]
input = { name = "shape", table = { s = "1", l = "2" } }
"#;

fn load(text: &str) -> Result<Registry, RegistryErrors> {
    Registry::from_toml(text, Path::new("providers.toml"), Micros(7))
}

#[test]
fn the_small_file_is_read_as_written() {
    let registry = load(SMALL).unwrap();
    let provider = &registry.providers["sandbox"];
    assert!(provider.enabled);
    assert_eq!(
        (provider.concurrency, provider.concurrency_per_user, provider.timeout_ms),
        (20, 5, 20_000)
    );
    let model = registry.model("a/b").unwrap();
    assert_eq!((model.name.as_str(), model.provider_model.as_str()), ("B", "a/b"));
    assert_eq!(model.status, ModelStatus::Active);
    assert_eq!(model.negative_prompt, Feature::Refused("no".into()));
    assert_eq!(model.reference_image, Feature::Input("image_url".into()));
    assert_eq!(model.params[0].input, InputRule::Same("n".into()));
    assert_eq!(model.params[0].default, Some(json!(1)));
    assert_eq!(registry.revision, revision(SMALL));
    assert_eq!(registry.revision.len(), 12);
    assert_eq!(registry.loaded_at, Micros(7));
}

#[test]
fn params_keep_the_order_of_the_file() {
    let registry = load(SHIPPED).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<_> = registry
        .model("sandbox/image")
        .unwrap()
        .params
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names, ["image_size", "num_images", "seed", "latency_ms", "outcome"]);
}

/// Every kind of mistake: what to replace in the small file, and what must be said. The line is found from the text.
#[test]
fn each_mistake_is_named_with_its_line() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "credits = 5",
            "credits = -5",
            "`credits` is -5; write a whole number from 0",
        ),
        (
            "credits = 5",
            "credits = 5.5",
            "`credits` must be a whole number from 0 to 1000000000, not a float",
        ),
        ("credits = 5", "credits = \"5\"", "not a string"),
        (
            "credits = 5",
            "credit = 5",
            "`credit` is not a known key; did you mean `credits`?",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"sandbax\"",
            "`kind` is `sandbax`; write `fal`, `http`, `plugin` or `sandbox`",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"plugin\"\npath = \"liba.so\"",
            "`sha256` is missing; add `sha256` = the hash of the file; `velro plugin check FILE` prints it",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"plugin\"\npath = \"liba.so\"\nsha256 = \"abc\"",
            "`sha256` is not 64 hex digits; copy the line",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"plugin\"\nsha256 = \"abc\"",
            "`path` is missing; add `path` = \"libacme.so\"",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"plugin\"\nsecrets = { KEY = 5 }",
            "`secrets.KEY` is not a text; write the name of an environment variable",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"plugin\"\nhosts = [\"https://a.example/\"]",
            "`hosts` names `https://a.example/`; write `host` or `host:port`",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"fal\"\nallow_private = true",
            "`allow_private` is not a known key",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"fal\"\nconcurency = 3",
            "did you mean `concurrency`?",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"fal\"\nconcurrency = 0",
            "write a whole number from 1 to 100000",
        ),
        (
            "kind = \"sandbox\"",
            "kind = \"fal\"\nconcurrency = 2\nconcurrency_per_user = 3",
            "`concurrency_per_user` is 3 but `concurrency` is 2",
        ),
        (
            "provider = \"sandbox\"",
            "provider = \"sandbx\"",
            "there is no provider `sandbx`; did you mean `sandbox`?",
        ),
        ("id = \"a/b\"", "id = \"a/b?c\"", "the id cannot stand in a URL path"),
        ("id = \"a/b\"", "id = \"a/../b\"", "the id cannot stand in a URL path"),
        ("id = \"a/b\"", "id = \"a//b\"", "the id cannot stand in a URL path"),
        (
            "id = \"a/b\"",
            "id = \"a/pricing\"",
            "the id is a route of the listings",
        ),
        (
            "id = \"a/b\"",
            "id = \"a/b\"\nprovider_model = \"x y\"",
            "cannot stand in a URL path",
        ),
        (
            "media_type = \"image\"",
            "media_type = \"picture\"",
            "write `image`, `video` or `audio`",
        ),
        (
            "typical_ms = 1",
            "typical_ms = 3",
            "`deadline_ms` is below `typical_ms`",
        ),
        (
            "negative_prompt = { refused = \"no\" }",
            "negative_prompt = {}",
            "needs one of `input` and `refused`",
        ),
        (
            "negative_prompt = { refused = \"no\" }",
            "negative_prompt = { refused = \" \" }",
            "the text is empty",
        ),
        (
            "reference_image = { input = \"image_url\" }",
            "reference_image = { refused = \"no\", required = true }",
            "have no meaning for a refused image",
        ),
        (
            "reference_image = { input = \"image_url\" }",
            "reference_image = { input = \"prompt\" }",
            "the prompt and the reference image are both sent as `prompt`",
        ),
        (
            "credits_per = [\"n\"]",
            "credits_per = [\"size\"]",
            "`size`, which is not an integer",
        ),
        (
            "credits_per = [\"n\"]",
            "credits_per = [\"num\"]",
            "`num`, which is not a parameter",
        ),
        (
            "credits_per = [\"n\"]",
            "credits_per = [\"n\", \"n\"]",
            "names `n` twice",
        ),
        (
            "count_param = \"n\"",
            "count_param = \"m\"",
            "`count_param` names `m`, which is not a parameter",
        ),
        ("default = 1\n", "", "`n`, which may be missing from a call"),
        ("min = 1\n", "", "`n`, which is not bounded"),
        ("max = 4", "max = 9007199254740992", "which is not bounded"),
        (
            "default = 1\n",
            "default = 9\n",
            "`default` is not allowed: n must be an integer between 1 and 4; 9 is too large",
        ),
        (
            "default = 1\n",
            "default = \"1\"\n",
            "`default` is not allowed: n must be an integer between 1 and 4; a string",
        ),
        (
            "default = 1\n",
            "default = 1\nrequired = true\n",
            "has no use for a `default`",
        ),
        ("max = 4", "max = 0", "`max` is below `min`"),
        ("max = 4", "max = 4.5", "`max` is 4.5"),
        ("max = 4", "max = 4\nmax_length = 3", "`max_length` is for strings"),
        (
            "type = \"integer\"",
            "type = \"int\"",
            "write `string`, `integer`, `number` or `boolean`",
        ),
        (
            "default = \"s\"",
            "default = \"m\"",
            "`default` is not allowed: size must be one of \"s\" or \"l\"",
        ),
        (
            "allowed = [\"s\", \"l\"]",
            "allowed = [\"s\", \"l\", \"m\"]",
            "`table` has no entry for `m`",
        ),
        (
            "allowed = [\"s\", \"l\"]",
            "allowed = [\"s\"]",
            "`table` translates `l`, which is not allowed",
        ),
        (
            "allowed = [\"s\", \"l\"]",
            "allowed = [\"s\", \"l\", \"s\"]",
            "\"s\" is allowed twice",
        ),
        (
            "allowed = [\"s\", \"l\"]",
            "allowed = [\"s\", 1]",
            "1 cannot be allowed",
        ),
        ("allowed = [\"s\", \"l\"]\n", "", "a free string needs a bound"),
        (
            "{ name = \"shape\", table = { s = \"1\", l = \"2\" } }",
            "{ table = { s = \"1\", l = \"2\" } }",
            "`name` is missing",
        ),
        (
            "{ name = \"shape\", table = { s = \"1\", l = \"2\" } }",
            "7",
            "`input` must be a name or a table",
        ),
        (
            "{ name = \"shape\", table = { s = \"1\", l = \"2\" } }",
            "{ name = \"shape\", nearest = [4, 6] }",
            "`nearest`, `times` and `plus` are for numbers",
        ),
        (
            "{ name = \"shape\", table = { s = \"1\", l = \"2\" } }",
            "{ name = \"shape\", text = true, times = 2 }",
            "says more than one thing",
        ),
        (
            "max = 4",
            "max = 4\ninput = { name = \"n\", times = 1e308 }",
            "`times` and `plus` need bounds",
        ),
        (
            "max = 4",
            "max = 4\ninput = { name = \"n\", nearest = [4, 2] }",
            "ascending whole numbers",
        ),
        (
            "max = 4",
            "max = 4\ninput = { name = \"n\", nearest = [4], pattern = \"s\" }",
            "`pattern` does not contain `{}`",
        ),
        (
            "max = 4",
            "max = 4\ninput = \"shape\"",
            "parameter `n` and parameter `size` are both sent as `shape`",
        ),
        ("max = 4", "max = 4\ninput = { not_sent = \"\" }", "the reason is empty"),
        ("[models.params.n]", "[models.params.prompt]", "the name cannot be used"),
        (
            "formats = [\"png\"]",
            "formats = \"png\"",
            "`formats` must be a list of texts",
        ),
        (
            "formats = [\"png\"]",
            "formats = [\"png\"]\nexample = { n = 7 }",
            "`example` would be refused: n must be",
        ),
        (
            "formats = [\"png\"]",
            "formats = [\"png\"]\nexample = { m = 7 }",
            "`example` has `m`, which is not a parameter",
        ),
        (
            "formats = [\"png\"]",
            "formats = [\"png\"]\nfixed = { shape = 1 }",
            "the constant `fixed.shape` are both sent",
        ),
        (
            "formats = [\"png\"]",
            "formats = [\"png\"]\nfixed = { a = inf }",
            "`fixed` must be a table of values that JSON",
        ),
        ("formats = [\"png\"]", "formats = [\"png\"", "not valid TOML"),
        ("[providers.sandbox]", "[providers.SandBox]", "the name cannot be used"),
        (
            "[providers.sandbox]",
            "[provider.sandbox]",
            "`provider` is not a known key; did you mean `providers`?",
        ),
    ];
    for (old, new, expected) in cases {
        assert!(SMALL.contains(old), "{old}");
        let at = SMALL.find(old).unwrap();
        let text = SMALL.replacen(old, new, 1);
        let errors = load(&text).expect_err(&format!("{new} was accepted"));
        let shown = errors.to_string();
        assert!(shown.contains(expected), "`{new}` gave:\n{shown}\nexpected: {expected}");
        assert!(shown.lines().all(|l| l.starts_with("providers.toml:")), "{shown}");
        let edited = text[..at].matches('\n').count() + 1;
        let fault = errors.faults.iter().find(|f| f.to_string().contains(expected)).unwrap();
        let lines = text.lines().count();
        assert!((1..=lines).contains(&fault.line), "{fault}");
        // A message that begins with a key of the edit stands on the edit.
        let key = expected.strip_prefix('`').and_then(|rest| rest.split('`').next());
        if key.is_some_and(|key| new.contains(&format!("{key} = "))) {
            assert!((edited..=edited + 2).contains(&fault.line), "edited {edited}: {fault}");
        }
    }
}

#[test]
fn all_faults_come_at_once_and_in_order() {
    let text = SMALL
        .replace("credits = 5", "credits = -1")
        .replace("kind = \"sandbox\"", "kind = \"nope\"")
        .replace("formats = [\"png\"]\n", "");
    let errors = load(&text).unwrap_err();
    let lines: Vec<_> = errors.faults.iter().map(|f| f.line).collect();
    assert_eq!(lines, [3, 5, 10], "{errors}");
}

#[test]
fn ids_are_unique() {
    let second = SMALL[SMALL.find("[[models]]").unwrap()..].to_owned();
    let errors = load(&format!("{SMALL}{second}")).unwrap_err();
    assert_eq!(errors.faults.len(), 1, "{errors}");
    assert!(
        errors.to_string().contains("the id is used twice, first on line 6"),
        "{errors}"
    );
}

#[test]
fn an_empty_file_takes_no_model_off_the_shelf() {
    for text in ["", "# nothing\n", "[providers.sandbox]\nkind = \"sandbox\"\n"] {
        assert!(
            load(text)
                .unwrap_err()
                .to_string()
                .contains("there is no [[models]] entry")
        );
    }
}

#[test]
fn no_cut_off_file_panics() {
    for end in (0..SHIPPED.len()).step_by(97) {
        if let Some(text) = SHIPPED.get(..end) {
            let _ = load(text);
        }
    }
}

#[test]
fn unreadable_files_are_faults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers.toml");
    let shown = Registry::from_file(&path, Micros(0)).unwrap_err().to_string();
    assert!(
        shown.contains("cannot be read") && shown.contains("VELRO_PROVIDERS"),
        "{shown}"
    );
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(
        Registry::from_file(&path, Micros(0))
            .unwrap_err()
            .to_string()
            .contains("not UTF-8")
    );
    std::fs::write(&path, SMALL).unwrap();
    assert_eq!(Registry::from_file(&path, Micros(0)).unwrap().models.len(), 1);
}
