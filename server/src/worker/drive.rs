//! Steps one attempt as far as it goes without waiting.
//!
//! Order of every step, which makes a crash safe at every point: call the provider, store what it wants, only then
//! carry it out. Not stored means not sent; a stored paid request is never sent again. What a failure means for money
//! is decided here, by what left the host, not by what the provider code says:
//!
//! | the paid request | and then | the attempt becomes |
//! |---|---|---|
//! | never left | any failure | `rejected`: nothing bought, another try is safe |
//! | was answered with a refusal (of a library: not by a 3xx, 408, 499, or 5xx but 503) | | `rejected` |
//! | was answered with a job | a failure the provider reports | `finished`, released |
//! | left, no usable answer | anything | `unknown`: held until a webhook or an operator knows |
//!
//! `rejected` and `finished` attempts may be followed by one at another provider (`reroute.rs`), `unknown` ones by none.

use std::sync::Arc;
use std::time::Duration;
use tracing::{Instrument, debug_span};
use velro_plugin::{Action, Fault, FaultCode, HttpRequest, Source, Step};

use super::failed::Report;
use super::happened::Happened;
use super::settle::without_provider;
use super::told::until_told;
use super::{LATER, Next, Settings, Tools};
use crate::clock::{self, Micros};
use crate::failpoint;
use crate::generation::{AttemptState, Pending, PublicError, StoredRequest};
use crate::id::AttemptId;
use crate::provider::LoadedProvider;
use crate::store::{ProgressNote, SaveStep, Saved, Verdict, Work};
use crate::telemetry::trace;

/// Limits of a provider's wait.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(100);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// How long after the deadline a provider may still answer the cancel that the deadline sent.
pub(super) const GRACE_AFTER_DEADLINE: Duration = Duration::from_secs(60);

/// How long what was prepared rests while an operator has stopped its provider: preparing it again may cost an upload.
const PREPARED_AGAIN: Duration = Duration::from_secs(30);

/// Steps of one attempt before it counts as running in circles.
const MOST_STEPS: u32 = 10_000;

/// Requests of one attempt without a wait between them. A provider whose answers lead nowhere must not keep the worker,
/// the store and the log busy.
const MOST_REQUESTS_IN_A_ROW: u32 = 30;

/// An attempt on its way.
pub(super) struct Drive {
    pub(super) tools: Tools,
    pub(super) settings: Arc<Settings>,
    pub(super) work: Work,
    pub(super) provider: Arc<LoadedProvider>,
    /// The step at hand came from the inbox; only then may a save empty it.
    took_inbox: bool,
    /// The step at hand asks the provider to stop; it counts as asked when that is stored.
    asks_to_stop: bool,
    /// The provider's input with a reference image it can fetch now; `None` takes it as stored.
    pub(super) input: Option<String>,
}

/// Goes on with an attempt that is due.
pub(super) async fn resume(tools: Tools, settings: Arc<Settings>, attempt_id: AttemptId) -> Next {
    match tools.store.work(attempt_id, &settings.name).await {
        Ok(Some(work)) => begin(tools, settings, work).await,
        Ok(None) => Next::Over,
        Err(error) => {
            tracing::warn!(attempt_id = %attempt_id, error = %error, "cannot load the attempt");
            Next::Due(clock::now().plus(LATER))
        }
    }
}

/// Drives an attempt from what is stored of it.
pub(super) async fn begin(tools: Tools, settings: Arc<Settings>, work: Work) -> Next {
    let newest = tools.providers.get(&work.attempt.provider);
    // A library that could not be loaded is as good as one that is not configured: its jobs wait for it.
    let newest = newest.filter(|provider| !provider.is_missing());
    // What has begun goes on with the code it began with, whatever is loaded meanwhile.
    let begun = match work.attempt.state {
        AttemptState::Prepared => None,
        _ => tools.notes.pinned(work.attempt.id),
    };
    let Some(provider) = begun.or(newest) else {
        return without_provider(&tools, &settings, &work).await;
    };
    tools.notes.pin(work.attempt.id, &provider);
    let span = tracing::info_span!("attempt", generation_id = %work.generation.id, attempt_id = %work.attempt.id);
    trace::follow(&span, work.generation.trace_context.as_deref());
    let drive = Drive {
        tools,
        settings,
        work,
        provider,
        took_inbox: false,
        asks_to_stop: false,
        input: None,
    };
    drive.run().instrument(span).await
}

