//! Whole conversations with Replicate, as its shipped declaration has them.

use super::*;
use velro_plugin::{Effect, ErrorKind, HookTarget, Retry, Source, Webhook};

const STATUS: &str = "GET https://api.replicate.com/v1/predictions/p1";
const CANCEL: &str = "POST https://api.replicate.com/v1/predictions/p1/cancel";

fn prediction(status: &str) -> Value {
    json!({"id": "p1", "status": status, "output": null, "error": null, "logs": "", "urls": {"get": "https://x"}})
}

fn finished() -> Value {
    json!({"id": "p1", "status": "succeeded", "output": ["https://replicate.delivery/a.webp", "https://replicate.delivery/b.webp"],
           "error": null, "metrics": {"predict_time": 2.5}})
}

/// Submitted, accepted, and asked for the first time.
fn asking(hook: bool) -> Attempt {
    let mut attempt = if hook {
        Attempt::hooked(REPLICATE)
    } else {
        Attempt::new(REPLICATE)
    };
    attempt.step(Event::Start);
    let action = attempt.json(201, &prediction("starting"));
    assert_eq!(attempt.remote_id.as_deref(), Some("p1"));
    assert_eq!(line(&attempt.timer(&action)), STATUS);
    attempt
}

#[test]
fn from_submit_to_pictures() {
    let mut attempt = Attempt::new(REPLICATE);
    let action = attempt.step(Event::Start);
    let submit = request(&action);
    assert_eq!(
        line(&action),
        "POST https://api.replicate.com/v1/models/acme/flux/predictions"
    );
    assert_eq!(submit.effect, Effect::Submit);
    assert_eq!(
        header(submit, "authorization"),
        Some("Bearer {{secret:REPLICATE_API_TOKEN}}")
    );
    assert_eq!(header(submit, "cancel-after"), Some("600s"));
    assert_eq!(header(submit, "content-type"), Some("application/json"));
    // Nothing reports by itself, so nothing is said about it.
    assert_eq!(
        body(submit),
        json!({"input": {"prompt": "a fox", "seed": u64::MAX}, "webhook_events_filter": ["completed"]})
    );
    let mut action = attempt.json(201, &prediction("starting"));
    let mut waits = Vec::new();
    for logs in ["", "loading\n 40%|####   | 4/10", "loading\nstep at https://x/y 45%\n"] {
        waits.push(wait_ms(&action));
        action = attempt.timer(&action);
        assert_eq!((line(&action), request(&action).effect), (STATUS.into(), Effect::Read));
        let mut body = prediction("processing");
        body["logs"] = logs.into();
        action = attempt.json(200, &body);
    }
    assert_eq!(waits, [1_000, 1_500, 2_250]);
    attempt.timer(&action);
    let outcome = outcome(attempt.json(200, &finished()));
    let sources: Vec<_> = outcome
        .outputs
        .iter()
        .map(|o| (o.kind.as_str(), o.source.clone()))
        .collect();
    let url = |name: &str| ("any", Source::Url(format!("https://replicate.delivery/{name}.webp")));
    assert_eq!(sources, [url("a"), url("b")]);
    assert_eq!(outcome.billed.unwrap().units_milli, 2_500);
    let last = attempt.progress.last().unwrap();
    assert_eq!(
        (last.permille, last.message.as_deref()),
        (Some(450), Some("step at [link] 45%"))
    );
}

#[test]
fn a_result_that_comes_with_the_submit_is_taken() {
    let mut attempt = Attempt::hooked(REPLICATE);
    let action = attempt.step(Event::Start);
    assert_eq!(body(request(&action))["webhook"], HOOK);
    assert_eq!(outcome(attempt.json(201, &finished())).outputs.len(), 2);
    assert_eq!(attempt.remote_id.as_deref(), Some("p1"));
    // A failure is not: the job counts as bought, and its status tells.
    let mut attempt = Attempt::new(REPLICATE);
    attempt.step(Event::Start);
    let action = attempt.json(201, &prediction("failed"));
    assert_eq!(line(&attempt.timer(&action)), STATUS);
}

