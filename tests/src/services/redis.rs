//! A Redis server.

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::daemon::Daemon;
use super::programs;
use crate::ports::free_port;

/// What a Redis still knows after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    None,
    /// All but about the last second (`appendonly yes`, `appendfsync everysec`).
    EverySecond,
}

/// A Redis server without a password.
#[derive(Debug)]
pub struct Redis {
    daemon: Daemon,
    persistence: Persistence,
    port: u16,
}

impl Redis {
    /// Starts an empty server.
    ///
    /// # Errors
    /// If Redis is not installed or does not start.
    pub async fn start(persistence: Persistence) -> Result<Self> {
        let mut server = Self {
            daemon: Daemon::new("redis", "KILL")?,
            persistence,
            port: free_port()?,
        };
        server.start_again().await?;
        Ok(server)
    }

    /// `redis://127.0.0.1:PORT/`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forgets every key.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn flush_all(&self) -> Result<()> {
        command(self.port, "FLUSHALL").await.map(drop)
    }

    /// How many keys there are.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn keys(&self) -> Result<u64> {
        let answer = command(self.port, "DBSIZE").await?;
        answer
            .trim_start_matches(':')
            .parse()
            .with_context(|| format!("DBSIZE answered {answer}"))
    }

    /// Stops it as an administrator would.
    ///
    /// # Errors
    /// If it does not run or does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.daemon.stop("TERM").await
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill9(&mut self) -> Result<()> {
        self.daemon.stop("KILL").await
    }

    /// Starts it again on the same port, with what it has kept.
    ///
    /// # Errors
    /// If it runs or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        let mut line = self.daemon.home.server_command(&programs::find("redis-server")?);
        let append = match self.persistence {
            Persistence::None => "no",
            Persistence::EverySecond => "yes",
        };
        line.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        line.args(["--save", "", "--appendonly", append, "--appendfsync", "everysec"]);
        let port = self.port;
        self.daemon
            .start(line, async || command(port, "PING").await.map(drop))
            .await
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

/// Sends one command as a line and gives the line of the answer.
async fn command(port: u16, text: &str) -> Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    match answer.trim_end() {
        "" => bail!("{text}: Redis closed the connection"),
        error if error.starts_with('-') => bail!("{text}: Redis answered {error}"),
        answer => Ok(answer.to_owned()),
    }
}
