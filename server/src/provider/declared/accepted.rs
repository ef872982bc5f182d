//! After the API has confirmed the job: it is asked until it says how the job ended.

use velro_plugin::{
    Effect, ErrorKind, Event, Failure, Fault, FaultCode, Job, Response, Retry, Source, Step, Transport, Value,
};

use super::error::{classify, usual, verdict};
use super::response::{Found, View};
use super::state::{Phase, State, Stop, Ticket, Urls, keep};
use super::{Declared, cancelled};
use crate::catalog::declaration::{Declaration, Meaning, On, Pointer, Polling, Stage, States, Webhook};

/// After the deadline a cancel is sent and the API's verdict awaited this long, in milliseconds.
const GRACE_MS: u64 = 60_000;
/// Looks at an answer that may become a better one.
const TRIES: u32 = 7;

/// One step of a job that the API has.
pub(super) struct Following<'f> {
    provider: &'f Declared,
    declaration: &'f Declaration,
    polling: &'f Polling,
    job: &'f Job<'f>,
}

type Stepped = Result<Step, Fault>;

impl Declared {
    pub(super) fn following<'f>(&'f self, job: &'f Job<'f>, polling: &'f Polling) -> Following<'f> {
        Following {
            provider: self,
            declaration: &self.declaration,
            polling,
            job,
        }
    }
}

