//! The end of an attempt: settled, or left without a provider.

use serde::Deserialize;
use std::time::Duration;
use tracing::{Instrument, debug_span};
use velro_plugin::Quote;

use super::reroute::{Parting, Why, reroute};
use super::told::until_told;
use super::{LATER, Next, Settings, Tools};
use crate::clock;
use crate::failpoint;
use crate::generation::{AttemptState, Pending, PublicError};
use crate::store::{SaveStep, Saved, Settle, Settled, Verdict, Work};

/// How long an attempt without a provider rests before it is looked at again.
const WITHOUT_PROVIDER: Duration = Duration::from_secs(30);

/// Ends a generation; of several who try exactly one wins.
pub(super) async fn settle(tools: &Tools, settings: &Settings, work: &Work, verdict: Verdict) -> Next {
    let settle = Settle {
        generation_id: work.generation.id,
        attempt_id: work.attempt.id,
        worker: settings.name.clone(),
        steps: work.attempt.steps,
        verdict,
        now: clock::now(),
    };
    let settling = until_told(work, || tools.store.settle(settle.clone()));
    match settling.instrument(debug_span!("settle")).await {
        Ok(Settled::Won { generation, events, .. }) => {
            failpoint::at("worker::settled");
            tools.live.publish(&events);
            observe(tools, work, &settle.verdict);
            tools.metrics.ended(&generation);
            Next::Over
        }
        Ok(Settled::Lost) => Next::Over,
        Err(error) => {
            tracing::warn!(error = %error, "cannot settle yet");
            Next::Due(clock::now().plus(LATER))
        }
    }
}

/// What the end of an attempt says about its provider.
fn observe(tools: &Tools, work: &Work, verdict: &Verdict) {
    let (metrics, attempt) = (&tools.metrics, &work.attempt);
    let provider = attempt.provider.as_str();
    let outcome = match verdict {
        Verdict::Completed { billed, .. } => {
            let bill = billed.as_ref().and_then(|bill| Quote::deserialize(bill).ok());
            if let Some(bill) = bill {
                metrics.billed(provider, &bill);
            }
            return metrics.attempt(provider, "completed");
        }
        Verdict::Failed { attempt_state, .. } => ended_as(*attempt_state),
        Verdict::Cancelled => "cancelled",
    };
    metrics.attempt(provider, outcome);
    if attempt.state != AttemptState::Prepared {
        metrics.stage(provider, "provider", clock::now().after(attempt.created_at));
    }
}

/// How a failed attempt is counted.
pub(super) fn ended_as(state: AttemptState) -> &'static str {
    match state {
        AttemptState::Rejected => "rejected",
        _ => "failed",
    }
}

/// An attempt whose provider is not in the registry any more, and was not when this process began. What was never sent
/// fails and is released; what was sent waits for the provider to come back, and after its deadline for the operator.
pub(super) async fn without_provider(tools: &Tools, settings: &Settings, work: &Work) -> Next {
    let attempt = &work.attempt;
    if attempt.state == AttemptState::Prepared {
        let parting = Parting {
            why: Why::Removed,
            reason: "its provider is not in the registry",
            state: AttemptState::Rejected,
            even_open: true,
            now: clock::now(),
        };
        if let Some(next) = reroute(tools, settings, work, parting).await {
            return next;
        }
        let error = PublicError {
            code: "provider_removed".into(),
            message: "The provider of this model is not configured any more; nothing was charged".into(),
        };
        let verdict = Verdict::Failed {
            error,
            detail: format!("provider {} is not in the registry", attempt.provider),
            attempt_state: AttemptState::Rejected,
        };
        return settle(tools, settings, work, verdict).await;
    }
    let now = clock::now();
    if now < attempt.deadline_at {
        tracing::warn!(
            provider = attempt.provider,
            "an attempt waits for a provider that is not in the registry"
        );
        return Next::Due(now.plus(WITHOUT_PROVIDER));
    }
    tracing::error!(
        provider = attempt.provider,
        "its provider did not come back; an operator has to resolve it"
    );
    let park = SaveStep {
        attempt_id: attempt.id,
        worker: settings.name.clone(),
        steps: attempt.steps,
        state: AttemptState::Unknown,
        plugin_state: None,
        pending: Pending::Nothing,
        remote_id: None,
        due_at: now,
        clear_inbox: false,
        progress: None,
        now,
    };
    match tools.store.save_step(park).await {
        Ok(Saved::Ok { .. }) => {
            tools.metrics.attempt(&attempt.provider, "unknown");
            Next::Parked
        }
        Ok(Saved::Lost) => Next::Over,
        Err(error) => {
            tracing::warn!(error = %error, "cannot park the attempt");
            Next::Due(now.plus(WITHOUT_PROVIDER))
        }
    }
}
