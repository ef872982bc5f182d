//! A worker whose Redis is flushed, killed and restarted: everything goes on, and the queue is whole afterwards.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tests::process;
use tests::redis::OwnRedis;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use velro::catalog::{ClientCall, Registry};
use velro::clock;
use velro::config::Config;
use velro::generation::Status;
use velro::id::{GenerationId, UserId};
use velro::intake::{Intake, Request, Stopped};
use velro::provider::ProviderShelf;
use velro::queue::live::Live;
use velro::queue::memory::MemoryQueue;
use velro::queue::redis::{LIFE, RedisQueue};
use velro::queue::{Depth, Job, LaneLimits, Queue};
use velro::shared::{Link, Part};
use velro::store::Store;
use velro::worker::{Settings, Worker};

use super::{link_to, until};

/// Longer than a test takes.
const FOR_EVER_MS: u64 = 60_000;

struct World {
    folder: TempDir,
    config: Config,
    store: Arc<dyn Store>,
    user: UserId,
}

/// One process of an installation.
struct Process {
    intake: Intake,
    queue: Arc<dyn Queue>,
    link: Link,
    /// Its name as a worker.
    name: String,
    stop: CancellationToken,
    working: JoinHandle<()>,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let config = process::config(folder.path(), &[]).unwrap();
        let (store, user) = process::store_with_user(folder.path(), 100_000).await.unwrap();
        World {
            folder,
            config,
            store,
            user,
        }
    }

    async fn start(&self, redis: &OwnRedis) -> Process {
        let link = link_to(redis);
        let live = Arc::new(Live::default());
        live.join(&link);
        until("no subscription", || async { live.hears_all() }).await;
        let queue: Arc<dyn Queue> = Arc::new(RedisQueue::new(link.clone(), Arc::clone(&live), LIFE));
        self.start_over(link, live, queue)
    }

    fn start_over(&self, link: Link, live: Arc<Live>, queue: Arc<dyn Queue>) -> Process {
        let registry = Registry::from_file(&self.config.providers_path, clock::now()).unwrap();
        let providers = ProviderShelf::load(&self.config, &registry).unwrap();
        let store = Arc::clone(&self.store);
        let (intake, tools) =
            process::tools_over(&self.config, store, Arc::clone(&queue), live, registry, providers).unwrap();
        let settings = Settings {
            keep_every: Duration::from_millis(100),
            ..Settings::new(None, Duration::from_secs(5))
        };
        let name = settings.name.clone();
        let stop = CancellationToken::new();
        let working = tokio::spawn(Worker::new(tools, settings).run(stop.clone()));
        Process {
            intake,
            queue,
            link,
            name,
            stop,
            working,
        }
    }

    async fn submit(&self, process: &Process, latency_ms: u64) -> GenerationId {
        let Value::Object(parameters) = json!({ "latency_ms": latency_ms }) else {
            unreachable!()
        };
        let call = ClientCall {
            prompt: "a quiet harbour",
            negative_prompt: None,
            reference_image_url: None,
            parameters: &parameters,
        };
        let request = Request {
            user_id: self.user,
            project_id: None,
            model_id: "sandbox/image",
            call,
            idempotency: None,
            api_key_id: None,
        };
        process.intake.submit(request).await.unwrap().generation.id
    }

    async fn status(&self, id: GenerationId) -> Status {
        self.store.generation(self.user, id).await.unwrap().unwrap().status
    }

    async fn is(&self, id: GenerationId, status: Status) {
        until(&format!("{id} is not {status:?}"), || async {
            self.status(id).await == status
        })
        .await;
    }

    async fn in_order(&self) {
        let report = self.store.verify_ledger().await.unwrap();
        assert!(report.faults.is_empty(), "{:?} in {:?}", report.faults, self.folder);
    }
}

impl Process {
    async fn has(&self, waiting: u64, running: u64) {
        let expected = Depth { waiting, running };
        until(&format!("the lane has not {expected:?}"), || async {
            self.queue.depth("sandbox").await.is_ok_and(|depth| depth == expected)
        })
        .await;
    }

