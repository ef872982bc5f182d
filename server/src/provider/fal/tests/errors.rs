//! FAL's error answers and what becomes of them.

use super::*;
use velro_plugin::ErrorKind::{self, *};
use velro_plugin::Retry;

fn typed(kind: &str, ctx: Value) -> Value {
    json!({"detail": [{"loc": ["body", "image_url"], "msg": "internal: /srv/app.py secret", "type": kind, "ctx": ctx,
        "url": "https://docs.fal.ai/errors/", "input": "x"}]})
}

fn infra(kind: &str) -> Value {
    json!({"detail": "internal: pod gpu-7 secret", "error_type": kind})
}

/// Status, body, class, advice, and a part of the message.
fn table() -> Vec<(u16, Value, ErrorKind, Retry, &'static str)> {
    use Retry::*;
    vec![
        (
            422,
            typed("content_policy_violation", json!({})),
            ContentPolicy,
            OtherProvider,
            "Change the wording",
        ),
        (
            422,
            typed("no_media_generated", json!({})),
            Upstream,
            Never,
            "in more detail",
        ),
        (
            422,
            typed("missing", json!({})),
            InvalidInput,
            Never,
            "needs `image_url`",
        ),
        (
            422,
            typed("greater_than", json!({"gt": 0})),
            InvalidInput,
            Never,
            "`image_url` must be greater than 0.",
        ),
        (
            422,
            typed("greater_than_equal", json!({"ge": 1.5})),
            InvalidInput,
            Never,
            "at least 1.5",
        ),
        (
            422,
            typed("less_than_equal", json!({"le": 4})),
            InvalidInput,
            Never,
            "at most 4",
        ),
        (
            422,
            typed("less_than", json!({"lt": "x"})),
            InvalidInput,
            Never,
            "too large",
        ),
        (
            422,
            typed("sequence_too_long", json!({"max_length": 9})),
            InvalidInput,
            Never,
            "at most 9",
        ),
        (
            422,
            typed("one_of", json!({"expected": ["16:9", "1:1"]})),
            InvalidInput,
            Never,
            "one of 16:9, 1:1",
        ),
        (
            422,
            typed("one_of", json!({"expected": ["<b>"]})),
            InvalidInput,
            Never,
            "not one of the allowed",
        ),
        (
            422,
            typed("image_too_small", json!({"min_width": 64, "min_height": 32})),
            InvalidInput,
            Never,
            "at least 64x32",
        ),
        (
            422,
            typed("image_too_large", json!({})),
            InvalidInput,
            Never,
            "too large",
        ),
        (
            422,
            typed("file_download_error", json!({})),
            InvalidInput,
            Never,
            "must be public",
        ),
        (
            422,
            typed("something_new", json!({})),
            InvalidInput,
            Never,
            "does not accept `image_url`",
        ),
        (
            422,
            json!({"detail": "plain secret text"}),
            InvalidInput,
            Never,
            "Check the parameters",
        ),
        (
            400,
            typed("downstream_service_error", json!({})),
            Upstream,
            SameProvider,
            "Try again",
        ),
        (400, infra("bad_request"), InvalidInput, Never, "Check the parameters"),
        (
            401,
            json!({"detail": "No user found for Key ID and Secret"}),
            Auth,
            OtherProvider,
            "operator's account",
        ),
        (402, json!({}), Quota, OtherProvider, "operator's account"),
        (
            403,
            json!({"detail": "User is locked. Reason: Exhausted balance. secret"}),
            Quota,
            OtherProvider,
            "operator's account",
        ),
        (
            403,
            json!({"detail": "no access"}),
            Auth,
            OtherProvider,
            "operator's account",
        ),
        (
            404,
            json!({"detail": "Application not found"}),
            NotFound,
            OtherProvider,
            "does not offer",
        ),
        (413, json!({}), InvalidInput, Never, "too large"),
        (
            429,
            json!({"detail": "secret", "error_type": "concurrent_requests_limit"}),
            RateLimited,
            SameProvider,
            "a minute",
        ),
        (499, infra("client_cancelled"), Cancelled, Never, "Cancelled"),
        (
            500,
            typed("internal_server_error", json!({})),
            Upstream,
            SameProvider,
            "failed at the provider",
        ),
        (
            500,
            typed("downstream_service_unavailable", json!({})),
            Unavailable,
            SameProvider,
            "no capacity",
        ),
        (
            500,
            infra("runner_server_error"),
            Upstream,
            SameProvider,
            "failed at the provider",
        ),
        (
            500,
            infra("internal_error"),
            Upstream,
            SameProvider,
            "failed at the provider",
        ),
        (
            502,
            infra("runner_incomplete_response"),
            Unavailable,
            SameProvider,
            "no capacity",
        ),
        (
            503,
            infra("runner_scheduling_failure"),
            Unavailable,
            SameProvider,
            "no capacity",
        ),
        (
            503,
            infra("runner_connection_refused"),
            Unavailable,
            SameProvider,
            "no capacity",
        ),
        (504, infra("request_timeout"), Timeout, SameProvider, "in time"),
        (504, infra("startup_timeout"), Timeout, SameProvider, "in time"),
        (
            504,
            typed("generation_timeout", json!({})),
            Timeout,
            SameProvider,
            "in time",
        ),
    ]
}

