//! Random histories against a naive model: what a person has, what is held, what the statement says.
//!
//! The model knows nothing of transfers, batches or SQL. After every operation its answer must be the store's; at the end
//! every balance, statement and status must agree, and the books must be in order.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Stage;
use super::fixtures::*;
use velro::generation::{AttemptState, Status};
use velro::id::{AttemptId, GenerationId, UserId};
use velro::ledger::Credits;
use velro::store::{
    Cancelled, Grant, Granted, NextAttempt, Resolution, Resolve, Resolved, SaveStep, Saved, Settle, Settled, Store,
    StoreError, Submitted, Verdict,
};

/// Users of a history.
const USERS: usize = 3;

/// What may happen. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Op {
    Grant {
        user: usize,
        amount: i64,
        key: Option<u8>,
    },
    Submit {
        user: usize,
        price: i64,
        key: Option<u8>,
        fingerprint: bool,
    },
    Begin {
        generation: usize,
    },
    Step {
        generation: usize,
        state: AttemptState,
        stale: bool,
    },
    Next {
        generation: usize,
    },
    Complete {
        generation: usize,
        worth: i64,
        stale: bool,
    },
    Fail {
        generation: usize,
    },
    Cancel {
        generation: usize,
        by_owner: bool,
    },
    Resolve {
        generation: usize,
        resolution: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let state = prop_oneof![
        Just(AttemptState::Prepared),
        Just(AttemptState::Sending),
        Just(AttemptState::Accepted),
        Just(AttemptState::Unknown),
    ];
    let stale = || proptest::bool::weighted(0.2);
    prop_oneof![
        1 => (0..USERS, 1i64..200, proptest::option::of(0u8..3))
            .prop_map(|(user, amount, key)| Op::Grant { user, amount, key }),
        5 => (0..USERS, 0i64..120, proptest::option::weighted(0.3, 0u8..4), proptest::bool::weighted(0.8))
            .prop_map(|(user, price, key, fingerprint)| Op::Submit { user, price, key, fingerprint }),
        5 => any::<usize>().prop_map(|generation| Op::Begin { generation }),
        4 => (any::<usize>(), state, stale()).prop_map(|(generation, state, stale)| Op::Step { generation, state, stale }),
        1 => any::<usize>().prop_map(|generation| Op::Next { generation }),
        3 => (any::<usize>(), -5i64..150, stale())
            .prop_map(|(generation, worth, stale)| Op::Complete { generation, worth, stale }),
        2 => any::<usize>().prop_map(|generation| Op::Fail { generation }),
        3 => (any::<usize>(), proptest::bool::weighted(0.9))
            .prop_map(|(generation, by_owner)| Op::Cancel { generation, by_owner }),
        2 => (any::<usize>(), 0u8..3).prop_map(|(generation, resolution)| Op::Resolve { generation, resolution }),
    ]
}

#[derive(Default)]
struct Person {
    balance: i64,
    held: i64,
    lines: Vec<(&'static str, i64, i64)>,
}

impl Person {
    fn line(&mut self, kind: &'static str, amount: i64) {
        if amount != 0 {
            self.lines.push((kind, amount, self.balance - self.held));
        }
    }
}

struct Job {
    id: GenerationId,
    user: usize,
    price: i64,
    status: Status,
    captured: Option<i64>,
    stop: bool,
    /// The newest attempt, its state, its steps, and whether the worker holds it.
    attempt: Option<(AttemptId, AttemptState, u32, bool)>,
}

impl Job {
    /// True when the worker's next write at the right step is good.
    fn is_in_hand(&self) -> bool {
        self.status == Status::Processing && self.attempt.is_some_and(|(_, _, _, held)| held)
    }
}

/// The history so far, in the store and in the model.
struct World<'a> {
    store: &'a dyn Store,
    users: Vec<UserId>,
    people: Vec<Person>,
    jobs: Vec<Job>,
    /// (user, key) to (fingerprint, job).
    keys: std::collections::HashMap<(usize, u8), (bool, usize)>,
    /// Who was given something under a key.
    grants: std::collections::HashMap<u8, usize>,
}

