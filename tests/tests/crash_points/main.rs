//! The worker dies before and after every single call of the store, one run each, and is started again.
//!
//! After every run: the generation has ended or is `unknown` with its credits held; the FAL simulator saw at most one
//! purchase that was not free; a charge means files; the books are in order. And `unknown` is the outcome of exactly those
//! runs in which the process died between storing the paid request and storing its answer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod dying_store;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tempfile::TempDir;
use tests::fal_sim::{Action, FalSim, Options, Point, Rule, Settings as SimSettings};
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
    registry: Registry,
}

/// What is asked, and what goes wrong at FAL.
#[derive(Clone)]
struct Scenario {
    prompt: &'static str,
    rule: Option<Rule>,
    /// The model has a second provider.
    fallback: bool,
}

impl Scenario {
    fn plain(prompt: &'static str) -> Scenario {
        Scenario {
            prompt,
            rule: None,
            fallback: false,
        }
    }

    /// The shipped registry; with a fallback, the model goes on to a second account at the same FAL.
    fn registry(&self, config: &Config) -> Registry {
        let path = &config.providers_path;
        let mut text = std::fs::read_to_string(path).unwrap();
        if self.fallback {
            let mut file: toml::Table = text.parse().unwrap();
            let second: toml::Table = "kind = \"fal\"".parse().unwrap();
            file["providers"]
                .as_table_mut()
                .unwrap()
                .insert("second".into(), second.into());
            let models = file["models"].as_array_mut().unwrap().iter_mut();
            let mut models = models.filter_map(toml::Value::as_table_mut);
            let model = models.find(|m| m["id"].as_str() == Some(MODEL)).unwrap();
            let way: toml::Table = format!("provider = \"second\"\nprovider_model = \"{MODEL}\"")
                .parse()
                .unwrap();
            model.insert("fallbacks".into(), vec![way].into());
            text = toml::to_string(&file).unwrap();
        }
        Registry::from_toml(&text, path, clock::now()).unwrap()
    }
}

impl World {
    async fn new(scenario: &Scenario) -> World {
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
        if let Some(rule) = scenario.rule.clone() {
            sim.add_rule(rule);
        }
        World {
            _folder: folder,
            registry: scenario.registry(&config),
            config,
            store,
            sim,
            user,
        }
    }

    /// A process over a store: its own queue, hub and worker.
    fn process(&self, store: Arc<dyn Store>) -> (Intake, Worker) {
        let registry = self.registry.clone();
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
        assert_eq!(self.sim.bought_twice(), [], "{what}");
        // What FAL failed was free.
        let bought = self.sim.requests().iter().filter(|r| r.error_type.is_none()).count();
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
async fn run(die_at: u32, when: When, scenario: &Scenario) -> Option<(Status, AttemptState, String)> {
    let world = World::new(scenario).await;
    let prompt = scenario.prompt;
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
        api_key_id: None,
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
    Some((generation.status, state, generation.provider))
}

/// A death: where, and what became of the generation.
#[derive(Debug)]
struct Death(u32, When, Status, AttemptState, String);

/// Every call, both ways, until a run ends before its call comes.
async fn all_points(scenario: &Scenario) -> Vec<Death> {
    let mut seen = Vec::new();
    for die_at in 1.. {
        let mut died = false;
        for when in [When::Before, When::After] {
            if let Some((status, state, provider)) = run(die_at, when, scenario).await {
                died = true;
                seen.push(Death(die_at, when, status, state, provider));
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
    let seen = all_points(&Scenario::plain("a quiet harbour")).await;
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
    let seen = all_points(&Scenario::plain("a quiet harbour [sim:submit=429*1]")).await;
    assert!(
        seen.iter()
            .all(|s| s.2 == Status::Completed || s.3 == AttemptState::Unknown),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_survives_a_crash_at_every_call() {
    let seen = all_points(&Scenario::plain("a quiet harbour [sim:policy]")).await;
    assert!(
        seen.iter()
            .all(|s| s.2 == Status::Failed || s.3 == AttemptState::Unknown),
        "{seen:?}"
    );
}

/// Dead at every call, with a second provider behind the first, which says no. The paid request leaves twice at most.
async fn goes_on_at_the_second(scenario: Scenario) {
    let seen = all_points(&scenario).await;
    let unknown = seen.iter().filter(|s| s.3 == AttemptState::Unknown).count();
    let delivered = |s: &&Death| s.2 == Status::Completed && s.4 == "second";
    let completed = seen.iter().filter(delivered).count();
    assert_eq!(completed + unknown, seen.len(), "{seen:?}");
    // After the two submits were stored, and before their answers were.
    assert_eq!(unknown, 4, "{seen:?}");
    assert!(seen.len() >= 16, "{} points", seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_refused_goes_on_at_the_second_provider_whatever_dies() {
    goes_on_at_the_second(Scenario {
        prompt: "a quiet harbour [sim:submit=402*1]",
        rule: None,
        fallback: true,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_goes_on_at_the_second_provider_whatever_dies() {
    let action: Action = "error:runner_scheduling_failure".parse().unwrap();
    goes_on_at_the_second(Scenario {
        prompt: "a quiet harbour",
        rule: Some(Rule::new(Point::Job, action).times(1)),
        fallback: true,
    })
    .await;
}