#[test]
fn refusals_of_the_submit() {
    use ErrorKind::*;
    for (status, kind, retry) in [
        (400, InvalidInput, Retry::Never),
        (422, InvalidInput, Retry::Never),
        (401, Auth, Retry::OtherProvider),
        (402, Quota, Retry::OtherProvider),
        (404, NotFound, Retry::OtherProvider),
        (429, RateLimited, Retry::SameProvider),
        (503, Unavailable, Retry::SameProvider),
        // Whether it was bought is not known.
        (200, UnknownOutcome, Retry::Never),
        (302, UnknownOutcome, Retry::Never),
        (499, UnknownOutcome, Retry::Never),
        (500, UnknownOutcome, Retry::Never),
        (502, UnknownOutcome, Retry::Never),
        (504, UnknownOutcome, Retry::Never),
    ] {
        let mut attempt = Attempt::new(REPLICATE);
        attempt.step(Event::Start);
        let body = json!({"title": "t", "detail": "see https://x\nInput \u{1b}[1mis\u{1b}[0m wrong", "status": status});
        let failure = failure(attempt.answer(status, &[("retry-after", "7")], body.to_string().as_bytes()));
        assert_eq!((failure.kind, failure.retry), (kind, retry), "{status}");
        match kind {
            UnknownOutcome => {}
            Auth | Quota => assert!(failure.message.contains("operator's account"), "{}", failure.message),
            _ => {
                assert_eq!(failure.message, "see [link] Input is wrong");
                assert_eq!(
                    (failure.code, failure.retry_after_ms),
                    (format!("http_{status}"), 7_000)
                );
            }
        }
    }
    for broken in [
        &b"{\"id\": "[..],
        b"",
        b"\xff",
        b"[]",
        b"{\"id\": null}",
        b"{\"id\": \"../x\"}",
        b"{\"id\": \"a{{secret:B}}\"}",
    ] {
        let mut attempt = Attempt::new(REPLICATE);
        attempt.step(Event::Start);
        let failure = failure(attempt.answer(201, &[], broken));
        assert_eq!(failure.kind, UnknownOutcome, "{}", String::from_utf8_lossy(broken));
    }
}

/// What a class says about a 5xx of any request is no promise that nothing was bought.
#[test]
fn a_class_by_status_alone_does_not_refuse_a_submit() {
    for (class, kind) in [
        ("status = \"5xx\"\nkind = \"unavailable\"", ErrorKind::UnknownOutcome),
        (
            "status = \"5xx\"\non = \"submit\"\nkind = \"unavailable\"",
            ErrorKind::Unavailable,
        ),
        (
            "status = \"5xx\"\nat = \"/title\"\nkind = \"unavailable\"",
            ErrorKind::Unavailable,
        ),
        (
            "status = 503\non = \"submit\"\nkind = \"unknown_outcome\"",
            ErrorKind::UnknownOutcome,
        ),
    ] {
        let text = REPLICATE.replacen(
            "[[models]]",
            &format!("[[providers.replicate.errors]]\n{class}\n[[models]]"),
            1,
        );
        let mut attempt = Attempt::new(&text);
        attempt.step(Event::Start);
        let status = if class.contains("503") { 503 } else { 500 };
        assert_eq!(
            failure(attempt.json(status, &json!({"title": "t"}))).kind,
            kind,
            "{class}"
        );
    }
}

#[test]
fn lost_answers_are_never_bought_again() {
    for hook in [false, true] {
        for lost in [
            Some(Transport::Timeout),
            Some(Transport::Reset),
            Some(Transport::BodyTooLarge),
            None,
        ] {
            let mut attempt = if hook {
                Attempt::hooked(REPLICATE)
            } else {
                Attempt::new(REPLICATE)
            };
            attempt.step(Event::Start);
            let action = match lost {
                Some(lost) => attempt.failed(lost),
                None => attempt.step(Event::Interrupted),
            };
            match hook {
                true => assert_eq!(wait_ms(&action), 600_000),
                false => assert_eq!(failure(action).kind, ErrorKind::UnknownOutcome),
            }
            // Nothing but a webhook changes that.
            attempt.now_ms = DEADLINE_MS;
            for event in [
                Event::Start,
                Event::Timer,
                Event::Cancel,
                Event::Interrupted,
                Event::Failed(Transport::NotSent),
            ] {
                assert_eq!(failure(attempt.step(event)).kind, ErrorKind::UnknownOutcome);
            }
            assert_eq!(
                failure(attempt.json(201, &prediction("starting"))).kind,
                ErrorKind::UnknownOutcome
            );
            assert_eq!(line(&attempt.hook(&prediction("succeeded"))), STATUS);
            assert_eq!(attempt.remote_id.as_deref(), Some("p1"));
            assert_eq!(outcome(attempt.json(200, &finished())).outputs.len(), 2);
        }
    }
    for transport in [Transport::NotSent, Transport::CircuitOpen, Transport::HostDenied] {
        let mut attempt = Attempt::new(REPLICATE);
        attempt.step(Event::Start);
        assert_eq!(failure(attempt.failed(transport)).kind, ErrorKind::Unavailable);
    }
}

