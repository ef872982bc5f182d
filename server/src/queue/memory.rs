//! The fair queue in this process.
//!
//! Each lane is a queue sorted by (start time, arrival). Pop-min is a pop at the front, a position is a binary search,
//! so both cost no more than the logarithm of the lane's length.

use async_trait::async_trait;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

use super::{Depth, Job, LaneLimits, Queue, Result};
use crate::id::{GenerationId, UserId};

/// Virtual time is counted in thousandths of a credit, so that weights can divide it without floats.
const SCALE: u64 = 1000;

/// Users remembered per lane before those that owe nothing are forgotten.
const REMEMBERED_USERS: usize = 1024;

/// See the [module](self).
#[derive(Default)]
pub struct MemoryQueue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    lanes: HashMap<String, Lane>,
    /// Where every known job is: its lane, and its score while it waits.
    index: HashMap<GenerationId, (String, Option<Score>)>,
    arrivals: u64,
}

/// Start time in the lane's virtual time, then arrival.
type Score = (u64, u64);

#[derive(Default)]
struct Lane {
    waiting: VecDeque<(Score, Job)>,
    running: HashMap<GenerationId, UserId>,
    running_of: HashMap<UserId, u32>,
    /// Start time of the job claimed last.
    virtual_now: u64,
    /// When the user's newest job would finish, in virtual time.
    finish_of: HashMap<UserId, u64>,
}

impl Lane {
    fn start_of(&mut self, job: &Job) -> u64 {
        let start = self
            .finish_of
            .get(&job.user_id)
            .copied()
            .unwrap_or(0)
            .max(self.virtual_now);
        if self.finish_of.len() >= REMEMBERED_USERS {
            let now = self.virtual_now;
            self.finish_of.retain(|_, finish| *finish > now);
        }
        self.finish_of
            .insert(job.user_id, start.saturating_add(job.cost.max(1).saturating_mul(SCALE)));
        start
    }

    fn insert(&mut self, score: Score, job: Job) {
        let at = self.waiting.partition_point(|(other, _)| *other < score);
        self.waiting.insert(at, (score, job));
    }

    fn rank(&self, score: Score) -> Option<usize> {
        self.waiting.binary_search_by(|(other, _)| other.cmp(&score)).ok()
    }

    fn occupy(&mut self, id: GenerationId, user: UserId) {
        if self.running.insert(id, user).is_none() {
            *self.running_of.entry(user).or_default() += 1;
        }
    }

    fn free(&mut self, id: GenerationId) {
        let Some(user) = self.running.remove(&id) else { return };
        if let Some(count) = self.running_of.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.running_of.remove(&user);
            }
        }
    }

    /// The first waiting job whose user has a free slot.
    fn next(&mut self, limits: LaneLimits) -> Option<Job> {
        if self.running.len() >= limits.concurrency as usize {
            return None;
        }
        let at = self
            .waiting
            .iter()
            .position(|(_, job)| self.running_of.get(&job.user_id).copied().unwrap_or(0) < limits.per_user)?;
        let ((start, _), job) = self.waiting.remove(at)?;
        self.virtual_now = self.virtual_now.max(start);
        self.occupy(job.id, job.user_id);
        Some(job)
    }
}

impl MemoryQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn enqueue(&self, job: Job) -> Result<()> {
        {
            let mut state = self.state();
            if state.index.contains_key(&job.id) {
                return Ok(());
            }
            state.arrivals += 1;
            let arrival = state.arrivals;
            let lane = state.lanes.entry(job.provider.clone()).or_default();
            let score = (lane.start_of(&job), arrival);
            let (id, provider) = (job.id, job.provider.clone());
            lane.insert(score, job);
            state.index.insert(id, (provider, Some(score)));
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn claim(&self, provider: &str, limits: LaneLimits) -> Result<Option<Job>> {
        let mut state = self.state();
        let job = state.lanes.get_mut(provider).and_then(|lane| lane.next(limits));
        if let Some(job) = &job
            && let Some((_, score)) = state.index.get_mut(&job.id)
        {
            *score = None;
        }
        Ok(job)
    }

    async fn occupy(&self, job: Job) -> Result<()> {
        let mut state = self.state();
        let waited = state
            .index
            .insert(job.id, (job.provider.clone(), None))
            .and_then(|(_, score)| score);
        let lane = state.lanes.entry(job.provider).or_default();
        if let Some(at) = waited.and_then(|score| lane.rank(score)) {
            lane.waiting.remove(at);
        }
        lane.occupy(job.id, job.user_id);
        Ok(())
    }