impl Following<'_> {
    pub(super) fn step(&self, mut ticket: Ticket, event: Event<'_>) -> Stepped {
        match event {
            Event::Http(answer) => match ticket.phase {
                Phase::Poll => self.polled(ticket, answer),
                Phase::Fetch => self.fetched(ticket, answer),
                Phase::Cancel => self.cancel_answered(ticket, answer),
            },
            Event::Failed(transport) => self.unanswered(ticket, transport),
            Event::Webhook(hook) => self.told(ticket, hook.body),
            Event::Cancel => match (ticket.stop.replace(Stop::User), &self.polling.cancel) {
                (None, Some(_)) => self.go(ticket, Phase::Cancel),
                // Asked before, or the API cannot be asked: what it does is still to be learned.
                _ => self.resume(ticket),
            },
            Event::Timer | Event::Interrupted | Event::Start | Event::Chunk(_) => self.resume(ticket),
        }
    }

    fn polled(&self, mut ticket: Ticket, answer: Response<'_>) -> Stepped {
        let view = View::of(answer);
        let status = view.answer.status;
        let (word, stage) = match view.answer.ok() {
            true => view.stage(self.declaration, &self.polling.status.states, &self.polling.state),
            false => (None, None),
        };
        match stage {
            Some(Stage::Queued | Stage::Running) => {
                ticket.errors = 0;
                let progress = view.progress(&self.declaration.job, &mut ticket.permille);
                return Ok(self.wait(ticket, None)?.progress(progress));
            }
            Some(Stage::Done) if self.polling.result.is_some() => {
                ticket.verdict = verdict(self.declaration, &view).or(ticket.verdict);
                if is_cancel(&ticket) {
                    return Ok(stopped(&ticket));
                }
                ticket.errors = 0;
                return self.go(ticket, Phase::Fetch);
            }
            Some(Stage::Done) => return Ok(self.delivered(&ticket, &view, On::Status)),
            Some(Stage::Failed) => return Ok(ended(&ticket, classify(self.declaration, On::Status, &view).failure)),
            Some(Stage::Cancelled) if ticket.stop.is_some() => return Ok(stopped(&ticket)),
            Some(Stage::Cancelled) => return Ok(cancelled()),
            None => {}
        }
        // The declaration may know errors of this very request that are the job's end.
        let classed = classify(self.declaration, On::Status, &view);
        if classed.class.is_some_and(|class| class.on == Some(On::Status)) {
            return Ok(ended(&ticket, classed.failure));
        }
        match (status, word) {
            (200..=299, Some(word)) => {
                self.note_strange(&mut ticket, &word);
                ticket.errors = 0;
                self.wait(ticket, None)
            }
            // Gone, and we asked for it: after a few looks, because the API's own copies may lag behind a fresh submit.
            (404 | 410, _) if ticket.stop.is_some() && ticket.errors >= 2 => Ok(stopped(&ticket)),
            (404 | 410, _) => self.try_few(ticket, &view, gone()),
            // Trouble on the way, or an answer that says nothing: it is not the job's verdict.
            _ => self.try_later(ticket, &view),
        }
    }

    fn fetched(&self, mut ticket: Ticket, answer: Response<'_>) -> Stepped {
        let view = View::of(answer);
        let (_, stage) = view.stage(self.declaration, &States::new(), &self.polling.state);
        let unfinished = matches!(stage, Some(Stage::Queued | Stage::Running));
        let classed = classify(self.declaration, On::Result, &view);
        if classed.means(Meaning::NotYet) {
            return self.poll_on(ticket);
        }
        match view.answer.status {
            200..=299 => match view.outcome(self.declaration, &Pointer::default()) {
                Found::Outputs(outcome) => Ok((*outcome).into()),
                _ if unfinished => self.poll_on(ticket),
                _ if view.body.as_ref().is_none_or(Value::is_null) => {
                    self.try_few(ticket, &view, failure(ErrorKind::BadResponse, "bad_response"))
                }
                _ => Ok(self.delivered(&ticket, &view, On::Result)),
            },
            _ if ticket.stop.is_some() && classed.failure.kind == ErrorKind::Cancelled => Ok(stopped(&ticket)),
            499 if ticket.stop.is_some() => Ok(stopped(&ticket)),
            408 | 425 | 429 => self.try_later(ticket, &view),
            404 | 410 => self.try_few(ticket, &view, gone()),
            // Our account, not this job; but it may stay so until the result is gone.
            401 | 403 => self.try_few(ticket, &view, classed.failure),
            500..=599 => match (ticket.verdict.take(), classed.by_answer()) {
                // The API had said that the job failed, and this says how.
                (Some(_), true) => Ok(ended(&ticket, classed.failure)),
                (Some(verdict), false) => {
                    ticket.verdict = Some(verdict.clone());
                    self.try_few(ticket, &view, verdict)
                }
                // The model's failure or the gateway's trouble? A second look costs nothing.
                (None, true) if ticket.errors >= 2 => Ok(ended(&ticket, classed.failure)),
                (None, _) => self.try_later(ticket, &view),
            },
            // Redirects are not followed, and are nobody's verdict.
            ..=399 => self.try_few(ticket, &view, failure(ErrorKind::BadResponse, "bad_response")),
            _ => Ok(ended(&ticket, classed.failure)),
        }
    }

    fn cancel_answered(&self, mut ticket: Ticket, answer: Response<'_>) -> Stepped {
        let view = View::of(answer);
        let none = States::new();
        let own = self.polling.cancel.as_ref().map_or(&none, |cancel| &cancel.states);
        // APIs refuse a cancel with a 4xx that says what became of the job.
        let (_, stage) = view.stage(self.declaration, own, &self.polling.state);
        match (view.answer.status, stage) {
            (200..=299, Some(Stage::Cancelled)) => Ok(stopped(&ticket)),
            (_, Some(Stage::Done | Stage::Failed)) => {
                ticket.errors = 0;
                let phase = self.fetch_phase();
                self.go(ticket, phase)
            }
            (408 | 425 | 429 | 500..=599, _) if ticket.errors < 3 => self.try_later(ticket, &view),
            // Requested, refused, unknown or unclear: the status tells what became of it.
            _ => {
                ticket.errors = 0;
                self.poll_on(ticket)
            }
        }
    }

    /// A signed webhook for this attempt.
    fn told(&self, ticket: Ticket, body: &[u8]) -> Stepped {
        let Some(hook) = &self.polling.webhook else {
            return self.resume(ticket);
        };
        let view = View::of_hook(body);
        // The key that signed may be everybody's: what is about another job says nothing about this one.
        if view.id(&hook.id).is_some_and(|id| id != ticket.id) {
            return self.resume(ticket);
        }
        let (_, stage) = view.stage(self.declaration, &hook.states, &hook.state);
        if let (Some(prefix), Some(Stage::Done)) = (&hook.result, stage)
            && view.id(&hook.id).is_some()
            && let Found::Outputs(outcome) = view.outcome(self.declaration, prefix)
            // Bytes in a webhook are not kept; the result has them too.
            && !outcome.outputs.iter().any(|o| matches!(o.source, Source::BodyBase64(_)))
        {
            return Ok((*outcome).into());
        }
        let phase = self.phase_after(&view, hook);
        self.go(ticket, phase)
    }

    /// What is asked after a webhook: the result when it announces one, otherwise the status.
    pub(super) fn phase_after(&self, view: &View<'_>, hook: &Webhook) -> Phase {
        match view.stage(self.declaration, &hook.states, &hook.state).1 {
            Some(Stage::Done | Stage::Failed) => self.fetch_phase(),
            _ => Phase::Poll,
        }
    }

    fn fetch_phase(&self) -> Phase {
        match self.polling.result {
            Some(_) => Phase::Fetch,
            None => Phase::Poll,
        }
    }

    fn unanswered(&self, mut ticket: Ticket, transport: Transport) -> Stepped {
        match (transport, ticket.phase) {
            (Transport::BodyTooLarge, Phase::Fetch) => return Ok(failure(ErrorKind::BadResponse, "too_large").into()),
            (Transport::BodyTooLarge, Phase::Poll) if self.polling.result.is_none() => {
                return Ok(failure(ErrorKind::BadResponse, "too_large").into());
            }
            // The operator moved the base URL while the job was running.
            (Transport::HostDenied, _) if super::can_be_asked(self.polling, &Urls::default()) => {
                ticket.urls = Urls::default();
            }
            (_, Phase::Cancel) if ticket.errors >= 3 => {
                ticket.errors = 0;
                ticket.phase = Phase::Poll;
            }
            _ => {}
        }
        ticket.errors = ticket.errors.saturating_add(1);
        let ms = backoff_ms(ticket.errors, 0);
        self.wait(ticket, Some(ms))
    }

    /// The job is finished, and this answer has its outputs or says why there are none.
    fn delivered(&self, ticket: &Ticket, view: &View<'_>, on: On) -> Step {
        if let Found::Outputs(outcome) = view.outcome(self.declaration, &Pointer::default()) {
            return (*outcome).into();
        }
        let classed = classify(self.declaration, on, view);
        match (classed.by_answer(), &ticket.verdict) {
            (true, _) => ended(ticket, classed.failure),
            (false, Some(verdict)) => ended(ticket, verdict.clone()),
            (false, None) => match verdict(self.declaration, view) {
                Some(verdict) => ended(ticket, verdict),
                None => Step::done(Vec::new()),
            },
        }
    }

    fn poll_on(&self, mut ticket: Ticket) -> Stepped {
        ticket.phase = Phase::Poll;
        self.wait(ticket, None)
    }

    /// Trouble that says nothing about the job: waited out until the deadline.
    fn try_later(&self, mut ticket: Ticket, view: &View<'_>) -> Stepped {
        ticket.errors = ticket.errors.saturating_add(1);
        let ms = backoff_ms(ticket.errors, view.answer.failure("").retry_after_ms);
        self.wait(ticket, Some(ms))
    }

    /// An answer that may become a better one, but not for ever.
    fn try_few(&self, ticket: Ticket, view: &View<'_>, failure: Failure) -> Stepped {
        match ticket.errors >= TRIES {
            true => Ok(ended(&ticket, failure)),
            false => self.try_later(ticket, view),
        }
    }

    /// Waits `ms`, or as long as the pace of polling says; at the deadline it stops the job instead.
    pub(super) fn wait(&self, mut ticket: Ticket, ms: Option<u64>) -> Stepped {
        let job = self.job;
        if job.now_ms >= job.deadline_ms {
            if job.now_ms >= job.deadline_ms.saturating_add(GRACE_MS) {
                return Ok(stopped(&ticket));
            }
            if ticket.stop.is_none() && ticket.phase == Phase::Poll {
                ticket.stop = Some(Stop::Deadline);
                if self.polling.cancel.is_some() {
                    return self.go(ticket, Phase::Cancel);
                }
            }
        }
        let ms = ms.unwrap_or_else(|| self.pace_ms(&mut ticket));
        let left = job.deadline_ms.saturating_sub(job.now_ms);
        let ms = if left > 0 { ms.min(left.max(100)) } else { ms };
        Ok(keep(Step::wait(ms), &State::Accepted(Box::new(ticket))))
    }

    /// Time to the next look. With a webhook it only keeps the progress fresh and catches webhooks that never come.
    fn pace_ms(&self, ticket: &mut Ticket) -> u64 {
        let pace = &self.polling.pace;
        if ticket.stop.is_some() {
            return pace.first_ms.clamp(500, 3_000);
        }
        if self.job.webhook_url.is_some() && self.polling.webhook.is_some() {
            return pace.with_webhook_ms;
        }
        // Every wait is longer by at least one percent or not at all, so the ceiling is reached long before.
        let mut ms = pace.first_ms;
        for _ in 0..ticket.waits.min(1_000) {
            ms = (ms.saturating_mul(pace.factor_percent) / 100).min(pace.ceiling_ms);
        }
        ticket.waits = ticket.waits.saturating_add(1);
        ms.min(pace.ceiling_ms)
    }

    fn resume(&self, ticket: Ticket) -> Stepped {
        let phase = ticket.phase;
        self.go(ticket, phase)
    }

    pub(super) fn go(&self, mut ticket: Ticket, phase: Phase) -> Stepped {
        ticket.phase = phase;
        let (request, taken, effect) = match phase {
            Phase::Poll => (Some(&self.polling.status), &ticket.urls.status, Effect::Read),
            Phase::Fetch => (self.polling.result.as_ref(), &ticket.urls.result, Effect::Read),
            Phase::Cancel => (self.polling.cancel.as_ref(), &ticket.urls.cancel, Effect::Write),
        };
        let Some(request) = request.filter(|request| taken.is_some() || request.path.is_some()) else {
            // It was there when the job began, or (a cancel) the API did not say where.
            return match phase {
                Phase::Poll => Err(Fault::new(
                    FaultCode::BadInput,
                    "nothing says where the job's status is",
                )),
                _ => self.poll_on(ticket),
            };
        };
        let filling = self.provider.filling(self.job, &ticket.id);
        let request = filling.request(request, taken.as_deref(), effect).map_err(|unfit| {
            Fault::new(
                FaultCode::BadInput,
                format!("a request cannot be made any more: {unfit:?}"),
            )
        })?;
        Ok(keep(request.into(), &State::Accepted(Box::new(ticket))))
    }

    /// A word that the declaration does not know says nothing about the job; the operator learns of each once.
    fn note_strange(&self, ticket: &mut Ticket, word: &str) {
        let word: String = word.chars().filter(|c| !c.is_control()).take(64).collect();
        if ticket.strange.as_ref() != Some(&word) {
            tracing::warn!(
                provider = self.provider.name,
                word,
                "the API names a state that `states` does not know; the job is asked about until it says something else"
            );
            ticket.strange = Some(word);
        }
    }
}

