//! Drives attempts: claims what is next, steps what is due, resumes what a dead worker left, settles what is done.
//!
//! One task ([`Worker::run`]) owns the schedule: a sorted set of (due time, attempt), so that waiting for a provider
//! costs some bytes and no task. What is due is stepped by short-lived tasks ([`drive`]), at most
//! [`Settings::steps_at_once`] of them. The store is the truth: a lease says who may step an attempt, every step is
//! stored before it is carried out, and a nudge, a slot or a whole queue that is lost costs only time.

mod call;
mod claims;
mod collect;
mod drive;
mod failed;
mod happened;
mod notes;
mod reroute;
mod schedule;
mod settle;
mod sweep;
mod told;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::Shelf;
use crate::clock::{self, Micros};
use crate::id::{AttemptId, GenerationId, UserId};
use crate::outputs::Outputs;
use crate::pause::Pauses;
use crate::provider::ProviderShelf;
use crate::queue::live::{Live, Signal};
use crate::queue::{Job, Queue};
use crate::store::{BeginAttempt, QueuedGeneration, Store};
use crate::telemetry::{Metrics, trace};
use crate::upstream::Upstream;
use claims::Claims;
pub use notes::Notes;
use schedule::Schedule;

/// How long to wait when the store does not answer.
const LATER: Duration = Duration::from_secs(5);

/// Shortest time between two searches for attempts that nobody holds, however many nudges come for those of others.
const LEAST_BETWEEN_SWEEPS: Duration = Duration::from_millis(250);

/// How long an attempt rests after its step panicked, or its provider's code failed.
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
    /// What operators have stopped.
    pub pauses: Arc<Pauses>,
    pub notes: Arc<Notes>,
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
    /// How often the queue is shown that this worker lives; a few times in [`LIFE`](crate::queue::redis::LIFE).
    pub keep_every: Duration,
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
            keep_every: Duration::from_secs(2),
            steps_at_once: 256,
            max_attempts: 8,
            drain,
        }
    }
}

/// What became of a driven attempt.
#[derive(Debug)]
pub(crate) enum Next {
    /// Look at it again then.
    Due(Micros),
    /// Nothing was bought; this is the next attempt of the generation.
    Replaced(AttemptId, Micros),
    /// Nothing is at its provider any more; it waits for its turn at another one.
    Requeued(Job),
    /// It waits for a webhook or an operator.
    Parked,
    /// The generation ended, or somebody else has it.
    Over,
}

/// What an attempt is for, as far as its slot in the queue goes; small, because there are very many.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) generation_id: GenerationId,
    pub(crate) user_id: UserId,
    /// The lane; one text for all.
    pub(crate) provider: Arc<str>,
}

impl Running {
    /// As the queue knows it; what it cost was counted when it was enqueued.
    fn job(&self) -> Job {
        Job {
            id: self.generation_id,
            user_id: self.user_id,
            provider: Arc::clone(&self.provider),
            cost: 1,
        }
    }
}

