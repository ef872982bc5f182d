//! Self-hosted ComfyUI as a Velro provider: a workflow is a model.
//!
//! ```text
//! (nothing) --Start--> uploading* --> submitting --answer with an id--> accepted --history--> done | failed
//!                                         \--no clear answer--> looking --found--> accepted
//!                                                                   \--not found--> lost
//! ```
//!
//! Invariants:
//! - The workflow is handed over once, under the attempt's own id. A lost answer is therefore looked for, in the queue
//!   and then in the history, before the outcome counts as unknown. The host takes only a job id for a proof, and ours
//!   is named only once ComfyUI has shown the job under it.
//! - While the host waits for that proof, no waiting is allowed: look-ups follow each other at once, and not for ever.
//! - ComfyUI keeps queue and history in memory. A job that is in neither, several times in a row, went with a restart.

mod config;
mod error;
mod request;
mod response;
mod state;
mod template;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

use std::collections::BTreeMap;
use velro_plugin::{
    ErrorKind, Event, Failure, Fault, Job, Manifest, Progress, Provider, Response, Retry, Step, Transport,
    export_provider,
};

use config::Config;
use request::Upload;
use response::{Place, Verdict};
use state::{Look, Phase, State, Ticket, keep};

/// Look-ups of a lost job that may fail.
const LOOKS: u32 = 3;
/// A job that was in neither queue nor history so often is gone.
const MISSES: u32 = 5;
/// A cancel that meets trouble is tried again so often.
const CANCELS: u32 = 3;

/// The provider. Holds configuration only.
pub struct ComfyUi(Config);

export_provider!(ComfyUi, ComfyUi::new);

impl ComfyUi {
    /// Made from the JSON text of its configuration.
    pub fn new(config: &[u8]) -> Result<Self, Fault> {
        Config::read(config).map(ComfyUi)
    }
}

impl Provider for ComfyUi {
    fn manifest(&self) -> Result<Manifest, Fault> {
        Ok(Manifest::new("comfyui", env!("CARGO_PKG_VERSION")).host(self.0.base.host()))
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        match &event {
            Event::Chunk(_) => return Err(Fault::unsupported("chunk")),
            Event::Webhook(_) => return Err(Fault::unsupported("webhook")),
            _ => {}
        }
        match state::load(job)? {
            None if matches!(event, Event::Start) => self.prepare(job, BTreeMap::new()),
            None if matches!(event, Event::Cancel) => Ok(cancelled()),
            None | Some(State::Lost) => Ok(lost()),
            Some(State::Uploading { stored }) => self.uploading(job, stored, event),
            Some(State::Submitting) => Ok(self.submitting(job, &event)),
            Some(State::Looking { at, tries }) => Ok(self.looking(job, at, tries, &event)),
            Some(State::Accepted(ticket)) => Ok(self.accepted(job, ticket, &event)),
        }
    }
}

/// Before the submit: nothing is bought yet.
impl ComfyUi {
    /// Uploads what is left to upload, then hands over the workflow.
    fn prepare(&self, job: &Job<'_>, stored: BTreeMap<String, String>) -> Result<Step, Fault> {
        let workflow = self.0.workflow(job.model)?;
        Ok(match request::upload(&self.0.base, workflow, job, &stored)? {
            Upload::Next(_, request) => keep(request.into(), &State::Uploading { stored }),
            Upload::Unreadable => error::unreadable_image().into(),
            Upload::Done => keep(
                request::submit(&self.0.base, workflow, job, &stored)?.into(),
                &State::Submitting,
            ),
        })
    }

    fn uploading(&self, job: &Job<'_>, mut stored: BTreeMap<String, String>, event: Event<'_>) -> Result<Step, Fault> {
        Ok(match event {
            Event::Cancel => cancelled(),
            Event::Http(answer) if answer.ok() => {
                let workflow = self.0.workflow(job.model)?;
                let name = response::stored_name(&answer.json().unwrap_or_default());
                match (name, request::upload(&self.0.base, workflow, job, &stored)?) {
                    (Some(name), Upload::Next(input, _)) => {
                        stored.insert(input, name);
                        return self.prepare(job, stored);
                    }
                    _ => unreachable(Transport::Reset).into(),
                }
            }
            Event::Http(Response {
                status: 400 | 413 | 415,
                ..
            }) => error::unreadable_image().into(),
            Event::Http(answer) if error::is_refusal(&answer) => error::refused(&answer).into(),
            Event::Http(_) => unreachable(Transport::Reset).into(),
            Event::Failed(transport) => unreachable(transport).into(),
            _ => self.prepare(job, stored)?,
        })
    }
}

