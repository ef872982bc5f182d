//! The composition root: builds everything from a [`Config`], runs it, and takes it down in order.
//!
//! The only module that sees all others. Shutdown runs backwards: stop accepting, end the streams, finish requests,
//! drain the worker (leases are given back), close the store.

pub mod commands;
pub mod desk;

use anyhow::{Context, Result};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::catalog::{Registry, Shelf};
use crate::clock;
use crate::config::watch::{RegistryHealth, Watcher};
use crate::config::{Config, Secret};
use crate::http::{self, RateLimiter, Services};
use crate::intake::Intake;
use crate::outputs::Outputs;
use crate::provider::{ProviderShelf, load_all};
use crate::queue::live::Live;
use crate::queue::memory::MemoryQueue;
use crate::queue::redis::RedisQueue;
use crate::queue::{self, Queue};
use crate::shared::Link;
use crate::store::Store;
use crate::store::sqlite::{OpenOptions, SqliteStore};
use crate::telemetry::Metrics;
use crate::upstream::{Seen, Upstream, UpstreamObserver, WebhookVerifier};
use crate::worker::{Settings, Tools, Worker};

/// How often gauges that need the database are refreshed.
const GAUGES_EVERY: Duration = Duration::from_secs(10);

/// Opens the configured store. `migrate` brings the schema up to date; without it an unknown schema is refused.
pub async fn open_store(config: &Config, migrate: bool) -> Result<Arc<dyn Store>> {
    let url = config.database_url.expose();
    if !url.starts_with("sqlite:") {
        anyhow::bail!(
            "DATABASE_URL is not a sqlite: URL. This version runs on the embedded SQLite only; unset DATABASE_URL or \
             set it to sqlite:PATH"
        );
    }
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))?;
    let store = SqliteStore::open(url, OpenOptions { create: true, migrate })
        .await
        .context("cannot open the database")?;
    Ok(Arc::new(store))
}

/// The way to the configured Redis. It is not asked whether it is there: the server starts without it too.
fn open_redis(config: &Config) -> Result<Option<Link>> {
    let open = |url: &Secret| Link::open(url.expose(), &config.redis_prefix, config.redis_connections);
    config.redis_url.as_ref().map(open).transpose()
}

/// Everything that runs in the process.
struct App {
    services: Arc<Services>,
    worker: Worker,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    _lock: File,
}

/// Runs the server until SIGINT or SIGTERM.
pub async fn serve(mut config: Config) -> Result<()> {
    // Bind before anything moves: a port in use must not leave half a server running.
    let listener = TcpListener::bind((config.host.as_str(), config.port))
        .await
        .with_context(|| format!("cannot listen on {}:{}; set HOST and PORT", config.host, config.port))?;
    config.port = listener.local_addr()?.port();
    if !config.public_url_is_set {
        config.public_url = config.local_url();
    }
    App::build(config).await?.run(listener).await
}

impl App {
    async fn build(config: Config) -> Result<App> {
        let config = Arc::new(config);
        let registry = Registry::from_file(&config.providers_path, clock::now())?;
        // Before the store: a second process must not bring the schema up to date under the first.
        let lock = lock(&config.data_dir)?;
        let store = open_store(&config, true).await?;
        // The lock says that we are alone: whoever held a lease is dead, and what it left is resumed at once.
        store.free_all_leases().await?;
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let metrics = Arc::new(Metrics::new()?);
        let upstream = Upstream::new(&config)?.observed_by(Arc::new(Observed(Arc::clone(&metrics))));
        let providers = Arc::new(ProviderShelf::new(load_all(&config, &registry)));
        let health = Arc::new(RegistryHealth::new(&registry));
        let shelf = Arc::new(Shelf::new(registry));
        let link = open_redis(&config)?;
        let live = Arc::new(Live::default());
        let queue: Arc<dyn Queue> = match &link {
            Some(link) => {
                live.join(link);
                Arc::new(RedisQueue::new(link.clone(), Arc::clone(&live), queue::redis::LIFE))
            }
            None => Arc::new(MemoryQueue::default()),
        };
        let outputs = Arc::new(Outputs::new(&config)?);
        let auth = Arc::new(Auth::new(&config, Arc::clone(&store)));
        auth.load_revoked().await?;
        let intake = Arc::new(Intake {
            store: Arc::clone(&store),
            shelf: Arc::clone(&shelf),
            providers: Arc::clone(&providers),
            queue: Arc::clone(&queue),
            live: Arc::clone(&live),
            metrics: Arc::clone(&metrics),
        });
        let tools = Tools {
            store: Arc::clone(&store),
            queue: Arc::clone(&queue),
            live: Arc::clone(&live),
            shelf: Arc::clone(&shelf),
            providers: Arc::clone(&providers),
            upstream: Arc::new(upstream.clone()),
            outputs: Arc::clone(&outputs),
            metrics: Arc::clone(&metrics),
            notes: Arc::default(),
        };
        let webhook_base = config.public_url_is_set.then(|| config.public_url.clone());
        let worker = Worker::new(tools, Settings::new(webhook_base, config.shutdown_grace));
        let limiter = Arc::new(RateLimiter::new(config.rate_limit_enabled, link.clone()));
        let services = Arc::new(Services {
            config,
            store,
            shelf,
            providers,
            queue,
            live,
            intake,
            outputs,
            auth,
            metrics,
            limiter,
            link,
            listings: Default::default(),
            webhooks: Arc::new(WebhookVerifier::new(upstream)),
            registry_health: health,
            shutdown: shutdown.clone(),
        });
        Ok(App {
            services,
            worker,
            tasks,
            shutdown,
            _lock: lock,
        })
    }

