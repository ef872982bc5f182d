//! The worker against providers and stores that do what they should not, with a provider scripted by the test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;
use tests::process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use velro_plugin::{ErrorKind, Event, Fault, HttpRequest, Job, Manifest, Method, Provider, Retry, Step};

use velro::catalog::{ClientCall, Registry};
use velro::clock;
use velro::config::Config;
use velro::generation::{AttemptState, Status};
use velro::id::{AttemptId, GenerationId, UserId};
use velro::intake::{Intake, Request, Stopped};
use velro::ledger::Credits;
use velro::provider::{LoadedProvider, ProviderShelf};
use velro::store::{BeginAttempt, Store};
use velro::worker::{Settings, Tools, Worker};

const MODEL: &str = "sandbox/image";
const START_CREDITS: i64 = 10_000;

type Script = Box<dyn Fn(&Event<'_>) -> Step + Send + Sync>;

/// A provider that does what the test says.
struct Scripted(Script);

impl Provider for Scripted {
    fn manifest(&self) -> Result<Manifest, Fault> {
        Ok(Manifest::new("sandbox", "1"))
    }

    fn step(&self, _: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        Ok((self.0)(&event))
    }
}

/// A provider's API: counts requests; without an answer it cuts the connection, otherwise it answers when let.
struct Api {
    address: String,
    requests: Arc<AtomicU32>,
    gate: Arc<Semaphore>,
}

impl Api {
    async fn start(answer: Option<&'static str>) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, closed) = (Arc::clone(&requests), Arc::clone(&gate));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (counted, closed) = (Arc::clone(&counted), Arc::clone(&closed));
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    counted.fetch_add(1, SeqCst);
                    let Some(status) = answer else { return };
                    closed.acquire().await.unwrap().forget();
                    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
                    stream.write_all(text.as_bytes()).await.unwrap();
                });
            }
        });
        Api {
            address,
            requests,
            gate,
        }
    }

    async fn asked(&self) {
        until("the provider was never asked", || async {
            self.requests.load(SeqCst) > 0
        })
        .await;
    }
}

async fn until<F: Future<Output = bool>>(otherwise: &str, condition: impl Fn() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect(otherwise);
}

/// A store, a user with credits, and what a process needs around them.
struct World {
    _folder: TempDir,
    config: Config,
    store: Arc<dyn Store>,
    user: UserId,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let config = process::config(folder.path(), &[]).unwrap();
        let (store, user) = process::store_with_user(folder.path(), START_CREDITS).await.unwrap();
        World {
            _folder: folder,
            config,
            store,
            user,
        }
    }

    fn process(&self, hosts: Vec<String>, settings: Settings, script: Script) -> (Intake, Worker) {
        let registry = Registry::from_file(&self.config.providers_path, clock::now()).unwrap();
        let loaded = LoadedProvider {
            hosts,
            timeout_ms: 10_000,
            ..LoadedProvider::of("sandbox", Arc::new(Scripted(script)))
        };
        let providers = ProviderShelf::new(&self.config);
        providers.put([Arc::new(loaded)]);
        let (intake, tools) = self.tools(registry, providers);
        (intake, Worker::new(tools, settings))
    }

    /// A process over this world's store, with these providers.
    fn tools(&self, registry: Registry, providers: ProviderShelf) -> (Intake, Tools) {
        process::tools(&self.config, Arc::clone(&self.store), registry, providers).unwrap()
    }

    async fn submit(&self, intake: &Intake) -> GenerationId {
        let parameters = serde_json::Map::new();
        let call = ClientCall {
            prompt: "a quiet harbour",
            negative_prompt: None,
            reference_image_url: None,
            parameters: &parameters,
        };
        let request = Request {
            user_id: self.user,
            project_id: None,
            model_id: MODEL,
            call,
            idempotency: None,
            api_key_id: None,
        };
        intake.submit(request).await.unwrap().generation.id
    }

    /// An attempt under somebody's lease, as a call leaves it whose answer was lost.
    async fn begin(&self, id: GenerationId, worker: &str, lease: Duration) {
        let now = clock::now();
        let begin = BeginAttempt {
            generation_id: id,
            attempt_id: AttemptId::new(),
            worker: worker.to_owned(),
            lease_until: now.plus(lease),
            deadline_at: now.plus(Duration::from_secs(60)),
            now,
        };
        self.store.begin_attempt(begin).await.unwrap().unwrap();
    }

    async fn state(&self, id: GenerationId) -> (Status, Option<AttemptState>) {
        let status = self.store.generation(self.user, id).await.unwrap().unwrap().status;
        let attempt = self.store.newest_attempt(id).await.unwrap();
        (status, attempt.map(|(attempt, _)| attempt.state))
    }

    async fn in_order(&self) {
        let report = self.store.verify_ledger().await.unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
}

fn settings() -> Settings {
    Settings {
        sweep_every: Duration::from_millis(50),
        ..Settings::new(None, Duration::from_secs(5))
    }
}

/// A refusal that says nothing about the provider, so that no breaker opens.
fn no() -> Step {
    Step::fail(ErrorKind::InvalidInput, Retry::Never, "no", "No.")
}

