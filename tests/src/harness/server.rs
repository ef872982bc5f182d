//! One `velro` process, in a folder of its own or in one that replicas share.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::client::{Client, PASSWORD};
use super::logs::Logs;
use super::{FAL_KEY, JWT_SECRET, Options, binary};
use crate::ports::free_port;

/// How long a start may take on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Ports are taken between looking and binding; how often to try another one.
const PORT_TRIES: usize = 5;

/// What a sub-command printed and how it ended.
#[derive(Debug, Clone)]
pub struct CliOutput {
    /// The command line, for messages.
    pub command: String,
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CliOutput {
    /// Asserts exit code 0 and gives the output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(
            self.status.success(),
            "{}: {}\n{}{}",
            self.command,
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Asserts a failure and gives what it said.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(
            !self.status.success(),
            "{}: should have failed\n{}",
            self.command,
            self.stdout
        );
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A `velro` process and its folder. Dropping it stops the process and makes the closing assertions.
#[derive(Debug)]
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub base_url: String,
    /// The working folder: `providers.toml` and `data/` are here.
    folder: Arc<TempDir>,
    options: Options,
    port: u16,
    child: Option<Child>,
    logs: Logs,
    /// It was ready once; only then there is something to assert at the end.
    was_ready: bool,
}

impl Server {
    /// Starts a server with the embedded defaults.
    pub async fn start() -> Self {
        Self::with(Options::new()).await
    }

