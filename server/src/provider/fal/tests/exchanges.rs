//! Whole conversations with FAL.

use super::*;
use crate::provider::fal::address::app_id;
use velro_plugin::{Effect, ErrorKind, HookTarget, Retry, Source, Transport, Webhook};

fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    request.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_ref())
}

#[test]
fn from_submit_to_pictures() {
    let mut attempt = Attempt::new(None);
    let action = attempt.step(Event::Start);
    let submit = request(&action);
    assert_eq!(line(&action), "POST https://queue.fal.run/fal-ai/flux-pro/v1.1-ultra");
    assert_eq!(submit.effect, Effect::Submit);
    assert_eq!(submit.body, INPUT.as_bytes());
    assert_eq!(header(submit, "authorization"), Some("Key {{secret:FAL_KEY}}"));
    assert_eq!(header(submit, "content-type"), Some("application/json"));
    assert_eq!(header(submit, "x-fal-request-timeout"), Some("450"));

    let action = attempt.json(200, &submitted());
    assert_eq!(attempt.remote_id.as_deref(), Some(ID));
    assert!(wait_ms(&action) <= 500);
    let action = attempt.timer(&action);
    assert_eq!(line(&action), status_line());
    assert_eq!(request(&action).effect, Effect::Read);

    let action = attempt.json(
        202,
        &json!({"status": "IN_QUEUE", "request_id": ID, "queue_position": 4}),
    );
    attempt.timer(&action);
    let logs = json!([{"message": "denoising 40%", "timestamp": "t", "level": "INFO", "source": "USER"}]);
    let action = attempt.json(202, &json!({"status": "IN_PROGRESS", "request_id": ID, "logs": logs}));
    attempt.timer(&action);
    let action = attempt.json(
        200,
        &json!({"status": "COMPLETED", "request_id": ID, "logs": null, "metrics": {}}),
    );
    assert_eq!(line(&action), result_line());

    let body = images().to_string();
    let outcome = outcome(attempt.answer(200, &[("x-fal-billable-units", "2.0")], body.as_bytes()));
    let sources: Vec<_> = outcome.outputs.iter().map(|o| o.source.clone()).collect();
    let url = |name: &str| Source::Url(format!("https://v3.fal.media/files/{name}.jpeg"));
    assert_eq!(sources, [url("a"), url("b")]);
    assert_eq!(outcome.outputs[0].content_type.as_deref(), Some("image/jpeg"));
    assert_eq!(outcome.outputs[0].meta["width"], 2752);
    assert_eq!(outcome.meta["seed"], json!(17_454_220_438_242_315_174_u64));
    assert_eq!(outcome.billed.unwrap().units_milli, 2_000);
    assert_eq!(attempt.progress[0].queue_position, Some(4));
    assert_eq!(attempt.progress[1].permille, Some(400));
    assert_eq!(attempt.progress[1].message.as_deref(), Some("denoising 40%"));
}

#[test]
fn every_shape_of_result() {
    for (body, kinds) in [
        (json!({"video": {"url": "https://f/v.mp4"}}), vec!["video"]),
        (json!({"image": {"url": "https://f/i.png"}}), vec!["image"]),
        (
            json!({"images": ["https://f/i.png", {"url": "data:image/png;base64,AA=="}]}),
            vec!["image", "image"],
        ),
        (
            json!({"videos": [{"url": "https://f/1"}, {"url": "https://f/2"}]}),
            vec!["video", "video"],
        ),
        (
            json!({"audio": {"url": "https://f/a.mp3"}, "image": null}),
            vec!["audio"],
        ),
    ] {
        let outcome = outcome(Attempt::fetching().json(200, &body));
        assert_eq!(
            outcome.outputs.iter().map(|o| o.kind.as_str()).collect::<Vec<_>>(),
            kinds,
            "{body}"
        );
    }
    for body in [
        json!({}),
        json!({"images": []}),
        json!({"video": {"url": null}}),
        json!([1]),
    ] {
        let failure = failure(Attempt::fetching().json(200, &body));
        assert_eq!(
            (failure.kind, failure.code.as_str()),
            (ErrorKind::BadResponse, "no_output"),
            "{body}"
        );
    }
}

#[test]
fn requests_are_found_by_owner_and_alias() {
    for (endpoint, app) in [
        ("fal-ai/flux-pro/v1.1-ultra", "fal-ai/flux-pro"),
        ("fal-ai/veo3", "fal-ai/veo3"),
        ("fal-ai/minimax/hailuo-02/pro/text-to-video", "fal-ai/minimax"),
        ("workflows/me/flow/x", "workflows/me/flow"),
        ("comfy/me/flow", "comfy/me/flow"),
        ("123-abc", "123/abc"),
        ("/fal-ai//wan-pro/", "fal-ai/wan-pro"),
    ] {
        assert_eq!(app_id(endpoint), app);
    }
}

