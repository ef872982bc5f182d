//! One call of a provider: what it is told, how its answer is read, and what either says about its health.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tracing::field::Empty;
use tracing::{Instrument, debug_span};
use velro_plugin::{
    Action, ErrorKind, Event, Fault, FaultCode, Header, HttpRequest, Job, Params, Progress, Response, Step, Transport,
};

use super::drive::{Drive, LONGEST_WAIT, SHORTEST_WAIT};
use super::happened::Happened;
use crate::clock;
use crate::generation::AttemptState;
use crate::store::ProgressNote;

impl Drive {
    /// Calls the provider; a panic is a fault.
    pub(super) fn call(&self, happened: &Happened) -> Result<Step, Fault> {
        let attempt = &self.work.attempt;
        let id = attempt.id.to_string();
        let hook = self
            .settings
            .webhook_base
            .as_ref()
            .filter(|_| self.provider.takes_webhooks())
            .map(|base| format!("{base}/webhooks/{}/{id}", attempt.provider));
        let job = Job {
            id: &id,
            model: &self.work.generation.provider_model,
            params: Params::new(self.input.as_deref().unwrap_or(&self.work.generation.provider_input)),
            state: &attempt.plugin_state,
            idempotency_key: &id,
            webhook_url: hook.as_deref(),
            now_ms: clock::now().millis(),
            deadline_ms: self.deadline().millis(),
            attempt: attempt.ordinal,
            steps: attempt.steps,
        };
        let headers: Vec<Header<'_>> = match happened {
            Happened::Answer(answer) => answer
                .headers
                .iter()
                .map(|(name, value)| Header { name, value })
                .collect(),
            _ => Vec::new(),
        };
        let event = match happened {
            Happened::Start => Event::Start,
            Happened::Answer(a) => Event::Http(Response {
                status: a.status,
                headers: &headers,
                body: &a.body,
            }),
            Happened::Failed(transport) => Event::Failed(*transport),
            Happened::Timer => Event::Timer,
            Happened::Webhook(body) => Event::Webhook(Response {
                status: 200,
                headers: &headers,
                body,
            }),
            Happened::Cancel => Event::Cancel,
            Happened::Interrupted => Event::Interrupted,
        };
        catch_unwind(AssertUnwindSafe(|| self.provider.provider.step(&job, event)))
            .unwrap_or_else(|_| Err(Fault::new(FaultCode::Panic, "the provider panicked")))
    }

    /// True for an answer to the paid request that says nothing about whether it was bought, whatever a library makes of it:
    /// proxies write these too. What is built in and what an operator has declared know their API, and decide themselves.
    pub(super) fn decides_nothing(&self, happened: &Happened) -> bool {
        let Happened::Answer(answer) = happened else {
            return false;
        };
        let vague = matches!(answer.status, 300..400 | 408 | 499 | 500..=502 | 504..=599);
        vague && self.provider.library.is_some()
    }

    pub(super) async fn perform(&self, request: &HttpRequest) -> Happened {
        let span = debug_span!(
            "upstream",
            otel.kind = "client",
            provider = self.provider.name,
            http.request.method = format!("{:?}", request.method).to_uppercase(),
            paid = request.effect.is_submit(),
            http.response.status_code = Empty,
        );
        let performed = self
            .tools
            .upstream
            .perform(&self.provider, request)
            .instrument(span.clone())
            .await;
        if let Ok(answer) = &performed {
            span.record("http.response.status_code", answer.status);
        }
        match performed {
            Ok(answer) => Happened::Answer(answer),
            Err(transport) => Happened::Failed(transport),
        }
    }

    /// The state after a step that goes on. Only a job id of the provider, from the answer to the submit or from its
    /// webhook, proves that it has the job; without one whatever follows the submit is not known.
    pub(super) fn state_after(&self, step: &Step, ambiguous: bool, from_webhook: bool) -> AttemptState {
        let proven = step.remote_id.is_some();
        match self.work.attempt.state {
            AttemptState::Sending if ambiguous || !proven => AttemptState::Unknown,
            AttemptState::Sending => AttemptState::Accepted,
            AttemptState::Unknown if from_webhook && proven => AttemptState::Accepted,
            state => state,
        }
    }

    /// The provider's wait within the host's limits and the model's ceiling.
    pub(super) fn pace(&self, wanted: Duration) -> Duration {
        let registry = self.tools.shelf.get();
        let ceiling = registry
            .model(&self.work.generation.model_id)
            .map_or(LONGEST_WAIT, |m| Duration::from_millis(m.poll_ceiling_ms))
            .clamp(SHORTEST_WAIT, LONGEST_WAIT);
        wanted.clamp(SHORTEST_WAIT, ceiling)
    }

    /// Progress is stored when it moved by a hundredth, or says something new.
    pub(super) fn worth_showing(&self, progress: &Progress) -> Option<ProgressNote> {
        let before = self.work.generation.progress_permille;
        let moved = progress
            .permille
            .is_some_and(|p| before.is_none_or(|b| p >= b.saturating_add(10)));
        let said = progress.message.as_deref();
        let news = said.is_some_and(|message| self.tools.notes.is_news(self.work.attempt.id, message));
        (moved || news).then(|| ProgressNote {
            permille: progress.permille,
            message: progress.message.clone(),
            queue_position: progress.queue_position,
        })
    }

    /// What this call says about the provider goes to its breaker; faults go there by [`Drive::faulted`].
    pub(super) fn observe(&self, happened: &Happened, step: &Step) {
        let health = &self.provider.health;
        match trouble(happened, step, self.work.attempt.state) {
            Sign::Works => health.succeeded(),
            Sign::Nothing => {}
            Sign::Trouble(reason) => {
                if health.failed(&reason, clock::now()) {
                    tracing::warn!(
                        provider = self.provider.name,
                        reason,
                        "the provider is not asked for a while"
                    );
                }
            }
        }
    }

    /// The code of the provider does not work. A call that does not return opens its breaker at once; a panic may be the
    /// fault of one job, and must not close the provider to everybody else: it counts as a failure. What is plainly the
    /// fault of one job or of one answer does not count.
    pub(super) fn observe_fault(&self, fault: &Fault) {
        use FaultCode::{BadInput, BadResponse, BadState, Unsupported};
        if matches!(fault.code, Unsupported | BadInput | BadState | BadResponse) {
            return;
        }
        self.tools.metrics.provider_fault(&self.provider.name);
        if self.provider.health.faulted(fault, clock::now()) {
            tracing::error!(provider = self.provider.name, fault = %fault, "the provider code is not asked for a while");
        }
    }
}

