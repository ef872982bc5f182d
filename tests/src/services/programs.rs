//! Finds the servers' programs and the user they may run as.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A program by name: beside PostgreSQL's tools, on the `PATH`, or where Debian puts it.
///
/// # Errors
/// When it is not installed.
pub fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path);
    // Debian keeps servers out of the PATH of plain users.
    let system = ["/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    let folders = postgres_tools()
        .into_iter()
        .chain(on_path)
        .chain(system)
        .chain(postgres_versions());
    for folder in folders {
        let file = folder.join(program);
        if file.is_file() {
            return Ok(file);
        }
    }
    bail!("{program} is not installed: `make deps` installs what the tests need")
}

/// What `pg_config` says. (It comes with the client library too, so the server need not be there.)
fn postgres_tools() -> Option<PathBuf> {
    let output = Command::new("pg_config")
        .arg("--bindir")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// Debian's folders, the newest version first.
fn postgres_versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|left, right| right.cmp(left));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

/// Who the servers run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `None` for the user of the test; somebody else when that is root, which PostgreSQL and PgBouncer refuse to run as.
    pub(super) fn other_than_root() -> Result<Option<Self>> {
        if id(&["-u"])? != 0 {
            return Ok(None);
        }
        let account = ["postgres", "nobody"].into_iter().find_map(|name| {
            let uid = id(&["-u", name]).ok()?;
            let gid = id(&["-g", name]).ok()?;
            Some(Self { uid, gid })
        });
        let account =
            account.context("PostgreSQL refuses to run as root, and there is neither `postgres` nor `nobody`")?;
        Ok(Some(account))
    }

    /// Gives a folder to the account.
    pub(super) fn own(self, folder: &Path) -> Result<()> {
        std::os::unix::fs::chown(folder, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to user {}", folder.display(), self.uid))
    }
}

fn id(args: &[&str]) -> Result<u32> {
    let output = Command::new("id")
        .args(args)
        .stderr(Stdio::null())
        .output()
        .context("run `id`")?;
    let text = String::from_utf8(output.stdout)?;
    text.trim()
        .parse()
        .with_context(|| format!("`id {}` says `{text}`", args.join(" ")))
}
