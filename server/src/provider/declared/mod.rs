//! A provider that `providers.toml` describes (`kind = "http"`): templates for what is sent, pointers for what comes back.
//!
//! The machine is the one of the built-in FAL provider, with every name taken from a [`Declaration`]:
//!
//! ```text
//! (nothing) --Start--> submitting --answer--> accepted --verdict--> done | failed
//!                          |  \--no clear answer--> lost --webhook--> accepted
//!                          \--the answer is the result (synchronous APIs)--> done | failed
//! ```
//!
//! Invariants:
//! - A submit is emitted only for `Start` without saved state, so at most once per attempt. A refusal is a 4xx, a 503 or
//!   what the declaration calls one (by what the answer says, or on = "submit"); every other answer without a job or a result is *lost*: only a webhook or an operator
//!   resolves it.
//! - Once the API has accepted, only its own verdict or the deadline ends the job: a state word that means the end, or an
//!   error of the result. An unknown word, a 5xx, a dead network, a locked account are waited out.
//! - A webhook is a hint unless the declaration says where the outputs stand in it; even then it must be about this job.
//! - Requests are checked before the submit: what cannot be asked later is not bought.

mod accepted;
mod error;
mod response;
mod state;
mod template;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

use std::sync::Arc;
use velro_plugin::{
    Effect, ErrorKind, Event, Failure, Fault, HookTarget, HttpRequest, Job, Manifest, Provider, Response, Retry, Step,
    Transport, Webhook,
};

use crate::catalog::declaration::{Declaration, Meaning, On, Pointer, Polling, Stage};
use error::{classify, usual};
use response::{Found, View};
use state::{State, Ticket, Urls};
use template::{Filling, Unfit};

/// A provider described in the registry. Holds its description only.
pub struct Declared {
    name: String,
    declaration: Arc<Declaration>,
}

impl Declared {
    /// A provider of this name.
    pub fn new(name: &str, declaration: Arc<Declaration>) -> Self {
        Declared {
            name: name.to_owned(),
            declaration,
        }
    }

    fn filling<'f>(&'f self, job: &'f Job<'f>, id: &'f str) -> Filling<'f> {
        Filling {
            declaration: &self.declaration,
            job,
            id,
        }
    }
}

impl Provider for Declared {
    fn manifest(&self) -> Result<Manifest, Fault> {
        let mut manifest = Manifest::new(&self.name, env!("CARGO_PKG_VERSION"));
        manifest.hosts = self.declaration.all_hosts();
        manifest.secrets.clone_from(&self.declaration.secrets);
        let polling = self.declaration.polling.as_ref();
        manifest.webhook_auth = polling.and_then(|p| p.webhook.as_ref()).map(|hook| hook.auth.clone());
        Ok(manifest)
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        if matches!(event, Event::Chunk(_)) {
            return Err(Fault::unsupported("chunk"));
        }
        match (state::load(job)?, &self.declaration.polling) {
            (Some(State::Accepted(ticket)), Some(polling)) => self.following(job, polling).step(*ticket, event),
            // The operator made the API synchronous while the job was running: nothing can be asked any more.
            (Some(State::Accepted(_)), None) => Err(Fault::unsupported("a job of a provider that is synchronous now")),
            (before, _) => self.unaccepted(job, before.as_ref(), event),
        }
    }

    fn webhook(&self, hook: &Webhook<'_>) -> Result<HookTarget, Fault> {
        let declared = self.declaration.polling.as_ref().and_then(|p| p.webhook.as_ref());
        let id = declared.and_then(|declared| View::of_hook(hook.body).id(&declared.id));
        Ok(id.map_or(HookTarget::Ignore, HookTarget::Remote))
    }
}

/// Before the API has confirmed the job.
impl Declared {
    fn unaccepted(&self, job: &Job<'_>, state: Option<&State>, event: Event<'_>) -> Result<Step, Fault> {
        let lost_already = matches!(state, Some(State::Lost));
        Ok(match event {
            Event::Start if state.is_none() => match self.submit(job) {
                Ok(request) => state::keep(request.into(), &State::Submitting),
                Err(unfit) => unfit_input(&unfit).into(),
            },
            // The host asks only while no request is in flight; without a lost one nothing was bought.
            Event::Cancel if !lost_already => cancelled(),
            Event::Http(answer) if !lost_already => self.submitted(job, answer),
            Event::Failed(transport) if transport.not_sent() && !lost_already => not_sent(transport).into(),
            Event::Webhook(hook) => return self.found_by(job, hook.body),
            _ => self.lost(job),
        })
    }

    /// The paid request, once it is certain that everything after it can be asked.
    fn submit(&self, job: &Job<'_>) -> Result<HttpRequest, Unfit> {
        let declaration = &self.declaration;
        if let Some(polling) = &declaration.polling {
            let later = self.filling(job, "id");
            let requests = [Some(&polling.status), polling.result.as_ref(), polling.cancel.as_ref()];
            for request in requests.into_iter().flatten().filter(|request| request.path.is_some()) {
                later.request(request, None, Effect::Read)?;
            }
        }
        let effect = match declaration.repeatable {
            true => Effect::Write,
            false => Effect::Submit,
        };
        self.filling(job, "").request(&declaration.submit, None, effect)
    }

