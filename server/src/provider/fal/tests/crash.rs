//! The process dies at every point of a job and goes on from what was stored. Nothing may be bought twice.

use super::*;
use velro_plugin::{ErrorKind, Transport};

/// A FAL that works: one job, three polls, then the pictures.
#[derive(Default)]
struct FakeFal {
    submits: u32,
    polls: u32,
}

impl FakeFal {
    fn answer(&mut self, request: &HttpRequest) -> (u16, Value) {
        if request.effect.is_submit() {
            self.submits += 1;
            return (200, submitted());
        }
        assert!(self.submits > 0, "asked about a job that was never submitted");
        if request.url.ends_with("/status?logs=1") {
            self.polls += 1;
            return match self.polls {
                1 => (202, json!({"status": "IN_QUEUE", "queue_position": 1})),
                2 => (202, json!({"status": "IN_PROGRESS", "logs": null})),
                _ => (200, json!({"status": "COMPLETED", "logs": null})),
            };
        }
        (200, images())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// Stored, and nothing done about it yet.
    BeforeItIsCarriedOut,
    /// The request was answered, and the answer is lost with the process.
    AfterTheAnswer,
}

#[derive(Debug, PartialEq)]
enum End {
    Done,
    Failed(ErrorKind),
}

/// Runs a job whose process dies at step `crash`; answers the end, the submits, and whether it died at the submit.
fn run(hook: Option<&'static str>, crash: usize, moment: Moment) -> (End, FakeFal, bool) {
    let (mut attempt, mut fake, mut died_submitting) = (Attempt::new(hook), FakeFal::default(), false);
    let mut action = attempt.step(Event::Start);
    for step in 0..200 {
        let dies = step == crash;
        action = match action {
            Action::Done(_) => return (End::Done, fake, died_submitting),
            Action::Fail(failure) => return (End::Failed(failure.kind), fake, died_submitting),
            // The wait is stored with its end: a restart waits for the rest of it.
            Action::Wait { ms } if ms > 200_000 && hook.is_some() && fake.submits > 0 => {
                attempt.now_ms += 5_000;
                attempt.hook(&json!({"request_id": ID, "status": "OK", "payload": images()}))
            }
            Action::Wait { .. } => attempt.timer(&action),
            Action::Http(request) => {
                let answer = (!dies || moment == Moment::AfterTheAnswer).then(|| fake.answer(&request));
                match answer {
                    Some((status, body)) if !dies => attempt.json(status, &body),
                    _ if request.effect.is_submit() => {
                        died_submitting = true;
                        attempt.step(Event::Interrupted)
                    }
                    // The stored request is sent again.
                    _ => {
                        let (status, body) = fake.answer(&request);
                        attempt.json(status, &body)
                    }
                }
            }
            Action::Emit(_) => panic!("FAL does not stream"),
        };
    }
    panic!("it never ends")
}

#[test]
fn dying_at_every_step_buys_at_most_once() {
    for hook in [None, Some(HOOK)] {
        for moment in [Moment::BeforeItIsCarriedOut, Moment::AfterTheAnswer] {
            let mut died_submitting = 0;
            for crash in 0..12 {
                let (end, fake, at_submit) = run(hook, crash, moment);
                let case = format!("webhook {}, {moment:?}, step {crash}", hook.is_some());
                assert!(fake.submits <= 1, "{case}: bought {} times", fake.submits);
                let resolvable = !at_submit || (hook.is_some() && fake.submits == 1);
                let want = if resolvable {
                    End::Done
                } else {
                    End::Failed(ErrorKind::UnknownOutcome)
                };
                assert_eq!(end, want, "{case}");
                died_submitting += u32::from(at_submit);
            }
            assert_eq!(died_submitting, 1);
        }
    }
}

/// Whatever is stored and whatever happens next: only a first `Start` submits.
#[test]
fn no_state_and_no_event_submits_again() {
    let mut stored: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut attempt = Attempt::new(Some(HOOK));
    attempt.step(Event::Start);
    stored.push(("submitting", attempt.state.clone()));
    attempt.step(Event::Interrupted);
    stored.push(("lost", attempt.state.clone()));
    stored.push(("polling", Attempt::polling(None).state));
    stored.push(("fetching", Attempt::fetching().state));
    let mut attempt = Attempt::polling(None);
    attempt.step(Event::Cancel);
    stored.push(("cancelling", attempt.state));

    let bodies = [
        submitted(),
        images(),
        json!({"status": "COMPLETED"}),
        json!({"detail": "x"}),
        json!(null),
    ];
    for (name, state) in stored {
        for hook in [None, Some(HOOK)] {
            for (label, event) in [
                ("start", Event::Start),
                ("timer", Event::Timer),
                ("cancel", Event::Cancel),
                ("interrupted", Event::Interrupted),
                ("not sent", Event::Failed(Transport::NotSent)),
                ("timeout", Event::Failed(Transport::Timeout)),
            ] {
                must_not_submit(&format!("{name}, {label}"), &state, hook, event);
            }
            for body in &bodies {
                let text = body.to_string();
                for status in [200, 202, 400, 401, 404, 409, 429, 499, 500, 503] {
                    let answer = Response {
                        status,
                        headers: &[],
                        body: text.as_bytes(),
                    };
                    let case = format!("{name}, {status} {text}");
                    must_not_submit(&case, &state, hook, Event::Http(answer));
                    must_not_submit(&case, &state, hook, Event::Webhook(answer));
                }
            }
        }
    }
}

fn must_not_submit(case: &str, state: &[u8], hook: Option<&'static str>, event: Event<'_>) {
    let mut attempt = Attempt::new(hook);
    attempt.state = state.to_vec();
    if let Action::Http(request) = attempt.step(event) {
        assert!(!request.effect.is_submit(), "{case}");
        assert!(
            request
                .url
                .starts_with("https://queue.fal.run/fal-ai/flux-pro/requests/"),
            "{case}: {}",
            request.url
        );
    }
}

#[test]
fn state_of_a_newer_version_is_not_guessed_at() {
    let mut attempt = Attempt::polling(None);
    let newer = String::from_utf8(attempt.state.clone())
        .unwrap()
        .replace("\"v\":1", "\"v\":2");
    attempt.state = newer.into_bytes();
    let job = Job {
        id: "a",
        model: MODEL,
        params: Params::new("{}"),
        state: &attempt.state,
        idempotency_key: "a",
        webhook_url: None,
        now_ms: 0,
        deadline_ms: 1,
        attempt: 1,
        steps: 3,
    };
    let fault = fal().step(&job, Event::Timer).unwrap_err();
    assert_eq!(fault.code, velro_plugin::FaultCode::BadState);
}