#[test]
fn only_the_verdict_fails_an_accepted_job() {
    let mut attempt = asking(false);
    // Far more trouble than any job has, each with a later try.
    for round in 0..40 {
        for status in [200, 302, 400, 401, 402, 403, 408, 422, 425, 429, 500, 502, 503, 504] {
            attempt.now_ms = 1_000_000;
            let body: &[u8] = match round % 4 {
                0 => b"<html>",
                1 => b"{}",
                2 => br#"{"id":"p1","status":"meditating"}"#,
                _ => b"",
            };
            let action = attempt.answer(status, &[], body);
            assert_eq!(line(&attempt.timer(&action)), STATUS, "{status}");
        }
        for transport in [
            Transport::Timeout,
            Transport::NotSent,
            Transport::HostDenied,
            Transport::CircuitOpen,
        ] {
            attempt.now_ms = 1_000_000;
            let action = attempt.failed(transport);
            attempt.timer(&action);
        }
    }
    assert_eq!(outcome(attempt.json(200, &finished())).outputs.len(), 2);

    for (body, kind, code, message) in [
        (
            json!({"status": "failed", "error": "Prediction failed at https://x/y"}),
            ErrorKind::Upstream,
            "failed",
            "Prediction failed at [link]",
        ),
        (
            json!({"status": "failed", "error": "CUDA out of memory"}),
            ErrorKind::Upstream,
            "failed",
            "The model failed at the provider. Try again; if it keeps failing, choose another model.",
        ),
        (
            json!({"status": "failed", "error": "NSFW content detected"}),
            ErrorKind::ContentPolicy,
            "failed",
            "The provider's safety system refused the prompt or the result. Change the wording and try again.",
        ),
        (
            json!({"status": "aborted", "error": null}),
            ErrorKind::Timeout,
            "failed",
            "The provider did not finish in time. Try again, or choose a faster model.",
        ),
        (
            json!({"status": "canceled"}),
            ErrorKind::Cancelled,
            "cancelled",
            "Cancelled.",
        ),
        (
            json!({"status": "succeeded", "output": null}),
            ErrorKind::BadResponse,
            "no_output",
            "the result has no output",
        ),
        (
            json!({"status": "succeeded", "output": []}),
            ErrorKind::BadResponse,
            "no_output",
            "the result has no output",
        ),
        (
            json!({"status": "succeeded", "output": "no address"}),
            ErrorKind::BadResponse,
            "no_output",
            "the result has no output",
        ),
    ] {
        let failure = failure(asking(false).json(200, &body));
        assert_eq!(
            (failure.kind, failure.code.as_str(), failure.message.as_str()),
            (kind, code, message),
            "{body}"
        );
    }
    // A job that the API does not know any more is looked for a while.
    let mut attempt = asking(false);
    let mut looks = 0;
    loop {
        match attempt.json(404, &json!({"detail": "not found"})) {
            Action::Fail(failure) => break assert_eq!((failure.kind, looks), (ErrorKind::NotFound, 7)),
            action => attempt.timer(&action),
        };
        looks += 1;
    }
    assert_eq!(failure(asking(false).failed(Transport::BodyTooLarge)).code, "too_large");
}

