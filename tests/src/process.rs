//! A Velro process inside the test's own: intake and worker over a store, so that a test can stop them at any point.

use anyhow::Result;
use std::path::Path;
use std::sync::Arc;

use velro::catalog::{Registry, Shelf};
use velro::clock;
use velro::config::{Config, Overrides};
use velro::id::UserId;
use velro::intake::Intake;
use velro::ledger::Credits;
use velro::outputs::Outputs;
use velro::provider::ProviderShelf;
use velro::queue::Queue;
use velro::queue::live::Live;
use velro::queue::memory::MemoryQueue;
use velro::store::sql::{OpenOptions, SqlStore};
use velro::store::{NewUser, Role, Store};
use velro::telemetry::Metrics;
use velro::upstream::Upstream;
use velro::worker::Tools;

/// A configuration with everything below `folder`, the shipped registry, private addresses allowed, and `more`
/// variables on top.
///
/// # Errors
/// If a variable is not valid.
pub fn config(folder: &Path, more: &[(&str, &str)]) -> Result<Config> {
    let data = folder.display().to_string();
    let base = [
        ("VELRO_DATA", data.as_str()),
        (
            "VELRO_PROVIDERS",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../providers.toml"),
        ),
        ("UPSTREAM_ALLOW_PRIVATE", "true"),
    ];
    let env = base
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Ok(Config::load(&Overrides::default(), &env)?.0)
}

/// A fresh store in `folder` with one user who has `credits`.
///
/// # Errors
/// If the database cannot be made.
pub async fn store_with_user(folder: &Path, credits: i64) -> Result<(Arc<dyn Store>, UserId)> {
    let options = OpenOptions {
        create: true,
        migrate: true,
    };
    let path = folder.join("velro.db").display().to_string();
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(&path, options).await?);
    let id = UserId::new();
    let new = NewUser {
        id,
        email: "a@example.com".into(),
        password_hash: None,
        full_name: None,
        role: Role::User,
        start_credits: Credits(credits),
        now: clock::now(),
    };
    store.create_user(new).await?;
    Ok((store, id))
}

/// What a process over `store` works with: a queue, a hub and shelves of its own.
///
/// # Errors
/// If the storage of outputs or TLS cannot be set up.
pub fn tools(
    config: &Config,
    store: Arc<dyn Store>,
    registry: Registry,
    providers: ProviderShelf,
) -> Result<(Intake, Tools)> {
    let queue = Arc::new(MemoryQueue::default());
    tools_over(config, store, queue, Arc::default(), registry, providers)
}

/// As [`tools`], over this queue and hub.
///
/// # Errors
/// If the storage of outputs or TLS cannot be set up.
pub fn tools_over(
    config: &Config,
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    live: Arc<Live>,
    registry: Registry,
    providers: ProviderShelf,
) -> Result<(Intake, Tools)> {
    let tools = Tools {
        store,
        queue,
        live,
        shelf: Arc::new(Shelf::new(registry)),
        providers: Arc::new(providers),
        upstream: Arc::new(Upstream::new(config)?),
        outputs: Arc::new(Outputs::new(config)?),
        metrics: Arc::new(Metrics::new()?),
        pauses: Arc::default(),
        notes: Arc::default(),
    };
    let intake = Intake {
        store: Arc::clone(&tools.store),
        shelf: Arc::clone(&tools.shelf),
        providers: Arc::clone(&tools.providers),
        queue: Arc::clone(&tools.queue),
        live: Arc::clone(&tools.live),
        pauses: Arc::clone(&tools.pauses),
        metrics: Arc::clone(&tools.metrics),
    };
    Ok((intake, tools))
}
