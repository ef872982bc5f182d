//! Starts PostgreSQL, PgBouncer and Redis for tests, runs a command with their addresses in its environment, and leaves
//! nothing behind, however it is ended.

use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use tests::services::Services;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the command may take to end after a signal.
const GRACE: Duration = Duration::from_secs(20);

/// Starts throw-away servers on free ports.
///
/// With a command: runs it with VELRO_TEST_POSTGRES, VELRO_TEST_PGBOUNCER and VELRO_TEST_REDIS set, and ends with its exit
/// code. Without one: prints the variables for a shell and runs until Ctrl-C.
#[derive(Parser)]
struct Arguments {
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    // Before anything is started: a signal during the start must clean up too.
    let mut interrupted = Interrupted::new()?;
    let services = tokio::select! {
        services = Services::start() => services?,
        signal = interrupted.next() => return Ok(ended_by(signal)),
    };
    let variables = services.variables();
    let Some((program, rest)) = arguments.command.split_first() else {
        let mut out = std::io::stdout().lock();
        for (name, value) in variables {
            writeln!(out, "export {name}='{value}'")?;
        }
        out.flush()?;
        drop(out);
        interrupted.next().await;
        return Ok(ExitCode::SUCCESS);
    };
    let mut command = std::process::Command::new(program);
    // A group of its own, so that a signal reaches all of it: cargo does not pass signals on to tests.
    command.args(rest).envs(variables).process_group(0);
    let mut child = Command::from(command)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let group = child.id().context("the command runs")?;
    let code = tokio::select! {
        status = child.wait() => exit_code(status?),
        signal = interrupted.next() => {
            end(&mut child, group, signal).await?;
            ended_by(signal)
        }
    };
    drop(services);
    Ok(code)
}

/// The signals that end the program: number and name.
struct Interrupted {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interrupted {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
        }
    }
}

/// Passes the signal on to the whole group, and kills what is left of it after a while.
async fn end(child: &mut Child, group: u32, signal: SignalKind) -> Result<()> {
    send(signal.as_raw_value(), group)?;
    // The command itself may be long gone while what it started is not; so in any case.
    let in_time = tokio::time::timeout(GRACE, child.wait()).await;
    send(9, group)?;
    if in_time.is_err() {
        child.wait().await?;
    }
    Ok(())
}

/// The shell's own `kill`. A group that has ended is no fault.
fn send(signal: i32, group: u32) -> Result<()> {
    let line = format!("kill -{signal} -{group} 2>/dev/null || true");
    std::process::Command::new("sh").args(["-c", &line]).status()?;
    Ok(())
}

/// As a shell says it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn ended_by(signal: SignalKind) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal.as_raw_value()).unwrap_or(1))
}
