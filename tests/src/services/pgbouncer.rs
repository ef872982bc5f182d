//! PgBouncer in transaction mode, as Supabase and many companies put it in front of PostgreSQL.
//!
//! It is configured as strictly as it comes: no start-up parameter is ignored, and prepared statements are not tracked
//! (versions before 1.21 cannot). A client that wants `extra_float_digits`, or a statement that outlives its transaction,
//! is refused here before it is in production.

use anyhow::Result;

use super::daemon::Daemon;
use super::postgres::answers;
use super::programs;
use crate::ports::free_port;

/// Connections to the server for each database.
const POOL_SIZE: usize = 20;

/// A pooler that knows every database of its server.
#[derive(Debug)]
pub struct PgBouncer {
    daemon: Daemon,
    port: u16,
}

impl PgBouncer {
    /// Starts a pooler for the server at this port of 127.0.0.1.
    ///
    /// # Errors
    /// If PgBouncer is not installed or does not start.
    pub async fn start(postgres_port: u16) -> Result<Self> {
        Self::start_as(postgres_port, "postgres").await
    }

    /// The same, as another user of the server, whoever asks.
    ///
    /// # Errors
    /// If PgBouncer is not installed or does not start.
    pub async fn start_as(postgres_port: u16, user: &str) -> Result<Self> {
        let port = free_port()?;
        let daemon = Daemon::new("pgbouncer", "KILL")?;
        let mut pooler = Self { daemon, port };
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={postgres_port} user={user}\n\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 2000\n\
             server_login_retry = 1\nlog_connections = 0\nlog_disconnections = 0\n"
        );
        std::fs::write(pooler.daemon.home.path().join("pgbouncer.ini"), configuration)?;
        pooler.start_again().await?;
        Ok(pooler)
    }

    /// A URL for a database of the server; Velro is told of the transaction mode with `?pgbouncer=true` on top.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill9(&mut self) -> Result<()> {
        self.daemon.stop("KILL").await
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// If it runs or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        let mut command = self.daemon.home.server_command(&programs::find("pgbouncer")?);
        command.arg("pgbouncer.ini");
        let url = self.url("postgres");
        self.daemon.start(command, async || answers(&url).await).await
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