impl Drive {
    async fn run(mut self) -> Next {
        let attempt = &self.work.attempt;
        let mut happened = match &attempt.pending {
            // Asked to stop while an earlier attempt was being refused.
            Pending::Start if self.work.generation.cancel_requested => return self.settle(Verdict::Cancelled).await,
            Pending::Start => {
                if let Some(next) = self.not_yet().await {
                    return next;
                }
                if let Err(error) = self.refresh_reference().await {
                    tracing::warn!(error = %error, "the uploaded reference image cannot be read");
                    let gone = public(
                        "reference_lost",
                        "The uploaded reference image is not available any more",
                    );
                    return self
                        .settle_failed(gone, error.to_string(), AttemptState::Rejected)
                        .await;
                }
                Happened::Start
            }
            Pending::Submit => Happened::Interrupted,
            Pending::Request(request) => {
                let request = HttpRequest::from(request.clone());
                self.perform(&request).await
            }
            Pending::Collect { outcome, tries } => {
                // Being nudged does not make a file come sooner, and every try counts.
                if attempt.due_at > clock::now() {
                    return Next::Due(attempt.due_at);
                }
                let (outcome, tries) = (outcome.clone(), *tries);
                return self.collect(outcome, tries).await;
            }
            Pending::Nothing => match self.work.attempt.inbox.take() {
                Some(body) => self.webhook(body),
                None => return Next::Parked,
            },
            Pending::Wait => {
                let now = clock::now();
                if let Some(body) = self.work.attempt.inbox.take() {
                    self.webhook(body)
                } else if now >= self.deadline().plus(GRACE_AFTER_DEADLINE)
                    && self.tools.notes.was_asked_to_stop(self.work.attempt.id)
                {
                    // Only after this process has asked: after a long outage the provider may have delivered.
                    let error = public("timeout", "The provider did not finish in time; nothing was charged");
                    return self
                        .settle_failed(error, "deadline passed".into(), AttemptState::Finished)
                        .await;
                } else if self.must_stop(now) {
                    Happened::Cancel
                } else if self.work.attempt.due_at > now {
                    return Next::Due(self.work.attempt.due_at);
                } else {
                    Happened::Timer
                }
            }
        };
        let mut in_a_row = 0;
        loop {
            let sending = self.work.attempt.state == AttemptState::Sending;
            let ambiguous = sending && (happened.is_ambiguous() || self.decides_nothing(&happened));
            let body = match &happened {
                Happened::Answer(answer) => Some(answer.body.clone()),
                _ => None,
            };
            let from_webhook = matches!(happened, Happened::Webhook(_));
            in_a_row += 1;
            let step = if self.work.attempt.steps >= MOST_STEPS {
                Err(Fault::new(FaultCode::Internal, "too many steps"))
            } else if in_a_row > MOST_REQUESTS_IN_A_ROW {
                let what = format!("asked for {MOST_REQUESTS_IN_A_ROW} requests without a wait");
                Err(Fault::new(FaultCode::Internal, what))
            } else {
                self.asks_to_stop = matches!(happened, Happened::Cancel);
                self.call(&happened)
            };
            let step = match step {
                Ok(step) => step,
                Err(fault) => return self.faulted(&fault, &happened).await,
            };
            self.observe(&happened, &step);
            let progress = step.progress.as_ref().and_then(|p| self.worth_showing(p));
            match &step.action {
                Action::Http(request) if request.effect.is_submit() => {
                    if self.work.attempt.state != AttemptState::Prepared {
                        return self
                            .faulted(
                                &Fault::new(FaultCode::Internal, "wanted to submit a second time"),
                                &happened,
                            )
                            .await;
                    }
                    // Stopped before, with something to send first. Nothing of this step is stored; it is prepared again.
                    if let Some(next) = self.stopped_by_an_operator(PREPARED_AGAIN) {
                        return next;
                    }
                    failpoint::at("worker::prepared");
                    let stored = self
                        .save(&step, AttemptState::Sending, Pending::Submit, clock::now(), progress)
                        .await;
                    if let Err(next) = stored {
                        return next;
                    }
                    failpoint::at("worker::sending");
                    happened = self.perform(request).await;
                    failpoint::at("worker::answered");
                }
                Action::Http(request) => {
                    // A look-up after a lost answer is still a part of sending.
                    let state = match self.state_after(&step, ambiguous, from_webhook) {
                        AttemptState::Unknown => self.work.attempt.state,
                        state => state,
                    };
                    let pending = Pending::Request(StoredRequest::from(request));
                    if let Err(next) = self.save(&step, state, pending, clock::now(), progress).await {
                        return next;
                    }
                    happened = self.perform(request).await;
                }
                Action::Wait { ms } => {
                    let state = self.state_after(&step, ambiguous, from_webhook);
                    if state == AttemptState::Unknown {
                        return self.park(Some(&step), "the answer to the paid request was lost").await;
                    }
                    let due = clock::now().plus(self.pace(Duration::from_millis(*ms)));
                    let cancel = match self.save(&step, state, Pending::Wait, due, progress).await {
                        Ok(cancel) => cancel,
                        Err(next) => return next,
                    };
                    failpoint::at("worker::accepted");
                    self.work.generation.cancel_requested |= cancel;
                    if !self.must_stop(clock::now()) {
                        return Next::Due(due.min(self.deadline().max(clock::now().plus(SHORTEST_WAIT))));
                    }
                    happened = Happened::Cancel;
                }
                Action::Done(outcome) => {
                    failpoint::at("worker::fetched");
                    self.heard_the_verdict();
                    if outcome
                        .outputs
                        .iter()
                        .any(|o| matches!(o.source, Source::Body | Source::BodyBase64(_)))
                    {
                        // The bytes are in the answer at hand and nowhere else: copy first, then settle.
                        self.work.attempt.state = AttemptState::Accepted;
                        return self.collect_from(outcome.clone(), body.as_deref()).await;
                    }
                    let pending = Pending::Collect {
                        outcome: outcome.clone(),
                        tries: 0,
                    };
                    if let Err(next) = self
                        .save(&step, AttemptState::Accepted, pending, clock::now(), progress)
                        .await
                    {
                        return next;
                    }
                    return self.collect(outcome.clone(), 0).await;
                }
                Action::Fail(failure) => {
                    // Only the answer to the paid request itself is a refusal; what a look-up after it says, or fails
                    // to say, does not make it unsent.
                    let looked_up = !matches!(self.work.attempt.pending, Pending::Submit);
                    let unknown = self.work.attempt.state == AttemptState::Unknown;
                    let report = Report {
                        failure: failure.clone(),
                        ambiguous: ambiguous || (sending && looked_up) || (unknown && !from_webhook),
                        told: from_webhook || body.is_some(),
                    };
                    return self.failed(report).await;
                }
                Action::Emit(_) => {
                    return self
                        .faulted(
                            &Fault::new(FaultCode::Unsupported, "streaming is not supported"),
                            &happened,
                        )
                        .await;
                }
            }
        }
    }

