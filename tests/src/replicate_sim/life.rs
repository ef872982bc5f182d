//! From `starting` to the end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::sleep;

use super::{Inner, Prediction, webhook};

/// Replicate's statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Created; the model is being made ready.
    Starting,
    /// The model runs.
    Processing,
    /// There is an output.
    Succeeded,
    /// There is an error.
    Failed,
    /// Stopped, by a request or by its deadline.
    Canceled,
    /// Its deadline passed before it started.
    Aborted,
}

impl Status {
    /// As it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Processing => "processing",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Canceled => "canceled",
            Status::Aborted => "aborted",
        }
    }

    /// Nothing comes after it.
    #[must_use]
    pub fn is_end(self) -> bool {
        !matches!(self, Status::Starting | Status::Processing)
    }
}

/// When a prediction was created, started and completed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) created: OffsetDateTime,
    pub(super) started: Option<OffsetDateTime>,
    pub(super) completed: Option<OffsetDateTime>,
}

/// Lives a prediction's life and reports it.
pub(super) async fn live(inner: Arc<Inner>, id: String, deadline: Option<Duration>) {
    let path = async {
        step(&inner, &id, 1, inner.settings.start).await;
        if inner.with(&id, Prediction::begin) == Some(true) {
            tokio::spawn(webhook::deliver(Arc::clone(&inner), id.clone(), "start"));
        }
        step(&inner, &id, 2, inner.settings.run).await;
        let url = inner.public_url();
        inner.with(&id, |p| p.conclude(&url));
    };
    let late = async {
        match deadline {
            Some(deadline) => sleep(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = path => {}
        () = inner.until(&id, |p| p.status.is_end()) => {}
        () = late => drop(inner.with(&id, |p| match p.status {
            Status::Starting => p.end(Status::Aborted),
            _ => p.end(Status::Canceled),
        })),
    }
    webhook::deliver(inner, id, "completed").await;
}

/// The time that a step takes, or the nudge that a held prediction waits for.
async fn step(inner: &Inner, id: &str, number: u32, takes: Duration) {
    let held = inner.with(id, |p| p.marked("hold"));
    match held {
        Some(true) => inner.until(id, |p| p.nudges >= number).await,
        _ => sleep(takes).await,
    }
}

impl Prediction {
    /// The model runs from here on; false when it has ended already.
    fn begin(&mut self) -> bool {
        if self.status == Status::Starting {
            self.status = Status::Processing;
            self.times.started = Some(OffsetDateTime::now_utc());
            self.logs = "Using seed: 7\n 50%|#####     | 1/2 [00:00<00:00, 9.00it/s]\n".to_owned();
            return true;
        }
        false
    }

    /// The model is through.
    fn conclude(&mut self, public_url: &str) {
        let texts = [
            ("fail", "list index out of range"),
            (
                "nsfw",
                "NSFW content detected. Try running it again, or try a different prompt.",
            ),
            ("memory", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ];
        if self.status.is_end() {
            return;
        }
        if self.marked("canceled") {
            self.end(Status::Canceled);
        } else if let Some((_, text)) = texts.into_iter().find(|(mark, _)| self.marked(mark)) {
            self.error = Some(text);
            self.end(Status::Failed);
        } else {
            let url = |number: u64| json!(format!("{public_url}/files/{}-{number}.png", self.id));
            let count = |field| self.input.get(field).and_then(Value::as_u64).unwrap_or(1);
            self.output = match self.model.count {
                Some(field) => (0..count(field)).map(url).collect(),
                None => url(0),
            };
            self.logs.push_str("100%|##########| 2/2 [00:00<00:00, 9.00it/s]\n");
            self.end(Status::Succeeded);
        }
    }

    /// Ends it, unless it has ended.
    pub(super) fn end(&mut self, status: Status) {
        if !self.status.is_end() {
            self.status = status;
            self.times.completed = Some(OffsetDateTime::now_utc());
        }
    }

    /// Its data is removed.
    pub(super) fn forget(&mut self) {
        self.removed = true;
    }

    /// As the API shows it.
    pub(super) fn show(&self, public_url: &str) -> Value {
        let at = |time: Option<OffsetDateTime>| time.and_then(|t| t.format(&Rfc3339).ok());
        let seconds = |from: OffsetDateTime, to: OffsetDateTime| (to - from).as_seconds_f64();
        let mut metrics = Map::new();
        if let Some(completed) = self.times.completed {
            metrics.insert("total_time".into(), json!(seconds(self.times.created, completed)));
            if let Some(started) = self.times.started {
                metrics.insert("predict_time".into(), json!(seconds(started, completed)));
            }
        }
        let url = format!("{public_url}/v1/predictions/{}", self.id);
        let mut shown = json!({
            "id": self.id,
            "model": format!("{}/{}", self.model.owner, self.model.name),
            "version": self.version,
            "input": self.input,
            "output": self.output,
            "logs": self.logs,
            "error": self.error,
            "status": self.status.text(),
            "source": "api",
            "created_at": at(Some(self.times.created)),
            "started_at": at(self.times.started),
            "completed_at": at(self.times.completed),
            "data_removed": self.removed,
            "metrics": metrics,
            "urls": { "get": url, "cancel": format!("{url}/cancel"), "web": format!("https://replicate.com/p/{}", self.id) },
        });
        if self.removed {
            shown["input"] = json!({});
            shown["output"] = Value::Null;
            shown["logs"] = Value::Null;
        }
        shown
    }
}