    /// Starts a server.
    pub async fn with(options: Options) -> Self {
        Self::try_with(options)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Starts a server that may refuse to start.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn try_with(options: Options) -> Result<Self> {
        Self::try_in(new_folder(&options)?, options).await
    }

    /// The same in a folder that exists, for replicas that share one.
    pub(super) async fn try_in(folder: Arc<TempDir>, options: Options) -> Result<Self> {
        let mut server = Self {
            base_url: String::new(),
            folder,
            options,
            port: 0,
            child: None,
            logs: Logs::new(),
            was_ready: false,
        };
        for _ in 1..PORT_TRIES {
            server.take_port()?;
            match server.launch().await {
                Ok(()) => return Ok(server),
                Err(_) if server.lost_its_port() => server.logs = Logs::new(),
                Err(error) => return Err(error),
            }
        }
        server.take_port()?;
        server.launch().await?;
        Ok(server)
    }

    fn take_port(&mut self) -> Result<()> {
        self.port = free_port()?;
        self.base_url = format!("http://127.0.0.1:{}", self.port);
        Ok(())
    }

    fn lost_its_port(&self) -> bool {
        let lines = self.logs.all();
        lines
            .iter()
            .any(|line| line.to_lowercase().contains("address already in use"))
    }

    /// Starts the process on the present folder and port and waits until it is ready.
    async fn launch(&mut self) -> Result<()> {
        let mut child = self
            .command()?
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start velro")?;
        self.logs.follow(child.stdout.take().context("stdout is piped")?);
        self.logs.follow(child.stderr.take().context("stderr is piped")?);
        self.child = Some(child);
        self.ready().await?;
        self.was_ready = true;
        Ok(())
    }

    /// Waits for `GET /health/ready`; a worker answers it too.
    async fn ready(&mut self) -> Result<()> {
        let http = super::client::http();
        let url = format!("{}/health/ready", self.base_url);
        let deadline = Instant::now() + START_PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline {
            if let Some(status) = self.exit_status()? {
                bail!("velro ended with {status} before it was ready:\n{}", self.log_text());
            }
            match http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => last = format!("{}: {}", answer.status(), answer.text().await?),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        bail!(
            "velro is not ready after {START_PATIENCE:?} ({last}):\n{}",
            self.log_text()
        )
    }

    /// The binary with the environment of this server, for any sub-command.
    fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOST", "127.0.0.1")
            .env("PORT", self.port.to_string())
            // Outside development it would be one for all servers of this machine.
            .env("METRICS_PORT", self.port.to_string())
            .envs(&self.options.env);
        if self.options.webhooks {
            command.env("PUBLIC_URL", &self.base_url);
        }
        Ok(command)
    }

    /// Runs a sub-command on the same data.
    #[must_use]
    pub fn velro(&self, args: &[&str]) -> CliOutput {
        self.try_velro(args).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn try_velro(&self, args: &[&str]) -> Result<CliOutput> {
        let output = self.command()?.args(args).stdin(Stdio::null()).output()?;
        let [stdout, stderr] = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        Ok(CliOutput {
            command: format!("velro {}", args.join(" ")),
            status: output.status,
            stdout,
            stderr,
        })
    }

    /// Registers a new person.
    pub async fn register(&self, name: &str) -> Client {
        Client::register(&self.base_url, &format!("{name}@example.com"), PASSWORD).await
    }

    /// A client without a token.
    #[must_use]
    pub fn anonymous(&self) -> Client {
        Client::anonymous(&self.base_url)
    }

    /// Registers a person and makes them an operator.
    pub async fn operator(&self) -> Client {
        let mut client = self.register("operator").await;
        self.velro(&["users", "promote", &client.email]).ok();
        client.login(PASSWORD).await;
        client
    }

    /// Gives credits to a person.
    pub fn grant(&self, client: &Client, credits: i64) {
        self.velro(&["credits", "grant", &client.email, &credits.to_string()])
            .ok();
    }

    fn name(&self) -> &str {
        self.options.replica.as_deref().unwrap_or("the server")
    }

    /// The server's working folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The registry file; a test may edit it while the server runs.
    #[must_use]
    pub fn registry_path(&self) -> PathBuf {
        self.path().join("providers.toml")
    }

    /// The next [`Self::restart`] runs with another environment.
    pub fn change(&mut self, change: impl FnOnce(Options) -> Options) {
        self.options = change(self.options.clone());
    }

    /// SIGKILL, as the kernel or a power cut would do it.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let ended = child.try_wait().expect("a child can be asked");
        assert!(
            ended.is_none(),
            "velro had ended by itself with {ended:?}:\n{}",
            self.log_text()
        );
        child.kill().expect("a running child can be killed");
        child.wait().expect("a killed child ends");
    }

    /// SIGTERM, and waits for the drain and exit code 0.
    pub fn terminate(&mut self) {
        self.try_terminate().unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn try_terminate(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        if let Some(status) = child.try_wait()? {
            bail!("velro had ended by itself with {status}");
        }
        // The shell's own `kill`: the program is missing on small machines.
        let signal = format!("kill -TERM {}", child.id());
        let signalled = Command::new("sh").args(["-c", &signal]).status()?;
        ensure!(signalled.success(), "cannot signal process {}", child.id());
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "velro ended with {status} after SIGTERM");
                return Ok(());
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!("velro did not end within {STOP_PATIENCE:?} after SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the process again, on the same data and port.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        self.logs.push("-- restarted --".into());
        self.launch().await.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// `None` while it runs.
    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Waits for a line on either output that contains `text`, from line number `from` on.
    pub async fn wait_for_log(&self, from: usize, text: &str, patience: Duration) -> String {
        let found = self.logs.wait_for(from, text, patience).await;
        found.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Waits until the process stands at a failpoint (a build with the feature `failpoints`).
    pub async fn wait_for_failpoint(&self, name: &str, patience: Duration) {
        let line = format!("failpoint {name} reached");
        let reached = self.logs.wait_for(0, &line, patience).await;
        assert!(
            reached.is_ok(),
            "failpoint {name} was not reached; was the binary built with `--features failpoints` as `make build` does?"
        );
    }

    /// How many lines it has printed.
    #[must_use]
    pub fn log_lines(&self) -> usize {
        self.logs.len()
    }

    /// Everything it has printed.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.logs.all().join("\n")
    }

    /// `velro ledger verify`: exit code 0, and how many holds are open.
    ///
    /// # Errors
    /// If the books are not in order.
    pub fn verify_ledger(&self) -> Result<usize> {
        let output = self.try_velro(&["ledger", "verify"])?;
        let text = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.status.success(), "the ledger does not balance:\n{text}");
        let (before, _) = text
            .split_once(" open hold")
            .with_context(|| format!("no count in: {text}"))?;
        let count = before.rsplit(' ').next().unwrap_or_default();
        count.parse().with_context(|| format!("no count in: {text}"))
    }

    /// What every test ends with.
    fn close(&mut self) -> Result<()> {
        self.close_process()?;
        match self.options.replica {
            // The cluster does it once, when the last one has ended.
            Some(_) => Ok(()),
            None => self.close_books(),
        }
    }

    /// The books are in order, and no hold is left open.
    pub(super) fn close_books(&self) -> Result<()> {
        let open = self.verify_ledger()?;
        ensure!(
            open == self.options.open_holds,
            "{open} holds are open at the end instead of {}: a generation is stuck",
            self.options.open_holds
        );
        Ok(())
    }

    /// It ends in an orderly way and has logged no secret.
    pub(super) fn close_process(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.try_terminate()?;
        }
        let log = self.log_text();
        for sign in [
            "panicked at",
            JWT_SECRET,
            PASSWORD,
            FAL_KEY,
            crate::stripe_sim::SECRET_KEY,
            crate::stripe_sim::WEBHOOK_SECRET,
        ] {
            ensure!(!log.contains(sign), "`{sign}` in the log");
        }
        Ok(())
    }
}

impl Drop for Server {
    #[allow(
        clippy::print_stderr,
        clippy::panic,
        reason = "the log belongs into the report of a failed test"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() || !self.was_ready {
            if let Some(mut child) = self.child.take() {
                // It may be gone already; nothing more can be done about it here.
                let _ = child.kill();
                let _ = child.wait();
            }
            eprintln!("-- log of {} --\n{}", self.name(), self.log_text());
        } else if let Err(error) = self.close() {
            panic!("{error:#}\n-- log of {} --\n{}", self.name(), self.log_text());
        }
    }
}

/// A folder with the registry in it.
pub(super) fn new_folder(options: &Options) -> Result<Arc<TempDir>> {
    let folder = tempfile::Builder::new().prefix("velro-test-").tempdir()?;
    options.write_registry(folder.path());
    Ok(Arc::new(folder))
}
