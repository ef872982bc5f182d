//! The services Velro runs on and beside in production, started for tests: PostgreSQL, PgBouncer, Redis and Prometheus of
//! this machine, each in a folder and on ports of its own, and a proxy that breaks connections.
//!
//! Two ways to use them:
//!
//! - [`shared()`]: the servers that `make test` has started for the whole run (the program `services`), for tests that
//!   only need a database or a key space of their own;
//! - [`Postgres::start`], [`PgBouncer::start`], [`Redis::start`], [`Prometheus::start`], [`Proxy::start`]: servers of one
//!   test, to be stopped, killed and cut.
//!
//! # Invariants
//!
//! - A server that is dropped is gone with its folder, and so is one whose test was killed: a watchdog per server waits
//!   for the end of the test's process, however it comes about.
//! - Every start waits until the server answers, and an error says what its log says.
//! - Nothing of the machine is used but the programs: no cluster of the distribution, no service, no fixed port.

mod daemon;
mod home;
mod pgbouncer;
mod postgres;
mod programs;
mod prometheus;
mod proxy;
mod redis;
mod shared;

pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, PostgresOptions};
pub use programs::find as program;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use redis::{Persistence, Redis};
pub use shared::{Database, PGBOUNCER, POSTGRES, REDIS, Services, Shared, shared};

/// How long a server may take to start, on a busy machine and after a crash.
const START_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
