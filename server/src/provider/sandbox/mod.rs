//! The built-in `sandbox` provider: real results, drawn on this machine, without keys or a network.
//!
//! It behaves like a provider with a queue, without one: [`Sandbox`] waits for `latency_ms` in slices that report
//! progress, then names its outputs by `sandbox://` URLs, which hold every input of the picture. [`draw`] makes the
//! bytes when the host collects them, so a restart at any moment gives the same picture.
//!
//! `outcome` tells it to misbehave: `fail` fails at the end, `refuse` refuses at once, `hang` never ends.

pub mod art;
mod canvas;

use serde::{Deserialize, Serialize};
use velro_plugin::{
    ErrorKind, Event, Fault, FaultCode, Job, Manifest, Outcome, Output, Progress, Provider, Retry, Step, Value,
};

pub use canvas::{DrawError, draw};
use canvas::{Order, Subject};

/// Longest time a job may be told to take, in milliseconds.
const MAX_LATENCY_MS: u64 = 600_000;
/// A job reports progress about this often while it waits.
const SLICES: u64 = 20;
const MAX_IMAGES: u64 = 16;

/// The built-in sandbox provider.
#[derive(Debug, Default)]
pub struct Sandbox;

/// What is kept between two steps.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    v: u32,
    since_ms: u64,
    latency_ms: u64,
}

impl Provider for Sandbox {
    fn manifest(&self) -> Result<Manifest, Fault> {
        Ok(Manifest::new("sandbox", env!("CARGO_PKG_VERSION")))
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        let subject = Subject::of_model(job.model).ok_or_else(|| {
            Fault::new(
                FaultCode::Unsupported,
                format!("the sandbox has no model `{}`", job.model),
            )
        })?;
        if matches!(event, Event::Cancel) {
            return Ok(Step::fail(
                ErrorKind::Cancelled,
                Retry::Never,
                "cancelled",
                "Cancelled.",
            ));
        }
        let outcome = job.params.str("outcome").unwrap_or("ok");
        let work = match job.state_json::<Work>()? {
            Some(work) => work,
            None if outcome == "refuse" => {
                return Ok(Step::fail(
                    ErrorKind::ContentPolicy,
                    Retry::OtherProvider,
                    "content_policy_violation",
                    "The sandbox was told to refuse this prompt (outcome=refuse).",
                ));
            }
            None => Work {
                v: 1,
                since_ms: job.now_ms,
                latency_ms: job.params.u64("latency_ms").unwrap_or(0).min(MAX_LATENCY_MS),
            },
        };
        // Whatever the event, the clock decides.
        Ok(match outcome {
            "hang" => hang(job, &work),
            _ if job.now_ms < work.since_ms + work.latency_ms => wait(job, &work),
            "fail" => Step::fail(
                ErrorKind::Upstream,
                Retry::Never,
                "sandbox_failure",
                "The sandbox was told to fail (outcome=fail).",
            ),
            _ => deliver(job, subject),
        })
    }
}

fn wait(job: &Job<'_>, work: &Work) -> Step {
    let done = job.now_ms.saturating_sub(work.since_ms);
    let left = work.latency_ms.saturating_sub(done);
    let slice = (work.latency_ms / SLICES).clamp(100, 2_000);
    let permille = done * 1_000 / work.latency_ms.max(1);
    let stage = match permille {
        0..250 => "Sketching",
        250..700 => "Painting",
        _ => "Adding light",
    };
    Step::wait(left.min(slice).max(1)).state_json(work).progress(Progress {
        permille: Some(permille.min(999) as u16),
        queue_position: None,
        message: Some(stage.into()),
    })
}

fn hang(job: &Job<'_>, work: &Work) -> Step {
    if job.now_ms >= job.deadline_ms {
        return Step::fail(
            ErrorKind::Timeout,
            Retry::Never,
            "deadline",
            "The sandbox was told to hang (outcome=hang) and did so until the deadline.",
        );
    }
    Step::wait((job.deadline_ms - job.now_ms).min(600_000)).state_json(work)
}

fn deliver(job: &Job<'_>, subject: Subject) -> Step {
    let order = Order::of_job(job, subject);
    let count = match subject {
        Subject::Image => job.params.u64("num_images").unwrap_or(1).clamp(1, MAX_IMAGES),
        Subject::Video => 1,
    };
    let outputs = (0..count).map(|index| {
        let mut output = Output::url(subject.kind(), order.url(index as u32));
        output.content_type = Some(subject.content_type().into());
        output
    });
    let mut outcome = Outcome {
        outputs: outputs.collect(),
        ..Outcome::default()
    };
    outcome.meta.insert("seed".into(), Value::from(order.seed));
    outcome.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
