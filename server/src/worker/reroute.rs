//! To another provider: in one transaction of the store the attempt ends and the generation waits again.
//!
//! Only what was refused, never sent, or failed by the provider's own verdict goes; the store holds that against what is
//! stored, so that nothing of unknown outcome is ever bought a second time.

use std::time::Duration;

use super::drive::{Drive, public};
use super::settle::ended_as;
use super::told::until_told;
use super::{FALLBACK_DEADLINE, LATER, Next, Settings, Tools};
use crate::clock::{self, Micros};
use crate::failpoint;
use crate::generation::AttemptState;
use crate::provider::routes::Obstacle;
use crate::provider::{Admission, routes};
use crate::queue::Job;
use crate::store::{Redate, Reroute, Rerouted, Work};

/// Why a generation leaves its provider; a label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The provider refused the submit, or it never reached it.
    Refused,
    /// The provider accepted the job and said that it failed.
    Failed,
    /// Its breaker is open.
    Breaker,
    /// Its code does not work.
    Fault,
    /// It is not in the registry any more.
    Removed,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Why::Refused => "refused",
            Why::Failed => "failed",
            Why::Breaker => "breaker",
            Why::Fault => "fault",
            Why::Removed => "removed",
        }
    }
}

impl Drive {
    /// Whether an operator has stopped what would be sent now. It may come out of a backup and have been bought since, so it
    /// waits like what is queued. What has begun and buys nothing (the sandbox) goes on.
    pub(super) fn stopped_by_an_operator(&self, rest: Duration) -> Option<Next> {
        let attempt = &self.work.attempt;
        if self.tools.pauses.may_begin(&attempt.provider) {
            return None;
        }
        // The time under a stop is not time that its breaker has cost.
        self.tools.notes.is_held_off(attempt.id, false);
        Some(Next::Due(clock::now().plus(rest)))
    }

    /// Whether the first request has to wait; `Some` says what becomes of it instead.
    ///
    /// What has waited under a stop, in a backup or while no process ran, until too little time is left for the job, gets
    /// its time anew: it would be bought, and then stopped. It stays the same attempt, by whose id its provider may know it.
    pub(super) async fn not_yet(&mut self) -> Option<Next> {
        if let Some(next) = self.stopped_by_an_operator(LATER) {
            return Some(next);
        }
        let (id, now) = (self.work.attempt.id, clock::now());
        if now >= self.halfway() && !self.tools.notes.was_held_off(id) {
            let redate = Redate {
                attempt_id: id,
                worker: self.settings.name.clone(),
                steps: self.work.attempt.steps,
                deadline_at: now.plus(FALLBACK_DEADLINE),
                now,
            };
            match self.tools.store.redate_attempt(redate).await {
                Ok(true) => self.work.attempt.created_at = now,
                Ok(false) => return Some(Next::Over),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot give the attempt its time anew yet");
                    return Some(Next::Due(now.plus(LATER)));
                }
            }
        }
        self.held_off().await
    }

    /// The other half of the model's patience is for the job.
    fn halfway(&self) -> Micros {
        let began = self.work.attempt.created_at;
        began.plus(self.deadline().after(began) / 2)
    }

    /// Asks the breaker whether the attempt may begin; `Some` when it may not, with what becomes of it.
    async fn held_off(&mut self) -> Option<Next> {
        let now = clock::now();
        let Admission::NotBefore(until) = self.provider.health.admit(now) else {
            return None;
        };
        let reason = "the provider does not work at present; nothing was sent";
        if let Some(next) = self.reroute(Why::Breaker, reason, AttemptState::Rejected, false).await {
            return Some(next);
        }
        // Begun too late it would be bought, and then stopped.
        let halfway = self.halfway();
        if now >= halfway {
            let error = public(
                "provider_unavailable",
                "The provider of this model does not work at the moment; nothing was charged",
            );
            return Some(self.settle_failed(error, reason.into(), AttemptState::Rejected).await);
        }
        self.tools.notes.is_held_off(self.work.attempt.id, true);
        // Nothing is stored: the attempt waits in its slot, and a cancel ends it at once. It looks again before the time is
        // over, because whatever is in flight may show that the provider works.
        Some(Next::Due(until.min(now.plus(LATER)).min(halfway)))
    }

    /// Gives the generation to its next provider; `None` when there is none to give it to, and nothing was changed.
    /// `even_open`: also to one whose breaker is open or that an operator has stopped, when there is no other; it waits there.
    pub(super) async fn reroute(
        &mut self,
        why: Why,
        reason: &str,
        state: AttemptState,
        even_open: bool,
    ) -> Option<Next> {
        let now = clock::now();
        if now >= self.deadline() {
            return None;
        }
        reroute(
            &self.tools,
            &self.settings,
            &self.work,
            Parting {
                why,
                reason,
                state,
                even_open,
                now,
            },
        )
        .await
    }
}

/// How an attempt leaves its provider.
pub(super) struct Parting<'a> {
    pub(super) why: Why,
    /// For the operator.
    pub(super) reason: &'a str,
    /// The attempt's last state: `Rejected` or `Finished`.
    pub(super) state: AttemptState,
    pub(super) even_open: bool,
    pub(super) now: Micros,
}

/// See [`Drive::reroute`].
pub(super) async fn reroute(tools: &Tools, settings: &Settings, work: &Work, parting: Parting<'_>) -> Option<Next> {
    let registry = tools.shelf.get();
    let fallbacks = &work.generation.fallbacks;
    let pick = routes::pick(&registry, &tools.providers, &tools.pauses, fallbacks, parting.now)?;
    if pick.obstacle != Obstacle::None && !parting.even_open {
        return None;
    }
    let reroute = Reroute {
        generation_id: work.generation.id,
        attempt_id: work.attempt.id,
        worker: settings.name.clone(),
        steps: work.attempt.steps,
        attempt_state: parting.state,
        reason: parting.reason.to_owned(),
        fallback: pick.index,
        now: parting.now,
    };
    failpoint::at("worker::rerouting");
    Some(match until_told(work, || tools.store.reroute(reroute.clone())).await {
        Ok(Rerouted::Queued { generation, events }) => {
            failpoint::at("worker::rerouted");
            tools.live.publish(&events);
            let (from, to, why) = (&work.attempt.provider, &generation.provider, parting.why.as_str());
            tools.metrics.reroute(from, to, why);
            tools.metrics.attempt(from, ended_as(parting.state));
            tracing::info!(from, to, why, reason = parting.reason, "goes to another provider");
            Next::Requeued(Job {
                id: generation.id,
                user_id: generation.user_id,
                provider: generation.provider.as_str().into(),
                cost: generation.price.0.max(1) as u64,
            })
        }
        Ok(Rerouted::Cancelled { generation, events, .. }) => {
            tools.live.publish(&events);
            tools.metrics.attempt(&work.attempt.provider, "cancelled");
            tools.metrics.ended(&generation);
            Next::Over
        }
        Ok(Rerouted::Lost) => Next::Over,
        Err(error) => {
            tracing::warn!(error = %error, "cannot give it to another provider yet");
            Next::Due(parting.now.plus(LATER))
        }
    })
}
