//! What the simulator remembers, behind one lock that is never held across an await.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::faults::{Action, Point, Rule, strike};
use super::job::{Job, Phase};
use super::webhook::Signer;

/// How the simulated platform behaves for every request. Changeable while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Milliseconds a job waits in the queue.
    pub queue_ms: u64,
    /// Milliseconds a job runs.
    pub run_ms: u64,
    /// Jobs stay in the queue, then in progress, until the test moves them by hand.
    pub manual: bool,
    /// The only API key accepted; `None` accepts any that is not empty.
    pub required_key: Option<String>,
    /// Every submit is refused with 403: the account's balance is exhausted.
    pub balance_locked: bool,
    /// Input keys the model's schema does not name are a 422. Real FAL ignores them.
    pub reject_unknown_fields: bool,
    /// Cancelling a running job is acknowledged and has no effect: it completes and is charged.
    pub ignore_cancel: bool,
    /// A failed job's status carries neither `error` nor `error_type`; only the result URL tells.
    pub hide_errors: bool,
    /// Deliver webhooks at all.
    pub webhooks: bool,
    /// Waits before each repetition of a delivery that got no 2xx, in milliseconds.
    pub webhook_retry_ms: Vec<u64>,
    /// What clients call this simulator, without a trailing slash; `None` takes the `Host` of each request.
    pub public_url: Option<String>,
    /// Longer edge of images in pixels.
    pub media_long_edge_px: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_ms: 20,
            run_ms: 60,
            manual: false,
            required_key: None,
            balance_locked: false,
            reject_unknown_fields: true,
            ignore_cancel: false,
            hide_errors: false,
            webhooks: true,
            webhook_retry_ms: vec![100, 400, 1500, 5000],
            public_url: None,
            media_long_edge_px: 256,
        }
    }
}

/// A submit that was not accepted: nothing was bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// Endpoint id as requested.
    pub endpoint: String,
    /// The prompt, if there was one.
    pub prompt: String,
    /// `401`, `503`, `cut`, `hang`.
    pub answer: String,
}

#[derive(Debug)]
pub(super) struct Upload {
    pub(super) content_type: String,
    pub(super) bytes: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) rules: Vec<Rule>,
    /// Faults that prompts name for the moment of submission, by prompt: the job does not exist yet.
    pub(super) prompt_rules: HashMap<String, Vec<Rule>>,
    /// In order of acceptance.
    pub(super) jobs: Vec<Job>,
    index: HashMap<String, usize>,
    /// No job before this one waits any more; a job that left the queue never returns.
    first_waiting: usize,
    pub(super) refusals: Vec<Refusal>,
    pub(super) uploads: HashMap<String, Upload>,
    /// Tokens given out for `files/upload`.
    pub(super) cdn_tokens: HashSet<String>,
}

impl State {
    pub(super) fn add(&mut self, job: Job) {
        self.index.insert(job.request_id.clone(), self.jobs.len());
        self.jobs.push(job);
    }

    pub(super) fn find(&self, request_id: &str) -> Option<usize> {
        self.index.get(request_id).copied()
    }

    /// How many of the jobs accepted before this one still wait.
    pub(super) fn waiting_before(&mut self, index: usize, now: Instant) -> usize {
        let waits = |job: &Job| job.phase(now) == Phase::InQueue;
        while self.jobs.get(self.first_waiting).is_some_and(|job| !waits(job)) {
            self.first_waiting += 1;
        }
        let first = self.first_waiting.min(index);
        self.jobs[first..index].iter().filter(|job| waits(job)).count()
    }

    /// The fault that strikes an operation on an existing job, if any: its prompt's first, then the global ones.
    pub(super) fn strike_job(&mut self, index: usize, at: Point) -> Option<Action> {
        let job = &mut self.jobs[index];
        let (endpoint, prompt) = (job.model.endpoint, job.prompt().to_owned());
        strike(&mut job.rules, at, endpoint, &prompt).or_else(|| strike(&mut self.rules, at, endpoint, &prompt))
    }

    pub(super) fn settle(&mut self, now: Instant) {
        for job in &mut self.jobs {
            job.settle(now);
        }
    }
}

/// Shared by the server, the handles and the webhook tasks.
#[derive(Debug)]
pub(super) struct Inner {
    state: Mutex<State>,
    /// Counts changes; waiters look again on each.
    pub(super) changed: watch::Sender<u64>,
    pub(super) signer: Signer,
    pub(super) http: reqwest::Client,
    pub(super) stop: tokio_util::sync::CancellationToken,
    /// `true` while connections shall be accepted.
    pub(super) open: watch::Sender<bool>,
    /// `true` while the listener exists.
    pub(super) listening: watch::Sender<bool>,
}

impl Inner {
    pub(super) fn new(settings: Settings) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            state: Mutex::new(State {
                settings,
                ..State::default()
            }),
            changed: watch::Sender::new(0),
            signer: Signer::fixed()?,
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()?,
            stop: tokio_util::sync::CancellationToken::new(),
            open: watch::Sender::new(true),
            listening: watch::Sender::new(false),
        }))
    }

    /// A panic in one test's closure must not blind the assertions that follow, so poison is ignored.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on one job as of now, if it exists.
    pub(super) fn with_job<T>(
        &self,
        request_id: &str,
        work: impl FnOnce(&mut State, usize, Instant) -> T,
    ) -> Option<T> {
        let now = Instant::now();
        let mut state = self.lock();
        let index = state.find(request_id)?;
        state.jobs[index].settle(now);
        Some(work(&mut state, index, now))
    }

    pub(super) fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Unix milliseconds.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}