    async fn remove(&self, id: GenerationId) -> Result<()> {
        {
            let mut state = self.state();
            let Some((provider, score)) = state.index.remove(&id) else {
                return Ok(());
            };
            if let Some(lane) = state.lanes.get_mut(&provider) {
                match score.and_then(|score| lane.rank(score)) {
                    Some(at) => drop(lane.waiting.remove(at)),
                    None => lane.free(id),
                }
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn position(&self, id: GenerationId) -> Result<Option<u64>> {
        let state = self.state();
        let Some((provider, Some(score))) = state.index.get(&id) else {
            return Ok(None);
        };
        Ok(state
            .lanes
            .get(provider)
            .and_then(|lane| lane.rank(*score))
            .map(|rank| rank as u64))
    }

    async fn depth(&self, provider: &str) -> Result<Depth> {
        let state = self.state();
        Ok(state
            .lanes
            .get(provider)
            .map(|lane| Depth {
                waiting: lane.waiting.len() as u64,
                running: lane.running.len() as u64,
            })
            .unwrap_or_default())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const WIDE: LaneLimits = LaneLimits {
        concurrency: 2000,
        per_user: 2000,
    };

    fn job(user: UserId) -> Job {
        Job {
            id: GenerationId::new(),
            user_id: user,
            provider: "p".into(),
            cost: 5,
        }
    }

    #[tokio::test]
    async fn a_thousand_jobs_do_not_starve_the_other_users() {
        let queue = MemoryQueue::default();
        let heavy = UserId::new();
        for _ in 0..1000 {
            queue.enqueue(job(heavy)).await.unwrap();
        }
        let light: Vec<Job> = (0..20).map(|_| job(UserId::new())).collect();
        for j in &light {
            queue.enqueue(j.clone()).await.unwrap();
        }
        let mut order = Vec::new();
        while let Some(j) = queue.claim("p", WIDE).await.unwrap() {
            order.push(j.user_id);
        }
        let last_light = order.iter().rposition(|u| *u != heavy).unwrap();
        let heavy_before = order[..last_light].iter().filter(|u| **u == heavy).count();
        assert!(
            heavy_before < 50,
            "{heavy_before} heavy jobs ran before the last light one"
        );
        assert_eq!(order.len(), 1020);
    }

    #[tokio::test]
    async fn limits_hold_and_a_full_user_is_passed_over() {
        let queue = MemoryQueue::default();
        let (a, b) = (UserId::new(), UserId::new());
        let (a1, a2, b1) = (job(a), job(a), job(b));
        for j in [&a1, &a2, &b1] {
            queue.enqueue(j.clone()).await.unwrap();
        }
        let limits = LaneLimits {
            concurrency: 2,
            per_user: 1,
        };
        let first = queue.claim("p", limits).await.unwrap().unwrap();
        let second = queue.claim("p", limits).await.unwrap().unwrap();
        assert_eq!(HashSet::from([first.user_id, second.user_id]), HashSet::from([a, b]));
        assert!(queue.claim("p", limits).await.unwrap().is_none());
        queue.remove(a1.id).await.unwrap();
        assert_eq!(queue.claim("p", limits).await.unwrap().unwrap().id, a2.id);
        assert_eq!(queue.depth("p").await.unwrap(), Depth { waiting: 0, running: 2 });
    }

    #[derive(Debug, Clone)]
    enum Op {
        Enqueue { user: usize, cost: u64 },
        EnqueueAgain(usize),
        Claim { concurrency: u32, per_user: u32 },
        Remove(usize),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (0usize..4, 1u64..50).prop_map(|(user, cost)| Op::Enqueue { user, cost }),
            1 => (0usize..40).prop_map(Op::EnqueueAgain),
            3 => (1u32..6, 1u32..4).prop_map(|(concurrency, per_user)| Op::Claim { concurrency, per_user }),
            2 => (0usize..40).prop_map(Op::Remove),
        ];
        proptest::collection::vec(op, 1..120)
    }

    proptest! {
        /// Against a naive model: a plain list that is searched from end to end.
        #[test]
        fn behaves_like_a_plain_sorted_list(ops in ops()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let queue = MemoryQueue::default();
                let users: Vec<UserId> = (0..4).map(|_| UserId::new()).collect();
                let mut jobs: Vec<Job> = Vec::new();
                let (mut waiting, mut running): (Vec<(u64, usize)>, Vec<usize>) = (Vec::new(), Vec::new());
                let (mut now, mut finish) = (0u64, HashMap::<UserId, u64>::new());
                for op in ops {
                    match op {
                        Op::Enqueue { user, cost } => {
                            let j = Job { cost, ..job(users[user]) };
                            queue.enqueue(j.clone()).await.unwrap();
                            let start = finish.get(&j.user_id).copied().unwrap_or(0).max(now);
                            finish.insert(j.user_id, start + cost * SCALE);
                            waiting.push((start, jobs.len()));
                            jobs.push(j);
                        }
                        Op::EnqueueAgain(i) => {
                            if let Some(j) = jobs.get(i)
                                && (running.contains(&i) || waiting.iter().any(|w| w.1 == i))
                            {
                                queue.enqueue(j.clone()).await.unwrap();
                            }
                        }
                        Op::Claim { concurrency, per_user } => {
                            waiting.sort();
                            let claimed = queue.claim("p", LaneLimits { concurrency, per_user }).await.unwrap();
                            let running_of =
                                |u: UserId| running.iter().filter(|&&r| jobs[r].user_id == u).count() as u32;
                            let expected = (running.len() < concurrency as usize)
                                .then(|| waiting.iter().position(|w| running_of(jobs[w.1].user_id) < per_user))
                                .flatten();
                            prop_assert_eq!(claimed.map(|j| j.id), expected.map(|at| jobs[waiting[at].1].id));
                            if let Some(at) = expected {
                                let (start, i) = waiting.remove(at);
                                now = now.max(start);
                                running.push(i);
                            }
                        }
                        Op::Remove(i) => {
                            if let Some(j) = jobs.get(i) {
                                queue.remove(j.id).await.unwrap();
                                waiting.retain(|w| w.1 != i);
                                running.retain(|&r| r != i);
                            }
                        }
                    }
                    waiting.sort();
                    for (rank, (_, i)) in waiting.iter().enumerate() {
                        prop_assert_eq!(queue.position(jobs[*i].id).await.unwrap(), Some(rank as u64));
                    }
                    let depth = queue.depth("p").await.unwrap();
                    prop_assert_eq!((depth.waiting, depth.running), (waiting.len() as u64, running.len() as u64));
                }
                Ok(())
            })?;
        }
    }
}
