//! The fair queue over all replicas, in Redis.
//!
//! Every operation on a lane is one script, so one round trip and one step for everybody else; the scripts do what
//! [`memory`](super::memory) does. The keys of a lane have its name as hash tag and so live in one slot of a Cluster.
//! Time is Redis' own: replicas need no common clock. A process has one entry with a deadline in every lane it works
//! in; [`Queue::keep`] moves the deadline, and whoever comes by frees the slots of a process whose deadline has passed.

use async_trait::async_trait;
use redis::{Script, ScriptInvocation};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

use super::live::Live;
use super::{Depth, Job, Kept, LaneLimits, Queue, QueueError, Result};
use crate::id::GenerationId;
use crate::shared::{Link, LinkError, Part};

/// How long a process may be silent before its slots are free; longer than a lease of the database (30 s), so that
/// nobody claims in a dead worker's place before somebody can go on with what it left.
pub const LIFE: Duration = Duration::from_secs(45);

/// Version of the keys and of what is in them.
const VERSION: &str = "q1";

/// Jobs per script, so that other replicas are not kept waiting.
const TOGETHER: usize = 500;

/// What a lane's keys are called, in the order of `lane.lua`.
const KEYS: [&str; 11] = [
    "waiting", "users", "heads", "jobs", "parked", "running", "held", "counts", "ends", "alive", "lane",
];

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(include_str!("lane.lua"), "\n", include_str!($name)))
    };
}

/// See the [module](self).
pub struct RedisQueue {
    link: Link,
    live: Arc<Live>,
    /// This process.
    process: Uuid,
    life: Duration,
    /// The lanes this process has used, and whether they know it.
    lanes: Mutex<HashMap<Arc<str>, bool>>,
    /// A lane had forgotten this process; the next `keep` tells it.
    is_lost: AtomicBool,
    /// The recovery of Redis that the worker has heard of.
    told: AtomicU64,
    enqueue: Script,
    claim: Script,
    occupy: Script,
    remove: Script,
    release: Script,
    keep: Script,
    leave: Script,
}

impl RedisQueue {
    /// A queue whose wake-ups travel over `live`; other processes free this one's slots when it was silent for `life`,
    /// which is [`LIFE`] outside tests.
    pub fn new(link: Link, live: Arc<Live>, life: Duration) -> RedisQueue {
        RedisQueue {
            told: AtomicU64::new(link.recovered()),
            link,
            live,
            process: Uuid::now_v7(),
            life,
            lanes: Mutex::default(),
            is_lost: AtomicBool::new(false),
            enqueue: script!("enqueue.lua"),
            claim: script!("claim.lua"),
            occupy: script!("occupy.lua"),
            remove: script!("remove.lua"),
            release: script!("release.lua"),
            keep: script!("keep.lua"),
            leave: script!("leave.lua"),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Arc<str>, bool>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a lane knew this process when it was asked last; notes that the lane is used.
    fn is_known(&self, provider: &str) -> bool {
        let mut lanes = self.lanes();
        match lanes.get(provider) {
            Some(known) => *known,
            None => *lanes.entry(provider.into()).or_insert(false),
        }
    }

    fn set_known(&self, provider: &str, known: bool) {
        if let Some(entry) = self.lanes().get_mut(provider) {
            *entry = known;
        }
    }

    fn key(&self, provider: &str, name: &str) -> String {
        self.link.key(format_args!("{VERSION}:{{{provider}}}:{name}"))
    }

    /// A call of a script with the keys of a lane.
    fn call<'a>(&self, script: &'a Script, provider: &str) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        for name in KEYS {
            call.key(self.key(provider, name));
        }
        call
    }

    /// Frees the slots that this process holds in a lane for other jobs than these; true when there were any.
    async fn release_others(&self, lane: &str, jobs: &HashSet<Uuid>) -> Result<bool> {
        let process = self.process.as_bytes();
        let mut from = [b"[".as_slice(), process].concat();
        let end = [b"(".as_slice(), process, &[0xff; 33]].concat();
        let mut freed = 0;
        loop {
            let mut commands = redis::pipe();
            commands.cmd("ZRANGEBYLEX").arg(self.key(lane, "held"));
            commands.arg(&from).arg(&end).arg("LIMIT").arg(0).arg(TOGETHER);
            let (page,): (Vec<Vec<u8>>,) = self.link.pipe(&commands).await.map_err(down)?;
            let Some(last) = page.last() else { break };
            from = [b"(".as_slice(), last].concat();
            let mut call = self.call(&self.release, lane);
            call.arg(process.as_slice());
            let mut count = 0;
            for slot in &page {
                let id = slot.get(process.len()..).unwrap_or_default();
                if Uuid::from_slice(id).is_ok_and(|id| !jobs.contains(&id)) {
                    call.arg(id);
                    count += 1;
                }
            }
            if count > 0 {
                freed += self.link.script::<u64>(&call).await.map_err(down)?;
            }
            if page.len() < TOGETHER {
                break;
            }
        }
        Ok(freed > 0)
    }