/// The workflow is on its way.
impl ComfyUi {
    fn submitting(&self, job: &Job<'_>, event: &Event<'_>) -> Step {
        match event {
            Event::Http(answer) if error::is_refusal(answer) => error::refused(answer).into(),
            Event::Failed(transport) if transport.not_sent() => unreachable(*transport).into(),
            Event::Http(answer) => {
                let body = answer.json().unwrap_or_default();
                match response::prompt_id(&body).filter(|_| answer.ok()) {
                    Some(id) => found(job, id, None),
                    None => self.look(job, Look::Queue, 0),
                }
            }
            _ => self.look(job, Look::Queue, 0),
        }
    }

    fn look(&self, job: &Job<'_>, at: Look, tries: u32) -> Step {
        let request = match at {
            Look::Queue => request::queue(&self.0.base),
            Look::History => request::history(&self.0.base, job.id),
        };
        keep(request.into(), &State::Looking { at, tries })
    }

    fn looking(&self, job: &Job<'_>, at: Look, tries: u32, event: &Event<'_>) -> Step {
        let body = match event {
            Event::Http(answer) if answer.ok() => answer.json().unwrap_or_default(),
            _ => velro_plugin::Value::Null,
        };
        let shown = match at {
            Look::Queue => response::place(&body, job.id).map(|place| place != Place::Absent),
            Look::History => response::verdict(&body, job.id, &self.0.base, None)
                .ok()
                .map(|verdict| verdict.is_some()),
        };
        match (shown, at) {
            (Some(true), _) => found(job, job.id.to_owned(), response::place(&body, job.id)),
            (Some(false), Look::Queue) => self.look(job, Look::History, tries),
            (None, _) if tries + 1 < LOOKS => self.look(job, at, tries + 1),
            // Not shown is no proof that it did not arrive: it may still be on its way, or have gone with a restart.
            _ => lost(),
        }
    }
}

/// ComfyUI has the job.
fn found(job: &Job<'_>, id: String, place: Option<Place>) -> Step {
    let ticket = Ticket::new(id.clone(), job.now_ms);
    let ms = request::pace_ms(job, &ticket);
    keep(Step::wait(ms), &State::Accepted(ticket))
        .remote_id(id)
        .progress(progress(place))
}

fn progress(place: Option<Place>) -> Progress {
    Progress {
        queue_position: match place {
            Some(Place::Waiting(before)) => Some(before),
            _ => None,
        },
        ..Progress::default()
    }
}

fn lost() -> Step {
    let step = Step::fail(
        ErrorKind::UnknownOutcome,
        Retry::Never,
        "unknown_outcome",
        "The connection to the server broke while the job was handed over. We are finding out whether it was accepted; \
         nothing is charged until then.",
    );
    keep(step, &State::Lost)
}

fn cancelled() -> Step {
    Step::fail(ErrorKind::Cancelled, Retry::Never, "cancelled", "Cancelled.")
}

fn unreachable(transport: Transport) -> Failure {
    let retry = match transport {
        Transport::HostDenied => Retry::OtherProvider,
        _ => Retry::SameProvider,
    };
    let message = "The server cannot be reached at present. Try again in a few minutes.";
    error::failure(ErrorKind::Unavailable, retry, "unreachable", message)
}

