//! Plays what no recording tells: the events of all recordings in any order, some of them damaged.

use std::path::Path;

use super::{Answer, BEGIN_MS, Lost, PATIENCE_MS, Recording, When, describe, read_folder};
use crate::{Action, ErrorKind, Fault, FaultCode, Job, Manifest, Params, Provider, Step, Transport};

/// The host's limits on an answer, as `PLUGINS.md` has them.
const MAX_STATE_BYTES: usize = 64 << 10;
const MAX_URL_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
const MAX_BODY_BYTES: usize = 32 << 20;
const MAX_ID_BYTES: usize = 512;
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// How many events one storm has.
const EVENTS: u64 = 24;

/// Every recording of a folder, as material.
pub struct Storm {
    jobs: Vec<Recording>,
    events: Vec<When>,
}

impl Storm {
    /// Takes the recordings of a folder apart.
    pub fn of_folder(folder: impl AsRef<Path>) -> Result<Storm, String> {
        let mut jobs = Vec::new();
        for (name, text) in read_folder(folder.as_ref())? {
            jobs.push(Recording::parse(&text).map_err(|m| format!("{name}: {m}"))?);
        }
        let turns = jobs.iter().flat_map(|job| &job.exchange);
        let events = turns.map(|turn| turn.when.clone()).collect();
        Ok(Storm { jobs, events })
    }

    /// One storm, which `seed` decides: the job of some recording is started and then told events of any recording.
    ///
    /// Whatever happens, the provider must answer the same question the same way, read its own state, keep to the host's
    /// limits, talk to its own hosts only, and keep the rules on money: one submit, nothing decided that cannot be known,
    /// nothing failed by trouble on the way. A panic is the caller's to notice.
    pub fn play<P: Provider>(&self, create: impl Fn(&[u8]) -> Result<P, Fault>, seed: u64) -> Result<(), String> {
        let mut dice = Dice(seed);
        let job = dice.one_of(&self.jobs).ok_or("no recordings")?;
        let config = serde_json::Value::Object(job.config.clone()).to_string();
        let provider = create(config.as_bytes()).map_err(|fault| fault.to_string())?;
        let manifest = provider.manifest().map_err(|fault| fault.to_string())?;
        let params = serde_json::Value::Object(job.params.clone()).to_string();
        let (mut state, mut now_ms, mut money) = (Vec::new(), BEGIN_MS, Money::Unspent);
        for steps in 0..EVENTS {
            let when = match steps {
                0 => When::Start,
                _ => dice.event(&self.events),
            };
            let job = Job {
                id: "00000000-0000-7000-8000-000000000001",
                model: &job.model,
                params: Params::new(&params),
                state: &state,
                idempotency_key: "00000000-0000-7000-8000-000000000001",
                webhook_url: job.webhook_url.as_deref(),
                now_ms,
                deadline_ms: BEGIN_MS + PATIENCE_MS,
                attempt: 1,
                steps: steps as u32,
            };
            let (first, second) = (when.tell(&provider, &job), when.tell(&provider, &job));
            let told = || format!("step {steps}, told {when:?}: {}", describe(&first));
            if describe(&first) != describe(&second) {
                return Err(format!("two answers to one question; {}", told()));
            }
            let step = match &first {
                Ok(step) => step,
                Err(Fault {
                    code: FaultCode::BadState | FaultCode::Internal | FaultCode::Panic,
                    ..
                }) => {
                    return Err(told());
                }
                // It need not know every event, and it may refuse a job that is not configured.
                Err(_) => continue,
            };
            within_limits(step, &manifest).map_err(|what| format!("{what}; {}", told()))?;
            money = money.after(&when, step).map_err(|what| format!("{what}; {}", told()))?;
            if let Some(new) = &step.state {
                state.clone_from(new);
            }
            now_ms += dice.below(600_000);
        }
        Ok(())
    }
}

/// What is known about the money of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Money {
    /// Nothing was asked for that costs any.
    Unspent,
    /// The paid request went out.
    Sent,
    /// The provider has named the API's id.
    Accepted,
    /// The job is over.
    Over,
}

