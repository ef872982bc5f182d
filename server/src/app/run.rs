//! Runs what was built, and takes it down in order.
//!
//! Shutdown runs backwards: say that the process is not ready and begin nothing, stop accepting (after a delay, when load
//! balancers need to hear of it), end the streams, finish requests, drain the worker (leases are given back),
//! close the store. All of it within `VELRO_SHUTDOWN_GRACE_SECONDS`; what is cut off goes on elsewhere.

use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::build::App;
use super::erase::keep_erasing;
use super::gauges::{keep_checking, refresh_gauges};
use crate::catalog::Registry;
use crate::clock;
use crate::config::Role;
use crate::config::watch::Watcher;
use crate::desk::{load_log_level, load_pauses};
use crate::http::{self, Services};
use crate::plugin::aside;
use crate::queue::live::Signal;

/// How often orders are looked through for those that nobody can pay any more.
const ORDERS_EVERY: Duration = Duration::from_secs(600);
/// How often what operators have stopped is read.
const PAUSES_EVERY: Duration = Duration::from_secs(2);

/// The last words of a stop (giving leases back, closing the store) get this long even if the grace is shorter.
const SHORTEST_END: Duration = Duration::from_secs(1);

/// A piece of the server that runs by itself, beside the HTTP server. What that serves depends on the role too: the REST
/// surface, or only probes and metrics (`http::service`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Works on generations.
    Worker,
    /// Hears which sessions were ended elsewhere, so that their access tokens are refused.
    EndedSessions,
    /// Keeps the public keys of the service that keeps the accounts, where there is one.
    AccountKeys,
    /// Applies edits of `providers.toml`.
    Registry,
    /// Keeps the gauges fresh that need the database or the queue.
    Gauges,
    /// Recomputes the books every now and then.
    Books,
    /// Erases what people who have left have left behind.
    Erasing,
    /// Ends orders that no payment provider heard of.
    Orders,
    /// Follows the database's clock.
    Clock,
    /// Knows what operators have stopped.
    Pauses,
}

/// What runs in which role.
fn pieces(role: Role) -> &'static [Piece] {
    use Piece::{AccountKeys, Books, Clock, EndedSessions, Erasing, Gauges, Orders, Pauses, Registry, Worker};
    match role {
        Role::All => &[
            Worker,
            EndedSessions,
            AccountKeys,
            Registry,
            Gauges,
            Books,
            Orders,
            Erasing,
            Clock,
            Pauses,
        ],
        Role::Api => &[EndedSessions, AccountKeys, Registry, Gauges, Orders, Clock, Pauses],
        Role::Worker => &[Worker, Registry, Gauges, Books, Erasing, Clock, Pauses],
    }
}

