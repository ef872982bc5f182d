//! The fair queue in this process.
//!
//! Every operation costs the logarithm of the lane's length at most. The first jobs of all users who may have one run
//! are a set of their own, so that a claim does not look past the jobs of users whose slots are full: such a user is
//! *parked* when its head is met, and comes back when one of its slots is freed or the limit rises.

use async_trait::async_trait;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

use super::ranked::Ranked;
use super::{Depth, Job, Kept, LaneLimits, Queue, Result};
use crate::id::{GenerationId, UserId};

/// Users remembered per lane before those that owe nothing are forgotten.
const REMEMBERED_USERS: usize = 1024;

/// See the [module](self).
#[derive(Default)]
pub struct MemoryQueue {
    lanes: Mutex<HashMap<Box<str>, Lane>>,
    changed: Notify,
}

/// Start in the lane's virtual time, then age.
type Score = (u64, GenerationId);

struct Waiting {
    user: UserId,
    start: u64,
    cost: u64,
}

#[derive(Default)]
struct Lane {
    /// Everything that waits, by rank.
    order: Ranked<Score>,
    jobs: HashMap<GenerationId, Waiting>,
    by_user: BTreeSet<(UserId, u64, GenerationId)>,
    /// The first job of every user who waits and is not parked.
    heads: BTreeSet<Score>,
    /// Users who were at their limit when their head was met.
    parked: HashSet<UserId>,
    /// The limit they were parked by.
    per_user: u32,
    running: HashMap<GenerationId, UserId>,
    running_of: HashMap<UserId, u32>,
    /// Start of the job claimed last.
    virtual_now: u64,
    /// When the user's newest job would end, in virtual time.
    end_of: HashMap<UserId, u64>,
    forget_at: usize,
}

impl Lane {
    fn start_of(&mut self, job: &Job) -> u64 {
        let now = self.virtual_now;
        let start = self.end_of.get(&job.user_id).map_or(now, |end| now.max(*end));
        if self.end_of.len() >= self.forget_at.max(REMEMBERED_USERS) {
            self.end_of.retain(|_, end| *end > now);
            // So that a lane of very many users who owe something is not searched at every arrival.
            self.forget_at = self.end_of.len() * 2;
        }
        self.end_of.insert(job.user_id, start.saturating_add(job.share()));
        start
    }

    /// The user's first waiting job.
    fn head(&self, user: UserId) -> Option<Score> {
        let first = (user, 0, GenerationId::from(uuid::Uuid::nil()));
        let (owner, start, id) = self.by_user.range(first..).next()?;
        (*owner == user).then_some((*start, *id))
    }

    fn enqueue(&mut self, job: &Job) -> bool {
        if self.jobs.contains_key(&job.id) || self.running.contains_key(&job.id) {
            return false;
        }
        let start = self.start_of(job);
        // A user's newer jobs start later, so this is its head only if nothing waits yet.
        if self.head(job.user_id).is_none() && !self.parked.contains(&job.user_id) {
            self.heads.insert((start, job.id));
        }
        self.order.insert((start, job.id));
        self.by_user.insert((job.user_id, start, job.id));
        let waiting = Waiting {
            user: job.user_id,
            start,
            cost: job.share(),
        };
        self.jobs.insert(job.id, waiting);
        true
    }

    /// Takes a job out of those that wait.
    fn withdraw(&mut self, id: GenerationId) -> Option<Waiting> {
        let job = self.jobs.remove(&id)?;
        let score = (job.start, id);
        self.order.remove(&score);
        self.by_user.remove(&(job.user, job.start, id));
        if self.heads.remove(&score) {
            self.heads.extend(self.head(job.user));
        }
        Some(job)
    }

    fn occupy(&mut self, id: GenerationId, user: UserId) {
        if self.running.insert(id, user).is_none() {
            *self.running_of.entry(user).or_default() += 1;
        }
    }

