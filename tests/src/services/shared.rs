//! The servers that `make test` starts once for the whole run, and databases on them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::postgres::{create_database, execute};
use super::{Persistence, PgBouncer, Postgres, PostgresOptions, Redis};

/// Names the PostgreSQL server: a superuser's URL.
pub const POSTGRES: &str = "VELRO_TEST_POSTGRES";
/// Names the same server behind PgBouncer in transaction mode.
pub const PGBOUNCER: &str = "VELRO_TEST_PGBOUNCER";
/// Names the Redis server.
pub const REDIS: &str = "VELRO_TEST_REDIS";

/// The servers of a whole test run; they end when this is dropped.
#[derive(Debug)]
pub struct Services {
    // Dropped in this order: the pooler before the server behind it.
    pgbouncer: PgBouncer,
    postgres: Postgres,
    redis: Redis,
}

impl Services {
    /// Starts all three.
    ///
    /// # Errors
    /// If one is not installed or does not start.
    pub async fn start() -> Result<Self> {
        let (postgres, redis) = tokio::try_join!(
            Postgres::start(PostgresOptions::quick()),
            Redis::start(Persistence::None)
        )?;
        let pgbouncer = PgBouncer::start(postgres.port()).await?;
        Ok(Self {
            pgbouncer,
            postgres,
            redis,
        })
    }

    /// The variables [`shared()`] reads.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); 3] {
        [
            (POSTGRES, self.postgres.superuser_url()),
            (PGBOUNCER, self.pgbouncer.url("postgres")),
            (REDIS, self.redis.url()),
        ]
    }
}

/// Where the shared servers are.
#[derive(Debug, Clone)]
pub struct Shared {
    postgres: String,
    pgbouncer: String,
    /// `redis://127.0.0.1:PORT/`: shared by all tests, so use [`redis_prefix`](Self::redis_prefix) too.
    pub redis_url: String,
}

/// The servers of this test run.
///
/// # Errors
/// When the test was not started under the program `services`, as `make test` does. Tests fail then: nothing is skipped.
pub fn shared() -> Result<Shared> {
    let variable = |name| {
        std::env::var(name).with_context(|| {
            format!(
                "{name} is not set: this test needs PostgreSQL and Redis. `make test` starts them; `make services` starts \
                 them for tests that you run yourself"
            )
        })
    };
    Ok(Shared {
        postgres: variable(POSTGRES)?,
        pgbouncer: variable(PGBOUNCER)?,
        redis_url: variable(REDIS)?,
    })
}

impl Shared {
    /// An empty database of this test alone, removed when the value is dropped.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn create_database(&self) -> Result<Database> {
        let name = create_database(&self.postgres).await?;
        Ok(Database {
            url: with_database(&self.postgres, &name)?,
            pooled_url: format!("{}?pgbouncer=true", with_database(&self.pgbouncer, &name)?),
            superuser_url: self.postgres.clone(),
            name,
        })
    }

    /// A key prefix (`VELRO_REDIS_PREFIX`) that no other test has.
    #[must_use]
    pub fn redis_prefix(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("test-{}-{}:", now.as_secs(), uuid::Uuid::new_v4().simple())
    }
}

fn with_database(url: &str, name: &str) -> Result<String> {
    let mut url = url::Url::parse(url)?;
    url.set_path(name);
    Ok(url.into())
}

/// A database of one test.
#[derive(Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The way to it without a pooler.
    pub url: String,
    /// The way through PgBouncer, which the URL says.
    pub pooled_url: String,
    superuser_url: String,
}

impl Drop for Database {
    fn drop(&mut self) {
        // A test may drop it inside its runtime, which cannot be blocked from within.
        let (url, name) = (self.superuser_url.clone(), self.name.clone());
        let removal = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(execute(&url, format!("DROP DATABASE {name} WITH (FORCE)")))
        });
        // It goes with its server at the latest.
        let _ = removal.join();
    }
}
