//! Built in: FAL.ai over its queue API (submit, poll or webhook, fetch, cancel).
//!
//! The machine has three stages, kept in [`State`]:
//!
//! ```text
//! (nothing) --Start--> submitting --answer--> accepted --verdict--> done | failed
//!                          \--no clear answer--> lost --webhook--> accepted
//! ```
//!
//! Invariants:
//! - A submit is emitted only for `Start` without saved state, so at most once per attempt. Everything that is not a
//!   clear refusal (4xx) or proof that nothing was sent is *lost*: only FAL's webhook or an operator resolves it.
//! - Once FAL has accepted, only FAL's own verdict or the deadline ends the job. Trouble on the way (5xx, 429, a dead
//!   network, a locked account) is waited out, because the job is being paid for meanwhile.
//! - A webhook is a hint: what it announces is fetched.
//! - FAL's platform retries (`X-Fal-No-Retry` unset) stay on: FAL never charges a failed run, so they cost nothing and
//!   cure what we could not retry ourselves without buying twice.
//! - No text of FAL's reaches the user except a cleaned log line; error messages are our own ([`error`]).

mod address;
mod error;
mod progress;
mod request;
mod response;
mod state;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

use velro_plugin::{
    ErrorKind, Event, Failure, Fault, HookTarget, Job, Manifest, Provider, Response, Retry, Step, Transport, Value,
    Webhook, WebhookAuth,
};

use crate::config::FalConfig;
use address::Base;
use state::{Phase, State, Stop, Ticket};

/// Name of the secret in `{{secret:FAL_KEY}}`.
pub const KEY_NAME: &str = "FAL_KEY";

/// After the deadline a cancel is sent and FAL's verdict awaited this long, in milliseconds.
const GRACE_MS: u64 = 60_000;

/// The built-in FAL provider. Holds configuration only.
pub struct Fal {
    base: Result<Base, String>,
    rest_host: Option<String>,
    jwks_url: String,
}

impl Fal {
    /// A provider for the configured base URLs. Whether they are usable says [`Fal::fault`].
    pub fn new(config: &FalConfig) -> Self {
        let rest = config.rest_url.trim_end_matches('/');
        Fal {
            base: Base::parse(&config.queue_url),
            rest_host: Base::parse(rest).ok().map(|b| b.host().to_owned()),
            jwks_url: format!("{rest}/.well-known/jwks.json"),
        }
    }

    /// What is wrong with the configured queue URL, for the operator.
    pub fn fault(&self) -> Option<&str> {
        self.base.as_ref().err().map(String::as_str)
    }

    fn base(&self) -> Result<&Base, Fault> {
        self.base
            .as_ref()
            .map_err(|e| Fault::new(velro_plugin::FaultCode::BadInput, e.clone()))
    }
}

impl Provider for Fal {
    fn manifest(&self) -> Result<Manifest, Fault> {
        let mut manifest = Manifest::new("fal", env!("CARGO_PKG_VERSION")).secret(KEY_NAME);
        if let Ok(base) = &self.base {
            manifest = manifest.host(base.host());
        }
        if let Some(rest) = self.rest_host.as_ref().filter(|h| !manifest.hosts.contains(h)) {
            manifest = manifest.host(rest.clone());
        }
        manifest.webhook_auth = Some(WebhookAuth::Ed25519Jwks {
            jwks: self.jwks_url.clone(),
        });
        Ok(manifest)
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        if matches!(event, Event::Chunk(_)) {
            return Err(Fault::unsupported("chunk"));
        }
        match state::load(job)? {
            Some(State::Accepted(ticket)) => self.accepted(job, ticket, event),
            before => self.unaccepted(job, before.as_ref(), event),
        }
    }

    fn webhook(&self, hook: &Webhook<'_>) -> Result<HookTarget, Fault> {
        Ok(response::hook_request_id(hook.body).map_or(HookTarget::Ignore, HookTarget::Remote))
    }
}

