//! The folder of one server, and the watchdog that removes it with the server when the test cannot.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::programs::Account;

/// Waits until its standard input closes, which the kernel sees to when the test's process ends in whatever way. Then it
/// ends the server, orderly for five seconds, and removes the folder.
///
/// The pid is written by the server's own process before it becomes the server, so there is no moment at which the
/// watchdog would miss it.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
if pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ]; then
    kill -"$2" "$pid" 2>/dev/null
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

/// Notes the pid for the watchdog and becomes the server.
const RUN: &str = r#"echo $$ > "$0" && exec "$@""#;

/// A folder that is removed when the value is dropped, and when the test's process dies.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    account: Option<Account>,
    watchdog: Child,
}

impl Home {
    /// `name` shows in the folder's name; `signal` is the quick orderly stop of the server.
    pub(super) fn new(name: &str, signal: &str) -> Result<Self> {
        let account = Account::other_than_root()?;
        // Kept: the watchdog removes it, because it also must when nothing of this process runs any more.
        let path = tempfile::Builder::new()
            .prefix(&format!("velro-{name}-"))
            .tempdir()?
            .keep();
        let watchdog = start_watchdog(&path, signal)?;
        let home = Self {
            path,
            account,
            watchdog,
        };
        if let Some(account) = account {
            account.own(&home.path)?;
        }
        Ok(home)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A command in this folder as the server's user, in a process group of its own: Ctrl-C in a terminal goes to the
    /// test, and the test decides when its servers end.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(program);
        command
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// The same for a server that the watchdog shall end.
    pub(super) fn server_command(&self, program: &Path) -> Command {
        let mut command = self.command("sh");
        command.arg("-c").arg(RUN).arg(self.pid_file()).arg(program);
        command
    }

    /// To be called when the server has ended: its pid may belong to somebody else soon.
    pub(super) fn forget_pid(&self) {
        // It is missing when the server was never started.
        let _ = std::fs::remove_file(self.pid_file());
    }

    fn pid_file(&self) -> PathBuf {
        self.path.join("pid")
    }
}

fn start_watchdog(folder: &Path, signal: &str) -> Result<Child> {
    use std::os::unix::process::CommandExt as _;
    Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .arg(folder)
        .arg(signal)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the watchdog")
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        // Nothing can be done about a watchdog that fails, and the test has its result.
        let _ = self.watchdog.wait();
    }
}