#[test]
fn a_cancel_in_every_phase() {
    // Before and while it is submitted.
    assert_eq!(
        failure(Attempt::new(REPLICATE).step(Event::Cancel)).kind,
        ErrorKind::Cancelled
    );
    let mut attempt = Attempt::new(REPLICATE);
    attempt.step(Event::Start);
    assert_eq!(failure(attempt.step(Event::Cancel)).kind, ErrorKind::Cancelled);

    let cancelling = || {
        let mut attempt = asking(false);
        attempt.json(200, &prediction("processing"));
        let action = attempt.step(Event::Cancel);
        assert_eq!((line(&action), request(&action).effect), (CANCEL.into(), Effect::Write));
        attempt
    };
    assert_eq!(
        failure(cancelling().json(200, &prediction("canceled"))).kind,
        ErrorKind::Cancelled
    );
    // Heard, refused or lost: the status tells.
    for (status, body) in [(200, "processing"), (202, "?"), (400, "?"), (404, "?"), (422, "?")] {
        let mut attempt = cancelling();
        let action = attempt.json(status, &prediction(body));
        assert_eq!(line(&attempt.timer(&action)), STATUS, "{status}");
        assert_eq!(
            failure(attempt.json(200, &prediction("canceled"))).kind,
            ErrorKind::Cancelled
        );
    }
    for transport in [Transport::Timeout, Transport::NotSent, Transport::Reset] {
        let mut attempt = cancelling();
        for _ in 0..3 {
            let action = attempt.failed(transport);
            assert_eq!(line(&attempt.timer(&action)), CANCEL);
        }
        let action = attempt.failed(transport);
        assert_eq!(line(&attempt.timer(&action)), STATUS);
        // It was faster than we.
        assert_eq!(outcome(attempt.json(200, &finished())).outputs.len(), 2);
    }
    let mut attempt = cancelling();
    assert_eq!(line(&attempt.json(409, &prediction("succeeded"))), STATUS);
    // Asked once only.
    let mut attempt = cancelling();
    attempt.json(200, &prediction("processing"));
    assert_eq!(line(&attempt.step(Event::Cancel)), STATUS);
    // Gone after our cancel is cancelled.
    for looks in 0..3 {
        let action = attempt.json(404, &json!({}));
        match looks {
            2 => assert_eq!(failure(action).kind, ErrorKind::Cancelled),
            _ => assert_eq!(line(&attempt.timer(&action)), STATUS),
        }
    }
}

#[test]
fn the_deadline_stops_the_job() {
    let mut attempt = asking(false);
    attempt.now_ms = DEADLINE_MS;
    assert_eq!(line(&attempt.json(200, &prediction("processing"))), CANCEL);
    let action = attempt.json(200, &prediction("processing"));
    attempt.timer(&action);
    assert_eq!(
        failure(attempt.json(200, &prediction("canceled"))).kind,
        ErrorKind::Timeout
    );
    let mut attempt = asking(false);
    attempt.now_ms = DEADLINE_MS + 60_000;
    assert_eq!(failure(attempt.json(200, &prediction("processing"))).code, "deadline");
}

#[test]
fn webhooks() {
    // What it delivers is taken, if it is about this job.
    assert_eq!(outcome(asking(true).hook(&finished())).outputs.len(), 2);
    let mut other = finished();
    other["id"] = "p2".into();
    assert_eq!(line(&asking(true).hook(&other)), STATUS);
    other.as_object_mut().unwrap().remove("id");
    assert_eq!(line(&asking(true).hook(&other)), STATUS);
    // A failure is asked about, and so is what makes no sense.
    for body in [
        prediction("failed"),
        prediction("processing"),
        json!({"id": "p1"}),
        json!(7),
    ] {
        assert_eq!(line(&asking(true).hook(&body)), STATUS, "{body}");
    }
    // Polling only keeps the progress fresh.
    let mut attempt = Attempt::hooked(REPLICATE);
    attempt.step(Event::Start);
    assert_eq!(wait_ms(&attempt.json(201, &prediction("starting"))), 15_000);

    let target = |body: &[u8]| {
        let hook = Webhook {
            query: "",
            headers: &[],
            body,
        };
        declared(REPLICATE).webhook(&hook).unwrap()
    };
    assert_eq!(
        target(finished().to_string().as_bytes()),
        HookTarget::Remote("p1".into())
    );
    assert_eq!(target(b"{\"id\": {}}"), HookTarget::Ignore);
    assert_eq!(target(b"\xff"), HookTarget::Ignore);
}

#[test]
fn the_manifest_is_computed() {
    let manifest = declared(REPLICATE).manifest().unwrap();
    assert_eq!(manifest.provider, "replicate");
    assert_eq!(manifest.hosts, ["api.replicate.com"]);
    assert_eq!(manifest.secrets, ["REPLICATE_API_TOKEN"]);
    assert_eq!(
        json!(manifest.webhook_auth),
        json!({"scheme": "standard_webhooks", "secret": "REPLICATE_WEBHOOK_SECRET"})
    );
    let manifest = declared(FAL).manifest().unwrap();
    assert_eq!(manifest.hosts, ["queue.fal.run", "rest.fal.ai"]);
    assert_eq!(manifest.secrets, ["FAL_KEY"]);
}
