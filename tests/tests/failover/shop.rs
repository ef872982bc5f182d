//! Two scripted providers over one small HTTP server, and a process between them.

use base64::Engine as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tempfile::TempDir;
use tests::process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use velro_plugin::{
    Effect, ErrorKind, Event, Failure, Fault, HttpRequest, Job, Manifest, Method, Output, Provider, Retry, Step,
};

use velro::catalog::{ClientCall, Registry};
use velro::clock;
use velro::config::Config;
use velro::generation::{AttemptState, Generation, Status};
use velro::id::{GenerationId, UserId};
use velro::intake::{Intake, Refusal, Request};
use velro::provider::{LoadedProvider, ProviderShelf};
use velro::store::Store;
use velro::telemetry::Metrics;
use velro::worker::{Settings, Tools, Worker};

pub const START_CREDITS: i64 = 1000;
pub const PRICE: i64 = 7;

/// `a` may go to both providers, `b` to the second alone, and `c` too, for which nobody waits long.
const REGISTRY: &str = r#"
[providers.first]
kind = "sandbox"
[providers.second]
kind = "sandbox"
concurrency = 1

[[models]]
id = "a"
provider = "first"
media_type = "image"
description = "d"
credits = 7
max_resolution = "8x8"
formats = ["png"]
typical_ms = 10
deadline_ms = 600_000
poll_ceiling_ms = 100
negative_prompt = { refused = "no" }
reference_image = { refused = "no" }
[[models.fallbacks]]
provider = "second"
provider_model = "second/a"
prompt_input = "text"

[[models]]
id = "b"
provider = "second"
media_type = "image"
description = "d"
credits = 7
max_resolution = "8x8"
formats = ["png"]
typical_ms = 10
deadline_ms = 600_000
poll_ceiling_ms = 100
negative_prompt = { refused = "no" }
reference_image = { refused = "no" }

[[models]]
id = "c"
provider = "second"
media_type = "image"
description = "d"
credits = 7
max_resolution = "8x8"
formats = ["png"]
typical_ms = 10
deadline_ms = 1_000
poll_ceiling_ms = 100
negative_prompt = { refused = "no" }
reference_image = { refused = "no" }
"#;

/// What a vendor does.
#[derive(Clone)]
pub enum Does {
    /// Takes the job and delivers.
    Deliver,
    /// Takes the job and works for ever.
    Work,
    /// Refuses the submit.
    Refuse(ErrorKind, Retry),
    /// Takes the job, which fails then.
    Fail(ErrorKind, Retry),
    /// Cuts the connection after the submit has arrived.
    Cut,
    /// Its code panics when it is told to start.
    PanicAtStart,
    /// It takes the job, and its code panics when it is to look after it.
    PanicLater,
    /// It takes the job and works for ever, and its code knows no webhooks.
    NoWebhooks,
}

/// A provider and its API.
pub struct Vendor {
    pub name: &'static str,
    does: Mutex<Does>,
    /// Submits that arrived.
    pub submits: AtomicU32,
    /// Calls of the code.
    pub steps: AtomicU32,
    /// Answers to submits wait for this.
    pub open: AtomicBool,
    address: String,
}

impl Vendor {
    pub async fn start(name: &'static str) -> Arc<Vendor> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let vendor = Arc::new(Vendor {
            name,
            does: Mutex::new(Does::Deliver),
            submits: AtomicU32::new(0),
            steps: AtomicU32::new(0),
            open: AtomicBool::new(true),
            address: listener.local_addr().unwrap().to_string(),
        });
        let server = Arc::clone(&vendor);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&server).answer(stream));
            }
        });
        vendor
    }

    pub fn does(&self) -> MutexGuard<'_, Does> {
        self.does.lock().unwrap()
    }

    pub fn set(&self, does: Does) {
        *self.does() = does;
    }

    pub fn submits(&self) -> u32 {
        self.submits.load(SeqCst)
    }

    async fn answer(self: Arc<Self>, mut stream: tokio::net::TcpStream) {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).await.unwrap_or(0);
        let submit = buffer[..length].starts_with(b"POST");
        if submit {
            self.submits.fetch_add(1, SeqCst);
            while !self.open.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let does = self.does().clone();
        let status = match does {
            Does::Cut => return,
            Does::Refuse(ErrorKind::Unavailable, _) if submit => "503 Service Unavailable",
            Does::Refuse(..) if submit => "422 Unprocessable",
            _ => "200 OK",
        };
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
        let _ = stream.write_all(text.as_bytes()).await;
    }

    /// As a process loads it.
    pub fn loaded(self: &Arc<Self>) -> LoadedProvider {
        LoadedProvider {
            hosts: vec![self.address.clone()],
            timeout_ms: 10_000,
            ..LoadedProvider::of(self.name, Arc::new(Code(Arc::clone(self))))
        }
    }
}

/// The code of a vendor.
struct Code(Arc<Vendor>);

impl Provider for Code {
    fn manifest(&self) -> Result<Manifest, Fault> {
        Ok(Manifest::new(self.0.name, "1"))
    }

