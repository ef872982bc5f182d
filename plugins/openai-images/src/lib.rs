//! OpenAI's images API as a Velro provider, and every server that speaks it.
//!
//! The API blocks: one paid request, and its answer is the end. There is no id to ask about later, so
//!
//! - an answer that is neither pictures nor a clear refusal ends as *unknown*, and so does no answer at all; nothing but
//!   an operator can resolve it;
//! - nothing can be cancelled once the request is under way.

mod config;
mod error;
mod request;
mod response;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

use serde::{Deserialize, Serialize};
use velro_plugin::{
    ErrorKind, Event, Fault, Job, Manifest, Provider, Response, Retry, Step, Transport, export_provider,
};

use config::Config;

/// The provider. Holds configuration only.
pub struct OpenAiImages(Config);

export_provider!(OpenAiImages, OpenAiImages::new);

/// What the host keeps for us: that the request went out.
#[derive(Serialize, Deserialize)]
struct Asked {}

/// Version written; older ones stay readable.
const VERSION: u32 = 1;

impl OpenAiImages {
    /// Made from the JSON text of its configuration.
    pub fn new(config: &[u8]) -> Result<Self, Fault> {
        Config::read(config).map(OpenAiImages)
    }
}

impl Provider for OpenAiImages {
    fn manifest(&self) -> Result<Manifest, Fault> {
        let manifest = Manifest::new("openai-images", env!("CARGO_PKG_VERSION")).host(self.0.base.host());
        Ok(match self.0.has_key {
            true => manifest.secret("OPENAI_API_KEY"),
            false => manifest,
        })
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        let asked = job.versioned_state::<Asked>(VERSION)?.is_some();
        Ok(match event {
            Event::Start if !asked => match request::submit(&self.0, job)? {
                Ok(request) => Step::from(request).versioned_state(VERSION, &Asked {}),
                Err(request::Unreadable) => error::unreadable_image().into(),
            },
            Event::Cancel if !asked => Step::fail(ErrorKind::Cancelled, Retry::Never, "cancelled", "Cancelled."),
            Event::Http(answer) if asked => answered(&answer),
            Event::Failed(transport) if transport.not_sent() => not_sent(transport),
            Event::Chunk(_) => return Err(Fault::unsupported("chunk")),
            Event::Webhook(_) => return Err(Fault::unsupported("webhook")),
            _ => unknown(),
        })
    }
}

fn answered(answer: &Response<'_>) -> Step {
    if error::is_refusal(answer) {
        return error::refused(answer).into();
    }
    let body = match answer.json() {
        Ok(body) if answer.ok() => body,
        _ => return unknown(),
    };
    match response::outcome(&body) {
        Some(outcome) if outcome.outputs.is_empty() => Step::done(Vec::new()),
        Some(outcome) => outcome.into(),
        // Some servers report their errors with a 200.
        None if body["error"].is_object() => error::refused(answer).into(),
        None => unknown(),
    }
}

fn not_sent(transport: Transport) -> Step {
    let retry = match transport {
        Transport::HostDenied => Retry::OtherProvider,
        _ => Retry::SameProvider,
    };
    let message = "The provider cannot be reached at present. Try again in a few minutes.";
    error::failure(ErrorKind::Unavailable, retry, "unreachable", message).into()
}

/// Whether anything was made, and charged for, is not known.
fn unknown() -> Step {
    Step::fail(
        ErrorKind::UnknownOutcome,
        Retry::Never,
        "unknown_outcome",
        "The connection to the provider broke before its answer was here. We are finding out whether it made anything; \
         nothing is charged until then.",
    )
}