#[test]
fn classes() {
    for (status, body, kind, retry, text) in table() {
        let bytes = body.to_string();
        let failure = super::super::error::classify(&Response {
            status,
            headers: &[],
            body: bytes.as_bytes(),
        });
        assert_eq!((failure.kind, failure.retry), (kind, retry), "{status} {body}");
        assert!(failure.message.contains(text), "{status} {body}: {}", failure.message);
        for internal in ["secret", "internal", "/srv", "gpu-7", "<b>"] {
            assert!(!failure.message.contains(internal), "{}", failure.message);
        }
        assert!(failure.code.len() <= 64 && !failure.code.contains(' '));
    }
}

#[test]
fn a_refused_submit_bought_nothing() {
    for (status, body, kind, ..) in table().into_iter().filter(|row| row.0 < 499) {
        let mut attempt = Attempt::new(Some(HOOK));
        attempt.step(Event::Start);
        assert_eq!(failure(attempt.json(status, &body)).kind, kind, "{status} {body}");
    }
}

#[test]
fn a_failed_result_is_a_verdict() {
    for (status, body, kind, ..) in table() {
        let mut attempt = Attempt::polling(None);
        attempt.json(
            200,
            &json!({"status": "COMPLETED", "error": "secret", "error_type": "runner_server_error"}),
        );
        let mut action = attempt.json(status, &body);
        // Some may be about our account or the way there: those are looked at again for a while.
        let patient = matches!(status, 401 | 403 | 404 | 429);
        assert_eq!(matches!(action, Action::Wait { .. }), patient, "{status} {body}");
        for _ in 0..100 {
            if !matches!(action, Action::Wait { .. }) {
                break;
            }
            assert_eq!(line(&attempt.timer(&action)), result_line());
            action = attempt.json(status, &body);
        }
        let kind = match status {
            // Nothing else came until the deadline.
            429 => Timeout,
            _ => kind,
        };
        assert_eq!(failure(action).kind, kind, "{status} {body}");
    }
}

/// FAL's account of it wins over a proxy that cannot reach the result.
#[test]
fn the_verdict_survives_a_missing_result() {
    let mut attempt = Attempt::polling(None);
    attempt.json(
        200,
        &json!({"status": "COMPLETED", "error": "x", "error_type": "startup_timeout"}),
    );
    let mut action = attempt.answer(502, &[], b"<html>");
    while let Action::Wait { .. } = action {
        attempt.timer(&action);
        action = attempt.answer(502, &[], b"<html>");
    }
    assert_eq!(failure(action).kind, Timeout);
}

/// Without a verdict a 5xx may be the gateway's: the pictures are worth another look.
#[test]
fn a_5xx_result_is_looked_at_again() {
    let mut attempt = Attempt::fetching();
    for body in ["<html>", r#"{"detail":"Internal error"}"#] {
        let action = attempt.answer(500, &[], body.as_bytes());
        assert_eq!(line(&attempt.timer(&action)), result_line());
    }
    assert_eq!(outcome(attempt.json(200, &images())).outputs.len(), 2);

    let mut attempt = Attempt::fetching();
    let mut action = attempt.json(500, &typed("internal_server_error", json!({})));
    for _ in 0..2 {
        attempt.timer(&action);
        action = attempt.json(500, &typed("internal_server_error", json!({})));
    }
    assert_eq!(failure(action).kind, Upstream);
}

#[test]
fn headers_of_an_error_count() {
    let classify = |status: u16, headers: &[(&str, &str)]| {
        let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| Header { name, value }).collect();
        let answer = Response {
            status,
            headers: &headers,
            body: b"",
        };
        super::super::error::classify(&answer)
    };
    let failure = classify(
        504,
        &[
            ("x-fal-error-type", "request_timeout"),
            ("x-fal-request-timeout-type", "user"),
        ],
    );
    assert_eq!((failure.kind, failure.code.as_str()), (Timeout, "request_timeout"));
    assert_eq!(classify(500, &[("x-fal-retryable", "false")]).retry, Retry::Never);
    assert_eq!(classify(429, &[("retry-after", "7")]).retry_after_ms, 7_000);
    assert_eq!(classify(500, &[("x-fal-error-type", "Bad Code <b>")]).code, "http_500");
}