    fn life_ms(&self) -> u64 {
        self.life.as_millis() as u64
    }
}

/// Jobs by lane, in their order.
fn by_lane(jobs: &[Job]) -> Vec<(&str, Vec<&Job>)> {
    let mut lanes: Vec<(&str, Vec<&Job>)> = Vec::new();
    for job in jobs {
        match lanes.iter_mut().find(|(name, _)| *name == &*job.provider) {
            Some((_, jobs)) => jobs.push(job),
            None => lanes.push((&job.provider, vec![job])),
        }
    }
    lanes
}

fn flag(known: bool) -> u8 {
    u8::from(known)
}

fn down(error: LinkError) -> QueueError {
    QueueError(error.into())
}

/// An answer that no version of the scripts gives.
fn nonsense() -> QueueError {
    QueueError(anyhow::anyhow!("the queue's script answered nonsense"))
}

#[async_trait]
impl Queue for RedisQueue {
    fn is_shared(&self) -> bool {
        true
    }

    async fn enqueue(&self, jobs: &[Job]) -> Result<()> {
        let mut is_news = false;
        let mut outcome = Ok(());
        for (provider, jobs) in by_lane(jobs) {
            for jobs in jobs.chunks(TOGETHER) {
                let mut call = self.call(&self.enqueue, provider);
                for job in jobs {
                    call.arg(job.id.uuid().as_bytes().as_slice())
                        .arg(job.user_id.uuid().as_bytes().as_slice())
                        .arg(job.share());
                }
                match self.link.script::<u64>(&call).await {
                    Ok(new) => is_news |= new > 0,
                    Err(error) => outcome = Err(down(error)),
                }
            }
        }
        match &outcome {
            Ok(()) if is_news => self.live.wake(),
            // Without Redis the worker here finds it in the store.
            Err(_) => self.live.wake_here(),
            Ok(()) => {}
        }
        outcome
    }

