//! The composition root: builds everything from a [`Config`] ([`build`]), runs it and takes it down in order ([`run`]).
//!
//! The only module that sees all others.

mod build;
mod clock;
pub mod commands;
pub mod desk;
mod run;

use anyhow::{Context, Result};
use std::sync::Arc;
use tokio::net::TcpListener;

use crate::config::{Config, Database};
use crate::store::Store;
use crate::store::sqlite::{OpenOptions, SqliteStore};
use build::App;

/// Opens the configured store. `migrate` brings the schema up to date; without it an unknown schema is refused.
pub async fn open_store(config: &Config, migrate: bool) -> Result<Arc<dyn Store>> {
    let url = config.database_url.expose();
    match config.database() {
        Database::Sqlite => {
            std::fs::create_dir_all(&config.data_dir)
                .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))?;
            let store = SqliteStore::open(url, OpenOptions { create: true, migrate })
                .await
                .context("cannot open the database")?;
            Ok(Arc::new(store))
        }
        Database::Postgres => {
            anyhow::bail!("DATABASE_URL names a PostgreSQL server, which this build has no store for")
        }
    }
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
