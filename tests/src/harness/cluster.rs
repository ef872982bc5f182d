//! Several `velro` processes over one PostgreSQL and one Redis, as in production.
//!
//! They share a folder (for the outputs), a database and a key prefix. What is asserted at the end of a test of one
//! process is asserted here once, when the last replica has ended: every one ended in an orderly way, the ledger is
//! clean and no hold is left open.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use tempfile::TempDir;

use super::server::new_folder;
use super::{Options, Server};
use crate::services::{Database, Persistence, Postgres, PostgresOptions, Proxy, Redis, shared};

/// What a replica does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// API and worker in one process.
    All,
    /// Answers clients.
    Api,
    /// Works on generations.
    Worker,
}

impl Role {
    /// The value of `VELRO_ROLE`.
    fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }
}

/// What a cluster stands on.
#[derive(Debug, Clone, Copy)]
enum Ground {
    /// The servers of the test run.
    Shared,
    /// The same, with PgBouncer in between.
    Pooled,
    /// Servers of its own behind proxies, to be stopped and cut.
    Own(Persistence),
}

/// How to start a [`Cluster`].
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    roles: Vec<Role>,
    options: Options,
    ground: Ground,
    at_once: bool,
}

impl ClusterOptions {
    /// A replica for each role, over the servers of the test run. The first one is what clients speak to.
    #[must_use]
    pub fn new(roles: &[Role]) -> Self {
        Self {
            roles: roles.to_vec(),
            options: Options::new(),
            ground: Ground::Shared,
            at_once: false,
        }
    }

    /// How every replica is set up.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// PostgreSQL is reached through PgBouncer in transaction mode.
    #[must_use]
    pub fn pooled(mut self) -> Self {
        self.ground = Ground::Pooled;
        self
    }

    /// PostgreSQL and Redis are the cluster's own: see [`Cluster::own`].
    #[must_use]
    pub fn own_services(mut self, redis: Persistence) -> Self {
        self.ground = Ground::Own(redis);
        self
    }

    /// All replicas start at the same moment, and not the first one before the others.
    #[must_use]
    pub fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }
}

/// Servers of one cluster, each behind a proxy.
#[derive(Debug)]
pub struct OwnServices {
    /// Keeps what it has committed, whatever happens to it.
    pub postgres: Postgres,
    /// The way of every replica to PostgreSQL.
    pub to_postgres: Proxy,
    /// May forget everything.
    pub redis: Redis,
    /// The way of every replica to Redis.
    pub to_redis: Proxy,
}

impl OwnServices {
    async fn start(persistence: Persistence) -> Result<Self> {
        let (postgres, redis) =
            tokio::try_join!(Postgres::start(PostgresOptions::default()), Redis::start(persistence))?;
        Ok(Self {
            to_postgres: Proxy::start(postgres.port()).await?,
            to_redis: Proxy::start(redis.port()).await?,
            postgres,
            redis,
        })
    }
}

/// Kept as long as the replicas run.
#[derive(Debug)]
enum Services {
    Shared { _database: Database },
    Own(Box<OwnServices>),
}

/// Several `velro` processes over the same data. Dropping it stops them and makes the closing assertions.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: what the replicas stand on must outlive them.
    replicas: Vec<Server>,
    services: Services,
}

impl Cluster {
    /// Starts a cluster on an empty database and waits until every replica is ready.
    pub async fn start(options: ClusterOptions) -> Self {
        Self::try_start(options)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The same, where it may fail.
    ///
    /// # Errors
    /// If a service or a replica does not start.
    pub async fn try_start(options: ClusterOptions) -> Result<Self> {
        let (services, common) = prepare(options.ground, options.options).await?;
        let folder = new_folder(&common)?;
        let mut replicas = Vec::new();
        if options.at_once {
            let starts = options.roles.iter().enumerate();
            let starts = starts.map(|(number, role)| start_replica(&folder, &common, *role, number));
            replicas = try_join_all(starts).await?;
        } else {
            let mut common = common;
            for (number, role) in options.roles.iter().enumerate() {
                let replica = start_replica(&folder, &common, *role, number).await?;
                if common.webhooks {
                    // Providers call the first one, whoever asks them to.
                    common.webhooks = false;
                    common = common.env("PUBLIC_URL", &replica.base_url);
                }
                replicas.push(replica);
            }
        }
        Ok(Self { replicas, services })
    }

    /// The replica clients speak to.
    #[must_use]
    pub fn api(&self) -> &Server {
        self.replica(0)
    }

    /// A replica, in the order of the roles.
    #[must_use]
    pub fn replica(&self, number: usize) -> &Server {
        &self.replicas[number]
    }

    /// A replica to be killed and restarted.
    pub fn replica_mut(&mut self, number: usize) -> &mut Server {
        &mut self.replicas[number]
    }

    /// The servers of a cluster that has its own.
    pub fn own(&mut self) -> &mut OwnServices {
        match &mut self.services {
            Services::Own(own) => own,
            Services::Shared { .. } => panic!("the cluster shares its servers with other tests"),
        }
    }

    /// What every test of a cluster ends with.
    fn close(&mut self) -> Result<()> {
        for replica in &mut self.replicas {
            replica.close_process()?;
        }
        let first = self.replicas.first().context("a cluster has replicas")?;
        first.close_books()
    }
}

impl Drop for Cluster {
    #[allow(clippy::print_stderr, reason = "the logs belong into the report of a failed test")]
    fn drop(&mut self) {
        let failure = match std::thread::panicking() {
            true => None,
            false => self.close().err(),
        };
        if let (true, Services::Own(own)) = (std::thread::panicking() || failure.is_some(), &self.services) {
            eprintln!("-- log of PostgreSQL --\n{}", own.postgres.log());
            eprintln!("-- log of Redis --\n{}", own.redis.log());
        }
        if let Some(error) = failure {
            // The replicas are dropped while this unwinds, and print theirs.
            panic!("{error:#}");
        }
    }
}

/// The servers, and what the replicas have to know of them.
async fn prepare(ground: Ground, options: Options) -> Result<(Services, Options)> {
    if let Ground::Own(persistence) = ground {
        let own = OwnServices::start(persistence).await?;
        let database = own.postgres.create_database().await?;
        let port = own.to_postgres.port();
        let options = options
            .env(
                "DATABASE_URL",
                format!("postgres://postgres@127.0.0.1:{port}/{database}"),
            )
            .env("REDIS_URL", format!("redis://127.0.0.1:{}/", own.to_redis.port()));
        return Ok((Services::Own(Box::new(own)), options));
    }
    let shared = shared()?;
    let database = shared.create_database().await?;
    let url = match ground {
        Ground::Pooled => &database.pooled_url,
        _ => &database.url,
    };
    let options = options
        .env("DATABASE_URL", url)
        .env("REDIS_URL", &shared.redis_url)
        .env("VELRO_REDIS_PREFIX", shared.redis_prefix());
    Ok((Services::Shared { _database: database }, options))
}

async fn start_replica(folder: &Arc<TempDir>, common: &Options, role: Role, number: usize) -> Result<Server> {
    let name = format!("replica {number}, role {}", role.as_str());
    let options = common.clone().env("VELRO_ROLE", role.as_str()).replica(name.clone());
    Server::try_in(Arc::clone(folder), options).await.context(name)
}