    async fn claim(&self, provider: &str, limits: LaneLimits) -> Result<Option<Job>> {
        let known = self.is_known(provider);
        let mut call = self.call(&self.claim, provider);
        call.arg(self.process.as_bytes().as_slice())
            .arg(flag(known))
            .arg(self.life_ms())
            .arg(limits.concurrency)
            .arg(limits.per_user);
        let answer: Vec<Vec<u8>> = self.link.script(&call).await.map_err(|error| {
            self.link.fell_back(Part::Queue);
            down(error)
        })?;
        let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).map_err(|_| nonsense());
        match answer.as_slice() {
            [what] if what == b"lost" => {
                // Not registered again before `keep` has told the worker: until then it runs more than the lane knows.
                self.is_lost.store(true, Ordering::Relaxed);
                Ok(None)
            }
            [what] if what == b"none" => {
                self.set_known(provider, true);
                Ok(None)
            }
            [_, id, user, cost] => {
                self.set_known(provider, true);
                let cost = std::str::from_utf8(cost).ok().and_then(|cost| cost.parse().ok());
                Ok(Some(Job {
                    id: uuid(id)?.into(),
                    user_id: uuid(user)?.into(),
                    provider: provider.into(),
                    cost: cost.ok_or_else(nonsense)?,
                }))
            }
            _ => Err(nonsense()),
        }
    }

    async fn occupy(&self, jobs: &[Job]) -> Result<()> {
        for (provider, jobs) in by_lane(jobs) {
            for jobs in jobs.chunks(TOGETHER) {
                let mut call = self.call(&self.occupy, provider);
                call.arg(self.process.as_bytes().as_slice())
                    .arg(flag(self.is_known(provider)))
                    .arg(self.life_ms());
                for job in jobs {
                    call.arg(job.id.uuid().as_bytes().as_slice())
                        .arg(job.user_id.uuid().as_bytes().as_slice());
                }
                if self.link.script::<u8>(&call).await.map_err(down)? == 0 {
                    self.is_lost.store(true, Ordering::Relaxed);
                }
                self.set_known(provider, true);
            }
        }
        Ok(())
    }

    async fn hold_only(&self, jobs: &[Job]) -> Result<()> {
        // First, or the slots would be anybody's for a moment.
        self.occupy(jobs).await?;
        let mine: HashSet<Uuid> = jobs.iter().map(|job| job.id.uuid()).collect();
        let lanes: Vec<Arc<str>> = self.lanes().keys().map(Arc::clone).collect();
        let mut is_news = false;
        for lane in lanes {
            is_news |= self.release_others(&lane, &mine).await?;
        }
        if is_news {
            self.live.wake();
        }
        Ok(())
    }

    async fn free(&self, provider: &str, id: GenerationId) -> Result<()> {
        let mut call = self.call(&self.remove, provider);
        call.arg(id.uuid().as_bytes().as_slice())
            .arg(self.process.as_bytes().as_slice());
        if self.link.script::<u64>(&call).await.map_err(down)? > 0 {
            self.live.wake();
        }
        Ok(())
    }

    async fn remove(&self, provider: &str, id: GenerationId) -> Result<()> {
        let mut call = self.call(&self.remove, provider);
        call.arg(id.uuid().as_bytes().as_slice());
        if self.link.script::<u64>(&call).await.map_err(down)? > 0 {
            self.live.wake();
        }
        Ok(())
    }

    async fn position(&self, provider: &str, id: GenerationId) -> Result<Option<u64>> {
        let mut commands = redis::pipe();
        commands
            .cmd("ZRANK")
            .arg(self.key(provider, "waiting"))
            .arg(id.uuid().as_bytes().as_slice());
        let (rank,) = self.link.pipe(&commands).await.map_err(down)?;
        Ok(rank)
    }

    async fn depth(&self, provider: &str) -> Result<Depth> {
        let mut commands = redis::pipe();
        commands
            .cmd("ZCARD")
            .arg(self.key(provider, "waiting"))
            .cmd("HLEN")
            .arg(self.key(provider, "running"));
        let (waiting, running) = self.link.pipe(&commands).await.map_err(down)?;
        Ok(Depth { waiting, running })
    }

    async fn changed(&self) {
        self.live.woken().await;
    }

    async fn keep(&self) -> Result<Kept> {
        // Before anything is asked: a recovery meanwhile is told the next time.
        let recovered = self.link.recovered();
        let lanes: Vec<(Arc<str>, bool)> = self.lanes().iter().map(|(l, known)| (Arc::clone(l), *known)).collect();
        let (mut is_lost, mut is_news) = (false, false);
        for (lane, known) in lanes {
            let mut call = self.call(&self.keep, &lane);
            call.arg(self.process.as_bytes().as_slice())
                .arg(flag(known))
                .arg(self.life_ms());
            let (is_known, freed): (u8, u8) = self.link.script(&call).await.map_err(|error| {
                self.link.fell_back(Part::Queue);
                down(error)
            })?;
            is_news |= freed > 0;
            self.set_known(&lane, is_known > 0);
            is_lost |= is_known == 0;
        }
        if is_news {
            self.live.wake();
        }
        is_lost |= self.is_lost.swap(false, Ordering::Relaxed);
        // Calls have failed, this worker's or others' of the process: what they did is not known.
        is_lost |= self.told.swap(recovered, Ordering::Relaxed) != recovered;
        Ok(if is_lost { Kept::Lost } else { Kept::Kept })
    }

    async fn leave(&self) -> Result<()> {
        let lanes: Vec<Arc<str>> = self.lanes().keys().map(Arc::clone).collect();
        for lane in lanes {
            loop {
                let mut call = self.call(&self.leave, &lane);
                call.arg(self.process.as_bytes().as_slice());
                if self.link.script::<u8>(&call).await.map_err(down)? > 0 {
                    break;
                }
            }
            // Not before: what could not be given back has to be found again.
            self.lanes().remove(&lane);
        }
        self.live.wake();
        Ok(())
    }

    async fn is_my_turn(&self, every: Duration) -> Result<bool> {
        let mut commands = redis::pipe();
        commands
            .cmd("SET")
            .arg(self.link.key(format_args!("{VERSION}:turn")))
            .arg(self.process.as_bytes().as_slice())
            .arg("NX")
            .arg("PX")
            .arg((every.as_millis() as u64).max(1));
        let (taken,): (Option<String>,) = self.link.pipe(&commands).await.map_err(down)?;
        Ok(taken.is_some())
    }
}