/// Before FAL has confirmed the job.
impl Fal {
    fn unaccepted(&self, job: &Job<'_>, state: Option<&State>, event: Event<'_>) -> Result<Step, Fault> {
        let lost_already = matches!(state, Some(State::Lost));
        Ok(match event {
            Event::Start if state.is_none() => {
                state::keep(request::submit(self.base()?, job).into(), &State::Submitting)
            }
            // The host asks only while no request is in flight; without a lost one nothing was bought.
            Event::Cancel if !lost_already => cancelled(),
            Event::Http(answer) if !lost_already => match response::submitted(self.base()?, job, &answer) {
                Some(ticket) => {
                    let id = ticket.request_id.clone();
                    self.wait(job, ticket, None).remote_id(id)
                }
                None if is_refusal(answer.status) => error::classify(&answer).into(),
                None => lost(job),
            },
            Event::Failed(transport) if transport.not_sent() && !lost_already => not_sent(transport).into(),
            Event::Webhook(hook) => match response::hook_request_id(hook.body) {
                Some(id) => {
                    let mut ticket = Ticket::new(self.base()?.urls(job.model, &id), id, job.now_ms);
                    response::note_hook(&mut ticket, hook.body);
                    let id = ticket.request_id.clone();
                    go(ticket, Phase::Fetch).remote_id(id)
                }
                None => lost(job),
            },
            _ => lost(job),
        })
    }
}

/// A 4xx says that FAL did not take the job. 499 is FAL's "the client went away", after which it may have.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && status != 499
}

/// Whether the job was bought is not known, and must not be found out by buying again.
fn lost(job: &Job<'_>) -> Step {
    let step = if job.webhook_url.is_some() && job.now_ms < job.deadline_ms {
        Step::wait((job.deadline_ms - job.now_ms).clamp(1_000, 600_000))
    } else {
        Step::fail(
            ErrorKind::UnknownOutcome,
            Retry::Never,
            "unknown_outcome",
            "The connection to the provider broke while the job was handed over. We are finding out whether it was \
             accepted; nothing is charged until then.",
        )
    };
    state::keep(step, &State::Lost)
}

fn cancelled() -> Step {
    Step::fail(ErrorKind::Cancelled, Retry::Never, "cancelled", "Cancelled.")
}

fn not_sent(transport: Transport) -> Failure {
    Failure {
        kind: ErrorKind::Unavailable,
        retry: if transport == Transport::HostDenied {
            Retry::OtherProvider
        } else {
            Retry::SameProvider
        },
        code: "unreachable".into(),
        message: "The provider cannot be reached at present. Try again in a few minutes.".into(),
        retry_after_ms: 0,
    }
}

/// FAL has the job.
impl Fal {
    fn accepted(&self, job: &Job<'_>, mut ticket: Ticket, event: Event<'_>) -> Result<Step, Fault> {
        Ok(match event {
            Event::Http(answer) => match ticket.phase {
                Phase::Poll => self.polled(job, ticket, &answer),
                Phase::Fetch => self.fetched(job, ticket, &answer),
                Phase::Cancel => self.cancel_answered(job, ticket, &answer),
            },
            Event::Failed(transport) => self.unanswered(job, ticket, transport)?,
            Event::Webhook(hook) => {
                response::note_hook(&mut ticket, hook.body);
                go(ticket, Phase::Fetch)
            }
            Event::Cancel => match ticket.stop.replace(Stop::User) {
                None => go(ticket, Phase::Cancel),
                Some(_) => resume(ticket),
            },
            Event::Timer | Event::Interrupted | Event::Start | Event::Chunk(_) => resume(ticket),
        })
    }