    fn step(&self, job: &Job<'_>, event: Event<'_>) -> Result<Step, Fault> {
        self.0.steps.fetch_add(1, SeqCst);
        let does = self.0.does().clone();
        let base = format!("http://{}", self.0.address);
        let accepted = !job.state.is_empty();
        if accepted && matches!(does, Does::PanicLater) {
            panic!("a bug of the provider");
        }
        Ok(match event {
            Event::Webhook(_) if matches!(does, Does::NoWebhooks) => return Err(Fault::unsupported("a webhook")),
            Event::Start if matches!(does, Does::PanicAtStart) => panic!("a bug of the provider"),
            Event::Start => Step::from(HttpRequest::submit(format!("{base}/submit"))),
            Event::Http(answer) if !accepted => match (answer.status, does) {
                (200, _) => Step::wait(10).state_json(&"accepted").remote_id(job.id),
                (_, Does::Refuse(kind, retry)) => Step::fail(kind, retry, self.0.name, "Refused."),
                (status, _) => panic!("status {status}"),
            },
            Event::Http(_) => match does {
                Does::Fail(kind, retry) => Step::fail(kind, retry, self.0.name, "It failed."),
                Does::Work | Does::NoWebhooks => Step::wait(50),
                _ => Step::done(vec![Output::url("image", png())]),
            },
            Event::Failed(transport) if !accepted && transport.not_sent() => Step::fail(
                ErrorKind::Unavailable,
                Retry::SameProvider,
                "unreachable",
                "Not reached.",
            ),
            Event::Failed(_) | Event::Interrupted if !accepted => Failure {
                kind: ErrorKind::UnknownOutcome,
                retry: Retry::OtherProvider,
                code: "lost".into(),
                message: "Lost.".into(),
                retry_after_ms: 0,
            }
            .into(),
            Event::Cancel => Step::fail(ErrorKind::Cancelled, Retry::Never, "cancelled", "Cancelled."),
            _ => Step::from(HttpRequest::new(Method::Get, format!("{base}/job"), Effect::Read)),
        })
    }
}

/// A picture of one pixel.
fn png() -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(1, 1)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes.into_inner());
    format!("data:image/png;base64,{text}")
}

/// Everything: store, providers, and at most one process.
pub struct Shop {
    _folder: TempDir,
    config: Config,
    pub store: Arc<dyn Store>,
    pub user: UserId,
    pub first: Arc<Vendor>,
    pub second: Arc<Vendor>,
}

/// A process that runs.
pub struct Process {
    pub intake: Intake,
    pub providers: Arc<ProviderShelf>,
    pub metrics: Arc<Metrics>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Process {
    pub async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    /// The provider as it is on the shelf now.
    pub fn provider(&self, vendor: &Vendor) -> Arc<LoadedProvider> {
        self.providers.get(vendor.name).unwrap()
    }
}

impl Shop {
    pub async fn open() -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let config = process::config(folder.path(), &[]).unwrap();
        let (store, user) = process::store_with_user(folder.path(), START_CREDITS).await.unwrap();
        Shop {
            _folder: folder,
            config,
            store,
            user,
            first: Vendor::start("first").await,
            second: Vendor::start("second").await,
        }
    }

    pub fn registry(edit: impl Fn(&str) -> String) -> Registry {
        Registry::from_toml(&edit(REGISTRY), std::path::Path::new("providers.toml"), clock::now()).unwrap()
    }

    pub fn process(&self) -> Process {
        self.process_with(Shop::registry(str::to_owned), [&self.first, &self.second])
    }

    pub fn process_with<'v>(&self, registry: Registry, vendors: impl IntoIterator<Item = &'v Arc<Vendor>>) -> Process {
        let providers = ProviderShelf::new(&self.config);
        providers.put(vendors.into_iter().map(|vendor| Arc::new(vendor.loaded())));
        let (intake, tools) = process::tools(&self.config, Arc::clone(&self.store), registry, providers).unwrap();
        let settings = Settings {
            sweep_every: Duration::from_millis(50),
            ..Settings::new(None, Duration::from_secs(5))
        };
        let Tools { providers, metrics, .. } = tools.clone();
        let stop = CancellationToken::new();
        let running = tokio::spawn(Worker::new(tools, settings).run(stop.clone()));
        Process {
            intake,
            providers,
            metrics,
            stop,
            running,
        }
    }

    pub async fn try_submit(&self, process: &Process, model_id: &str) -> Result<Generation, Refusal> {
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
            model_id,
            call,
            idempotency: None,
            api_key_id: None,
        };
        Ok(*process.intake.submit(request).await?.generation)
    }

    pub async fn submit(&self, process: &Process) -> GenerationId {
        self.try_submit(process, "a").await.unwrap().id
    }

    pub async fn generation(&self, id: GenerationId) -> Generation {
        self.store.generation(self.user, id).await.unwrap().unwrap()
    }

    /// Waits until the generation is like this, and answers with it and its newest attempt's state.
    pub async fn until(&self, id: GenerationId, status: Status, attempt: Option<AttemptState>) -> Generation {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let generation = self.generation(id).await;
            let newest = self.store.newest_attempt(id).await.unwrap().map(|(a, _)| a.state);
            if generation.status == status && newest == attempt {
                return generation;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "not {status:?} {attempt:?} but {newest:?} {generation:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// `(balance, held)`, after a look at the books.
    pub async fn money(&self) -> (i64, i64) {
        let report = self.store.verify_ledger().await.unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        let balance = self.store.balance(self.user).await.unwrap().unwrap();
        (balance.balance.0, balance.held.0)
    }
}

pub async fn until(otherwise: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect(otherwise);
}
