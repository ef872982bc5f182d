//! The composition root: builds everything from a [`Config`] ([`build`]), runs it and takes it down in order ([`run`]).
//!
//! The only module that sees all others.

mod build;
mod clock;
pub mod commands;
mod copy;
pub mod desk;
mod erase;
mod gauges;
mod lock;
mod orders;
mod run;

use anyhow::{Context, Result};
use std::sync::Arc;
use tokio::net::TcpListener;

use crate::config::{Config, Database};
use crate::store::Store;
use crate::store::sql::{OpenOptions, SqlStore};
use crate::telemetry::LogLevels;
use build::App;

/// Opens the configured store. `create` makes what is not there at all, `migrate` brings an older schema up to date;
/// without them such a database is refused with the remedy.
pub async fn open_store(config: &Config, options: OpenOptions) -> Result<Arc<dyn Store>> {
    if config.database() == Database::Sqlite {
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))?;
    }
    let store = SqlStore::open(config.database_url.expose(), options)
        .await
        .context("cannot open the database")?;
    Ok(Arc::new(store))
}

/// Runs the server until SIGINT or SIGTERM.
pub async fn serve(mut config: Config, levels: LogLevels) -> Result<()> {
    // Bind before anything moves: a port in use must not leave half a server running.
    let listener = listen(&config.host, config.port, "HOST and PORT").await?;
    config.port = listener.local_addr()?.port();
    let metrics_listener = match config.metrics_port {
        Some(port) => Some(listen(&config.host, port, "METRICS_PORT").await?),
        None => None,
    };
    if let Some(listener) = &metrics_listener {
        config.metrics_port = Some(listener.local_addr()?.port());
    }
    if !config.public_url_is_set {
        config.public_url = config.local_url();
    }
    App::build(config, Arc::new(levels))
        .await?
        .run(listener, metrics_listener)
        .await
}

async fn listen(host: &str, port: u16, settings: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind((host, port)).await;
    listener.with_context(|| format!("cannot listen on {host}:{port}; set {settings}"))
}