/// The key goes with every request, so an address elsewhere is not followed.
#[test]
fn foreign_addresses_are_rebuilt() {
    let foreign = [
        "https://evil.example/x/status",
        "http://queue.fal.run/x/status",
        "https://queue.fal.run:8443/x/status",
        "https://queue.fal.run@evil.example/x/status",
        "https://me:pw@queue.fal.run/x/status",
        "https://queue.fal.run.evil.example/x/status",
        "https://queue.fal.run/{{secret:FAL_KEY}}/status",
        "/relative/status",
    ];
    for url in foreign {
        let mut attempt = Attempt::new(None);
        attempt.step(Event::Start);
        let action = attempt.json(200, &json!({"request_id": ID, "status_url": url, "response_url": url}));
        assert_eq!(line(&attempt.timer(&action)), status_line(), "{url}");
    }
    // One on the queue's own host is taken as it is.
    let mut attempt = Attempt::new(None);
    attempt.step(Event::Start);
    let own = "https://queue.fal.run/new/place/status?token=1";
    let action = attempt.json(200, &json!({"request_id": ID, "status_url": own}));
    assert_eq!(line(&attempt.timer(&action)), format!("GET {own}&logs=1"));
}

#[test]
fn unclear_answers_to_the_submit_are_lost_not_failed() {
    let unclear: [(u16, &[u8]); 9] = [
        (500, b"{\"detail\":\"Internal error\"}"),
        (502, b"<html>nginx</html>"),
        (503, b"{\"detail\":\"x\",\"error_type\":\"runner_scheduling_failure\"}"),
        (504, b""),
        (499, b"{}"),
        (302, b""),
        (200, b"not json"),
        (200, b"{\"status\":\"IN_QUEUE\"}"),
        (200, b"{\"request_id\":\"../../admin\"}"),
    ];
    for (status, body) in unclear {
        let mut attempt = Attempt::new(None);
        attempt.step(Event::Start);
        let failed = failure(attempt.answer(status, &[], body));
        assert_eq!(
            (failed.kind, failed.retry),
            (ErrorKind::UnknownOutcome, Retry::Never),
            "{status}"
        );
        // Not even a cancel may now pretend that nothing was bought.
        assert_eq!(failure(attempt.step(Event::Cancel)).kind, ErrorKind::UnknownOutcome);

        let mut attempt = Attempt::new(Some(HOOK));
        attempt.step(Event::Start);
        assert!(wait_ms(&attempt.answer(status, &[], body)) > 100_000, "{status}");
        assert!(wait_ms(&attempt.step(Event::Cancel)) > 100_000);
    }
    for transport in [Transport::Timeout, Transport::Reset, Transport::BodyTooLarge] {
        let mut attempt = Attempt::new(None);
        attempt.step(Event::Start);
        assert_eq!(
            failure(attempt.step(Event::Failed(transport))).kind,
            ErrorKind::UnknownOutcome
        );
    }
    for transport in [Transport::NotSent, Transport::CircuitOpen, Transport::HostDenied] {
        let mut attempt = Attempt::new(Some(HOOK));
        attempt.step(Event::Start);
        assert_eq!(
            failure(attempt.step(Event::Failed(transport))).kind,
            ErrorKind::Unavailable
        );
    }
}

#[test]
fn a_webhook_finds_a_lost_job() {
    let mut attempt = Attempt::new(Some(HOOK));
    let action = attempt.step(Event::Start);
    assert_eq!(
        line(&action),
        "POST https://queue.fal.run/fal-ai/flux-pro/v1.1-ultra?fal_webhook=https%3A%2F%2Fvelro.example%2Fhooks%2Ffal%2F1%2Fab%3Fx%3D1"
    );
    attempt.step(Event::Failed(Transport::Timeout));
    let action = attempt.hook(&json!({"request_id": ID, "status": "OK", "payload": images(), "error": null}));
    // The hint is not believed: what it announces is fetched.
    assert_eq!(line(&action), result_line());
    assert_eq!(attempt.remote_id.as_deref(), Some(ID));
    assert_eq!(outcome(attempt.json(200, &images())).outputs.len(), 2);
}

#[test]
fn a_webhook_may_come_after_the_loss_was_declared() {
    let mut attempt = Attempt::new(Some(HOOK));
    attempt.step(Event::Start);
    let action = attempt.step(Event::Interrupted);
    assert_eq!(wait_ms(&action), 600_000);
    assert_eq!(failure(attempt.timer(&action)).kind, ErrorKind::UnknownOutcome);
    assert_eq!(
        line(&attempt.hook(&json!({"request_id": ID, "status": "OK"}))),
        result_line()
    );
}

