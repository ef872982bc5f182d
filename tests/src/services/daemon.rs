//! One server process in its folder: started, awaited, ended, started again.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::START_PATIENCE;
use super::home::Home;

/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How long one probe may take before it is tried again.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// How much of a log belongs into a message.
const LOG_LINES: usize = 60;

/// A server process in its folder.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) home: Home,
    name: &'static str,
    child: Option<Child>,
}

impl Daemon {
    /// `signal` is the quick orderly stop, for the watchdog.
    pub(super) fn new(name: &'static str, signal: &str) -> Result<Self> {
        Ok(Self {
            home: Home::new(name, signal)?,
            name,
            child: None,
        })
    }

    /// Starts the process and waits until `probe` succeeds.
    pub(super) async fn start(&mut self, mut command: Command, probe: impl AsyncFn() -> Result<()>) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.with_context(|| format!("start {}", self.name))?);
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status} before it was ready:\n{}", self.name, self.log());
            }
            let answer = tokio::time::timeout(PROBE_PATIENCE, probe()).await;
            let error = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("no answer within {PROBE_PATIENCE:?}"),
            };
            if Instant::now() >= deadline {
                bail!(
                    "{} is not ready after {START_PATIENCE:?} ({error:#}):\n{}",
                    self.name,
                    self.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal and waits for the end.
    pub(super) async fn stop(&mut self, signal: &str) -> Result<()> {
        self.signal(signal)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.ended()?.is_none() {
            ensure!(
                Instant::now() < deadline,
                "{} did not end within {STOP_PATIENCE:?} after {signal}:\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Sends a signal.
    pub(super) fn signal(&mut self, signal: &str) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} had ended by itself with {status}:\n{}", self.name, self.log());
        }
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        kill(signal, pid)
    }

    /// `None` while it runs.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
            self.home.forget_pid();
        }
        Ok(status)
    }

    /// The process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// The end of the log.
    pub(super) fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// True when the log says that the port was taken in the meantime.
    pub(super) fn lost_its_port(&self) -> bool {
        self.log().to_lowercase().contains("address already in use")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The watchdog ends the process and removes the folder; here it is only buried.
        if let Some(mut child) = self.child.take() {
            std::thread::spawn(move || child.wait());
        }
    }
}

/// The shell's own `kill`: the program is missing on small machines.
pub(super) fn kill(signal: &str, pid: u32) -> Result<()> {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "cannot send {signal} to process {pid}");
    Ok(())
}