    fn submitted(&self, job: &Job<'_>, answer: Response<'_>) -> Step {
        let view = View::of(answer);
        if view.answer.ok() {
            let step = match &self.declaration.polling {
                Some(polling) => self.taken(job, polling, &view),
                None => self.answered(&view),
            };
            if let Some(step) = step {
                return step;
            }
        }
        let classed = classify(&self.declaration, On::Submit, &view);
        // 499 says that the client went away, after which the job may have been taken.
        let refuses = matches!(view.answer.status, 400..=498 | 503);
        let refused = match classed.class {
            Some(_) if classed.means(Meaning::Kind(ErrorKind::UnknownOutcome)) => false,
            // A 2xx is a refusal only if it says so itself.
            Some(class) if view.answer.ok() => class.reads_the_answer(),
            // A class for all requests that only knows `5xx` was not written with a purchase in mind.
            Some(class) => refuses || class.reads_the_answer() || class.on == Some(On::Submit),
            None => refuses,
        };
        match refused {
            true => classed.failure.into(),
            false => self.lost(job),
        }
    }

    /// The API took the job; `None` for everything that does not clearly say so.
    fn taken(&self, job: &Job<'_>, polling: &Polling, view: &View<'_>) -> Option<Step> {
        let id = view.id(&polling.id)?;
        let urls = view.urls(&self.declaration, polling);
        if !can_be_asked(polling, &urls) {
            return None;
        }
        let (_, stage) = view.stage(&self.declaration, &self.declaration.submit.states, &polling.state);
        // What it says of a failure is read when it is asked: then the job counts as bought, as it was.
        if stage == Some(Stage::Done)
            && polling.result.is_none()
            && let Found::Outputs(outcome) = view.outcome(&self.declaration, &Pointer::default())
        {
            return Some(Step::from(*outcome).remote_id(id));
        }
        let mut ticket = Ticket::new(id.clone(), urls);
        let progress = view.progress(&self.declaration.job, &mut ticket.permille);
        let step = self.following(job, polling).wait(ticket, None).ok()?;
        Some(step.progress(progress).remote_id(id))
    }

    /// The answer to the submit is the result; `None` for everything that does not clearly say so.
    fn answered(&self, view: &View<'_>) -> Option<Step> {
        let declaration = &self.declaration;
        let own = &declaration.submit.states;
        let at = declaration.job.state.as_ref();
        let stage = at.and_then(|at| view.stage(declaration, own, at).1);
        if matches!(stage, Some(Stage::Failed | Stage::Cancelled)) {
            return Some(classify(declaration, On::Submit, view).failure.into());
        }
        match view.outcome(declaration, &Pointer::default()) {
            Found::Outputs(outcome) => Some(Step::from(*outcome)),
            // A class says why: that is the refusal.
            Found::Empty if classify(declaration, On::Submit, view).by_answer() => None,
            Found::Empty => Some(Step::done(Vec::new())),
            Found::Nothing => None,
        }
    }

    /// A webhook about a job whose submit had no clear answer: the API is asked about the id that it names.
    fn found_by(&self, job: &Job<'_>, body: &[u8]) -> Result<Step, Fault> {
        let Some((polling, hook)) = self
            .declaration
            .polling
            .as_ref()
            .and_then(|p| Some((p, p.webhook.as_ref()?)))
        else {
            return Ok(self.lost(job));
        };
        let view = View::of_hook(body);
        match view.id(&hook.id) {
            Some(id) if can_be_asked(polling, &Urls::default()) => {
                let following = self.following(job, polling);
                let ticket = Ticket::new(id.clone(), Urls::default());
                let phase = following.phase_after(&view, hook);
                Ok(following.go(ticket, phase)?.remote_id(id))
            }
            _ => Ok(self.lost(job)),
        }
    }

    /// Whether the job was bought is not known, and must not be found out by buying again.
    fn lost(&self, job: &Job<'_>) -> Step {
        if self.declaration.repeatable {
            let kind = ErrorKind::Unavailable;
            return Step::fail(kind, Retry::SameProvider, "answer_lost", usual(kind));
        }
        let hooked = job.webhook_url.is_some() && self.declaration.polling.is_some();
        let step = if hooked && job.now_ms < job.deadline_ms {
            Step::wait((job.deadline_ms - job.now_ms).clamp(1_000, 600_000))
        } else {
            let kind = ErrorKind::UnknownOutcome;
            Step::fail(kind, Retry::Never, "unknown_outcome", usual(kind))
        };
        state::keep(step, &State::Lost)
    }
}

/// True when everything that must be asked later has an address.
fn can_be_asked(polling: &Polling, urls: &Urls) -> bool {
    let status = polling.status.path.is_some() || urls.status.is_some();
    let result = polling.result.as_ref();
    status && result.is_none_or(|result| result.path.is_some() || urls.result.is_some())
}

fn cancelled() -> Step {
    Step::fail(ErrorKind::Cancelled, Retry::Never, "cancelled", "Cancelled.")
}

fn unfit_input(unfit: &Unfit) -> Failure {
    let message = match unfit {
        Unfit::Missing(hole) => format!("The request lacks a value for `{hole}`."),
        Unfit::Path(_) => "A parameter cannot be used in the provider's address. Choose another value.".into(),
    };
    Failure {
        kind: ErrorKind::InvalidInput,
        retry: Retry::Never,
        code: "unfit_input".into(),
        message,
        retry_after_ms: 0,
    }
}

fn not_sent(transport: Transport) -> Failure {
    Failure {
        kind: ErrorKind::Unavailable,
        retry: match transport {
            Transport::HostDenied => Retry::OtherProvider,
            _ => Retry::SameProvider,
        },
        code: "unreachable".into(),
        message: "The provider cannot be reached at present. Try again in a few minutes.".into(),
        retry_after_ms: 0,
    }
}
