//! What becomes of an attempt that did not deliver: tried again, given to another provider, ended, or held as unknown.
//!
//! Decided by what left the host and what the provider answered, never by what the provider code would like.

use std::time::Duration;
use velro_plugin::{ErrorKind, Failure, Fault, Retry, Step};

use super::drive::{Drive, GRACE_AFTER_DEADLINE, LONGEST_WAIT, public};
use super::happened::Happened;
use super::reroute::Why;
use super::settle::settle;
use super::told::until_told;
use super::{AFTER_A_PANIC, FALLBACK_DEADLINE, LATER, Next};
use crate::clock::{self, Micros};
use crate::generation::{AttemptState, Pending, PublicError};
use crate::id::AttemptId;
use crate::store::{NextAttempt, Verdict};

/// What the provider reported, and how it came to us.
pub(super) struct Report {
    pub(super) failure: Failure,
    /// The paid request left, and nobody knows what became of it.
    pub(super) ambiguous: bool,
    /// The provider itself has said it, in an answer or a webhook.
    pub(super) told: bool,
}

impl Drive {
    /// Provider code that does not work must not decide about money: what was never sent goes elsewhere or fails, what was
    /// accepted is asked about again, and only what was sent without a clear answer is unknown.
    pub(super) async fn faulted(&mut self, fault: &Fault, happened: &Happened) -> Next {
        tracing::error!(fault = %fault, "the provider code failed");
        self.observe_fault(fault);
        // The next step takes the newest code.
        self.tools.notes.unpin(self.work.attempt.id);
        match self.work.attempt.state {
            AttemptState::Prepared => {
                let detail = fault.to_string();
                if let Some(next) = self.reroute(Why::Fault, &detail, AttemptState::Rejected, true).await {
                    return next;
                }
                let error = public(
                    "provider_error",
                    "The provider of this model does not work at the moment",
                );
                self.settle_failed(error, detail, AttemptState::Rejected).await
            }
            // What is stored can be asked again, so nothing is lost by it.
            AttemptState::Accepted if clock::now() < self.deadline().plus(GRACE_AFTER_DEADLINE) => {
                self.try_otherwise(happened).await
            }
            _ => self.park(None, &fault.to_string()).await,
        }
    }

    /// The code does not cope with what happened to an accepted job: it is asked again later, and by other means. A webhook
    /// is only a hint, and polling finds out the same; a wish to stop that cannot be passed on must not keep polls away.
    async fn try_otherwise(&mut self, happened: &Happened) -> Next {
        let due = clock::now().plus(AFTER_A_PANIC);
        match happened {
            Happened::Webhook(_) => {
                let step = Step::wait(0);
                let polling = self.save(&step, AttemptState::Accepted, Pending::Wait, due, None);
                if let Err(next) = polling.await {
                    return next;
                }
            }
            Happened::Cancel => self.tools.notes.asked_to_stop(self.work.attempt.id),
            _ => {}
        }
        Next::Due(due)
    }

    pub(super) async fn failed(&mut self, report: Report) -> Next {
        let Report { failure, ambiguous, .. } = &report;
        let attempt = &self.work.attempt;
        let nothing_bought = match attempt.state {
            AttemptState::Prepared => true,
            AttemptState::Sending => !ambiguous && failure.kind != ErrorKind::UnknownOutcome,
            _ => false,
        };
        let detail = format!("{:?} {}: {}", failure.kind, failure.code, failure.message);
        if !nothing_bought && (*ambiguous || failure.kind == ErrorKind::UnknownOutcome) {
            return self.park(None, &detail).await;
        }
        let again =
            nothing_bought && failure.retry == Retry::SameProvider && attempt.ordinal < self.settings.max_attempts;
        let (state, why) = match nothing_bought {
            true => (AttemptState::Rejected, Why::Refused),
            false => (AttemptState::Finished, Why::Failed),
        };
        let elsewhere = match nothing_bought {
            true => refused_for_good(failure, again),
            false => attempt.state == AttemptState::Accepted && report.told && is_verdict(failure),
        };
        // Whoever would take it later is not left for a provider that may not take it at all.
        if elsewhere && let Some(next) = self.reroute(why, &detail, state, !again).await {
            return next;
        }
        if again {
            if self.work.generation.cancel_requested || self.wish_to_stop().await {
                return self.settle(Verdict::Cancelled).await;
            }
            return self.try_again(failure, detail).await;
        }
        if failure.kind == ErrorKind::Cancelled {
            if self.work.generation.cancel_requested || self.wish_to_stop().await {
                return self.settle(Verdict::Cancelled).await;
            }
            if clock::now() >= self.deadline() {
                let error = public("timeout", "The provider did not finish in time");
                return self.settle_failed(error, detail, state).await;
            }
        }
        let error = PublicError {
            code: report.failure.code,
            message: report.failure.message,
        };
        self.settle_failed(error, detail, state).await
    }

    /// The user may have asked while the step ran.
    async fn wish_to_stop(&self) -> bool {
        let generation = &self.work.generation;
        match self.tools.store.generation(generation.user_id, generation.id).await {
            Ok(Some(now)) => now.cancel_requested,
            _ => false,
        }
    }

    /// Nothing was sent, and the time for it is over: the next attempt has its own.
    pub(super) async fn begin_afresh(&mut self) -> Next {
        let reason = "it has waited for too long to be begun; nothing was sent".to_owned();
        self.next_attempt(clock::now(), reason).await
    }