    fn polled(&self, job: &Job<'_>, mut ticket: Ticket, answer: &Response<'_>) -> Step {
        let status = answer.json().unwrap_or_default();
        match (answer.status, status["status"].as_str()) {
            (200..=299, Some("COMPLETED")) => {
                response::note_verdict(&mut ticket, &status);
                if ticket.stop.is_some() && ticket.verdict.as_deref() == Some("client_cancelled") {
                    return stopped(&ticket);
                }
                ticket.errors = 0;
                go(ticket, Phase::Fetch)
            }
            (200..=299, Some("IN_QUEUE" | "IN_PROGRESS")) => {
                ticket.errors = 0;
                let progress = progress::read(&status, &mut ticket.permille);
                self.wait(job, ticket, None).progress(progress)
            }
            // Gone, and we asked for it: after a few looks, because FAL's own copies may lag behind a fresh submit.
            (404, _) if ticket.stop.is_some() && ticket.errors >= 2 => stopped(&ticket),
            (401 | 403 | 408 | 425 | 429 | 500..=599, _) => self.try_later(job, ticket, answer),
            (status, _) => self.try_few(job, ticket, answer, if status == 404 { gone() } else { nonsense() }),
        }
    }

    fn fetched(&self, job: &Job<'_>, mut ticket: Ticket, answer: &Response<'_>) -> Step {
        let body = answer.json().unwrap_or_default();
        match answer.status {
            200..=299 => {
                if let Some(outcome) = response::outcome(&body, answer) {
                    return outcome.into();
                }
                if response::is_unfinished(&body) {
                    ticket.phase = Phase::Poll;
                    return self.wait(job, ticket, None);
                }
                if body.is_null() {
                    return self.try_few(job, ticket, answer, nonsense());
                }
                Step::done(Vec::new())
            }
            400 if response::says_in_progress(&body) => {
                ticket.phase = Phase::Poll;
                self.wait(job, ticket, None)
            }
            499 if ticket.stop.is_some() => stopped(&ticket),
            408 | 425 | 429 => self.try_later(job, ticket, answer),
            404 | 410 => self.try_few(job, ticket, answer, gone()),
            // Our account, not this job; but it may stay so until the result is gone.
            401 | 403 => {
                let failure = error::classify(answer);
                self.try_few(job, ticket, answer, failure)
            }
            500..=599 => {
                let ours = response::is_fal_error(&body, answer);
                match (&ticket.verdict, ours) {
                    // FAL had said that the job failed, and this says how.
                    (Some(_), true) => error::classify(answer).into(),
                    (Some(verdict), false) => {
                        let failure = error::of_verdict(verdict);
                        self.try_few(job, ticket, answer, failure)
                    }
                    // The model's failure or the gateway's trouble? A second look costs nothing.
                    (None, true) if ticket.errors >= 2 => error::classify(answer).into(),
                    (None, _) => self.try_later(job, ticket, answer),
                }
            }
            _ => error::classify(answer).into(),
        }
    }

    fn cancel_answered(&self, job: &Job<'_>, mut ticket: Ticket, answer: &Response<'_>) -> Step {
        let body = answer.json().unwrap_or_default();
        match (answer.status, body["status"].as_str()) {
            // Taken out of the queue before it started.
            (200..=299, Some("OK")) => stopped(&ticket),
            (_, Some("ALREADY_COMPLETED")) => go(ticket, Phase::Fetch),
            (408 | 425 | 429 | 500..=599, _) if ticket.errors < 3 => self.try_later(job, ticket, answer),
            // Requested, refused, unknown or unclear: the status tells what became of it.
            _ => {
                ticket.errors = 0;
                ticket.phase = Phase::Poll;
                self.wait(job, ticket, None)
            }
        }
    }

