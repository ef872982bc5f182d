//! Drives attempts: claims what is next, steps what is due, resumes what a dead worker left, settles what is done.
//!
//! One task ([`Worker::run`]) owns the schedule: a sorted set of (due time, attempt), so that waiting for a provider
//! costs some bytes and no task. What is due is stepped by short-lived tasks ([`drive`]), at most
//! [`Settings::steps_at_once`] of them. The store is the truth: a lease says who may step an attempt, every step is
//! stored before it is carried out, and a nudge, a slot or a whole queue that is lost costs only time.

mod collect;
mod drive;
mod schedule;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::Shelf;
use crate::clock::{self, Micros};
use crate::id::{AttemptId, GenerationId};
use crate::outputs::Outputs;
use crate::provider::ProviderShelf;
use crate::queue::live::Live;
use crate::queue::{Job, LaneLimits, Queue};
use crate::store::{BeginAttempt, QueuedGeneration, Store};
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use schedule::Schedule;

/// How long an attempt rests after its step panicked.
const AFTER_A_PANIC: Duration = Duration::from_secs(30);

/// How long an attempt may take when its model is not in the registry any more.
const FALLBACK_DEADLINE: Duration = Duration::from_secs(3600);

/// What the worker works with.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Tools {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub live: Arc<Live>,
    pub shelf: Arc<Shelf>,
    pub providers: Arc<ProviderShelf>,
    pub upstream: Arc<Upstream>,
    pub outputs: Arc<Outputs>,
    pub metrics: Arc<Metrics>,
    pub told: Arc<Told>,
}

/// Attempts whose provider has been asked to stop by this process.
#[derive(Default)]
pub struct Told(Mutex<HashSet<AttemptId>>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, HashSet<AttemptId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contains(&self, id: AttemptId) -> bool {
        self.lock().contains(&id)
    }

    pub(crate) fn insert(&self, id: AttemptId) {
        self.lock().insert(id);
    }

    pub(crate) fn remove(&self, id: AttemptId) {
        self.lock().remove(&id);
    }
}

/// How the worker behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Unique among all workers that ever ran.
    pub name: String,
    /// Base of webhook URLs, when providers can reach it.
    pub webhook_base: Option<String>,
    /// How long a lease lasts; a dead worker's attempts are resumed after it.
    pub lease: Duration,
    /// How often the store is searched for what the queue or a nudge lost.
    pub sweep_every: Duration,
    /// Steps that run at the same time.
    pub steps_at_once: usize,
    /// Submits that were refused or never sent are tried again so often.
    pub max_attempts: u32,
    /// How long a drain waits for steps in flight.
    pub drain: Duration,
}

impl Settings {
    /// Settings for a worker with a fresh name.
    pub fn new(webhook_base: Option<String>, drain: Duration) -> Self {
        Settings {
            name: format!("worker-{}", AttemptId::new()),
            webhook_base,
            lease: Duration::from_secs(30),
            sweep_every: Duration::from_secs(5),
            steps_at_once: 256,
            max_attempts: 8,
            drain,
        }
    }
}

/// What became of a driven attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Look at it again then.
    Due(Micros),
    /// Nothing was bought; this is the next attempt of the generation.
    Replaced(AttemptId, Micros),
    /// It waits for a webhook or an operator.
    Parked,
    /// The generation ended, or somebody else has it.
    Over,
}

/// A worker; [`Worker::run`] returns when it has drained.
pub struct Worker {
    tools: Tools,
    settings: Arc<Settings>,
    schedule: Schedule,
    /// Attempts that a task is stepping right now, by the task.
    stepping: HashMap<task::Id, (AttemptId, GenerationId)>,
    /// Those of them that were nudged meanwhile.
    nudged: HashSet<AttemptId>,
    steps: JoinSet<Next>,
    /// When all that is stored is compared with all that is known; see [`sweep`].
    next_comparison: Instant,
}

impl Worker {
    /// A worker that has not begun.
    pub fn new(tools: Tools, settings: Settings) -> Self {
        Worker {
            tools,
            settings: Arc::new(settings),
            schedule: Schedule::default(),
            stepping: HashMap::new(),
            nudged: HashSet::new(),
            steps: JoinSet::new(),
            next_comparison: Instant::now(),
        }
    }