/// See the [module](self). `stage` makes a fresh database for every history.
pub fn random_histories_agree_with_a_naive_model(stage: impl Fn() -> Box<dyn Stage>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 24,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let histories = proptest::collection::vec(op(), 1..120);
    let result = runner.run(&histories, |history| {
        runtime.block_on(async {
            let stage = stage();
            let store = stage.open().await;
            let mut world = World::new(&*store).await;
            for op in history {
                world.carry_out(op).await;
            }
            world.compare().await;
            in_order(&*store).await;
            store.close().await;
        });
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

impl<'a> World<'a> {
    async fn new(store: &'a dyn Store) -> World<'a> {
        let mut world = World {
            store,
            users: Vec::new(),
            people: Vec::new(),
            jobs: Vec::new(),
            keys: Default::default(),
            grants: Default::default(),
        };
        for start in [0, 100, 1000] {
            world.users.push(somebody(store, start).await.id);
            let mut person = Person {
                balance: start,
                ..Person::default()
            };
            person.line("bonus", start);
            world.people.push(person);
        }
        world
    }

    async fn carry_out(&mut self, op: Op) {
        match op {
            Op::Grant { user, amount, key } => self.grant(user, amount, key).await,
            Op::Submit {
                user,
                price,
                key,
                fingerprint,
            } => self.submit(user, price, key, fingerprint).await,
            _ if self.jobs.is_empty() => {}
            Op::Begin { generation } => self.begin(generation % self.jobs.len()).await,
            Op::Step {
                generation,
                state,
                stale,
            } => self.step(generation % self.jobs.len(), state, stale).await,
            Op::Next { generation } => self.next(generation % self.jobs.len()).await,
            Op::Complete {
                generation,
                worth,
                stale,
            } => {
                let job = generation % self.jobs.len();
                let verdict = Verdict::Completed {
                    outputs: Vec::new(),
                    worth: Credits(worth),
                    billed: None,
                    meta: Default::default(),
                };
                self.settle(job, verdict, worth, Status::Completed, stale).await;
            }
            Op::Fail { generation } => {
                let job = generation % self.jobs.len();
                self.settle(job, failed(AttemptState::Finished), 0, Status::Failed, false)
                    .await;
            }
            Op::Cancel { generation, by_owner } => self.cancel(generation % self.jobs.len(), by_owner).await,
            Op::Resolve { generation, resolution } => self.resolve(generation % self.jobs.len(), resolution).await,
        }
    }

    async fn grant(&mut self, user: usize, amount: i64, key: Option<u8>) {
        let receiver = key.and_then(|k| self.grants.get(&k).copied());
        let fresh = receiver.is_none();
        if let Some(k) = key.filter(|_| fresh) {
            self.grants.insert(k, user);
        }
        if fresh {
            self.people[user].balance += amount;
            self.people[user].line("bonus", amount);
        }
        let grant = Grant {
            user_id: self.users[user],
            amount: Credits(amount),
            reason: "gift".into(),
            actor: "test".into(),
            idempotency_key: key.map(|k| format!("grant-{k}")),
            now: at(5),
        };
        let granted = self.store.grant(grant).await;
        if !fresh && receiver != Some(user) {
            // A key that was used for somebody else gives nothing, and does not say that it had.
            assert!(matches!(granted, Err(StoreError::Broken(_))), "{granted:?}");
            return;
        }
        let Granted { available, replayed } = granted.unwrap().unwrap();
        let person = &self.people[user];
        assert_eq!((available.0, replayed), (person.balance - person.held, !fresh));
    }

    async fn submit(&mut self, user: usize, price: i64, key: Option<u8>, fingerprint: bool) {
        let new = match key {
            Some(k) => keyed(self.users[user], price, &k.to_string(), &fingerprint.to_string()),
            None => request(self.users[user], price),
        };
        let id = new.id;
        let result = self.store.submit(new).await.unwrap();
        if let Some(&(known, job)) = key.and_then(|k| self.keys.get(&(user, k))) {
            match result {
                Submitted::Replayed(g) => assert!(known == fingerprint && g.id == self.jobs[job].id),
                Submitted::KeyReused => assert_ne!(known, fingerprint),
                other => panic!("{other:?}"),
            }
            return;
        }
        let person = &mut self.people[user];
        let before = person.balance - person.held;
        if price > before {
            let refused = matches!(result, Submitted::Insufficient { required, available }
                if (required.0, available.0) == (price, before));
            assert!(refused, "{result:?}");
            return;
        }
        assert!(
            matches!(result, Submitted::New { available, .. } if available.0 == before - price),
            "{result:?}"
        );
        person.held += price;
        person.line("usage", -price);
        if let Some(k) = key {
            self.keys.insert((user, k), (fingerprint, self.jobs.len()));
        }
        self.jobs.push(Job {
            id,
            user,
            price,
            status: Status::Queued,
            captured: None,
            stop: false,
            attempt: None,
        });
    }

    async fn begin(&mut self, job: usize) {
        let job = &mut self.jobs[job];
        let begun = self.store.begin_attempt(begin(job.id, WORKER)).await.unwrap();
        assert_eq!(begun.is_some(), job.status == Status::Queued);
        if let Some((work, _)) = begun {
            job.status = Status::Processing;
            job.attempt = Some((work.attempt.id, AttemptState::Prepared, 0, true));
        }
    }

    async fn step(&mut self, job: usize, state: AttemptState, stale: bool) {
        let job = &mut self.jobs[job];
        let Some((id, _, steps, _)) = job.attempt else { return };
        let step = SaveStep {
            attempt_id: id,
            worker: WORKER.into(),
            steps: steps + u32::from(stale),
            state,
            plugin_state: None,
            pending: velro::generation::Pending::Wait,
            remote_id: None,
            due_at: at(40),
            clear_inbox: false,
            progress: None,
            now: at(30),
        };
        match self.store.save_step(step).await.unwrap() {
            Saved::Lost => assert!(stale || !job.is_in_hand()),
            Saved::Ok { cancel_requested, .. } => {
                assert!(!stale && job.is_in_hand());
                assert_eq!(cancel_requested, job.stop);
                job.attempt = Some((id, state, steps + 1, state != AttemptState::Unknown));
            }
        }
    }

    async fn next(&mut self, job: usize) {
        let job = &mut self.jobs[job];
        let Some((id, _, steps, _)) = job.attempt else { return };
        let next = NextAttempt {
            rejected: id,
            worker: WORKER.into(),
            steps,
            reason: "no".into(),
            attempt_id: AttemptId::new(),
            due_at: at(40),
            deadline_at: at(1000),
            now: at(35),
        };
        let next = self.store.next_attempt(next).await.unwrap();
        assert_eq!(next.is_some(), job.is_in_hand());
        if let Some(work) = next {
            job.attempt = Some((work.attempt.id, AttemptState::Prepared, 0, true));
        }
    }

    async fn settle(&mut self, job: usize, verdict: Verdict, worth: i64, status: Status, stale: bool) {
        let (id, attempt) = (self.jobs[job].id, self.jobs[job].attempt);
        let Some((attempt_id, _, steps, _)) = attempt else {
            return;
        };
        let settle = Settle {
            generation_id: id,
            attempt_id,
            worker: WORKER.into(),
            steps: steps + u32::from(stale),
            verdict,
            now: at(50),
        };
        match self.store.settle(settle).await.unwrap() {
            Settled::Lost => assert!(stale || !self.jobs[job].is_in_hand()),
            Settled::Won { settlement, .. } => {
                assert!(!stale && self.jobs[job].is_in_hand());
                let captured = worth.clamp(0, self.jobs[job].price);
                assert_eq!(settlement.captured.0, captured);
                self.end(job, status, captured);
            }
        }
    }

    fn end(&mut self, job: usize, status: Status, captured: i64) {
        let job = &mut self.jobs[job];
        let person = &mut self.people[job.user];
        person.held -= job.price;
        person.balance -= captured;
        person.line("refund", job.price - captured);
        job.status = status;
        job.captured = Some(captured);
        if let Some(attempt) = &mut job.attempt {
            attempt.3 = false;
        }
    }

    async fn cancel(&mut self, job: usize, by_owner: bool) {
        let (id, owner) = (self.jobs[job].id, self.jobs[job].user);
        let who = if by_owner { owner } else { (owner + 1) % USERS };
        let cancelled = self.store.cancel(self.users[who], id, at(60)).await.unwrap();
        let Some(cancelled) = cancelled else {
            assert!(!by_owner);
            return;
        };
        assert!(by_owner);
        let unsent = matches!(self.jobs[job].attempt, Some((_, AttemptState::Prepared, _, _)));
        match cancelled {
            Cancelled::Already(g) => assert!(g.status == self.jobs[job].status && g.status.is_terminal()),
            Cancelled::Now { .. } => {
                let status = self.jobs[job].status;
                assert!(status == Status::Queued || (status == Status::Processing && unsent));
                self.end(job, Status::Cancelled, 0);
            }
            Cancelled::Requested { .. } => {
                assert!(self.jobs[job].status == Status::Processing && !unsent);
                self.jobs[job].stop = true;
            }
        }
    }

    async fn resolve(&mut self, job: usize, resolution: u8) {
        let word = match resolution {
            0 => Resolution::Refund,
            1 => Resolution::Retry,
            _ => Resolution::Deliver(Vec::new()),
        };
        let word = Resolve {
            generation_id: self.jobs[job].id,
            even_running: false,
            resolution: word,
            actor: "test".into(),
            reason: "because".into(),
            now: at(70),
        };
        let is_unknown = self.jobs[job].status == Status::Processing
            && matches!(self.jobs[job].attempt, Some((_, AttemptState::Unknown, _, _)));
        match self.store.resolve_unknown(word).await.unwrap() {
            Resolved::NotUnknown(_) => assert!(!is_unknown),
            Resolved::Missing => panic!("it is there"),
            Resolved::Done { generation, .. } => {
                assert!(is_unknown);
                let price = self.jobs[job].price;
                match resolution {
                    0 => self.end(job, Status::Failed, 0),
                    1 if self.jobs[job].stop => self.end(job, Status::Cancelled, 0),
                    1 => {
                        self.jobs[job].status = Status::Queued;
                        self.jobs[job].attempt = None;
                    }
                    _ => self.end(job, Status::Completed, price),
                }
                assert_eq!(generation.status, self.jobs[job].status);
            }
        }
    }

    async fn compare(&self) {
        for (user, person) in self.users.iter().zip(&self.people) {
            assert_eq!(money(self.store, *user).await, (person.balance, person.held));
            assert_eq!(amounts(self.store, *user).await, person.lines);
        }
        for job in &self.jobs {
            let stored = self
                .store
                .generation(self.users[job.user], job.id)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                (stored.status, stored.captured),
                (job.status, job.captured.map(Credits))
            );
            assert_eq!(stored.cancel_requested, job.stop);
        }
    }
}