/// ComfyUI has the job: only what its history says, or that it is gone, ends it.
impl ComfyUi {
    fn accepted(&self, job: &Job<'_>, mut ticket: Ticket, event: &Event<'_>) -> Step {
        match event {
            Event::Http(answer) => match ticket.phase {
                Phase::History => self.history(job, ticket, answer),
                Phase::Queue => self.queue(job, ticket, answer),
                Phase::Delete => match answer.ok() || ticket.errors >= CANCELS {
                    true => self.go(ticket, Phase::Queue),
                    false => try_later(ticket),
                },
                // Whatever it answered, the history tells what became of it.
                Phase::Interrupt => wait(job, ticket, Phase::History, None),
            },
            // Every job of the queue is in the answer, with its whole workflow.
            Event::Failed(Transport::BodyTooLarge) if ticket.phase == Phase::Queue => {
                // What was not seen is not missing.
                ticket.missing = 0;
                wait(job, ticket, Phase::History, None)
            }
            Event::Failed(_) => try_later(ticket),
            Event::Cancel if !ticket.stopping => {
                ticket.stopping = true;
                (ticket.errors, ticket.missing) = (0, 0);
                self.go(ticket, Phase::Delete)
            }
            _ => {
                let phase = ticket.phase;
                self.go(ticket, phase)
            }
        }
    }

    fn go(&self, mut ticket: Ticket, phase: Phase) -> Step {
        ticket.phase = phase;
        let base = &self.0.base;
        let request = match phase {
            Phase::History => request::history(base, &ticket.id),
            Phase::Queue => request::queue(base),
            Phase::Delete => request::delete(base, &ticket.id),
            Phase::Interrupt => request::interrupt(base, &ticket.id),
        };
        keep(request.into(), &State::Accepted(ticket))
    }

    fn history(&self, job: &Job<'_>, mut ticket: Ticket, answer: &Response<'_>) -> Step {
        let body = answer.json().unwrap_or_default();
        let workflow = self.0.workflows.get(job.model);
        let verdict = response::verdict(&body, &ticket.id, &self.0.base, workflow);
        match verdict {
            Ok(verdict) if answer.ok() => match verdict {
                Some(Verdict::Delivered(outcome)) => outcome.into(),
                Some(Verdict::Nothing) => Step::done(Vec::new()),
                Some(Verdict::Interrupted) => cancelled(),
                Some(Verdict::Failed { exception, message }) => error::of_exception(&exception, &message).into(),
                // Neither in the queue nor here, and we wanted it gone.
                None if ticket.stopping && ticket.missing > 0 => cancelled(),
                None if ticket.missing >= MISSES => gone(),
                None => {
                    ticket.errors = 0;
                    self.go(ticket, Phase::Queue)
                }
            },
            _ => try_later(ticket),
        }
    }

    fn queue(&self, job: &Job<'_>, mut ticket: Ticket, answer: &Response<'_>) -> Step {
        let body = answer.json().unwrap_or_default();
        let Some(place) = response::place(&body, &ticket.id).filter(|_| answer.ok()) else {
            return try_later(ticket);
        };
        ticket.errors = 0;
        ticket.missing = if place == Place::Absent {
            ticket.missing.saturating_add(1)
        } else {
            0
        };
        match place {
            Place::Running if ticket.stopping && !ticket.interrupted => {
                ticket.interrupted = true;
                self.go(ticket, Phase::Interrupt)
            }
            Place::Waiting(_) if ticket.stopping => wait(job, ticket, Phase::Delete, None),
            Place::Absent if ticket.stopping => self.go(ticket, Phase::History),
            place => wait(job, ticket, Phase::History, Some(place)),
        }
    }
}

fn wait(job: &Job<'_>, mut ticket: Ticket, next: Phase, place: Option<Place>) -> Step {
    ticket.phase = next;
    let ms = request::pace_ms(job, &ticket);
    keep(Step::wait(ms), &State::Accepted(ticket)).progress(progress(place))
}

/// Trouble that says nothing about the job: waited out until the host's deadline.
fn try_later(mut ticket: Ticket) -> Step {
    ticket.errors = ticket.errors.saturating_add(1);
    let ms = request::backoff_ms(ticket.errors);
    keep(Step::wait(ms), &State::Accepted(ticket))
}

fn gone() -> Step {
    Step::fail(
        ErrorKind::Upstream,
        Retry::SameProvider,
        "job_gone",
        "The server was restarted and has forgotten this job. Try again.",
    )
}