/// A worker; [`Worker::run`] returns when it has drained.
pub struct Worker {
    tools: Tools,
    settings: Arc<Settings>,
    schedule: Schedule,
    /// Attempts that a task is stepping right now, by the task.
    stepping: HashMap<task::Id, (AttemptId, Running)>,
    /// Those of them that were nudged meanwhile.
    nudged: HashSet<AttemptId>,
    steps: JoinSet<Next>,
    claims: Claims,
    /// Names of the lanes, so that each is kept once.
    lanes: HashSet<Arc<str>>,
    last_sweep: Instant,
    /// When all that is stored is compared with all that is known; see [`sweep`].
    next_comparison: Instant,
    /// How long that may rest.
    rest: Duration,
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
            claims: Claims::default(),
            lanes: HashSet::new(),
            last_sweep: Instant::now(),
            next_comparison: Instant::now(),
            rest: Duration::ZERO,
        }
    }

    /// Works until `shutdown`, then lets the steps in flight finish, gives the leases back and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let queue = Arc::clone(&self.tools.queue);
        let mut signals = self.tools.live.signals();
        let (mut next_sweep, mut next_keep) = (Instant::now(), Instant::now());
        // On its own, so that nothing this task waits for can make it lose what it holds, the drain least of all.
        let leases = keep_leases(Arc::clone(&self.tools.store), Arc::clone(&self.settings));
        let leases = AbortOnDropHandle::new(tokio::spawn(leases));
        tracing::info!(worker = %self.settings.name, "worker started");
        loop {
            self.claim().await;
            self.start_due();
            let wake = self.wake_at(next_sweep.min(next_keep));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep_until(wake) => {}
                () = queue.changed() => self.claims.is_hungry = true,
                signal = signals.recv() => match signal {
                    Ok(Signal::Due(attempt)) if self.nudge(attempt) => {}
                    // They are read first; a look follows when that was news.
                    Ok(Signal::Pauses) => {}
                    // Somebody else's, nobody's, or too many to count: the store knows which.
                    _ => next_sweep = next_sweep.min(self.last_sweep + LEAST_BETWEEN_SWEEPS),
                },
                Some(done) = self.steps.join_next_with_id(), if !self.steps.is_empty() => self.stepped(done).await,
            }
            if Instant::now() >= next_keep {
                if self.keep().await {
                    self.next_comparison = Instant::now();
                    self.rest = Duration::ZERO;
                    next_sweep = Instant::now();
                }
                next_keep = Instant::now() + self.settings.keep_every;
            }
            if Instant::now() >= next_sweep {
                self.sweep().await;
                self.last_sweep = Instant::now();
                // A wake-up may have been lost.
                self.claims.is_hungry = true;
                next_sweep = self.last_sweep + self.settings.sweep_every;
            }
        }
        self.drain(leases).await;
    }

    /// Begins the first attempt of a claimed job in a task of its own.
    fn begin(&mut self, job: &Job) {
        let (tools, settings) = (self.tools.clone(), Arc::clone(&self.settings));
        let attempt_id = AttemptId::new();
        let running = Running {
            generation_id: job.id,
            user_id: job.user_id,
            provider: self.lane(&job.provider),
        };
        let task = self.steps.spawn(begin_and_drive(tools, settings, attempt_id, job.id));
        self.stepping.insert(task.id(), (attempt_id, running));
    }

    /// The one text of a lane's name.
    fn lane(&mut self, name: &str) -> Arc<str> {
        if let Some(lane) = self.lanes.get(name) {
            return Arc::clone(lane);
        }
        let lane: Arc<str> = name.into();
        self.lanes.insert(Arc::clone(&lane));
        lane
    }

    /// True when no more steps may run.
    fn is_busy(&self) -> bool {
        self.steps.len() >= self.settings.steps_at_once
    }

    /// Starts steps for what is due, as many as may run at once.
    fn start_due(&mut self) {
        let now = clock::now();
        while !self.is_busy() {
            let Some(entry) = self.schedule.pop_due(now) else { break };
            let (tools, settings) = (self.tools.clone(), Arc::clone(&self.settings));
            let task = self.steps.spawn(drive::resume(tools, settings, entry.attempt_id));
            self.stepping.insert(task.id(), (entry.attempt_id, entry.running));
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
        let Some((attempt_id, running)) = self.stepping.remove(&task) else {
            return;
        };
        let nudged = self.nudged.remove(&attempt_id);
        match next {
            Next::Due(at) => {
                let at = if nudged { clock::now() } else { at };
                return self.schedule.put(attempt_id, running, at);
            }
            Next::Replaced(next_id, at) => {
                self.tools.notes.forget(attempt_id);
                return self.schedule.put(next_id, running, at);
            }
            Next::Requeued(job) => {
                self.leave(attempt_id, &running).await;
                if let Err(error) = self.tools.queue.enqueue(&[job]).await {
                    tracing::debug!(error = %error, "not enqueued at the next provider; the sweeper will do it");
                }
                return;
            }
            // What is parked is nobody's: a webhook makes it adoptable, a nudge makes us look at once.
            Next::Over | Next::Parked => {}
        }
        self.leave(attempt_id, &running).await;
    }

    /// Nothing more to do for an attempt: its slot is free.
    async fn leave(&mut self, attempt_id: AttemptId, running: &Running) {
        self.schedule.forget(attempt_id);
        self.tools.notes.forget(attempt_id);
        self.free(running).await;
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
        let latest = self.claims.wake_at().map_or(latest, |search| latest.min(search));
        match self.schedule.next_due() {
            Some(due) if !self.is_busy() => {
                latest.min(Instant::now() + due.after(clock::now()).min(self.settings.sweep_every))
            }
            _ => latest,
        }
    }

    async fn drain(mut self, leases: AbortOnDropHandle<()>) {
        // What no step runs for is for others at once: a slow step must not keep it waiting.
        let stepped: Vec<AttemptId> = self.stepping.values().map(|(id, _)| *id).collect();
        match self.tools.store.release_leases(&self.settings.name, &stepped).await {
            Ok(count) => self.tools.metrics.leases("released", count),
            Err(error) => tracing::warn!(error = %error, "leases are kept until the steps have ended"),
        }
        self.tools.live.look_at_the_store();
        let finished = tokio::time::timeout(self.settings.drain, async {
            while let Some(done) = self.steps.join_next().await {
                if let Ok(Next::Requeued(job)) = done {
                    // For whoever goes on; if this fails, the sweeper of another process finds it.
                    let _ = self.tools.queue.enqueue(&[job]).await;
                }
            }
        })
        .await
        .is_ok();
        self.steps.shutdown().await;
        // Not before the last step has stopped: somebody else may go on with what is given back.
        drop(leases);
        match self.tools.store.release_leases(&self.settings.name, &[]).await {
            Ok(count) => {
                self.tools.metrics.leases("released", count);
                tracing::info!(leases = count, finished, "worker drained");
            }
            Err(error) => tracing::warn!(error = %error, "leases run out by themselves"),
        }
        if let Err(error) = self.tools.queue.leave().await {
            tracing::warn!(error = %error, "slots run out by themselves");
        }
        self.tools.live.look_at_the_store();
        self.tools.live.flush().await;
    }
}