#[test]
fn a_webhook_only_hurries_a_known_job() {
    let mut attempt = Attempt::polling(Some(HOOK));
    assert_eq!(
        line(&attempt.hook(&json!({"request_id": ID, "status": "OK", "payload": {}}))),
        result_line()
    );
    // Too early after all: back to polling.
    let action = attempt.json(400, &json!({"detail": "Request is still in progress"}));
    assert_eq!(line(&attempt.timer(&action)), status_line());
    // One that says nothing useful changes nothing.
    let mut attempt = Attempt::new(Some(HOOK));
    attempt.step(Event::Start);
    attempt.step(Event::Interrupted);
    assert!(wait_ms(&attempt.hook(&json!({"status": "OK"}))) > 0);
    assert!(wait_ms(&attempt.hook(&json!({"request_id": "a/b"}))) > 0);
}

#[test]
fn webhooks_name_their_job() {
    let target = |body: &[u8]| {
        let hook = Webhook {
            query: "",
            headers: &[],
            body,
        };
        fal().webhook(&hook).unwrap()
    };
    assert_eq!(
        target(format!("{{\"request_id\":\"{ID}\"}}").as_bytes()),
        HookTarget::Remote(ID.into())
    );
    assert_eq!(target(b"{}"), HookTarget::Ignore);
    assert_eq!(target(b"garbage"), HookTarget::Ignore);
}

