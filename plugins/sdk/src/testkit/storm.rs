//! Plays what no recording tells: the events of all recordings in any order, some of them damaged.

use std::path::Path;

use super::{Answer, BEGIN_MS, PATIENCE_MS, Recording, When, describe, read_folder};
use crate::{Action, Effect, Fault, FaultCode, Job, Manifest, Params, Provider, Step};

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
    /// limits, talk to its own hosts only and submit at most once. A panic is the caller's to notice.
    pub fn play<P: Provider>(&self, create: impl Fn(&[u8]) -> Result<P, Fault>, seed: u64) -> Result<(), String> {
        let mut dice = Dice(seed);
        let job = dice.one_of(&self.jobs).ok_or("no recordings")?;
        let config = serde_json::Value::Object(job.config.clone()).to_string();
        let provider = create(config.as_bytes()).map_err(|fault| fault.to_string())?;
        let manifest = provider.manifest().map_err(|fault| fault.to_string())?;
        let params = serde_json::Value::Object(job.params.clone()).to_string();
        let (mut state, mut now_ms, mut submits) = (Vec::new(), BEGIN_MS, 0);
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
            if let Action::Http(request) = &step.action {
                submits += u32::from(matches!(request.effect, Effect::Submit | Effect::SubmitIdempotent));
            }
            if submits > 1 {
                return Err(format!("submitted twice; {}", told()));
            }
            if let Some(new) = &step.state {
                state.clone_from(new);
            }
            now_ms += dice.below(600_000);
        }
        Ok(())
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