    /// Nothing was bought: the next attempt under the same lease, after a pause.
    async fn try_again(&mut self, failure: &Failure, reason: String) -> Next {
        let now = clock::now();
        let pause = Duration::from_secs(1 << self.work.attempt.ordinal.min(6)).min(Duration::from_secs(60));
        let due_at = now.plus(pause.max(Duration::from_millis(failure.retry_after_ms).min(LONGEST_WAIT)));
        self.next_attempt(due_at, reason).await
    }

    async fn next_attempt(&mut self, due_at: Micros, reason: String) -> Next {
        let now = clock::now();
        let next = NextAttempt {
            rejected: self.work.attempt.id,
            worker: self.settings.name.clone(),
            steps: self.work.attempt.steps,
            reason: reason.clone(),
            attempt_id: AttemptId::new(),
            due_at,
            deadline_at: due_at.plus(FALLBACK_DEADLINE),
            now,
        };
        let store = &self.tools.store;
        match until_told(&self.work, || store.next_attempt(next.clone())).await {
            Ok(Some(work)) => {
                self.tools.metrics.attempt(&self.work.attempt.provider, "rejected");
                tracing::info!(
                    reason,
                    ordinal = work.attempt.ordinal,
                    "nothing was bought; trying again"
                );
                Next::Replaced(work.attempt.id, due_at)
            }
            Ok(None) => Next::Over,
            Err(error) => {
                tracing::warn!(error = %error, "cannot prepare the next attempt");
                Next::Due(now.plus(LATER))
            }
        }
    }

    /// Not known whether anything was bought: hold everything and wait for a webhook or an operator.
    pub(super) async fn park(&mut self, step: Option<&Step>, reason: &str) -> Next {
        tracing::error!(
            reason,
            "the outcome of a paid request is not known; credits stay held until it is resolved"
        );
        let nothing = Step::wait(0);
        let step = step.unwrap_or(&nothing);
        match self
            .save(step, AttemptState::Unknown, Pending::Nothing, clock::now(), None)
            .await
        {
            Ok(_) => {
                self.tools.metrics.attempt(&self.work.attempt.provider, "unknown");
                Next::Parked
            }
            Err(next) => next,
        }
    }

    pub(super) async fn settle_failed(&mut self, error: PublicError, detail: String, state: AttemptState) -> Next {
        tracing::info!(code = error.code, detail, "generation failed");
        self.settle(Verdict::Failed {
            error,
            detail,
            attempt_state: state,
        })
        .await
    }

    pub(super) async fn settle(&mut self, verdict: Verdict) -> Next {
        settle(&self.tools, &self.settings, &self.work, verdict).await
    }
}

/// A refusal that another provider may not share. `again`: this one may be asked again.
fn refused_for_good(failure: &Failure, again: bool) -> bool {
    use ErrorKind::{Auth, Cancelled, ContentPolicy, InvalidInput, Quota, RateLimited, Unavailable, UnknownOutcome};
    match (failure.kind, failure.retry) {
        (Cancelled | UnknownOutcome, _) => false,
        (_, Retry::OtherProvider) => true,
        (InvalidInput | ContentPolicy, _) => false,
        (Unavailable | Auth | Quota | RateLimited, _) => true,
        (_, Retry::SameProvider) => !again,
        (_, Retry::Never) => false,
    }
}

/// The provider's own word that an accepted job has failed. A refused look-up, or a status without a word about the job,
/// is none: the job may be going on, and somebody pays for it.
fn is_verdict(failure: &Failure) -> bool {
    match failure.kind {
        ErrorKind::Upstream | ErrorKind::Unavailable | ErrorKind::Timeout => {
            failure.retry != Retry::Never && !failure.code.starts_with("http_")
        }
        ErrorKind::ContentPolicy => failure.retry == Retry::OtherProvider,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::*;
    use Retry::*;

    const KINDS: [ErrorKind; 12] = [
        InvalidInput,
        Auth,
        Quota,
        RateLimited,
        ContentPolicy,
        NotFound,
        Unavailable,
        Timeout,
        Cancelled,
        BadResponse,
        UnknownOutcome,
        Upstream,
    ];

    fn of(kind: ErrorKind, retry: Retry, code: &str) -> Failure {
        Failure {
            kind,
            retry,
            code: code.into(),
            message: "No.".into(),
            retry_after_ms: 0,
        }
    }

    #[test]
    fn refusals_of_the_input_stay_where_they_are() {
        for kind in KINDS {
            let never = refused_for_good(&of(kind, Never, "x"), false);
            assert_eq!(
                never,
                matches!(kind, Auth | Quota | RateLimited | Unavailable),
                "{kind:?}"
            );
            let other = refused_for_good(&of(kind, OtherProvider, "x"), false);
            assert_eq!(other, !matches!(kind, Cancelled | UnknownOutcome), "{kind:?}");
        }
        assert!(
            !refused_for_good(&of(Timeout, SameProvider, "x"), true),
            "first here again"
        );
        assert!(refused_for_good(&of(Timeout, SameProvider, "x"), false));
        assert!(refused_for_good(&of(RateLimited, SameProvider, "x"), true));
    }

    #[test]
    fn only_the_provider_s_word_about_the_job_is_a_verdict() {
        for kind in KINDS {
            let verdict = is_verdict(&of(kind, SameProvider, "x"));
            assert_eq!(verdict, matches!(kind, Upstream | Unavailable | Timeout), "{kind:?}");
            assert!(!is_verdict(&of(kind, Never, "x")), "{kind:?}");
        }
        assert!(
            !is_verdict(&of(Unavailable, SameProvider, "http_503")),
            "a status is no word"
        );
        assert!(is_verdict(&of(ContentPolicy, OtherProvider, "x")));
        assert!(
            !is_verdict(&of(Auth, OtherProvider, "x")),
            "our key says nothing about the job"
        );
    }
}