    /// An upload was stored with a link that may have expired or that only we can open.
    async fn refresh_reference(&mut self) -> std::io::Result<()> {
        let generation = &self.work.generation;
        let Some(link) = &generation.reference_image_url else {
            return Ok(());
        };
        let fresh = self
            .tools
            .outputs
            .for_provider(link, generation.user_id, clock::now())
            .await?;
        self.input = fresh.map(|fresh| generation.provider_input.replace(link.as_str(), &fresh));
        Ok(())
    }

    fn webhook(&mut self, body: Vec<u8>) -> Happened {
        self.took_inbox = true;
        // It was made due when it came.
        let attempt = &self.work.attempt;
        let lag = clock::now().after(attempt.due_at);
        self.tools.metrics.webhook_taken(&attempt.provider, lag);
        Happened::Webhook(body)
    }

    /// The provider is done; what follows is our own time.
    fn heard_the_verdict(&self) {
        let (attempt, now) = (&self.work.attempt, clock::now());
        if self.tools.notes.hear_verdict(attempt.id, now) {
            let elapsed = now.after(attempt.created_at);
            self.tools.metrics.stage(&attempt.provider, "provider", elapsed);
        }
    }

    /// True when the provider should be asked to stop and was not asked yet. After a restart it is asked again, which
    /// providers answer the same way twice.
    fn must_stop(&self, now: Micros) -> bool {
        let wanted = self.work.generation.cancel_requested || now >= self.deadline();
        wanted && !self.tools.notes.was_asked_to_stop(self.work.attempt.id)
    }

