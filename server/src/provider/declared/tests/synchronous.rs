//! APIs whose answer to the submit is the result.

use super::*;
use velro_plugin::{Effect, ErrorKind, Retry, Source};

fn submitted(text: &str) -> Attempt {
    let mut attempt = Attempt::new(text);
    attempt.step(Event::Start);
    attempt
}

#[test]
fn the_answer_is_the_result() {
    let mut attempt = Attempt::new(WEBUI);
    let action = attempt.step(Event::Start);
    assert_eq!(line(&action), "POST http://gpu.internal:7860/sdapi/v1/txt2img");
    assert_eq!(request(&action).effect, Effect::Write);
    assert_eq!(request(&action).body, attempt.input.as_bytes());
    let outcome = outcome(attempt.json(
        200,
        &json!({"images": ["aGk=", "data:image/png;base64,aGk="], "info": "x"}),
    ));
    let found: Vec<_> = outcome
        .outputs
        .iter()
        .map(|o| (o.kind.as_str(), o.source.clone()))
        .collect();
    assert_eq!(
        found,
        [
            ("image", Source::BodyBase64("/images/0".into())),
            ("image", Source::Url("data:image/png;base64,aGk=".into()))
        ]
    );
    assert_eq!(outcome.outputs[0].content_type.as_deref(), Some("image/png"));
}

#[test]
fn failures() {
    for (status, body, kind, retry) in [
        (
            422,
            json!({"detail": "bad size"}),
            ErrorKind::InvalidInput,
            Retry::Never,
        ),
        (401, json!({"detail": "no"}), ErrorKind::Auth, Retry::OtherProvider),
        (
            500,
            json!({"error": "OutOfMemoryError", "errors": "cuda"}),
            ErrorKind::Unavailable,
            Retry::SameProvider,
        ),
        (200, json!({"images": []}), ErrorKind::BadResponse, Retry::Never),
        // It costs nothing, so what is not known is simply tried again.
        (500, json!({}), ErrorKind::Unavailable, Retry::SameProvider),
        (200, json!({}), ErrorKind::Unavailable, Retry::SameProvider),
    ] {
        let failure = failure(submitted(WEBUI).json(status, &body));
        assert_eq!((failure.kind, failure.retry), (kind, retry), "{status} {body}");
    }
    let lost = failure(submitted(WEBUI).failed(Transport::Timeout));
    assert_eq!((lost.kind, lost.retry), (ErrorKind::Unavailable, Retry::SameProvider));
}

#[test]
fn somebody_elses_machine_is_paid_once() {
    let paid = WEBUI.replace("repeatable = true\n", "");
    let mut attempt = Attempt::new(&paid);
    assert_eq!(request(&attempt.step(Event::Start)).effect, Effect::Submit);
    for (status, body) in [(500, json!({})), (200, json!({})), (200, json!(null)), (302, json!({}))] {
        let failure = failure(submitted(&paid).json(status, &body));
        assert_eq!(
            (failure.kind, failure.retry),
            (ErrorKind::UnknownOutcome, Retry::Never),
            "{status} {body}"
        );
    }
    for event in [
        Event::Interrupted,
        Event::Failed(Transport::Reset),
        Event::Timer,
        Event::Start,
    ] {
        assert_eq!(failure(submitted(&paid).step(event)).kind, ErrorKind::UnknownOutcome);
    }
    // What the declaration knows is a refusal.
    let oom = json!({"error": "OutOfMemoryError"});
    assert_eq!(failure(submitted(&paid).json(500, &oom)).kind, ErrorKind::Unavailable);
}

#[test]
fn the_answer_may_be_the_file_itself() {
    let file = WEBUI.replace(
        "outputs = [{ at = \"/images\", as = \"base64\", kind = \"image\", content_type = \"image/png\" }]",
        "outputs = [{ as = \"body\", kind = \"image\" }]",
    );
    let done = outcome(submitted(&file).answer(200, &[("content-type", "image/webp; x=y")], b"RIFF"));
    assert_eq!(done.outputs[0].source, Source::Body);
    assert_eq!(done.outputs[0].content_type.as_deref(), Some("image/webp"));
    // A page or a document is not one.
    for (said, body) in [
        ("text/html", &b"<html>"[..]),
        ("application/json", b"{}"),
        ("image/png", b""),
    ] {
        let action = submitted(&file).answer(200, &[("content-type", said)], body);
        assert_eq!(failure(action).kind, ErrorKind::Unavailable, "{said}");
    }
}

#[test]
fn a_state_in_the_answer_may_call_it_failed() {
    let text = WEBUI
        .replace(
            "[providers.webui.job]\n",
            "[providers.webui.job]\nstate = \"/ok\"\ncode = \"/code\"\n",
        )
        .replace("repeatable = true\n", "[providers.webui.states]\nfalse = \"failed\"\n");
    let failed = failure(submitted(&text).json(
        200,
        &json!({"ok": false, "code": "nsfw", "detail": "no", "images": ["aGk="]}),
    ));
    assert_eq!(
        (failed.kind, failed.code.as_str(), failed.message.as_str()),
        (ErrorKind::Upstream, "nsfw", "no")
    );
    assert_eq!(failed.retry, Retry::Never);
    outcome(submitted(&text).json(200, &json!({"ok": true, "images": ["aGk="]})));
}