    fn free(&mut self, id: GenerationId) -> bool {
        let Some(user) = self.running.remove(&id) else {
            return false;
        };
        if let Some(count) = self.running_of.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.running_of.remove(&user);
            }
        }
        if self.parked.remove(&user) {
            self.heads.extend(self.head(user));
        }
        true
    }

    /// The first waiting job whose user has a free slot.
    fn claim(&mut self, provider: &str, limits: LaneLimits) -> Option<Job> {
        if self.running.len() >= limits.concurrency as usize {
            return None;
        }
        if limits.per_user > self.per_user {
            for user in std::mem::take(&mut self.parked) {
                self.heads.extend(self.head(user));
            }
        }
        self.per_user = limits.per_user;
        loop {
            let (start, id) = *self.heads.first()?;
            let user = self.jobs.get(&id)?.user;
            if self.running_of.get(&user).copied().unwrap_or(0) >= limits.per_user {
                self.heads.remove(&(start, id));
                self.parked.insert(user);
                continue;
            }
            let job = self.withdraw(id)?;
            self.virtual_now = self.virtual_now.max(start);
            self.occupy(id, user);
            return Some(Job {
                id,
                user_id: user,
                provider: provider.into(),
                cost: job.cost,
            });
        }
    }
}

impl MemoryQueue {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Box<str>, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something in a lane, if there is one.
    fn within<T: Default>(&self, provider: &str, act: impl FnOnce(&mut Lane) -> T) -> T {
        self.lanes().get_mut(provider).map(act).unwrap_or_default()
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    fn is_shared(&self) -> bool {
        false
    }

    async fn enqueue(&self, jobs: &[Job]) -> Result<()> {
        let mut is_news = false;
        for job in jobs {
            // One lock per job: a long page must not keep claims waiting.
            is_news |= self.lanes().entry((&*job.provider).into()).or_default().enqueue(job);
        }
        if is_news {
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn claim(&self, provider: &str, limits: LaneLimits) -> Result<Option<Job>> {
        Ok(self.within(provider, |lane| lane.claim(provider, limits)))
    }

    async fn occupy(&self, jobs: &[Job]) -> Result<()> {
        for job in jobs {
            let mut lanes = self.lanes();
            let lane = lanes.entry((&*job.provider).into()).or_default();
            lane.withdraw(job.id);
            lane.occupy(job.id, job.user_id);
        }
        Ok(())
    }

    async fn hold_only(&self, jobs: &[Job]) -> Result<()> {
        self.occupy(jobs).await?;
        let mine: HashSet<GenerationId> = jobs.iter().map(|job| job.id).collect();
        let mut is_news = false;
        for lane in self.lanes().values_mut() {
            let others = lane.running.keys().filter(|id| !mine.contains(id));
            for id in others.copied().collect::<Vec<_>>() {
                is_news |= lane.free(id);
            }
        }
        if is_news {
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn free(&self, provider: &str, id: GenerationId) -> Result<()> {
        if self.within(provider, |lane| lane.free(id)) {
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn remove(&self, provider: &str, id: GenerationId) -> Result<()> {
        if self.within(provider, |lane| lane.withdraw(id).is_some() || lane.free(id)) {
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn position(&self, provider: &str, id: GenerationId) -> Result<Option<u64>> {
        Ok(self.within(provider, |lane| {
            let start = lane.jobs.get(&id)?.start;
            lane.order.rank(&(start, id)).map(|rank| rank as u64)
        }))
    }

    async fn depth(&self, provider: &str) -> Result<Depth> {
        Ok(self.within(provider, |lane| Depth {
            waiting: lane.order.len() as u64,
            running: lane.running.len() as u64,
        }))
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn keep(&self) -> Result<Kept> {
        Ok(Kept::Kept)
    }

    async fn leave(&self) -> Result<()> {
        for lane in self.lanes().values_mut() {
            let mine: Vec<GenerationId> = lane.running.keys().copied().collect();
            for id in mine {
                lane.free(id);
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn is_my_turn(&self, _: Duration) -> Result<bool> {
        Ok(true)
    }
}
