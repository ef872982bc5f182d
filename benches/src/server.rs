//! The release build of `velro` as a process, with the settings it is shipped with, but for the limits of rates and a
//! provider that never answers.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::harness::{FAL_KEY, JWT_SECRET};
use tests::ports::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use velro::id::GenerationId;

use crate::cpu::Whose;
use crate::ground::{Database, data_folder};
use crate::people;
use crate::requests::PROVIDER;

/// How long a start may take, with a hundred thousand jobs to look at.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// The shipped registry.
const REGISTRY: &str = include_str!("../../providers.toml");

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Base URL of FAL; without one, a port where nobody answers.
    pub fal: Option<String>,
    /// Generations at the provider at once.
    pub concurrency: u32,
    /// Slowest polling of the provider.
    pub poll_ceiling_ms: Option<u32>,
    /// More of its environment.
    pub env: Vec<(String, String)>,
}

impl Default for Setup {
    /// The queue only grows: the provider takes one generation and says nothing.
    fn default() -> Self {
        Self {
            fal: None,
            concurrency: 1,
            poll_ceiling_ms: None,
            env: Vec::new(),
        }
    }
}

/// A `velro` process over a [`Database`]; killed when dropped.
#[derive(Debug)]
pub struct Velro {
    /// Where it listens.
    pub address: SocketAddr,
    /// From the start of the process to its readiness.
    pub started_in: Duration,
    child: Child,
    folder: PathBuf,
    env: Vec<(String, String)>,
    /// Accepts connections and never answers.
    _silence: TcpListener,
}

impl Velro {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If there is no release build, or it does not become ready.
    pub async fn start(database: &Database, setup: &Setup) -> Result<Self> {
        let folder = database.folder().to_path_buf();
        write_registry(&folder, setup)?;
        let silence = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let fal = match &setup.fal {
            Some(url) => url.clone(),
            None => format!("http://{}", silence.local_addr()?),
        };
        let port = free_port()?;
        let mut env: Vec<(String, String)> = [
            ("HOST", "127.0.0.1"),
            ("PORT", &port.to_string()),
            ("DATABASE_URL", &database.url),
            ("JWT_SECRET", JWT_SECRET),
            ("RATE_LIMIT_ENABLED", "false"),
            ("FAL_KEY", FAL_KEY),
            ("FAL_QUEUE_URL", &fal),
            ("FAL_RUN_URL", &fal),
            ("FAL_REST_URL", &fal),
            ("UPSTREAM_ALLOW_PRIVATE", "true"),
            // What waits for the silent provider is not waited for.
            ("VELRO_SHUTDOWN_GRACE_SECONDS", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        env.extend(setup.env.iter().cloned());
        let log = File::create(data_folder(&folder).join("log"))?;
        let began = Instant::now();
        let child = command(&folder, &env)?
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start velro")?;
        let mut velro = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            started_in: Duration::ZERO,
            child,
            folder,
            env,
            _silence: silence,
        };
        while get(velro.address, "/health/ready").await.is_err() {
            if let Some(status) = velro.child.try_wait()? {
                bail!("velro ended with {status}:\n{}", velro.log());
            }
            ensure!(began.elapsed() < START_PATIENCE, "velro is not ready:\n{}", velro.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        velro.started_in = began.elapsed();
        Ok(velro)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its CPU time.
    #[must_use]
    pub fn cpu(&self) -> Whose {
        Whose::Process(self.pid())
    }

    /// Applies another registry, as an operator would: by editing the file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn edit_registry(&self, setup: &Setup) -> Result<()> {
        write_registry(&self.folder, setup)
    }

    /// The value of a metric with exactly these labels, as written in `/metrics`.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn metric(&self, name_and_labels: &str) -> Result<Option<f64>> {
        let text = get(self.address, "/metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels));
        Ok(line.and_then(|value| value.trim().parse().ok()))
    }

    /// How many jobs are before a generation of a person; `None` while it has no place in the queue.
    ///
    /// # Errors
    /// If the server does not answer, or not with a generation.
    pub async fn position(&self, person: u64, id: GenerationId) -> Result<Option<u64>> {
        let path = format!("/api/v1/generations/async/{id}/status");
        let authorization = format!("authorization: Bearer {}\r\n", people::token(person)?);
        let body = get_with(self.address, &path, &authorization).await?;
        let shown: serde_json::Value = serde_json::from_str(&body)?;
        ensure!(shown["status"] == "queued", "it does not wait: {body}");
        Ok(shown["queue_position"].as_u64())
    }

    /// Stops it in an orderly way, and checks the books: in order, and as many holds as there were accepted submits.
    ///
    /// # Errors
    /// If it does not end, or the books are not in order.
    pub async fn stop_and_verify(mut self, accepted: u64) -> Result<()> {
        let pid = self.pid();
        let signalled = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status()?;
        ensure!(signalled.success(), "cannot signal velro");
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < STOP_PATIENCE, "velro does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let output = command(&self.folder, &self.env)?.args(["ledger", "verify"]).output()?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.concat();
        ensure!(output.status.success(), "the ledger does not balance:\n{text}");
        let holds = text.split_once(" open hold").map(|(before, _)| before);
        let holds = holds.and_then(|before| before.rsplit(' ').next()?.parse::<u64>().ok());
        ensure!(
            holds == Some(accepted),
            "{accepted} submits were accepted, but the ledger says:\n{text}"
        );
        Ok(())
    }

    /// The end of what it has printed.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(data_folder(&self.folder).join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Velro {
    fn drop(&mut self) {
        // It has ended already when it was stopped in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The release build: `VELRO_BIN`, or the one beside this program.
fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("VELRO_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("velro"),
    };
    ensure!(
        path.is_file(),
        "there is no velro beside this program; `make bench` builds both"
    );
    Ok(path)
}

fn command(folder: &Path, env: &[(String, String)]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.current_dir(folder).env_clear().envs(env.iter().cloned());
    Ok(command)
}

fn write_registry(folder: &Path, setup: &Setup) -> Result<()> {
    let mut registry: toml::Table = REGISTRY.parse()?;
    let provider = registry
        .get_mut("providers")
        .and_then(|providers| providers.get_mut(PROVIDER)?.as_table_mut())
        .context("the shipped registry has the provider")?;
    provider.insert("concurrency".into(), i64::from(setup.concurrency).into());
    provider.insert("concurrency_per_user".into(), i64::from(setup.concurrency).into());
    let models = registry.get_mut("models").and_then(toml::Value::as_array_mut);
    for model in models.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
        if let Some(ms) = setup.poll_ceiling_ms
            && model.get("provider").and_then(toml::Value::as_str) == Some(PROVIDER)
        {
            model.insert("poll_ceiling_ms".into(), i64::from(ms).into());
        }
    }
    // Renamed, so that the server never reads half of it.
    let new = folder.join("providers.new");
    std::fs::write(&new, toml::to_string(&registry)?)?;
    std::fs::rename(new, folder.join("providers.toml")).context("write the registry")
}

/// The body of a page; fails when the answer is not a 200.
async fn get(address: SocketAddr, path: &str) -> Result<String> {
    get_with(address, path, "").await
}

async fn get_with(address: SocketAddr, path: &str, headers: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: velro\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}