    fn unanswered(&self, job: &Job<'_>, mut ticket: Ticket, transport: Transport) -> Result<Step, Fault> {
        match (transport, ticket.phase) {
            (Transport::BodyTooLarge, Phase::Fetch) => return Ok(too_large()),
            // The operator moved the base URL while the job was running.
            (Transport::HostDenied, _) => ticket.urls = self.base()?.urls(job.model, &ticket.request_id),
            (_, Phase::Cancel) if ticket.errors >= 3 => {
                ticket.errors = 0;
                ticket.phase = Phase::Poll;
            }
            _ => {}
        }
        ticket.errors = ticket.errors.saturating_add(1);
        let ms = request::backoff_ms(ticket.errors, 0);
        Ok(self.wait(job, ticket, Some(ms)))
    }

    /// Trouble that says nothing about the job: waited out until the deadline.
    fn try_later(&self, job: &Job<'_>, mut ticket: Ticket, answer: &Response<'_>) -> Step {
        ticket.errors = ticket.errors.saturating_add(1);
        let ms = request::backoff_ms(ticket.errors, answer.failure("").retry_after_ms);
        self.wait(job, ticket, Some(ms))
    }

    /// An answer that may become a better one, but not for ever.
    fn try_few(&self, job: &Job<'_>, ticket: Ticket, answer: &Response<'_>, failure: Failure) -> Step {
        const TRIES: u32 = 7;
        if ticket.errors >= TRIES {
            failure.into()
        } else {
            self.try_later(job, ticket, answer)
        }
    }

    /// Waits `ms`, or as long as the pace of polling says; at the deadline it stops the job instead.
    fn wait(&self, job: &Job<'_>, mut ticket: Ticket, ms: Option<u64>) -> Step {
        if job.now_ms >= job.deadline_ms {
            if job.now_ms >= job.deadline_ms.saturating_add(GRACE_MS) {
                return stopped(&ticket);
            }
            if ticket.stop.is_none() && ticket.phase == Phase::Poll {
                ticket.stop = Some(Stop::Deadline);
                return go(ticket, Phase::Cancel);
            }
        }
        let ms = ms.unwrap_or_else(|| request::pace_ms(job, &ticket));
        let left = job.deadline_ms.saturating_sub(job.now_ms);
        let ms = if left > 0 { ms.min(left.max(100)) } else { ms };
        state::keep(Step::wait(ms), &State::Accepted(ticket))
    }
}

fn resume(ticket: Ticket) -> Step {
    let phase = ticket.phase;
    go(ticket, phase)
}

fn go(mut ticket: Ticket, phase: Phase) -> Step {
    ticket.phase = phase;
    let request = match phase {
        Phase::Poll => request::status(&ticket),
        Phase::Fetch => request::result(&ticket),
        Phase::Cancel => request::cancel(&ticket),
    };
    state::keep(request.into(), &State::Accepted(ticket))
}

/// The job ended because we wanted it to end.
fn stopped(ticket: &Ticket) -> Step {
    if ticket.stop == Some(Stop::User) {
        return cancelled();
    }
    Step::fail(
        ErrorKind::Timeout,
        Retry::Never,
        "deadline",
        "The provider did not finish in time. Try again, or choose a faster model.",
    )
}

fn nonsense() -> Failure {
    Failure {
        kind: ErrorKind::BadResponse,
        retry: Retry::Never,
        code: "bad_response".into(),
        message: "The provider's answer could not be understood.".into(),
        retry_after_ms: 0,
    }
}

fn gone() -> Failure {
    Failure {
        kind: ErrorKind::NotFound,
        retry: Retry::Never,
        code: "result_gone".into(),
        message: "The provider no longer knows this job, so its result cannot be delivered.".into(),
        retry_after_ms: 0,
    }
}

fn too_large() -> Step {
    Step::fail(
        ErrorKind::BadResponse,
        Retry::Never,
        "result_too_large",
        "The provider's result is larger than this server accepts.",
    )
}

/// The text of a JSON value that is a short machine code, else nothing.
fn code_of(value: &Value) -> Option<&str> {
    value.as_str().filter(|s| {
        (1..=64).contains(&s.len())
            && s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'))
    })
}
