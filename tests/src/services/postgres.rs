//! A PostgreSQL server.

use std::path::PathBuf;
use std::str::FromStr as _;

use anyhow::{Context as _, Result, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::daemon::{Daemon, kill};
use super::programs;
use crate::ports::free_port;
use crate::tls::Identity;

/// Ports are taken between looking and binding; how often to try another one.
const PORT_TRIES: usize = 5;

/// Longest path of a socket's folder that leaves room for the socket's name.
const LONGEST_SOCKET_FOLDER: usize = 80;

/// How to start a [`Postgres`].
#[derive(Debug, Clone, Copy)]
pub struct PostgresOptions {
    /// Whether a commit survives a crash of the machine. A crash of the server it survives in any case.
    pub fsync: bool,
    /// Most connections at once.
    pub max_connections: u16,
}

impl Default for PostgresOptions {
    /// As in production.
    fn default() -> Self {
        Self {
            fsync: true,
            max_connections: 300,
        }
    }
}

impl PostgresOptions {
    /// For tests that do not stop the server.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            fsync: false,
            ..Self::default()
        }
    }
}

/// A PostgreSQL server with the superuser `postgres` and without a password, on 127.0.0.1 and on a socket in its folder.
#[derive(Debug)]
pub struct Postgres {
    daemon: Daemon,
    options: PostgresOptions,
    program: PathBuf,
    port: u16,
}

impl Postgres {
    /// Creates a cluster and starts it.
    ///
    /// # Errors
    /// If PostgreSQL is not installed or does not start.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let initdb = programs::find("initdb")?;
        let program = initdb.with_file_name("postgres");
        ensure!(
            program.is_file(),
            "there is an initdb without a server: {}",
            initdb.display()
        );
        // SIGQUIT ends it at once and frees its shared memory; after SIGKILL that would stay.
        let daemon = Daemon::new("pg", "QUIT")?;
        let mut command = daemon.home.command(&initdb);
        command.args([
            "--pgdata=data",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
        ]);
        command.args(["--no-locale", "--no-instructions", "--no-sync"]);
        let output = tokio::process::Command::from(command)
            .output()
            .await
            .context("run initdb")?;
        ensure!(
            output.status.success(),
            "initdb: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let port = free_port()?;
        let mut server = Self {
            daemon,
            options,
            program,
            port,
        };
        for _ in 1..PORT_TRIES {
            match server.launch().await {
                Ok(()) => return Ok(server),
                Err(_) if server.daemon.lost_its_port() => server.port = free_port()?,
                Err(error) => return Err(error),
            }
        }
        server.launch().await?;
        Ok(server)
    }

    async fn launch(&mut self) -> Result<()> {
        let mut command = self.daemon.home.server_command(&self.program);
        command.args(["-D", "data"]);
        let folder = self.daemon.home.path().to_str().context("the path is UTF-8")?;
        // Elsewhere it would be found by accident; nowhere if the path is too long for a socket.
        let sockets = if folder.len() <= LONGEST_SOCKET_FOLDER {
            folder
        } else {
            ""
        };
        let fsync = if self.options.fsync { "on" } else { "off" };
        let settings = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", sockets.to_owned()),
            ("max_connections", self.options.max_connections.to_string()),
            ("fsync", fsync.to_owned()),
            ("full_page_writes", fsync.to_owned()),
            // In the folder, so that it goes with it.
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            ("log_line_prefix", "%m [%p] %d ".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
        ];
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let url = self.superuser_url();
        self.daemon.start(command, async || answers(&url).await).await
    }

    /// A URL of the superuser for a database of this server.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of the database `postgres`, for `CREATE DATABASE`.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        self.url("postgres")
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// An empty database; gives its name.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn create_database(&self) -> Result<String> {
        create_database(&self.superuser_url()).await
    }

    /// Stops it as an administrator would (`fast`): transactions are rolled back, nothing is lost.
    ///
    /// # Errors
    /// If it does not run or does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.daemon.stop("INT").await
    }

    /// Ends it without a checkpoint (`immediate`): the next start recovers from the log.
    ///
    /// # Errors
    /// If it does not run or does not end.
    pub async fn stop_immediately(&mut self) -> Result<()> {
        self.daemon.stop("QUIT").await
    }

    /// SIGKILL to all its processes, as when the machine dies.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill9(&mut self) -> Result<()> {
        let server = self.daemon.pid().context("PostgreSQL does not run")?;
        // The server first: it would restart its children.
        let children = children_of(server);
        self.daemon.stop("KILL").await?;
        for &child in &children {
            // Many end by themselves when the server is gone.
            let _ = kill("KILL", child);
        }
        // A start while one of them still holds the shared memory is refused.
        let is_gone = |child: &u32| !std::path::Path::new(&format!("/proc/{child}")).exists();
        while !children.iter().all(is_gone) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Starts it again on the same data and port.
    ///
    /// # Errors
    /// If it runs or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        self.launch().await
    }

    /// Stops it and starts it again.
    ///
    /// # Errors
    /// If it does not run, does not end or does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Restarts it with TLS on; connections without it are still accepted.
    ///
    /// # Errors
    /// If it does not take the certificate.
    pub async fn speak_tls(&mut self, identity: &Identity) -> Result<()> {
        // Written by the server itself, so that the key is its own and nobody else's.
        let files = [("server.crt", &identity.certificate), ("server.key", &identity.key)];
        for (name, pem) in files {
            let write =
                format!("COPY (SELECT string_to_table($pem${pem}$pem$, E'\\n')) TO PROGRAM 'umask 077; cat > {name}'");
            execute(&self.superuser_url(), write).await?;
        }
        execute(&self.superuser_url(), "ALTER SYSTEM SET ssl = on".to_owned()).await?;
        self.restart().await
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.daemon.home.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.daemon.is_running() {
            return;
        }
        // Killed and not started again: its segment of shared memory is still there. The seventh line of its lock file
        // says which; an orderly stop has removed the file.
        let lock = std::fs::read_to_string(self.folder().join("data/postmaster.pid")).unwrap_or_default();
        let segment = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(segment) = segment {
            // A machine without `ipcrm` keeps 56 bytes.
            let _ = std::process::Command::new("ipcrm").args(["-m", segment]).status();
        }
    }
}

/// The processes whose parent is `parent`.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // `pid (name) state ppid ...`, and a name may have spaces and brackets.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
        fields.and_then(|mut fields| fields.nth(1)?.parse().ok()) == Some(parent)
    };
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}

/// Options for a connection that also PgBouncer takes: it refuses start-up parameters it does not know, and in
/// transaction mode a statement that was prepared is gone with the next transaction.
pub(super) fn connect_options(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).with_context(|| format!("not a URL of PostgreSQL: {url}"))?;
    Ok(options.extra_float_digits(None).statement_cache_capacity(0))
}

/// Asks a server for something that needs a database.
pub(super) async fn answers(url: &str) -> Result<()> {
    let mut connection = connect_options(url)?.connect().await?;
    sqlx::raw_sql("SELECT 1").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Runs statements.
pub(super) async fn execute(url: &str, statements: String) -> Result<()> {
    let mut connection = connect_options(url)?.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

/// Creates an empty database on the server of a superuser's URL.
pub(super) async fn create_database(superuser_url: &str) -> Result<String> {
    let name = format!("velro_{}", uuid::Uuid::new_v4().simple());
    execute(superuser_url, format!("CREATE DATABASE {name}")).await?;
    Ok(name)
}
