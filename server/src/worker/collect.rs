//! From a finished job to files in our storage to the settlement.
//!
//! What the provider delivered is stored before it is copied, so a crash copies again (to the same keys) and settles
//! once. A file that cannot be had is not charged for; if none can, the customer pays nothing.

use std::time::Duration;
use tracing::{Instrument, debug_span};
use velro_plugin::{Outcome, Step};

use super::Next;
use super::drive::{Drive, public};
use crate::clock;
use crate::failpoint;
use crate::generation::{AttemptState, Pending, StoredOutput};
use crate::outputs::CollectError;
use crate::store::Verdict;

/// Copies are tried again so often, with pauses that double from one second.
const MOST_TRIES: u32 = 9;

/// What one round of copying gave.
struct Round {
    stored: Vec<StoredOutput>,
    /// The last reason why something is missing, and whether another round may help.
    missing: Option<(String, bool)>,
}

impl Drive {
    /// Copies the stored outcome and settles, or comes back later.
    pub(super) async fn collect(mut self, outcome: Outcome, tries: u32) -> Next {
        let round = self.copy(&outcome, None).instrument(debug_span!("collect")).await;
        if let Some((reason, true)) = &round.missing
            && tries < MOST_TRIES
        {
            tracing::warn!(reason, tries, "an output cannot be copied yet");
            let due = clock::now().plus(Duration::from_secs(1 << tries.min(6)));
            let pending = Pending::Collect {
                outcome,
                tries: tries + 1,
            };
            return match self
                .save(&Step::wait(0), AttemptState::Accepted, pending, due, None)
                .await
            {
                Ok(_) => Next::Due(due),
                Err(next) => next,
            };
        }
        self.deliver(outcome, round).await
    }

    /// Copies outputs whose bytes are in the answer at hand, and settles.
    pub(super) async fn collect_from(&mut self, outcome: Outcome, answer: Option<&[u8]>) -> Next {
        let round = self.copy(&outcome, answer).instrument(debug_span!("collect")).await;
        self.deliver(outcome, round).await
    }

    async fn copy(&self, outcome: &Outcome, answer: Option<&[u8]>) -> Round {
        let mut round = Round {
            stored: Vec::new(),
            missing: None,
        };
        for (index, output) in (0u32..).zip(&outcome.outputs) {
            let id = self.work.generation.id;
            match self
                .tools
                .outputs
                .collect(&self.tools.upstream, &self.provider, id, index, output, answer)
                .await
            {
                Ok(stored) => round.stored.push(stored),
                Err(CollectError::Retryable(reason)) => round.missing = Some((reason, true)),
                Err(CollectError::Permanent(reason)) => {
                    tracing::warn!(index, reason, "an output cannot be used");
                    let again = round.missing.as_ref().is_some_and(|(_, again)| *again);
                    round.missing = Some((reason, again));
                }
            }
        }
        round
    }

    async fn deliver(&mut self, outcome: Outcome, round: Round) -> Next {
        failpoint::at("worker::collected");
        if round.stored.is_empty() {
            let reason = round
                .missing
                .map(|(reason, _)| reason)
                .unwrap_or_else(|| "no outputs".into());
            tracing::error!(
                reason,
                "the provider delivered, but nothing could be copied; the customer is not charged"
            );
            let error = public(
                "output_lost",
                "The result could not be fetched from the provider; nothing was charged",
            );
            return self
                .settle_failed(
                    error,
                    format!("charged without output: {reason}"),
                    AttemptState::Finished,
                )
                .await;
        }
        let (attempt, now) = (&self.work.attempt, clock::now());
        let elapsed = now.after(self.tools.notes.verdict_at(attempt.id, now));
        self.tools.metrics.stage(&attempt.provider, "outputs", elapsed);
        let generation = &self.work.generation;
        let worth = generation
            .price_basis
            .worth(generation.price, round.stored.len() as u32);
        let billed = outcome
            .billed
            .as_ref()
            .and_then(|quote| serde_json::to_value(quote).ok());
        self.settle(Verdict::Completed {
            outputs: round.stored,
            worth,
            billed,
            meta: outcome.meta,
        })
        .await
    }
}
