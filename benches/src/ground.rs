//! What a measurement stands on: a PostgreSQL of this command alone, with the settings of production, and fresh databases
//! in it or in files, so that no measurement finds the rows of another one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::services::{Postgres, PostgresOptions};
use velro::store::Store;
use velro::store::sql::{OpenOptions, SqlStore};

use crate::cpu::Whose;
use crate::people;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A server of its own.
    Postgres,
    /// A file.
    Sqlite,
}

impl Kind {
    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Postgres => "PostgreSQL",
            Kind::Sqlite => "SQLite",
        }
    }
}

/// The PostgreSQL server.
#[derive(Debug)]
pub struct Ground {
    postgres: Postgres,
    head: u32,
}

/// An empty database with the people in it.
#[derive(Debug)]
pub struct Database {
    /// As `DATABASE_URL`.
    pub url: String,
    folder: TempDir,
}

impl Database {
    /// The folder that goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Ground {
    /// Starts PostgreSQL with fsync and synchronous commits.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub async fn start() -> Result<Self> {
        let postgres = Postgres::start(PostgresOptions::default()).await?;
        let lock = std::fs::read_to_string(postgres.folder().join("data/postmaster.pid"))?;
        let head = lock.lines().next().and_then(|line| line.trim().parse().ok());
        Ok(Self {
            head: head.context("PostgreSQL has not noted its process")?,
            postgres,
        })
    }

    /// All of PostgreSQL's processes, to count their CPU time.
    #[must_use]
    pub fn postgres(&self) -> Whose {
        Whose::Family(self.head)
    }

    /// A database with the schema and the people.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn database(&self, kind: Kind) -> Result<Database> {
        let folder = tempfile::Builder::new().prefix("velro-bench-").tempdir()?;
        std::fs::create_dir(data_folder(folder.path()))?;
        let url = match kind {
            Kind::Postgres => self.postgres.url(&self.postgres.create_database().await?),
            Kind::Sqlite => format!("sqlite:{}", data_folder(folder.path()).join("velro.db").display()),
        };
        let database = Database { url, folder };
        let store = open(&database).await?;
        people::create(&*store).await?;
        store.close().await;
        Ok(database)
    }
}

/// Where a server keeps its data, and here its log too: it watches the folder of the registry, and would hear of every line.
#[must_use]
pub fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Opens the store over a database.
///
/// # Errors
/// If the database fails.
pub async fn open(database: &Database) -> Result<Arc<dyn Store>> {
    let everything = OpenOptions {
        create: true,
        migrate: true,
    };
    Ok(Arc::new(SqlStore::open(&database.url, everything).await?))
}