/// What a call says about the provider.
#[derive(Debug, PartialEq, Eq)]
enum Sign {
    Works,
    Trouble(String),
    Nothing,
}

fn trouble(happened: &Happened, step: &Step, state: AttemptState) -> Sign {
    let failure = match &step.action {
        Action::Fail(failure) => Some(failure),
        Action::Done(_) => return Sign::Works,
        _ => None,
    };
    match failure.map(|f| f.kind) {
        // It says so itself; what never reached it because the host refuses to send it is not its doing.
        Some(ErrorKind::Unavailable | ErrorKind::Auth | ErrorKind::Quota)
            if !matches!(
                happened,
                Happened::Failed(Transport::HostDenied | Transport::BodyTooLarge)
            ) =>
        {
            return Sign::Trouble(failure.map_or_else(String::new, |f| format!("{:?}: {}", f.kind, f.code)));
        }
        _ => {}
    }
    match happened {
        Happened::Failed(Transport::NotSent) => Sign::Trouble("cannot be reached".into()),
        Happened::Failed(Transport::Timeout) => Sign::Trouble("no answer in time".into()),
        Happened::Failed(Transport::Reset) => Sign::Trouble("broken connections".into()),
        Happened::Failed(_) => Sign::Nothing,
        Happened::Answer(answer) => match answer.status {
            // How an accepted job failed, or why an input is refused, may come with any status.
            _ if failure.is_some() && state == AttemptState::Accepted => Sign::Works,
            500.. => Sign::Trouble(format!("HTTP {}", answer.status)),
            401..=403 if failure.is_none() => Sign::Trouble(format!("HTTP {}", answer.status)),
            _ => Sign::Works,
        },
        // A refusal without a question, as the built-in sandbox's.
        Happened::Start if failure.is_some() => Sign::Works,
        Happened::Start | Happened::Timer | Happened::Webhook(_) | Happened::Cancel | Happened::Interrupted => {
            Sign::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Answer;
    use velro_plugin::{Output, Retry};

    fn answer(status: u16) -> Happened {
        Happened::Answer(Answer {
            status,
            headers: Vec::new(),
            body: Default::default(),
        })
    }

    fn fail(kind: ErrorKind) -> Step {
        Step::fail(kind, Retry::Never, "code", "No.")
    }

    #[test]
    fn an_answer_works_whatever_it_says_about_the_job() {
        use AttemptState::{Accepted, Sending};
        let works = |happened: &Happened, step: &Step, state| assert_eq!(trouble(happened, step, state), Sign::Works);
        works(&answer(200), &Step::wait(1), Sending);
        works(&answer(404), &Step::wait(1), Accepted);
        works(&answer(429), &fail(ErrorKind::RateLimited), Sending);
        works(&answer(422), &fail(ErrorKind::InvalidInput), Sending);
        works(&answer(403), &fail(ErrorKind::ContentPolicy), Sending);
        works(&answer(500), &fail(ErrorKind::Upstream), Accepted);
        works(
            &Happened::Start,
            &fail(ErrorKind::ContentPolicy),
            AttemptState::Prepared,
        );
        works(&Happened::Timer, &Step::done(vec![Output::url("image", "u")]), Accepted);
    }

    #[test]
    fn no_answer_a_5xx_and_a_refused_key_are_trouble() {
        use AttemptState::{Accepted, Sending};
        let is_trouble = |happened: &Happened, step: &Step, state| {
            let sign = trouble(happened, step, state);
            assert!(matches!(sign, Sign::Trouble(_)), "{sign:?}");
        };
        for transport in [Transport::NotSent, Transport::Timeout, Transport::Reset] {
            is_trouble(&Happened::Failed(transport), &Step::wait(1), Sending);
        }
        is_trouble(&answer(503), &Step::wait(1), Accepted);
        is_trouble(&answer(500), &fail(ErrorKind::Upstream), Sending);
        is_trouble(&answer(401), &Step::wait(1), Accepted);
        is_trouble(&answer(200), &fail(ErrorKind::Quota), Accepted);
        is_trouble(&Happened::Start, &fail(ErrorKind::Unavailable), AttemptState::Prepared);
    }

    #[test]
    fn what_says_nothing_about_the_provider_changes_nothing() {
        let nothing = |happened: &Happened, step: &Step| {
            assert_eq!(trouble(happened, step, AttemptState::Accepted), Sign::Nothing);
        };
        for transport in [Transport::HostDenied, Transport::BodyTooLarge, Transport::CircuitOpen] {
            nothing(&Happened::Failed(transport), &Step::wait(1));
        }
        nothing(&Happened::Failed(Transport::HostDenied), &fail(ErrorKind::Unavailable));
        for happened in [
            Happened::Start,
            Happened::Timer,
            Happened::Cancel,
            Happened::Interrupted,
        ] {
            nothing(&happened, &Step::wait(1));
        }
        nothing(&Happened::Webhook(Vec::new()), &Step::wait(1));
    }
}