impl Money {
    /// What is known after a step, if the step keeps the rules on money.
    fn after(self, when: &When, step: &Step) -> Result<Money, String> {
        let submits = matches!(&step.action, Action::Http(request) if request.effect.is_submit());
        let settles = match &step.action {
            Action::Done(_) => true,
            Action::Fail(failure) => failure.kind != ErrorKind::UnknownOutcome,
            _ => false,
        };
        match self {
            Money::Sent | Money::Accepted | Money::Over if submits => Err("submitted twice".into()),
            Money::Sent if is_ambiguous(when) && settles => Err("decided what cannot be known".into()),
            Money::Sent if is_ambiguous(when) && step.remote_id.is_some() => Err("named an id without proof".into()),
            Money::Accepted if is_trouble(when) && settles => {
                Err("let trouble on the way end a job that is paid for".into())
            }
            // A job that ended before anything was bought may be told more here than a host would tell it.
            Money::Unspent if settles => Ok(Money::Unspent),
            Money::Over => Ok(Money::Over),
            _ if settles => Ok(Money::Over),
            _ if step.remote_id.is_some() => Ok(Money::Accepted),
            _ if submits => Ok(Money::Sent),
            unchanged => Ok(unchanged),
        }
    }
}

/// Nothing in it says whether a paid request arrived. (A 503 may, if the API wrote it.)
fn is_ambiguous(when: &When) -> bool {
    match when {
        When::Interrupted => true,
        When::Failed(lost) => !Transport::from(*lost).not_sent(),
        When::Http(answer) => matches!(answer.status, 408 | 499 | 500..=502 | 504..=599),
        _ => false,
    }
}

/// It says nothing about the job.
fn is_trouble(when: &When) -> bool {
    match when {
        When::Failed(Lost::BodyTooLarge) => false,
        When::Failed(_) => true,
        When::Http(answer) => matches!(answer.status, 401 | 402 | 403 | 408 | 425 | 429 | 500..=599),
        _ => false,
    }
}

/// The host's limits, and that requests go to hosts of the manifest with secrets of the manifest.
fn within_limits(step: &Step, manifest: &Manifest) -> Result<(), String> {
    let at_most = |what: &str, bytes: usize, most: usize| match bytes <= most {
        true => Ok(()),
        false => Err(format!("{what} is {bytes} long; {most} are allowed")),
    };
    at_most("the state", step.state.as_ref().map_or(0, Vec::len), MAX_STATE_BYTES)?;
    let id = step.remote_id.as_deref().unwrap_or("-");
    at_most("the remote id", id.len(), MAX_ID_BYTES)?;
    if id.is_empty() || id.chars().any(char::is_control) {
        return Err("the remote id is empty or not printable".into());
    }
    match &step.action {
        Action::Http(request) => {
            at_most("the URL", request.url.len(), MAX_URL_BYTES)?;
            at_most("the list of headers", request.headers.len(), MAX_HEADERS)?;
            at_most("the body", request.body.len(), MAX_BODY_BYTES)?;
            let host = request
                .url
                .split("://")
                .nth(1)
                .and_then(|rest| rest.split(['/', '?']).next());
            if !manifest.hosts.iter().any(|listed| Some(listed.as_str()) == host) {
                return Err(format!("the manifest does not name the host of {}", request.url));
            }
            if request.url.contains([' ', '\\', '\t', '\r', '\n']) {
                return Err(format!("{:?} is not a URL", request.url));
            }
            for (name, value) in &request.headers {
                let secret = value
                    .split_once("{{secret:")
                    .and_then(|(_, rest)| rest.split("}}").next());
                if secret.is_some_and(|secret| !manifest.secrets.iter().any(|declared| declared == secret)) {
                    return Err(format!("the header `{name}` names a secret that the manifest does not"));
                }
            }
            Ok(())
        }
        Action::Fail(failure) => at_most("the message", failure.message.len(), MAX_MESSAGE_BYTES),
        Action::Done(outcome) if outcome.outputs.is_empty() => Err("done without an output".into()),
        Action::Emit(_) => Err("streams, which the host does not".into()),
        Action::Done(_) | Action::Wait { .. } => Ok(()),
    }
}