impl App {
    /// Runs until SIGINT or SIGTERM, then drains.
    pub(super) async fn run(self, listener: TcpListener, metrics_listener: Option<TcpListener>) -> Result<()> {
        let App {
            services,
            store,
            worker,
            follower,
            shutdown,
            _lock,
        } = self;
        let address = listener.local_addr()?;
        let (tasks, role) = (TaskTracker::new(), services.config.role);
        let (mut worker, mut follower) = (Some(worker), Some(follower));
        let mut working = None;
        for piece in pieces(role) {
            let (of_task, stop) = (Arc::clone(&services), shutdown.child_token());
            match piece {
                // It begins nothing once the process is told to stop, however long connections are still taken.
                Piece::Worker => {
                    let stop = services.leaving.child_token();
                    working = worker.take().map(|worker| tasks.spawn(worker.run(stop)));
                }
                Piece::EndedSessions => drop(tasks.spawn(Arc::clone(&services.auth).watch_revoked(stop))),
                Piece::AccountKeys => drop(tasks.spawn(Arc::clone(&services.auth).keep_keys(stop))),
                Piece::Registry => drop(tasks.spawn(watch_registry(of_task, stop))),
                Piece::Pauses => drop(tasks.spawn(watch_pauses(of_task, stop))),
                Piece::Books => drop(tasks.spawn(keep_checking(of_task, Arc::clone(&store), stop))),
                Piece::Gauges => drop(tasks.spawn(refresh_gauges(of_task, stop))),
                Piece::Erasing => drop(tasks.spawn(keep_erasing(of_task, stop))),
                Piece::Orders => drop(tasks.spawn(forget_orders(of_task, stop))),
                Piece::Clock => drop(follower.take().map(|follower| tasks.spawn(follower.keep(stop)))),
            }
        }
        tasks.close();
        banner(&services, address);

        let mut serving = tokio::spawn(http::serve(listener, Arc::clone(&services)));
        let metrics =
            metrics_listener.map(|listener| tokio::spawn(http::serve_metrics(listener, Arc::clone(&services))));
        let worked = async {
            match &mut working {
                Some(working) => working.await,
                None => std::future::pending().await,
            }
        };
        // Taking credits without a worker, or working without a server, helps nobody: then whoever watches the process
        // shall start it again.
        let (served, broken) = tokio::select! {
            signal = stop_signal() => (None, signal.err()),
            ended = &mut serving => (Some(ended), Some(anyhow::anyhow!("the server stopped by itself"))),
            ended = worked => (None, Some(match ended {
                Ok(()) => anyhow::anyhow!("the worker stopped by itself"),
                Err(error) => anyhow::Error::new(error).context("the worker failed"),
            })),
        };
        let last_moment = Instant::now() + services.config.shutdown_grace.max(SHORTEST_END);
        services.leaving.cancel();
        let delay = services.config.shutdown_delay;
        if served.is_none() && broken.is_none() && !delay.is_zero() {
            tracing::info!(
                seconds = delay.as_secs(),
                "stopping: not ready any more, still taking connections for a while"
            );
            // A second signal means at once.
            let _ = timeout(delay, stop_signal()).await;
        }
        tracing::info!("stopping: no new connections, finishing what runs");
        shutdown.cancel();
        let served = match served {
            Some(served) => served,
            None => serving.await,
        };
        if let Some(metrics) = metrics {
            let _ = timeout_at(last_moment, metrics).await;
        }
        // A database that is away must not keep the process from ending.
        if timeout_at(last_moment, tasks.wait()).await.is_err() {
            tracing::warn!(
                "the grace is over with work in flight; another process takes it up when its leases run out"
            );
        }
        let close_by = last_moment.saturating_duration_since(Instant::now()).max(SHORTEST_END);
        if timeout(close_by, store.close()).await.is_err() {
            tracing::warn!("the store did not close in time");
        }
        tracing::info!("stopped");
        served.map_err(|error| anyhow::Error::new(error).context("the server task failed"))??;
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
fn banner(services: &Services, address: SocketAddr) {
    let config = &services.config;
    let registry = services.shelf.get();
    let base = format!("http://{address}");
    let mut lines = vec![
        format!("velro {} ({})", env!("CARGO_PKG_VERSION"), config.environment.as_str()),
        format!("  role       {}", config.role.as_str()),
    ];
    lines.extend(match config.role.serves_api() {
        true => vec![
            format!("  API        {base}/api/v1"),
            format!("  docs       {base}/docs"),
        ],
        false => vec![format!("  probes     {base}/health/ready")],
    });
    let metrics_port = config.metrics_port.unwrap_or(address.port());
    let metrics = SocketAddr::new(address.ip(), metrics_port);
    lines.push(format!("  metrics    http://{metrics}/metrics"));
    if let Some(auth_url) = config.supabase.auth_url() {
        lines.push(format!("  accounts   {auth_url}"));
    }
    lines.extend([
        format!("  data       {}", config.data_dir.display()),
        format!(
            "  registry   {} ({} models)",
            config.providers_path.display(),
            registry.available(None).count()
        ),
    ]);
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
        // Reads, copies and maps libraries.
        aside(|| providers.take_up(&config, registry)).map_err(|faults| faults.to_string())
    };
    let path = services.config.providers_path.clone();
    let health = Arc::clone(&services.registry_health);
    Watcher::new(path, Arc::clone(&services.shelf), health, Box::new(apply))
        .run(stop)
        .await;
}

/// Keeps reading what operators have stopped, and which log level they asked for: every few seconds, and at once when another replica says so. While the database
/// is away, what is known stays known.
async fn watch_pauses(services: Arc<Services>, stop: CancellationToken) {
    let mut signals = services.live.signals();
    let mut tick = tokio::time::interval(PAUSES_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => false,
            signal = signals.recv() => match signal {
                Ok(Signal::Pauses) => true,
                _ => continue,
            },
        };
        let store = services.store.as_ref();
        let levels = load_log_level(store, &services.levels, clock::now()).await;
        let pauses = load_pauses(store, &services.pauses, &services.metrics).await;
        match pauses.and_then(|changed| levels.map(|()| changed)) {
            Ok(changed) => {
                failing = false;
                // What may begin now waits for nobody.
                if changed || told {
                    services.live.look_here();
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = %error, "cannot read what operators have set; the last known state stays");
            }
            Err(_) => {}
        }
    }
}

/// Orders whose buyer's call died before the payment provider heard of them.
async fn forget_orders(services: Arc<Services>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(ORDERS_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match services.payments.forget_old(clock::now()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "ended orders that were never brought to the payment provider"),
            Err(error) => tracing::warn!(error = %error, "cannot look through the orders"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_somewhere_and_all_is_all() {
        for role in Role::ALL {
            let runs = |piece| pieces(role).contains(&piece);
            assert_eq!(runs(Piece::Worker), role.works(), "{role:?}");
            assert_eq!(runs(Piece::EndedSessions), role.serves_api(), "{role:?}");
            assert_eq!(runs(Piece::AccountKeys), role.serves_api(), "{role:?}");
            assert_eq!(runs(Piece::Books), role.works(), "{role:?}");
            assert_eq!(runs(Piece::Orders), role.serves_api(), "{role:?}");
            assert!(
                pieces(role).iter().all(|piece| pieces(Role::All).contains(piece)),
                "{role:?}"
            );
        }
    }
}
