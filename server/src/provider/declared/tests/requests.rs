//! From templates to requests.

use super::*;
use velro_plugin::{ErrorKind, Method};

/// A provider whose submit is given, with everything else it needs.
fn with(submit: &str) -> Attempt {
    let head = "[providers.acme]\nkind = \"http\"\nbase_url = \"https://api.acme.example/v1\"\noutputs = [{ at = \"/url\" }]\n\
                headers = { accept = \"application/json\", x-key = \"{{secret:KEY}}\" }\n[providers.acme.submit]\n";
    let model = &REPLICATE[REPLICATE.find("[[models]]").unwrap()..];
    let model = model.replace("provider = \"replicate\"", "provider = \"acme\"");
    let mut attempt = Attempt::new(&format!("{head}{submit}\n{model}"));
    attempt.input = r#"{"prompt":"a & b/ü?","n":2,"flag":true,"none":null,"list":[1,"x"],"dots":"..","empty":""}"#;
    attempt
}

#[test]
fn values_keep_their_types_alone_and_are_text_among_text() {
    let submit = r#"
        body = { n = "{param.n}", list = "{param.list}", all = "{param.n} of {param.list}", none = "{param.none}",
                 gone = ["{param.nothing}", 1, "{param.flag}"], half = "a {param.nothing}", brace = "{{n}}",
                 deep = { model = "{model}", head = "{model.1}", left = "{deadline_seconds}", key = "{idempotency_key}" } }
    "#;
    assert_eq!(
        body(request(&with(submit).step(Event::Start))),
        json!({"n": 2, "list": [1, "x"], "all": "2 of [1,\"x\"]", "gone": [1, true], "brace": "{n}",
               "deep": {"model": "acme/flux", "head": "acme", "left": 600, "key": "attempt-1"}})
    );
}

#[test]
fn urls_are_encoded() {
    let submit = r#"
        path = "/{model}/x%20y/{param.prompt}"
        query = { "a b" = "{param.prompt}", key = "{{secret:KEY}}", none = "{param.none}", n = 3 }
    "#;
    assert_eq!(
        line(&with(submit).step(Event::Start)),
        "POST https://api.acme.example/v1/acme/flux/x%20y/a%20%26%20b%2F%C3%BC%3F?a%20b=a%20%26%20b%2F%C3%BC%3F&key={{secret:KEY}}&n=3"
    );
    // A user's text is never a secret's placeholder.
    let mut attempt = with("query = { q = \"{param.prompt}\" }");
    attempt.input = r#"{"prompt":"{{secret:KEY}}"}"#;
    assert!(line(&attempt.step(Event::Start)).ends_with("?q=%7B%7Bsecret%3AKEY%7D%7D"));
}

#[test]
fn an_input_that_does_not_fit_buys_nothing() {
    for (path, said) in [
        ("/{param.nothing}", "The request lacks a value for `{param.nothing}`."),
        ("/{param.none}", "The request lacks a value for `{param.none}`."),
        ("/{param.empty}/x", "The request lacks a value for `{param.empty}`."),
        (
            "/a/{param.dots}",
            "A parameter cannot be used in the provider's address. Choose another value.",
        ),
    ] {
        let failure = failure(with(&format!("path = \"{path}\"")).step(Event::Start));
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (ErrorKind::InvalidInput, said),
            "{path}"
        );
    }
}

#[test]
fn headers_of_a_request_replace_common_ones() {
    let submit = "method = \"PUT\"\ntimeout_ms = 700\nheaders = { Accept = \"image/*\", x-n = 3, Content-Type = \"application/x\" }\nbody = 1";
    let action = with(submit).step(Event::Start);
    let sent = request(&action);
    assert_eq!(
        (sent.method, sent.timeout_ms, sent.body.as_slice()),
        (Method::Put, 700, &b"1"[..])
    );
    let headers: Vec<_> = ["accept", "x-key", "x-n", "content-type"]
        .map(|name| header(sent, name))
        .into();
    assert_eq!(
        headers,
        [
            Some("image/*"),
            Some("{{secret:KEY}}"),
            Some("3"),
            Some("application/x")
        ]
    );
    // Without a body there is none, and no type of it.
    let action = with("").step(Event::Start);
    assert_eq!(
        (line(&action), request(&action).body.len()),
        ("POST https://api.acme.example/v1".into(), 0)
    );
    assert_eq!(header(request(&action), "content-type"), None);
}

#[test]
fn only_addresses_of_declared_hosts_are_believed() {
    let built = "https://queue.fal.run/acme/flux/requests/r1/status?logs=1";
    for (named, asked) in [
        (
            "https://queue.fal.run/other/r1/status",
            "https://queue.fal.run/other/r1/status?logs=1",
        ),
        ("https://queue.fal.run/s?a=b", "https://queue.fal.run/s?a=b&logs=1"),
        ("https://evil.example/r1/status", built),
        ("http://queue.fal.run/r1", built),
        ("https://queue.fal.run:444/r1", built),
        ("https://user@queue.fal.run/r1", built),
        ("https://rest.fal.ai/r1", built),
        ("https://queue.fal.run/{{secret:FAL_KEY}}", built),
        ("no url", built),
    ] {
        let mut attempt = Attempt::new(FAL);
        attempt.model = "acme/flux/dev";
        attempt.step(Event::Start);
        let action = attempt.json(
            200,
            &json!({"request_id": "r1", "status": "IN_QUEUE", "status_url": named}),
        );
        assert_eq!(line(&attempt.timer(&action)), format!("GET {asked}"), "{named}");
    }
}