/// Extends the leases until it is dropped.
async fn keep_leases(store: Arc<dyn Store>, settings: Arc<Settings>) {
    let mut pause = settings.lease / 3;
    loop {
        tokio::time::sleep(pause).await;
        let until = clock::now().plus(settings.lease);
        pause = match store.extend_leases(&settings.name, until).await {
            Ok(_) => settings.lease / 3,
            Err(error) => {
                tracing::warn!(error = %error, "cannot extend leases; another worker may take over");
                // At once when the database is back, before others look for leases that have run out.
                settings.lease / 60
            }
        };
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
            // Behind another provider it has waited before.
            if work.attempt.ordinal == 1 {
                let waited = work.attempt.created_at.after(work.generation.created_at);
                tools.metrics.stage(&work.attempt.provider, "queue", waited);
            }
            let (generation, attempt) = (&work.generation, &work.attempt);
            trace::past(
                "queue",
                generation.trace_context.as_deref(),
                generation.created_at,
                attempt.created_at,
                &[("provider", &attempt.provider)],
            );
            drive::begin(tools, settings, work).await
        }
        // It was cancelled, or another worker was faster.
        Ok(None) => Next::Over,
        Err(error) => {
            // It may have begun all the same: look. If not, it goes back into the queue by the sweep.
            tracing::warn!(generation_id = %generation_id, error = %error, "not begun");
            Next::Due(now.plus(LATER))
        }
    }
}

fn job_of(generation: &QueuedGeneration) -> Job {
    Job {
        id: generation.id,
        user_id: generation.user_id,
        provider: generation.provider.as_str().into(),
        cost: generation.price.0.max(1) as u64,
    }
}
