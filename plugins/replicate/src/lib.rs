//! Replicate's predictions API as a Velro provider: create, poll or webhook, cancel.
//!
//! ```text
//! (nothing) --Start--> submitting --answer with an id--> accepted --verdict--> done | failed
//!                          \--no clear answer--> lost --webhook--> accepted
//! ```
//!
//! Invariants:
//! - A create is emitted only for `Start` without saved state, so at most once per attempt. What is neither a clear
//!   refusal nor an id is *lost*: only Replicate's webhook or an operator resolves it.
//! - Once there is an id, only the prediction's own status ends the job, or the host at its deadline. Trouble on the way
//!   is waited out, because the prediction is being billed meanwhile.
//! - A webhook is a hint: what it announces is fetched.

mod config;
mod error;
mod request;
mod response;
mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

use velro_plugin::{
    ErrorKind, Event, Failure, Fault, HookTarget, Job, Manifest, Progress, Provider, Response, Retry, Step, Transport,
    Value, Webhook, WebhookAuth, export_provider,
};

use config::Config;
use response::Verdict;
use state::{Phase, State, Ticket, keep};

/// An answer that makes no sense is asked for again this many times.
const TRIES: u32 = 7;

/// The provider. Holds configuration only.
pub struct Replicate(Config);

export_provider!(Replicate, Replicate::new);

impl Replicate {
    /// Made from the JSON text of its configuration.
    pub fn new(config: &[u8]) -> Result<Self, Fault> {
        Config::read(config).map(Replicate)
    }
}

impl Provider for Replicate {
    fn manifest(&self) -> Result<Manifest, Fault> {
        let mut manifest = Manifest::new("replicate", env!("CARGO_PKG_VERSION"))
            .host(self.0.base.host())
            .secret("REPLICATE_API_TOKEN");
        manifest.webhook_auth = Some(WebhookAuth::StandardWebhooks {
            secret: "REPLICATE_WEBHOOK_SIGNING_SECRET".into(),
        });
        Ok(manifest)
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        if matches!(event, Event::Chunk(_)) {
            return Err(Fault::unsupported("chunk"));
        }
        match state::load(job)? {
            Some(State::Accepted(ticket)) => Ok(self.accepted(job, ticket, event)),
            before => self.unaccepted(job, before.as_ref(), event),
        }
    }

    fn webhook(&self, hook: &Webhook<'_>) -> Result<HookTarget, Fault> {
        let prediction: Value = serde_json::from_slice(hook.body).unwrap_or_default();
        Ok(response::id(&prediction).map_or(HookTarget::Ignore, HookTarget::Remote))
    }
}

/// Before Replicate has confirmed the job.
impl Replicate {
    fn unaccepted(&self, job: &Job<'_>, state: Option<&State>, event: Event<'_>) -> Result<Step, Fault> {
        let lost_already = matches!(state, Some(State::Lost));
        Ok(match event {
            Event::Start if state.is_none() => keep(request::create(&self.0.base, job)?.into(), &State::Submitting),
            // The host asks only while no request is in flight; without a lost one nothing was bought.
            Event::Cancel if !lost_already => cancelled(),
            Event::Http(answer) if !lost_already => match created(&answer) {
                Some((id, prediction)) => {
                    let ticket = Ticket::new(id.clone(), job.now_ms);
                    let progress = progress(&prediction, None);
                    // Some end at once; the status is asked for all the same, so that a failure comes after the id.
                    let ms = match response::verdict(&prediction) {
                        Verdict::Going => request::pace_ms(job, &ticket),
                        _ => 100,
                    };
                    keep(Step::wait(ms), &State::Accepted(ticket))
                        .remote_id(id)
                        .progress(progress)
                }
                None if error::is_refusal(&answer) => error::refused(&answer).into(),
                None => lost(job),
            },
            Event::Failed(transport) if transport.not_sent() && !lost_already => not_sent(transport).into(),
            Event::Webhook(hook) => match response::id(&hook.json().unwrap_or_default()) {
                Some(id) => self.go(Ticket::new(id.clone(), job.now_ms), Phase::Poll).remote_id(id),
                None => lost(job),
            },
            _ => lost(job),
        })
    }
}

/// Id and prediction of an accepted create; `None` for everything that does not clearly say so.
fn created(answer: &Response<'_>) -> Option<(String, Value)> {
    let prediction = answer.ok().then(|| answer.json().ok()).flatten()?;
    Some((response::id(&prediction)?, prediction))
}

/// Whether the job was bought is not known, and must not be found out by buying again.
fn lost(job: &Job<'_>) -> Step {
    let left_ms = job.deadline_ms.saturating_sub(job.now_ms);
    let step = if job.webhook_url.is_some() && left_ms > 0 {
        Step::wait(left_ms.clamp(1_000, 600_000))
    } else {
        Step::fail(
            ErrorKind::UnknownOutcome,
            Retry::Never,
            "unknown_outcome",
            "The connection to the provider broke while the job was handed over. We are finding out whether it was \
             accepted; nothing is charged until then.",
        )
    };
    keep(step, &State::Lost)
}

fn cancelled() -> Step {
    Step::fail(ErrorKind::Cancelled, Retry::Never, "cancelled", "Cancelled.")
}