    /// When the host gives up: the model's own patience, as the registry has it now.
    pub(super) fn deadline(&self) -> Micros {
        let registry = self.tools.shelf.get();
        match registry.model(&self.work.generation.model_id) {
            Some(model) => self
                .work
                .attempt
                .created_at
                .plus(Duration::from_millis(model.deadline_ms)),
            None => self.work.attempt.deadline_at,
        }
    }

    /// Stores a step. `Ok` says whether the user wants it stopped; `Err` says how to go on without it.
    pub(super) async fn save(
        &mut self,
        step: &Step,
        state: AttemptState,
        pending: Pending,
        due_at: Micros,
        progress: Option<ProgressNote>,
    ) -> Result<bool, Next> {
        let attempt = &self.work.attempt;
        let save = SaveStep {
            attempt_id: attempt.id,
            worker: self.settings.name.clone(),
            steps: attempt.steps,
            state,
            plugin_state: step.state.clone(),
            pending: pending.clone(),
            remote_id: step.remote_id.clone(),
            due_at,
            clear_inbox: self.took_inbox,
            progress: progress.clone(),
            now: clock::now(),
        };
        let store = &self.tools.store;
        let saving = until_told(&self.work, || store.save_step(save.clone()));
        match saving.instrument(debug_span!("save", state = state.as_str())).await {
            Ok(Saved::Ok {
                cancel_requested,
                events,
            }) => {
                self.tools.live.publish(&events);
                let attempt = &mut self.work.attempt;
                self.took_inbox = false;
                if std::mem::take(&mut self.asks_to_stop) {
                    self.tools.notes.asked_to_stop(attempt.id);
                }
                attempt.steps += 1;
                attempt.state = state;
                attempt.pending = pending;
                attempt.due_at = due_at;
                if let Some(new) = &step.state {
                    attempt.plugin_state.clone_from(new);
                }
                if let Some(note) = progress {
                    self.work.generation.progress_permille = note.permille.or(self.work.generation.progress_permille);
                }
                Ok(cancel_requested)
            }
            Ok(Saved::Lost) => Err(Next::Over),
            Err(error) => {
                // Whether it was stored is not known; nothing was carried out, so what is stored decides later.
                tracing::warn!(error = %error, "cannot store a step");
                Err(Next::Due(clock::now().plus(LATER)))
            }
        }
    }
}

/// A failure in words for the customer.
pub(super) fn public(code: &str, message: &str) -> PublicError {
    PublicError {
        code: code.into(),
        message: message.into(),
    }
}