    async fn drain(self) {
        self.stop.cancel();
        self.working.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_redis_still_generates_and_tells_it_all_when_it_is_back() {
    let mut redis = OwnRedis::start();
    let world = World::new().await;
    let process = world.start(&redis).await;
    let before = world.submit(&process, 0).await;
    world.is(before, Status::Completed).await;
    let long = world.submit(&process, FOR_EVER_MS).await;
    world.is(long, Status::Processing).await;
    process.has(0, 1).await;

    redis.kill();
    for _ in 0..3 {
        let id = world.submit(&process, 0).await;
        world.is(id, Status::Completed).await;
    }
    assert!(process.link.fallbacks(Part::Queue) > 0);
    // The share of the only worker is the whole of the limits, four for one user: one runs, three may begin.
    let mut more = Vec::new();
    for _ in 0..5 {
        more.push(world.submit(&process, FOR_EVER_MS).await);
    }
    for id in &more[..3] {
        world.is(*id, Status::Processing).await;
    }
    assert_eq!(world.status(more[3]).await, Status::Queued);

    redis.start_again();
    process.has(2, 4).await;
    let stopped = process.intake.cancel(world.user, long).await.unwrap();
    assert!(matches!(stopped, Some(Stopped::Cancelled(_))), "{stopped:?}");
    world.is(more[3], Status::Processing).await;
    process.has(1, 4).await;
    process.drain().await;
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_whose_queues_are_their_own_share_the_limits() {
    let world = World::new().await;
    let later = clock::now().plus(Duration::from_secs(600));
    world.store.extend_leases("another", later).await.unwrap();
    let (live, queue) = (Arc::new(Live::default()), Arc::new(MemoryQueue::default()));
    let redis = OwnRedis::start();
    let process = world.start_over(link_to(&redis), live, queue);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.submit(&process, FOR_EVER_MS).await);
    }
    // Half of four for one user.
    process.has(2, 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    process.has(2, 2).await;
    world.store.release_leases("another", &[]).await.unwrap();
    process.has(0, 4).await;
    process.drain().await;
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_costs_neither_a_place_nor_a_slot() {
    let redis = OwnRedis::start();
    let world = World::new().await;
    let process = world.start(&redis).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(world.submit(&process, FOR_EVER_MS).await);
    }
    process.has(3, 4).await;
    redis.command("FLUSHALL");
    process.has(3, 4).await;
    let waiting = ids.iter().skip(4);
    for (rank, id) in (0..).zip(waiting) {
        assert_eq!(process.queue.position("sandbox", *id).await.unwrap(), Some(rank));
    }
    process.drain().await;
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_made_good() {
    let redis = OwnRedis::start();
    let world = World::new().await;
    let process = world.start(&redis).await;
    for _ in 0..5 {
        world.submit(&process, FOR_EVER_MS).await;
    }
    process.has(1, 4).await;
    let limits = LaneLimits {
        concurrency: 100,
        per_user: 100,
    };
    // As the worker's own claim, of which the worker does not know.
    process.queue.claim("sandbox", limits).await.unwrap().unwrap();
    process.has(0, 5).await;
    process.has(1, 4).await;
    process.drain().await;
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_away_does_not_take_slots_of_what_others_took_over() {
    let redis = OwnRedis::start();
    let world = World::new().await;
    let process = world.start(&redis).await;
    for _ in 0..2 {
        let id = world.submit(&process, FOR_EVER_MS).await;
        world.is(id, Status::Processing).await;
    }
    let now = clock::now();
    world.store.release_leases(&process.name, &[]).await.unwrap();
    let until_then = now.plus(Duration::from_secs(600));
    let adopted = world.store.adopt("another", now, until_then, 1).await.unwrap();
    let job = Job {
        id: adopted[0].generation_id,
        user_id: world.user,
        provider: "sandbox".into(),
        cost: 1,
    };
    let another = RedisQueue::new(link_to(&redis), Arc::default(), LIFE);
    redis.command("FLUSHALL");
    another.occupy(std::slice::from_ref(&job)).await.unwrap();
    process.has(0, 2).await;
    // Some times more, so that it would have been taken.
    tokio::time::sleep(Duration::from_secs(1)).await;
    another.free("sandbox", job.id).await.unwrap();
    process.has(0, 1).await;
    process.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drained_worker_gives_back_is_taken_over_at_once() {
    let redis = OwnRedis::start();
    let world = World::new().await;
    let (first, second) = (world.start(&redis).await, world.start(&redis).await);
    let id = world.submit(&first, FOR_EVER_MS).await;
    world.is(id, Status::Processing).await;
    let holder = async |process: &Process| process.queue.depth("sandbox").await.unwrap();
    assert_eq!(holder(&first).await.running, 1);
    first.drain().await;
    second.has(0, 1).await;
    let intake = &second.intake;
    let stopped = intake.cancel(world.user, id).await.unwrap();
    assert!(matches!(stopped, Some(Stopped::Cancelled(_))), "{stopped:?}");
    second.has(0, 0).await;
    second.drain().await;
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_answered_by_another_process_and_without_redis() {
    let mut redis = OwnRedis::start();
    let world = World::new().await;
    let (first, second) = (world.start(&redis).await, world.start(&redis).await);
    let ids = [
        world.submit(&first, FOR_EVER_MS).await,
        world.submit(&first, FOR_EVER_MS).await,
    ];
    for id in ids {
        world.is(id, Status::Processing).await;
    }
    // Whoever holds it, the other one asks.
    for process in [&first, &second] {
        let stopped = process.intake.cancel(world.user, ids[0]).await.unwrap();
        assert!(!matches!(stopped, Some(Stopped::Asked(_)) | None), "{stopped:?}");
    }
    first.drain().await;
    second.has(0, 1).await;
    redis.kill();
    let stopped = second.intake.cancel(world.user, ids[1]).await.unwrap();
    assert!(matches!(stopped, Some(Stopped::Cancelled(_))), "{stopped:?}");
    second.drain().await;
    world.in_order().await;
}