    async fn run(self, listener: TcpListener) -> Result<()> {
        let App {
            services,
            worker,
            tasks,
            shutdown,
            _lock,
        } = self;
        let address = listener.local_addr()?;
        let mut working = tasks.spawn(worker.run(shutdown.child_token()));
        tasks.spawn(Arc::clone(&services.auth).watch_revoked(shutdown.child_token()));
        tasks.spawn(watch_registry(Arc::clone(&services), shutdown.child_token()));
        tasks.spawn(refresh_gauges(Arc::clone(&services), shutdown.child_token()));
        tasks.close();
        banner(&services, address);

        let mut serving = tokio::spawn(http::serve(listener, Arc::clone(&services)));
        // Taking credits without a worker, or working without a server, helps nobody: then whoever watches the process
        // shall start it again.
        let (served, broken) = tokio::select! {
            signal = stop_signal() => (None, signal.err()),
            ended = &mut serving => (Some(ended), Some(anyhow::anyhow!("the server stopped by itself"))),
            ended = &mut working => (None, Some(match ended {
                Ok(()) => anyhow::anyhow!("the worker stopped by itself"),
                Err(error) => anyhow::Error::new(error).context("the worker failed"),
            })),
        };
        tracing::info!("stopping: no new connections, finishing what runs");
        shutdown.cancel();
        let served = match served {
            Some(served) => served,
            None => serving.await,
        };
        tasks.wait().await;
        services.store.close().await;
        tracing::info!("stopped");
        served.context("the server task failed")??;
        broken.map_or(Ok(()), Err)
    }
}

/// Resolves at SIGINT or SIGTERM.
async fn stop_signal() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Says where everything is and what is configured.
fn banner(services: &Services, address: std::net::SocketAddr) {
    let config = &services.config;
    let registry = services.shelf.get();
    let base = format!("http://{address}");
    let mut lines = vec![
        format!("velro {} ({})", env!("CARGO_PKG_VERSION"), config.environment.as_str()),
        format!("  API        {base}/api/v1"),
        format!("  docs       {base}/docs"),
        format!("  data       {}", config.data_dir.display()),
        format!(
            "  registry   {} ({} models)",
            config.providers_path.display(),
            registry.available(None).count()
        ),
    ];
    for provider in registry.providers.values() {
        let state = match services.providers.get(&provider.name).and_then(|p| p.not_ready.clone()) {
            _ if !provider.enabled => "switched off".to_owned(),
            Some(reason) => format!("not ready: {reason}"),
            None => "ready".to_owned(),
        };
        lines.push(format!("  provider   {}: {state}", provider.name));
    }
    println!("{}", lines.join("\n"));
}

/// Applies valid edits of `providers.toml`; jobs in flight keep the provider they began with.
async fn watch_registry(services: Arc<Services>, stop: CancellationToken) {
    let config = Arc::clone(&services.config);
    let providers = Arc::clone(&services.providers);
    let apply = move |registry: &Registry| {
        providers.add(&load_all(&config, registry));
        Ok(())
    };
    let path = services.config.providers_path.clone();
    let health = Arc::clone(&services.registry_health);
    Watcher::new(path, Arc::clone(&services.shelf), health, Box::new(apply))
        .run(stop)
        .await;
}

/// Gauges that the database and the queue know.
async fn refresh_gauges(services: Arc<Services>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(GAUGES_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match services.store.system_counts().await {
            Ok(counts) => services.metrics.system(&counts, clock::now()),
            Err(error) => tracing::warn!(error = %error, "cannot refresh the gauges"),
        }
        for name in services.shelf.get().providers.keys() {
            if let Ok(depth) = services.queue.depth(name).await {
                services.metrics.queue(name, depth);
            }
        }
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

/// One process per data folder: two would lead two queues over one database.
fn lock(data_dir: &Path) -> Result<File> {
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot create the data folder {}", data_dir.display()))?;
    let path = data_dir.join("velro.lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another velro serves from {}; stop it, or choose another folder with --data",
            data_dir.display()
        )
    })?;
    Ok(file)
}