fn busy() -> Step {
    Step::fail(ErrorKind::Unavailable, Retry::SameProvider, "busy", "Busy.")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_fails_does_not_make_a_lost_submit_unsent() {
    let world = World::new().await;
    let api = Api::start(None).await;
    // Nobody listens there, so the look-up is certainly not sent; the submit was.
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let look_up = HttpRequest::new(
        Method::Get,
        format!("http://{nowhere}/jobs"),
        velro_plugin::Effect::Read,
    );
    let hosts = vec![api.address.clone(), nowhere.to_string()];
    let submit = format!("http://{}/submit", api.address);
    let script: Script = Box::new(move |event| match event {
        Event::Start => Step::from(HttpRequest::submit(submit.clone())),
        Event::Failed(transport) if !transport.not_sent() => Step::from(look_up.clone()),
        _ => busy(),
    });
    let (intake, worker) = world.process(hosts, settings(), script);
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    let id = world.submit(&intake).await;
    until("the attempt is not unknown", || async {
        world.state(id).await == (Status::Processing, Some(AttemptState::Unknown))
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    assert_eq!(api.requests.load(SeqCst), 1, "bought twice");
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_bought_after_a_cancel_that_came_while_the_provider_refused() {
    let world = World::new().await;
    let api = Api::start(Some("429 Too Many Requests")).await;
    let submit = format!("http://{}/submit", api.address);
    let script: Script = Box::new(move |event| match event {
        Event::Start => Step::from(HttpRequest::submit(submit.clone())),
        _ => busy(),
    });
    let (intake, worker) = world.process(vec![api.address.clone()], settings(), script);
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    let id = world.submit(&intake).await;
    api.asked().await;
    let wish = intake.cancel(world.user, id);
    let refusal = async {
        until("the wish was not noted", || async {
            world
                .store
                .generation(world.user, id)
                .await
                .unwrap()
                .unwrap()
                .cancel_requested
        })
        .await;
        api.gate.add_permits(10);
    };
    let (stopped, ()) = tokio::join!(wish, refusal);
    assert!(matches!(stopped.unwrap(), Some(Stopped::Cancelled(_))));
    stop.cancel();
    running.await.unwrap();
    assert_eq!(api.requests.load(SeqCst), 1);
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_was_begun_without_an_answer_is_found_again() {
    let world = World::new().await;
    let settings = settings();
    let name = settings.name.clone();
    let (intake, worker) = world.process(Vec::new(), settings, Box::new(|_| no()));
    let id = world.submit(&intake).await;
    // Held by the living worker, which does not know.
    world.begin(id, &name, Duration::from_secs(3600)).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    until("the attempt is nobody's", || async {
        world.state(id).await.0 == Status::Failed
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_dead_worker_left_is_taken_over_at_once() {
    let world = World::new().await;
    let settings = Settings {
        sweep_every: Duration::from_secs(3600),
        ..settings()
    };
    let (intake, worker) = world.process(Vec::new(), settings, Box::new(|_| no()));
    // More than one page of them.
    let mut ids = Vec::new();
    for _ in 0..620 {
        let id = world.submit(&intake).await;
        world.begin(id, "dead", Duration::ZERO).await;
        ids.push(id);
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    until("some were left behind", || async {
        world
            .store
            .system_counts(clock::now())
            .await
            .unwrap()
            .by_status
            .get("failed")
            .copied()
            == Some(620)
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_hold_while_a_worker_drains() {
    let world = World::new().await;
    let api = Api::start(Some("400 Bad Request")).await;
    let submit = format!("http://{}/submit", api.address);
    let script: Script = Box::new(move |event| match event {
        Event::Start => Step::from(HttpRequest::submit(submit.clone())),
        _ => no(),
    });
    let settings = Settings {
        lease: Duration::from_millis(600),
        ..settings()
    };
    let (intake, worker) = world.process(vec![api.address.clone()], settings, script);
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    let id = world.submit(&intake).await;
    api.asked().await;
    stop.cancel();
    // Three leases long, another replica finds nothing to take over.
    for _ in 0..18 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = clock::now();
        let taken = world
            .store
            .adopt("other", now, now.plus(Duration::from_secs(60)), 10)
            .await;
        assert!(taken.unwrap().is_empty(), "taken from a worker that still sends");
    }
    api.gate.add_permits(1);
    running.await.unwrap();
    assert_eq!(world.state(id).await, (Status::Failed, Some(AttemptState::Rejected)));
    world.in_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_provider_was_removed_before_they_were_sent_are_released() {
    let world = World::new().await;
    let (intake, _) = world.process(Vec::new(), settings(), Box::new(|_| no()));
    let (queued, begun) = (world.submit(&intake).await, world.submit(&intake).await);
    world.begin(begun, "a dead worker", Duration::ZERO).await;
    // The next process finds the provider under another name: the old one is gone.
    let file = std::fs::read_to_string(&world.config.providers_path).unwrap();
    let renamed = file
        .replace("[providers.sandbox]", "[providers.studio]")
        .replace("provider = \"sandbox\"", "provider = \"studio\"");
    let registry = Registry::from_toml(&renamed, &world.config.providers_path, clock::now()).unwrap();
    let (_, tools) = world.tools(registry, ProviderShelf::new(&world.config));
    let stop = CancellationToken::new();
    let running = tokio::spawn(Worker::new(tools, settings()).run(stop.clone()));
    for id in [queued, begun] {
        until("it neither ran nor failed", || async {
            world.state(id).await == (Status::Failed, Some(AttemptState::Rejected))
        })
        .await;
    }
    stop.cancel();
    running.await.unwrap();
    let balance = world.store.balance(world.user).await.unwrap().unwrap();
    assert_eq!(balance.available(), Credits(START_CREDITS));
    world.in_order().await;
}