#[test]
fn polling_slows_down_with_the_job() {
    for (hook, first, last) in [(None, 400, 10_000), (Some(HOOK), 3_000, 60_000)] {
        let mut attempt = Attempt::polling(hook);
        let mut waits = Vec::new();
        while attempt.now_ms < DEADLINE_MS - 120_000 {
            let action = attempt.json(202, &json!({"status": "IN_PROGRESS", "logs": []}));
            waits.push(wait_ms(&action));
            attempt.timer(&action);
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!((waits.first(), waits.last()), (Some(&first), Some(&last)));
    }
}

#[test]
fn trouble_while_polling_is_waited_out() {
    let mut attempt = Attempt::polling(None);
    let trouble: [(u16, &[u8]); 6] = [
        (500, b""),
        (503, b"<html>"),
        (429, b"{}"),
        (401, b"{}"),
        (403, b"{\"detail\":\"User is locked. Reason: Exhausted balance.\"}"),
        (404, b"{\"status\":\"NOT_FOUND\"}"),
    ];
    for (status, body) in trouble {
        let action = attempt.answer(status, &[], body);
        assert!(wait_ms(&action) >= 1_000, "{status}");
        assert_eq!(line(&attempt.timer(&action)), status_line());
    }
    for transport in [
        Transport::Timeout,
        Transport::Reset,
        Transport::NotSent,
        Transport::CircuitOpen,
    ] {
        let action = attempt.step(Event::Failed(transport));
        assert_eq!(line(&attempt.timer(&action)), status_line());
    }
    let action = attempt.answer(429, &[("retry-after", "42")], b"");
    assert_eq!(wait_ms(&action), 42_000);
    attempt.timer(&action);
    assert_eq!(line(&attempt.json(200, &json!({"status": "COMPLETED"}))), result_line());
}

#[test]
fn nonsense_is_borne_for_a_while_only() {
    for body in [&b"<html>"[..], b"{\"status\":\"WEIRD\"}", b""] {
        let mut attempt = Attempt::polling(None);
        let mut action = attempt.answer(200, &[], body);
        let mut looks = 1;
        while let Action::Wait { .. } = action {
            attempt.timer(&action);
            action = attempt.answer(200, &[], body);
            looks += 1;
        }
        assert_eq!(failure(action).kind, ErrorKind::BadResponse);
        assert!(looks > 5 && attempt.now_ms < DEADLINE_MS);
    }
}

#[test]
fn the_deadline_stops_the_job_at_fal_too() {
    let mut attempt = Attempt::polling(None);
    attempt.now_ms = DEADLINE_MS - 1_000;
    let action = attempt.json(202, &json!({"status": "IN_PROGRESS"}));
    assert_eq!(wait_ms(&action), 1_000, "it wakes up at the deadline");
    attempt.timer(&action);
    let action = attempt.json(202, &json!({"status": "IN_PROGRESS"}));
    assert_eq!(line(&action), cancel_line());
    let action = attempt.json(202, &json!({"status": "CANCELLATION_REQUESTED"}));
    attempt.timer(&action);
    // It may still win the race.
    assert_eq!(line(&attempt.json(200, &json!({"status": "COMPLETED"}))), result_line());
    assert_eq!(outcome(attempt.json(200, &images())).outputs.len(), 2);

    let mut attempt = Attempt::polling(None);
    attempt.now_ms = DEADLINE_MS;
    attempt.json(202, &json!({"status": "IN_PROGRESS"}));
    let mut action = attempt.json(202, &json!({"status": "CANCELLATION_REQUESTED"}));
    while let Action::Wait { .. } = action {
        attempt.timer(&action);
        action = attempt.json(202, &json!({"status": "IN_PROGRESS"}));
    }
    assert_eq!(failure(action).kind, ErrorKind::Timeout);
    assert!(attempt.now_ms < DEADLINE_MS + 120_000);
}

#[test]
fn a_cancel_waits_for_fal_s_verdict() {
    let cancelled = |attempt: &mut Attempt, action: Action| {
        assert_eq!(failure(action).kind, ErrorKind::Cancelled);
        drop(std::mem::take(&mut attempt.state));
    };
    // Before anything was sent it costs nothing.
    let mut attempt = Attempt::new(None);
    let action = attempt.step(Event::Cancel);
    cancelled(&mut attempt, action);

    // Taken out of the queue.
    let mut attempt = Attempt::polling(None);
    assert_eq!(line(&attempt.step(Event::Cancel)), cancel_line());
    let action = attempt.json(200, &json!({"status": "OK"}));
    cancelled(&mut attempt, action);

    // Stopped while running: the result says so.
    let mut attempt = Attempt::polling(None);
    attempt.step(Event::Cancel);
    let action = attempt.json(202, &json!({"status": "CANCELLATION_REQUESTED"}));
    assert_eq!(line(&attempt.timer(&action)), status_line());
    // Asking again asks nothing new.
    assert_eq!(line(&attempt.step(Event::Cancel)), status_line());
    attempt.json(200, &json!({"status": "COMPLETED", "error": "cancelled"}));
    let action = attempt.json(
        499,
        &json!({"detail": "Client cancelled", "error_type": "client_cancelled"}),
    );
    cancelled(&mut attempt, action);

    let mut attempt = Attempt::polling(None);
    attempt.step(Event::Cancel);
    let action = attempt.json(202, &json!({"status": "CANCELLATION_REQUESTED"}));
    attempt.timer(&action);
    let action = attempt.json(
        200,
        &json!({"status": "COMPLETED", "error_type": "client_cancelled", "error": "x"}),
    );
    cancelled(&mut attempt, action);

    // Too late: it is delivered, and paid.
    let mut attempt = Attempt::polling(None);
    attempt.step(Event::Cancel);
    assert_eq!(
        line(&attempt.json(400, &json!({"status": "ALREADY_COMPLETED"}))),
        result_line()
    );
    assert_eq!(outcome(attempt.json(200, &images())).outputs.len(), 2);

    // Unknown to FAL: it looks a few times before it believes that.
    let mut attempt = Attempt::polling(None);
    attempt.step(Event::Cancel);
    let mut action = attempt.json(404, &json!({"status": "NOT_FOUND"}));
    for _ in 0..2 {
        attempt.timer(&action);
        action = attempt.json(404, &json!({"status": "NOT_FOUND"}));
        assert!(wait_ms(&action) > 0);
    }
    attempt.timer(&action);
    let action = attempt.json(404, &json!({"status": "NOT_FOUND"}));
    cancelled(&mut attempt, action);

    // A cancel that cannot be delivered is tried again, then the job takes its course.
    let mut attempt = Attempt::polling(None);
    attempt.step(Event::Cancel);
    for _ in 0..3 {
        let action = attempt.step(Event::Failed(Transport::Reset));
        assert_eq!(line(&attempt.timer(&action)), cancel_line());
    }
    let action = attempt.step(Event::Failed(Transport::Reset));
    assert_eq!(line(&attempt.timer(&action)), status_line());
}

#[test]
fn a_moved_base_url_is_followed() {
    let mut attempt = Attempt::new(None);
    attempt.step(Event::Start);
    attempt.json(
        200,
        &json!({"request_id": ID, "status_url": "https://queue.fal.run/old/status"}),
    );
    let action = attempt.step(Event::Failed(Transport::HostDenied));
    assert_eq!(line(&attempt.timer(&action)), status_line());
}

#[test]
fn the_manifest_names_hosts_key_and_key_document() {
    let manifest = fal().manifest().unwrap();
    assert_eq!(manifest.hosts, ["queue.fal.run", "rest.fal.ai"]);
    assert_eq!(manifest.secrets, ["FAL_KEY"]);
    let jwks = "https://rest.fal.ai/.well-known/jwks.json".to_owned();
    assert_eq!(
        manifest.webhook_auth,
        Some(velro_plugin::WebhookAuth::Ed25519Jwks { jwks })
    );
}