    /// Works until `shutdown`, then lets the steps in flight finish, gives the leases back and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let queue = Arc::clone(&self.tools.queue);
        let mut nudges = self.tools.live.nudges();
        let mut next_sweep = Instant::now();
        // On its own, so that nothing this task waits for can make it lose what it holds, the drain least of all.
        let leases = keep_leases(Arc::clone(&self.tools.store), Arc::clone(&self.settings));
        let leases = AbortOnDropHandle::new(tokio::spawn(leases));
        tracing::info!(worker = %self.settings.name, "worker started");
        loop {
            self.claim().await;
            self.start_due();
            let wake = self.wake_at(next_sweep);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep_until(wake) => {}
                () = queue.changed() => {}
                nudge = nudges.recv() => match nudge {
                    Ok(attempt) if self.nudge(attempt) => {}
                    // Not ours yet, or too many to count: the store knows which.
                    _ => next_sweep = Instant::now(),
                },
                Some(done) = self.steps.join_next_with_id(), if !self.steps.is_empty() => self.stepped(done).await,
            }
            let now = Instant::now();
            if now >= next_sweep {
                self.sweep().await;
                next_sweep = now + self.settings.sweep_every;
            }
        }
        self.drain(leases).await;
    }

    /// Takes jobs of every lane while there are free slots.
    async fn claim(&mut self) {
        let registry = self.tools.shelf.get();
        for provider in registry.providers.values().filter(|p| p.enabled) {
            let limits = LaneLimits {
                concurrency: provider.concurrency,
                per_user: provider.concurrency_per_user,
            };
            while self.steps.len() < self.settings.steps_at_once {
                match self.tools.queue.claim(&provider.name, limits).await {
                    Ok(Some(job)) => self.begin(job),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(provider = provider.name, error = %error, "cannot claim");
                        break;
                    }
                }
            }
        }
    }

    /// Begins the first attempt of a claimed job in a task of its own.
    fn begin(&mut self, job: Job) {
        let (tools, settings) = (self.tools.clone(), Arc::clone(&self.settings));
        let attempt_id = AttemptId::new();
        let task = self.steps.spawn(begin_and_drive(tools, settings, attempt_id, job.id));
        self.stepping.insert(task.id(), (attempt_id, job.id));
    }

    /// Starts steps for what is due, as many as may run at once.
    fn start_due(&mut self) {
        let now = clock::now();
        while self.steps.len() < self.settings.steps_at_once {
            let Some(entry) = self.schedule.pop_due(now) else { break };
            let (tools, settings) = (self.tools.clone(), Arc::clone(&self.settings));
            let task = self.steps.spawn(drive::resume(tools, settings, entry.attempt_id));
            self.stepping.insert(task.id(), (entry.attempt_id, entry.generation_id));
        }
    }

    /// Books the result of a step.
    async fn stepped(&mut self, done: Result<(task::Id, Next), JoinError>) {
        let (task, next) = match done {
            Ok(done) => done,
            Err(error) => {
                // A bug in our own code, or the end of the process. The stored step says how to go on.
                tracing::error!(error = %error, "a step did not finish");
                (error.id(), Next::Due(clock::now().plus(AFTER_A_PANIC)))
            }
        };
        let Some((attempt_id, generation_id)) = self.stepping.remove(&task) else {
            return;
        };
        let nudged = self.nudged.remove(&attempt_id);
        let due = match next {
            // What is parked is nobody's: a webhook makes it adoptable, a nudge makes us look at once.
            Next::Over | Next::Parked => None,
            Next::Replaced(attempt_id, at) => return self.schedule.put(attempt_id, generation_id, at),
            Next::Due(at) => Some(at),
        };
        match due {
            Some(at) => self
                .schedule
                .put(attempt_id, generation_id, if nudged { clock::now() } else { at }),
            None => self.schedule.forget(attempt_id),
        }
        if !matches!(next, Next::Due(_)) {
            self.tools.told.remove(attempt_id);
        }
        if !matches!(next, Next::Due(_)) && self.tools.queue.remove(generation_id).await.is_err() {
            tracing::warn!(generation_id = %generation_id, "cannot free its slot");
        }
    }

    /// Makes an attempt due now: if we step it, again after the step. False when it is not ours.
    fn nudge(&mut self, attempt: AttemptId) -> bool {
        if self.stepping.values().any(|(id, _)| *id == attempt) {
            self.nudged.insert(attempt);
            return true;
        }
        self.schedule.hurry(attempt, clock::now())
    }

    fn wake_at(&self, latest: Instant) -> Instant {
        match self.schedule.next_due() {
            Some(due) if self.steps.len() < self.settings.steps_at_once => {
                latest.min(Instant::now() + due.after(clock::now()).min(self.settings.sweep_every))
            }
            _ => latest,
        }
    }

    async fn drain(mut self, leases: AbortOnDropHandle<()>) {
        let finished = tokio::time::timeout(self.settings.drain, async {
            while self.steps.join_next().await.is_some() {}
        })
        .await
        .is_ok();
        self.steps.shutdown().await;
        // Not before the last step has stopped: somebody else may go on with what is given back.
        drop(leases);
        match self.tools.store.release_leases(&self.settings.name).await {
            Ok(count) => {
                self.tools.metrics.leases("released", count);
                tracing::info!(leases = count, finished, "worker drained");
            }
            Err(error) => tracing::warn!(error = %error, "leases run out by themselves"),
        }
    }
}

/// Extends the leases until it is dropped.
async fn keep_leases(store: Arc<dyn Store>, settings: Arc<Settings>) {
    loop {
        tokio::time::sleep(settings.lease / 3).await;
        let until = clock::now().plus(settings.lease);
        if let Err(error) = store.extend_leases(&settings.name, until).await {
            tracing::warn!(error = %error, "cannot extend leases; another worker may take over");
        }
    }
}

async fn begin_and_drive(
    tools: Tools,
    settings: Arc<Settings>,
    attempt_id: AttemptId,
    generation_id: GenerationId,
) -> Next {
    let now = clock::now();
    let begin = BeginAttempt {
        generation_id,
        attempt_id,
        worker: settings.name.clone(),
        lease_until: now.plus(settings.lease),
        deadline_at: now.plus(FALLBACK_DEADLINE),
        now,
    };
    crate::failpoint::at("worker::claimed");
    match tools.store.begin_attempt(begin).await {
        Ok(Some((work, events))) => {
            tools.live.publish(&events);
            drive::begin(tools, settings, work).await
        }
        // It was cancelled, or another worker was faster.
        Ok(None) => Next::Over,
        Err(error) => {
            // It may have begun all the same: look. If not, it goes back into the queue by the sweep.
            tracing::warn!(generation_id = %generation_id, error = %error, "not begun");
            Next::Due(now.plus(drive::LATER))
        }
    }
}

fn job_of(generation: &QueuedGeneration) -> Job {
    Job {
        id: generation.id,
        user_id: generation.user_id,
        provider: generation.provider.clone(),
        cost: generation.price.0.max(1) as u64,
    }
}
