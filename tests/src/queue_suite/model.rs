//! Random histories against a naive model: plain lists that are searched from end to end.

use super::{LANE, claim, depth, job, limits};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::HashMap;
use std::sync::Arc;
use velro::id::UserId;
use velro::queue::{Job, Queue};

const USERS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Enqueue(Vec<(usize, u64)>),
    EnqueueAgain(usize),
    Claim { concurrency: u32, per_user: u32 },
    Occupy(usize),
    OccupyNew(usize),
    Free(usize),
    Remove(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => proptest::collection::vec((0..USERS, 0u64..50), 1..4).prop_map(Op::Enqueue),
        1 => (0usize..60).prop_map(Op::EnqueueAgain),
        5 => (1u32..8, 1u32..4).prop_map(|(concurrency, per_user)| Op::Claim { concurrency, per_user }),
        1 => (0usize..60).prop_map(Op::Occupy),
        1 => (0..USERS).prop_map(Op::OccupyNew),
        2 => (0usize..60).prop_map(Op::Free),
        2 => (0usize..60).prop_map(Op::Remove),
    ];
    proptest::collection::vec(op, 1..70)
}

/// Numbers of jobs, in the order they were made; a waiting one with its start.
#[derive(Default)]
struct Model {
    jobs: Vec<Job>,
    waiting: Vec<(u64, usize)>,
    running: Vec<usize>,
    now: u64,
    ends: HashMap<UserId, u64>,
}

impl Model {
    fn enqueue(&mut self, number: usize) {
        if self.running.contains(&number) || self.waiting.iter().any(|w| w.1 == number) {
            return;
        }
        let job = &self.jobs[number];
        let start = self.ends.get(&job.user_id).copied().unwrap_or(0).max(self.now);
        self.ends.insert(job.user_id, start + job.cost.max(1));
        self.waiting.push((start, number));
        self.waiting
            .sort_by_key(|(start, number)| (*start, self.jobs[*number].id));
    }

    fn claim(&mut self, concurrency: u32, per_user: u32) -> Option<usize> {
        let running_of = |user| self.running.iter().filter(|r| self.jobs[**r].user_id == user).count();
        let next = |w: &(u64, usize)| running_of(self.jobs[w.1].user_id) < per_user as usize;
        let at = self.waiting.iter().position(next)?;
        if self.running.len() >= concurrency as usize {
            return None;
        }
        let (start, number) = self.waiting.remove(at);
        self.now = self.now.max(start);
        self.running.push(number);
        Some(number)
    }
}

/// After every step: the same claims, the same positions of all that wait, the same depth.
pub fn behaves_like_a_plain_sorted_list(fresh: impl AsyncFn() -> Arc<dyn Queue>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let ran = TestRunner::new(config).run(&ops(), |ops| {
        runtime.block_on(async {
            let queue = fresh().await;
            history(&*queue, ops).await
        })
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn history(queue: &dyn Queue, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let users: Vec<UserId> = (0..USERS).map(|_| UserId::new()).collect();
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Enqueue(new) => {
                let first = model.jobs.len();
                model
                    .jobs
                    .extend(new.iter().map(|(user, cost)| job(users[*user], *cost)));
                queue.enqueue(&model.jobs[first..]).await.unwrap();
                (first..model.jobs.len()).for_each(|number| model.enqueue(number));
            }
            Op::EnqueueAgain(number) => {
                if let Some(job) = model.jobs.get(number) {
                    queue.enqueue(std::slice::from_ref(job)).await.unwrap();
                    model.enqueue(number);
                }
            }
            Op::Claim { concurrency, per_user } => {
                let claimed = claim(queue, limits(concurrency, per_user)).await.map(|job| job.id);
                let expected = model.claim(concurrency, per_user).map(|number| model.jobs[number].id);
                prop_assert_eq!(claimed, expected);
            }
            Op::Occupy(number) => {
                if let Some(job) = model.jobs.get(number) {
                    queue.occupy(std::slice::from_ref(job)).await.unwrap();
                    model.waiting.retain(|w| w.1 != number);
                    model.running.retain(|r| *r != number);
                    model.running.push(number);
                }
            }
            Op::OccupyNew(user) => {
                model.jobs.push(job(users[user], 1));
                queue.occupy(&model.jobs[model.jobs.len() - 1..]).await.unwrap();
                model.running.push(model.jobs.len() - 1);
            }
            Op::Free(number) => {
                if let Some(job) = model.jobs.get(number) {
                    queue.free(LANE, job.id).await.unwrap();
                    model.running.retain(|r| *r != number);
                }
            }
            Op::Remove(number) => {
                if let Some(job) = model.jobs.get(number) {
                    queue.remove(LANE, job.id).await.unwrap();
                    model.waiting.retain(|w| w.1 != number);
                    model.running.retain(|r| *r != number);
                }
            }
        }
        for (rank, (_, number)) in model.waiting.iter().enumerate() {
            let position = queue.position(LANE, model.jobs[*number].id).await.unwrap();
            prop_assert_eq!(position, Some(rank as u64));
        }
        let expected = (model.waiting.len() as u64, model.running.len() as u64);
        prop_assert_eq!(depth(queue).await, expected);
    }
    Ok(())
}
