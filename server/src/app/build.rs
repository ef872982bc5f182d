//! Builds everything a process needs from its configuration. Which pieces then run is said in [`super::run`].

use anyhow::{Context, Result};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::clock::Follower;
use super::{lock, open_store};
use crate::auth::Auth;
use crate::catalog::{Registry, Shelf};
use crate::clock;
use crate::config::watch::RegistryHealth;
use crate::config::{Config, Database, Role, Secret};
use crate::desk::load_pauses;
use crate::http::{COMMIT, RateLimiter, Services, VERSION};
use crate::intake::Intake;
use crate::outputs::Outputs;
use crate::pause::Pauses;
use crate::payments::Payments;
use crate::provider::ProviderShelf;
use crate::queue::Queue;
use crate::queue::elsewhere::Elsewhere;
use crate::queue::live::Live;
use crate::queue::memory::MemoryQueue;
use crate::queue::redis::{LIFE, RedisQueue};
use crate::shared::Link;
use crate::store::Store;
use crate::store::sql::OpenOptions;
use crate::store::wrapped::{Prompt, Wrapped};
use crate::telemetry::{LogLevels, Metrics};
use crate::upstream::{Seen, Upstream, UpstreamObserver, WebhookVerifier};
use crate::worker::{Settings, Tools, Worker};

/// How long one call of the store may keep a request waiting.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// The same for the worker, longer than a writer tries twice: a server that is gone without a word must not freeze it
/// while its lease goes on.
const WORKER_PATIENCE: Duration = Duration::from_secs(40);

/// Everything a process has.
pub(super) struct App {
    pub(super) services: Arc<Services>,
    /// As the worker has it, without the patience of requests.
    pub(super) store: Arc<dyn Store>,
    pub(super) worker: Worker,
    pub(super) follower: Follower,
    pub(super) shutdown: CancellationToken,
    /// Held while the process lives, when the data folder is its own.
    pub(super) _lock: Option<File>,
}

impl App {
    /// Builds everything; nothing runs yet.
    pub(super) async fn build(config: Config, levels: Arc<LogLevels>) -> Result<App> {
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new()?);
        let commit = COMMIT.unwrap_or("unknown");
        metrics.built(VERSION, commit, config.role.as_str(), config.ledger_check_every);
        let (store, lock) = open(&config).await?;
        // Before anything else uses a time.
        let mut follower = Follower::new(Arc::clone(&store), Arc::clone(&metrics));
        follower.begin().await?;
        let pauses = Arc::new(Pauses::default());
        load_pauses(store.as_ref(), &pauses, &metrics).await?;
        let registry = Registry::from_file(&config.providers_path, clock::now())?;
        let shutdown = CancellationToken::new();
        let upstream = Upstream::new(&config)?.observed_by(Arc::new(Observed(Arc::clone(&metrics))));
        let providers = Arc::new(ProviderShelf::load(&config, &registry)?);
        let health = Arc::new(RegistryHealth::new(&registry));
        let shelf = Arc::new(Shelf::new(registry));
        let link = open_redis(&config)?;
        let live = Arc::new(Live::default());
        let queue = queue(&config, link.as_ref(), &live);
        let outputs = Arc::new(Outputs::new(&config)?);
        // A request waits for the store for so long and no longer; the worker has more patience.
        let promptly = Arc::new(Prompt(REQUEST_PATIENCE));
        let prompt_store: Arc<dyn Store> = Arc::new(Wrapped::new(Arc::clone(&store), promptly));
        let auth = Arc::new(Auth::open(&config, Arc::clone(&prompt_store))?);
        auth.load_revoked().await?;
        let intake = Arc::new(Intake {
            store: Arc::clone(&prompt_store),
            shelf: Arc::clone(&shelf),
            providers: Arc::clone(&providers),
            queue: Arc::clone(&queue),
            live: Arc::clone(&live),
            pauses: Arc::clone(&pauses),
            metrics: Arc::clone(&metrics),
        });
        let tools = Tools {
            store: Arc::new(Wrapped::new(Arc::clone(&store), Arc::new(Prompt(WORKER_PATIENCE)))),
            queue: Arc::clone(&queue),
            live: Arc::clone(&live),
            shelf: Arc::clone(&shelf),
            providers: Arc::clone(&providers),
            upstream: Arc::new(upstream.clone()),
            outputs: Arc::clone(&outputs),
            metrics: Arc::clone(&metrics),
            pauses: Arc::clone(&pauses),
            notes: Arc::default(),
        };
        let webhook_base = config.public_url_is_set.then(|| config.public_url.clone());
        let worker = Worker::new(tools, Settings::new(webhook_base, config.drain_time()));
        let payments = Payments::new(&config, Arc::clone(&prompt_store), Arc::clone(&metrics))?;
        let limiter = Arc::new(RateLimiter::new(config.rate_limit_enabled, link.clone()));
        let services = Arc::new(Services {
            config,
            store: prompt_store,
            shelf,
            providers,
            queue,
            live,
            intake,
            outputs,
            payments: Arc::new(payments),
            auth,
            metrics,
            levels,
            pauses,
            upstream: Arc::new(upstream.clone()),
            limiter,
            link,
            listings: Default::default(),
            webhooks: Arc::new(WebhookVerifier::new(upstream)),
            registry_health: health,
            leaving: CancellationToken::new(),
            shutdown: shutdown.clone(),
        });
        Ok(App {
            services,
            store,
            worker,
            follower,
            shutdown,
            _lock: lock,
        })
    }
}

/// Opens the store for a server. The embedded database belongs to one process: it brings the schema up to date and takes
/// over at once what its dead predecessor left. A shared one is given a schema while it is empty, and migrated by
/// `velro migrate` later; leases run out.
async fn open(config: &Config) -> Result<(Arc<dyn Store>, Option<File>)> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))?;
    match config.database() {
        Database::Sqlite => {
            // Before the store: a second process must not bring the schema up to date under the first.
            let lock = lock::take(&config.data_dir)?;
            let everything = OpenOptions {
                create: true,
                migrate: true,
            };
            let store = open_store(config, everything).await?;
            // The lock says that we are alone: whoever held a lease is dead.
            store.free_all_leases().await?;
            Ok((store, Some(lock)))
        }
        Database::Postgres => {
            let empty_only = OpenOptions {
                create: true,
                migrate: false,
            };
            Ok((open_store(config, empty_only).await?, None))
        }
    }
}

/// The way to the configured Redis. It is not asked whether it is there: the server starts without it too.
fn open_redis(config: &Config) -> Result<Option<Link>> {
    let open = |url: &Secret| Link::open(url.expose(), &config.redis_prefix, config.redis_connections);
    config.redis_url.as_ref().map(open).transpose()
}

/// Whose turn it is: over all processes with Redis, else in this one.
fn queue(config: &Config, link: Option<&Link>, live: &Arc<Live>) -> Arc<dyn Queue> {
    match (link, config.role) {
        (Some(link), _) => {
            live.join(link);
            Arc::new(RedisQueue::new(link.clone(), Arc::clone(live), LIFE))
        }
        // Nobody takes a job out of this process's memory.
        (None, Role::Api) => Arc::new(Elsewhere),
        (None, Role::All | Role::Worker) => Arc::new(MemoryQueue::default()),
    }
}

/// Counts requests to providers.
struct Observed(Arc<Metrics>);

impl UpstreamObserver for Observed {
    fn request(&self, seen: Seen<'_>) {
        let result = if seen.class == "2xx" { "ok" } else { seen.class };
        self.0.provider_request(seen.provider, result, seen.elapsed);
    }
}