/// Time to the next try after the `errors`-th unhelpful answer in a row, in milliseconds.
fn backoff_ms(errors: u32, retry_after_ms: u64) -> u64 {
    (500_u64 << errors.min(6))
        .clamp(1_000, 30_000)
        .max(retry_after_ms.min(300_000))
}

/// The API had called the job finished, by our own cancel.
fn is_cancel(ticket: &Ticket) -> bool {
    let cancelled = ticket.verdict.as_ref().is_some_and(|v| v.kind == ErrorKind::Cancelled);
    cancelled && ticket.stop.is_some()
}

/// The job failed; when we wanted it to end, its end is what we wanted.
fn ended(ticket: &Ticket, failure: Failure) -> Step {
    match failure.kind == ErrorKind::Cancelled && ticket.stop.is_some() {
        true => stopped(ticket),
        false => failure.into(),
    }
}

/// The job ended because we wanted it to end.
fn stopped(ticket: &Ticket) -> Step {
    match ticket.stop {
        Some(Stop::User) => cancelled(),
        _ => Step::fail(ErrorKind::Timeout, Retry::Never, "deadline", usual(ErrorKind::Timeout)),
    }
}

fn failure(kind: ErrorKind, code: &str) -> Failure {
    Failure {
        kind,
        retry: Retry::Never,
        code: code.into(),
        message: usual(kind).into(),
        retry_after_ms: 0,
    }
}

fn gone() -> Failure {
    Failure {
        message: "The provider no longer knows this job, so its result cannot be delivered.".into(),
        ..failure(ErrorKind::NotFound, "result_gone")
    }
}