fn not_sent(transport: Transport) -> Failure {
    let retry = match transport {
        Transport::HostDenied => Retry::OtherProvider,
        _ => Retry::SameProvider,
    };
    let message = "The provider cannot be reached at present. Try again in a few minutes.";
    error::failure(ErrorKind::Unavailable, retry, "unreachable", message)
}

/// Replicate has the job.
impl Replicate {
    fn accepted(&self, job: &Job<'_>, mut ticket: Ticket, event: Event<'_>) -> Step {
        match event {
            Event::Http(answer) => match ticket.phase {
                Phase::Poll => self.polled(job, ticket, &answer),
                Phase::Cancel => self.cancel_answered(job, ticket, &answer),
            },
            Event::Failed(Transport::BodyTooLarge) => try_few(job, ticket, 0, too_large()),
            Event::Failed(_) => try_later(job, ticket, 0),
            Event::Webhook(_) => self.go(ticket, Phase::Poll),
            Event::Cancel if !ticket.stopping => {
                ticket.stopping = true;
                ticket.errors = 0;
                self.go(ticket, Phase::Cancel)
            }
            Event::Cancel | Event::Timer | Event::Interrupted | Event::Start | Event::Chunk(_) => {
                let phase = ticket.phase;
                self.go(ticket, phase)
            }
        }
    }

    fn go(&self, mut ticket: Ticket, phase: Phase) -> Step {
        ticket.phase = phase;
        let request = match phase {
            Phase::Poll => request::poll(&self.0.base, &ticket),
            Phase::Cancel => request::cancel(&self.0.base, &ticket),
        };
        keep(request.into(), &State::Accepted(ticket))
    }

    fn polled(&self, job: &Job<'_>, ticket: Ticket, answer: &Response<'_>) -> Step {
        let retry_after_ms = answer.failure("").retry_after_ms;
        match (answer.status, answer.json()) {
            (200..=299, Ok(prediction)) if prediction.is_object() => predicted(job, ticket, &prediction),
            (404 | 410, _) => try_few(job, ticket, retry_after_ms, gone()),
            _ => try_later(job, ticket, retry_after_ms),
        }
    }

    fn cancel_answered(&self, job: &Job<'_>, mut ticket: Ticket, answer: &Response<'_>) -> Step {
        match (answer.status, answer.json()) {
            (200..=299, Ok(prediction)) if prediction.is_object() => {
                ticket.phase = Phase::Poll;
                predicted(job, ticket, &prediction)
            }
            (408 | 425 | 429 | 500..=599, _) if ticket.errors < 3 => {
                try_later(job, ticket, answer.failure("").retry_after_ms)
            }
            // Refused or unclear, as for a prediction that has just ended: its status tells what became of it.
            _ => self.go(ticket, Phase::Poll),
        }
    }
}

/// A prediction of ours, as it is now.
fn predicted(job: &Job<'_>, mut ticket: Ticket, prediction: &Value) -> Step {
    match response::verdict(prediction) {
        Verdict::Going => {
            let progress = progress(prediction, ticket.permille);
            ticket.permille = progress.permille;
            ticket.errors = 0;
            let ms = request::pace_ms(job, &ticket);
            keep(Step::wait(ms), &State::Accepted(ticket)).progress(progress)
        }
        Verdict::Succeeded => match response::outcome(prediction) {
            Some(outcome) => outcome.into(),
            None if prediction["data_removed"] == true => gone().into(),
            None => Step::done(Vec::new()),
        },
        Verdict::Failed(text) => error::of_verdict(&text).into(),
        Verdict::Canceled => cancelled(),
        Verdict::Aborted if ticket.stopping => cancelled(),
        Verdict::Aborted => error::failure(
            ErrorKind::Timeout,
            Retry::Never,
            "aborted",
            "The provider could not start the job in time. Try again later, or choose another model.",
        )
        .into(),
    }
}

fn progress(prediction: &Value, before: Option<u16>) -> Progress {
    Progress {
        // `None` is smaller than any number.
        permille: before.max(response::permille(prediction)),
        queue_position: None,
        message: None,
    }
}

/// Trouble that says nothing about the job: waited out until the host's deadline.
fn try_later(job: &Job<'_>, mut ticket: Ticket, retry_after_ms: u64) -> Step {
    ticket.errors = ticket.errors.saturating_add(1);
    // At the deadline the host asks us to cancel; until then there is time.
    let left_ms = job.deadline_ms.saturating_sub(job.now_ms).max(1_000);
    let ms = request::backoff_ms(ticket.errors, retry_after_ms).min(left_ms);
    keep(Step::wait(ms), &State::Accepted(ticket))
}

/// An answer that may become a better one, but not for ever.
fn try_few(job: &Job<'_>, ticket: Ticket, retry_after_ms: u64, failure: Failure) -> Step {
    match ticket.errors >= TRIES {
        true => failure.into(),
        false => try_later(job, ticket, retry_after_ms),
    }
}

fn gone() -> Failure {
    let message = "The provider no longer knows this job, so its result cannot be delivered.";
    error::failure(ErrorKind::NotFound, Retry::Never, "result_gone", message)
}

fn too_large() -> Failure {
    let message = "The provider's result is larger than this server accepts.";
    error::failure(ErrorKind::BadResponse, Retry::Never, "result_too_large", message)
}
