//! The worker dies before and after every single call of the store, one run each, and is started again.
//!
//! After every run: the generation has ended or is `unknown` with its credits held; the FAL simulator saw at most one
//! purchase; a charge means files; the books are in order. And `unknown` is the outcome of exactly those runs in which
//! the process died between storing the paid request and storing its answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod dying_store;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tempfile::TempDir;
use tests::fal_sim::{FalSim, Options, Settings as SimSettings};
use tests::process;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use dying_store::{Dying, When};
use velro::catalog::{ClientCall, Registry};
use velro::clock;
use velro::config::Config;
use velro::generation::{AttemptState, Generation, Status};
use velro::id::{GenerationId, UserId};
use velro::intake::{Intake, Request};
use velro::ledger::Credits;
use velro::provider::ProviderShelf;
use velro::store::Store;
use velro::store::wrapped::Wrapped;
use velro::worker::{Settings, Worker};

const MODEL: &str = "fal-ai/imagen4/preview/ultra";
const START_CREDITS: i64 = 1000;

/// Everything that survives a crash: the database, the files, the provider.
struct World {
    _folder: TempDir,
    config: Config,
    store: Arc<dyn Store>,
    sim: FalSim,
    user: UserId,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let settings = SimSettings {
            queue_ms: 0,
            run_ms: 0,
            ..SimSettings::default()
        };
        let sim = FalSim::start(Options {
            settings,
            ..Options::default()
        })
        .await
        .unwrap();
        let env = [
            ("FAL_KEY", "key:secret"),
            ("FAL_QUEUE_URL", &sim.base_url),
            ("FAL_RUN_URL", &sim.run_url()),
            ("FAL_REST_URL", &sim.base_url),
        ];
        let config = process::config(folder.path(), &env).unwrap();
        let (store, user) = process::store_with_user(folder.path(), START_CREDITS).await.unwrap();
        World {
            _folder: folder,
            config,
            store,
            sim,
            user,
        }
    }

    /// A process over a store: its own queue, hub and worker.
    fn process(&self, store: Arc<dyn Store>) -> (Intake, Worker) {
        let registry = Registry::from_file(&self.config.providers_path, clock::now()).unwrap();
        let providers = ProviderShelf::load(&self.config, &registry).unwrap();
        let (intake, tools) = process::tools(&self.config, store, registry, providers).unwrap();
        let settings = Settings {
            sweep_every: Duration::from_millis(50),
            ..Settings::new(None, Duration::from_secs(5))
        };
        (intake, Worker::new(tools, settings))
    }

    /// Waits until a generation is over, or its attempt unknown.
    async fn rest(&self, id: GenerationId) -> (Generation, AttemptState) {
        let waiting = async {
            loop {
                if let Some((attempt, generation)) = self.store.newest_attempt(id).await.unwrap()
                    && (generation.status.is_terminal() || attempt.state == AttemptState::Unknown)
                {
                    return (generation, attempt.state);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .expect("the generation neither ended nor parked")
    }

    async fn check(&self, what: &str, generation: &Generation, state: AttemptState) {
        let bought = self.sim.requests().len();
        assert!(bought <= 1, "{what}: bought {bought} times");
        let balance = self.store.balance(self.user).await.unwrap().unwrap();
        match generation.status {
            Status::Completed => {
                assert_eq!(bought, 1, "{what}: completed without a purchase");
                assert_eq!(balance.available(), Credits(START_CREDITS - 45), "{what}");
                let output = &generation.outputs[0];
                let file = self.config.outputs_dir().join(&output.key);
                assert_eq!(
                    std::fs::metadata(file).unwrap().len(),
                    output.bytes,
                    "{what}: charged without a file"
                );
            }
            Status::Failed | Status::Cancelled => assert_eq!(balance.available(), Credits(START_CREDITS), "{what}"),
            _ => {
                assert_eq!(state, AttemptState::Unknown, "{what}");
                assert_eq!(balance.held, Credits(45), "{what}: an unknown attempt holds its price");
            }
        }
        let report = self.store.verify_ledger().await.unwrap();
        assert!(report.faults.is_empty(), "{what}: {:?}", report.faults);
    }
}

/// One generation whose process dies at a call; `None` when it ended before that call came.
async fn run(die_at: u32, when: When, prompt: &str) -> Option<(Status, AttemptState)> {
    let world = World::new().await;
    let dying = Arc::new(Dying {
        die_at,
        when,
        calls: AtomicU32::new(0),
        died: Notify::new(),
    });
    let (intake, worker) = world.process(Arc::new(Wrapped::new(Arc::clone(&world.store), Arc::clone(&dying))));
    let first = tokio::spawn(worker.run(CancellationToken::new()));
    let parameters = serde_json::Map::new();
    let call = ClientCall {
        prompt,
        negative_prompt: None,
        reference_image_url: None,
        parameters: &parameters,
    };
    let request = Request {
        user_id: world.user,
        project_id: None,
        model_id: MODEL,
        call,
        idempotency: None,
    };
    let id = intake.submit(request).await.unwrap().generation.id;
    let died = tokio::select! {
        () = dying.died.notified() => true,
        (generation, state) = world.rest(id) => {
            world.check("no crash", &generation, state).await;
            false
        }
    };
    first.abort();
    // The worker's tasks are gone when its join set is.
    let _ = first.await;
    if !died {
        return None;
    }
    world.store.free_all_leases().await.unwrap();
    let (_, worker) = world.process(Arc::clone(&world.store));
    let stop = CancellationToken::new();
    let second = tokio::spawn(worker.run(stop.clone()));
    let (generation, state) = world.rest(id).await;
    world
        .check(
            &format!("died {when:?} call {die_at} of {prompt:?}"),
            &generation,
            state,
        )
        .await;
    stop.cancel();
    second.await.unwrap();
    Some((generation.status, state))
}

/// Every call, both ways, until a run ends before its call comes.
async fn all_points(prompt: &str) -> Vec<(u32, When, Status, AttemptState)> {
    let mut seen = Vec::new();
    for die_at in 1.. {
        let mut died = false;
        for when in [When::Before, When::After] {
            if let Some((status, state)) = run(die_at, when, prompt).await {
                died = true;
                seen.push((die_at, when, status, state));
            }
        }
        if !died {
            break;
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_job_survives_a_crash_at_every_call() {
    let seen = all_points("a quiet harbour").await;
    assert!(seen.len() >= 10, "a generation takes more than {} points", seen.len());
    let unknown: Vec<_> = seen.iter().filter(|s| s.3 == AttemptState::Unknown).collect();
    // Storing `sending` is the second call: a death right after it may have bought, and so may one before the answer
    // is stored.
    let expected: Vec<(u32, When)> = vec![(2, When::After), (3, When::Before)];
    assert_eq!(
        unknown.iter().map(|s| (s.0, s.1)).collect::<Vec<_>>(),
        expected,
        "{seen:?}"
    );
    let completed = seen.iter().filter(|s| s.2 == Status::Completed).count();
    assert_eq!(completed + unknown.len(), seen.len(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_submit_survives_a_crash_at_every_call() {
    let seen = all_points("a quiet harbour [sim:submit=429*1]").await;
    assert!(
        seen.iter()
            .all(|s| s.2 == Status::Completed || s.3 == AttemptState::Unknown),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_survives_a_crash_at_every_call() {
    let seen = all_points("a quiet harbour [sim:policy]").await;
    assert!(
        seen.iter()
            .all(|s| s.2 == Status::Failed || s.3 == AttemptState::Unknown),
        "{seen:?}"
    );
}
