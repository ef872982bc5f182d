//! The rules about money, as far as they can be seen from outside: after a paid request whose answer is not known, a
//! provider neither submits again nor calls the job failed.

use velro_plugin::{Action, ErrorKind, Fault, HttpRequest, Provider, Step, Transport};

use super::questions::{Question, What};
use super::{Case, Finding};
use crate::plugin::answer::MAX_STATE_BYTES;

/// Plays every way in which the answer to the first submit can be lost.
pub(super) fn check(provider: &dyn Provider, start: &Question, secrets: &[String], hosts: &[String]) -> Finding {
    let mut finding = Finding::new(Case::Money);
    let first = match start.ask(provider) {
        Ok(step) => step,
        Err(fault) => {
            finding.problem(format!(
                "cannot start a job: {fault}; say what is wrong with the input by a failure, not a fault"
            ));
            return finding;
        }
    };
    let Action::Http(request) = &first.action else {
        return Finding::skipped(
            Case::Money,
            "the first step of a job with nothing but a prompt is no request; give recordings with --exchanges",
        );
    };
    for problem in of_request(request, secrets, hosts) {
        finding.problem(problem);
    }
    if !request.effect.is_submit() {
        finding.note("the first request is not a submit; what follows it is left to the recordings");
        return finding;
    }
    finding.note(format!(
        "submits by {:?} to {}",
        request.method,
        request.url.split('?').next().unwrap_or_default()
    ));
    let state = first.state.clone().unwrap_or_default();
    let lost = [
        ("its answer timed out", What::Failed(Transport::Timeout)),
        ("the connection broke", What::Failed(Transport::Reset)),
        ("its answer was too large", What::Failed(Transport::BodyTooLarge)),
        ("the host was restarted", What::Interrupted),
        ("the answer was a 500", answer(500)),
        ("the answer was a 502", answer(502)),
        ("the answer was a 504", answer(504)),
    ];
    for (how, what) in lost {
        let question = Question {
            state: state.clone(),
            ..start.then(what)
        };
        if let Some(problem) = after_lost(how, &question.ask(provider)) {
            finding.problem(problem);
        }
    }
    let unsent = Question {
        state,
        ..start.then(What::Failed(Transport::NotSent))
    };
    match unsent.ask(provider) {
        Ok(Step {
            action: Action::Fail(failure),
            ..
        }) if failure.kind == ErrorKind::UnknownOutcome => {
            finding.problem(
                "calls the outcome unknown although nothing was sent; Failed(NotSent) means that nothing was bought",
            );
        }
        Ok(Step {
            action: Action::Fail(_),
            ..
        }) => {}
        Ok(step) => finding.note(format!(
            "after a request that was not sent it goes on: {:?}",
            step.action
        )),
        Err(fault) => finding.problem(format!("has no answer to a request that was not sent: {fault}")),
    }
    finding
}

fn answer(status: u16) -> What {
    What::Http {
        status,
        headers: Vec::new(),
        body: b"{\"error\":\"upstream\"}".to_vec(),
    }
}

fn after_lost(how: &str, answer: &Result<Step, Fault>) -> Option<String> {
    match answer {
        Ok(Step {
            action: Action::Http(request),
            ..
        }) if request.effect.is_submit() => Some(format!(
            "submits again after {how}: that buys twice; look the job up, wait for its webhook, or fail as UnknownOutcome"
        )),
        Ok(Step {
            action: Action::Fail(failure),
            ..
        }) if failure.kind != ErrorKind::UnknownOutcome => Some(format!(
            "calls the job failed ({:?}) after {how}; it may have been bought: fail as UnknownOutcome",
            failure.kind
        )),
        Ok(Step {
            action: Action::Done(_),
            ..
        }) => Some(format!("is done after {how}, without any result")),
        Ok(_) => None,
        Err(fault) => Some(format!("has no answer after {how} ({fault}); fail as UnknownOutcome")),
    }
}

/// What the host would refuse to send.
pub(super) fn of_request(request: &HttpRequest, secrets: &[String], hosts: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let (place, query) = request.url.split_once('?').unwrap_or((&request.url, ""));
    match url::Url::parse(place) {
        Err(error) => problems.push(format!("asks for the URL {place:?}, which is not valid ({error})")),
        Ok(url) => {
            let host = url.host_str().unwrap_or_default();
            let full = url
                .port()
                .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            if !hosts.iter().any(|listed| listed.eq_ignore_ascii_case(&full)) {
                problems.push(format!(
                    "asks for a request to `{full}`, which the manifest's hosts do not name"
                ));
            }
        }
    }
    const OPEN: &str = "{{secret:";
    if place.contains(OPEN) || String::from_utf8_lossy(&request.body).contains(OPEN) {
        problems.push("puts a secret into the path or the body; only the query and header values are filled in".into());
    }
    let texts = request.headers.iter().map(|(_, value)| value.as_ref()).chain([query]);
    for piece in texts.flat_map(|text| text.split(OPEN).skip(1)) {
        match piece.split_once("}}") {
            Some((name, _)) if secrets.iter().any(|known| known == name) => {}
            Some((name, _)) => problems.push(format!("uses the secret `{name}`, which the manifest does not name")),
            None => problems.push("a placeholder of a secret is not closed".into()),
        }
    }
    problems
}

/// What the host would not accept of any step.
pub(super) fn of_step(step: &Step) -> Option<String> {
    let state = step.state.as_ref().map_or(0, Vec::len);
    if state > MAX_STATE_BYTES {
        return Some(format!("stores {state} bytes of state; {MAX_STATE_BYTES} are allowed"));
    }
    match &step.action {
        Action::Done(outcome) if outcome.outputs.is_empty() => {
            Some("is done without an output; that is a failure (BadResponse)".into())
        }
        _ => None,
    }
}