/// Numbers that a seed decides (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    fn one_of<'t, T>(&mut self, among: &'t [T]) -> Option<&'t T> {
        among.get(self.below(among.len() as u64) as usize)
    }

    fn event(&mut self, events: &[When]) -> When {
        let mut when = self.one_of(events).cloned().unwrap_or(When::Timer);
        if let When::Http(answer) | When::Webhook(answer) = &mut when {
            self.damage(answer);
        }
        when
    }

    /// Every fourth answer is cut off, made nonsense or given another status.
    fn damage(&mut self, answer: &mut Answer) {
        const ODD: [&str; 8] = [
            "",
            "null",
            "[]",
            "{}",
            "\"\"",
            "\u{fffd}\u{0}",
            "[[[[",
            "<html>502</html>",
        ];
        const STATUS: [u16; 10] = [200, 201, 400, 401, 404, 408, 429, 499, 500, 503];
        match self.below(12) {
            0 => {
                let whole = answer.body.take().map(|body| body.to_string());
                let whole = whole.or(answer.body_text.take()).unwrap_or_default();
                let end = whole.floor_char_boundary(self.below(whole.len() as u64 + 1) as usize);
                answer.body_text = Some(whole[..end].to_owned());
            }
            1 => {
                answer.body = None;
                answer.body_text = self.one_of(&ODD).map(|text| (*text).to_owned());
            }
            2 => answer.status = self.one_of(&STATUS).copied().unwrap_or(500),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HttpRequest, Output, Retry};

    fn http(status: u16) -> When {
        When::Http(Answer {
            status,
            headers: Default::default(),
            body: None,
            body_text: None,
        })
    }

    fn fail(kind: ErrorKind) -> Step {
        Step::fail(kind, Retry::SameProvider, "x", "x")
    }

    #[test]
    fn rules_on_money_are_kept() {
        let submit = || Step::from(HttpRequest::submit("https://a.example"));
        let done = || Step::done(vec![Output::url("image", "https://a.example/1.png")]);
        let lost = || When::Failed(Lost::Reset);
        for (before, when, step, after) in [
            (Money::Unspent, When::Start, submit(), Ok(Money::Sent)),
            (
                Money::Sent,
                http(201),
                Step::wait(1).remote_id("1"),
                Ok(Money::Accepted),
            ),
            (Money::Sent, http(429), fail(ErrorKind::RateLimited), Ok(Money::Over)),
            (Money::Sent, lost(), fail(ErrorKind::UnknownOutcome), Ok(Money::Sent)),
            (
                Money::Sent,
                lost(),
                HttpRequest::get("https://a.example").into(),
                Ok(Money::Sent),
            ),
            (Money::Accepted, http(500), Step::wait(1), Ok(Money::Accepted)),
            (Money::Accepted, http(200), done(), Ok(Money::Over)),
            (Money::Sent, lost(), submit(), Err("submitted twice")),
            (Money::Accepted, http(500), submit(), Err("submitted twice")),
            (Money::Sent, lost(), fail(ErrorKind::Unavailable), Err("decided what")),
            (
                Money::Sent,
                When::Interrupted,
                fail(ErrorKind::Timeout),
                Err("decided what"),
            ),
            (Money::Sent, http(500), fail(ErrorKind::Upstream), Err("decided what")),
            (Money::Sent, http(504), done(), Err("decided what")),
            (Money::Sent, lost(), Step::wait(1).remote_id("1"), Err("named an id")),
            (Money::Accepted, http(401), fail(ErrorKind::Auth), Err("let trouble")),
            (
                Money::Accepted,
                lost(),
                fail(ErrorKind::Unavailable),
                Err("let trouble"),
            ),
        ] {
            let told = before.after(&when, &step).map_err(|what| what[..11].to_owned());
            let wanted = after.map_err(|what| what[..11].to_owned());
            assert!(told == wanted, "{when:?} {:?}: {}", step.action, told.is_ok());
        }
    }

    #[test]
    fn answers_are_held_to_the_limits() {
        let manifest = Manifest::new("acme", "1").host("a.example").secret("KEY");
        let told = |step: Step| within_limits(&step, &manifest);
        let get = |url: &str| HttpRequest::get(url);
        assert_eq!(
            told(get("https://a.example/x?y").header("a", "{{secret:KEY}}").into()),
            Ok(())
        );
        for wrong in [
            get("https://b.example/").into(),
            get("https://a.example/a b").into(),
            get(&format!("https://a.example/{}", "x".repeat(9_000))).into(),
            get("https://a.example/").header("a", "Bearer {{secret:OTHER}}").into(),
            Step::wait(1).remote_id(""),
            Step::wait(1).remote_id("a\nb"),
            Step::wait(1).state_json(&"x".repeat(70_000)),
        ] {
            assert!(told(wrong).is_err());
        }
    }
}
