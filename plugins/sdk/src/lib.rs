//! How a Velro provider turns a job into requests and answers into outputs.
//!
//! A provider is **sans-IO**: it opens no socket, file or thread and reads no clock. The host calls
//! [`Provider::step`] with a [`Job`], the state the provider returned last time and an [`Event`]; the provider
//! answers with the next [`Action`]: send this request, wait this long, done with these outputs, failed in this
//! way. The host performs it, stores every step *before* it is carried out, and calls again. So a provider is
//! tested without a network, and a crash resumes from stored state instead of paying twice.
//!
//! ```
//! use velro_plugin::*;
//!
//! struct Echo;
//!
//! impl Provider for Echo {
//!     fn manifest(&self) -> Result<Manifest, Fault> {
//!         Ok(Manifest::new("echo", "1.0.0").host("api.echo.example").secret("ECHO_KEY"))
//!     }
//!     fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
//!         Ok(match event {
//!             Event::Start => HttpRequest::submit("https://api.echo.example/v1/images")
//!                 .header("authorization", "Bearer {{secret:ECHO_KEY}}")
//!                 .json_body(job.params.raw())
//!                 .into(),
//!             Event::Http(answer) if answer.ok() => {
//!                 Step::done(answer.json()?["url"].as_str().map(|url| Output::url("image", url)).into_iter().collect())
//!             }
//!             Event::Http(answer) => answer.failure("the provider refused the request").into(),
//!             Event::Failed(transport) if transport.not_sent() => {
//!                 Step::fail(ErrorKind::Unavailable, Retry::SameProvider, "unreachable", "nothing was sent")
//!             }
//!             _ => Step::fail(ErrorKind::UnknownOutcome, Retry::Never, "lost", "the answer was lost"),
//!         })
//!     }
//! }
//! ```
//!
//! Money and time are integers everywhere; no float crosses this boundary.
//!
//! `export_provider!` makes a dynamic library of a provider; [`abi`] is what crosses its boundary, and `testkit` (a
//! feature) plays recorded exchanges to a provider. `PLUGINS.md` tells the whole story.

pub mod abi;
mod base_url;
mod config;
pub mod export;
mod fault;
mod form;
mod job;
mod manifest;
mod numbers;
mod step;
#[cfg(feature = "testkit")]
pub mod testkit;
mod versioned;

pub use base_url::BaseUrl;
pub use config::read_config;
pub use fault::{Fault, FaultCode};
pub use form::{DataUrl, Form};
pub use job::{Event, Header, HookTarget, Job, Params, Response, Transport, Webhook};
pub use manifest::{Manifest, Model, Pricing, WebhookAuth};
pub use serde_json::{Map, Value};
pub use step::{
    Action, Effect, ErrorKind, Failure, HttpRequest, Method, Outcome, Output, Progress, Quote, Retry, Source, Step,
    escape,
};

/// A provider: pure functions. `&self` holds configuration only, never the state of a job.
///
/// Every function must be deterministic, must not block, and may be called from any thread, several at once.
pub trait Provider: Send + Sync + 'static {
    /// Name, version, hosts it talks to, secrets by name, models it brings along. Called once per load.
    fn manifest(&self) -> Result<Manifest, Fault>;

    /// What the provider will bill for a validated call; `None` leaves it to the host's own price rule.
    fn quote(&self, _job: &Job<'_>) -> Result<Option<Quote>, Fault> {
        Ok(None)
    }

    /// The state machine: (job, saved state, event) to the next action.
    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault>;

    /// Which job a webhook belongs to. The host has checked its signature already.
    fn webhook(&self, _hook: &Webhook<'_>) -> Result<HookTarget, Fault> {
        Err(Fault::unsupported("webhook"))
    }
}
