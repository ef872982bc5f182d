//! `velro db copy`: an embedded installation moves up to PostgreSQL.
//!
//! The work is the store's ([`crate::store::sql::copy`]); here it is decided what is copied where, that nobody serves the
//! source meanwhile, and what the operator sees.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use url::Url;

use super::lock;
use crate::config::{Config, Database};
use crate::failpoint;
use crate::store::sql::{Copied, CopiedTable, CopyStage, copy, embedded_file};

/// How often a long table says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Copies; false when it was refused, which has been said.
pub(super) async fn run(config: &Config, from: Option<&str>, to: Option<&str>) -> Result<bool> {
    let from = source(config, from)?;
    let to = target(config, to)?;
    let file = embedded_file(&from)?;
    if !file.is_file() {
        bail!(
            "there is no database at {}: name it with --from or --data",
            file.display()
        );
    }
    let _locks = locks(config, &file)?;
    println!("copying {} to {}", file.display(), without_secrets(&to));
    let mut teller = Teller::new();
    match copy(&from, &to, &mut |stage| teller.tell(stage)).await? {
        Copied::Done { tables, ledger } => {
            let sum = |number: fn(&CopiedTable) -> u64| tables.iter().map(number).sum::<u64>();
            println!(
                "copied {} rows: {} new, {} changed, {} removed since the last copy, the others as they were",
                sum(|t| t.rows),
                sum(|t| t.added),
                sum(|t| t.changed),
                sum(|t| t.removed)
            );
            println!(
                "ok     both ledgers agree: {} accounts, {} transfers, {} open holds over {} credits",
                ledger.accounts, ledger.transfers, ledger.open_holds, ledger.held
            );
            println!("{}", what_next(config, &file));
            Ok(true)
        }
        Copied::Refused(faults) => {
            for fault in &faults {
                println!("FAULT  {fault}");
            }
            println!("{} faults: nothing was changed", faults.len());
            println!("A copy goes into an empty database, or into one that nobody has used since the last copy.");
            Ok(false)
        }
    }
}

/// Where from.
fn source(config: &Config, from: Option<&str>) -> Result<String> {
    match (from, config.database()) {
        (Some(from), _) if from.starts_with("sqlite:") => Ok(from.to_owned()),
        // Not repeated: there may be a password in it.
        (Some(_), _) => bail!("--from is no SQLite database: write sqlite:PATH"),
        (None, Database::Sqlite) => Ok(config.database_url.expose().to_owned()),
        (None, Database::Postgres) => Ok(config.embedded_url()),
    }
}

/// Where to.
fn target(config: &Config, to: Option<&str>) -> Result<String> {
    match (to, config.database()) {
        (Some(to), _) if to.starts_with("postgres://") || to.starts_with("postgresql://") => Ok(to.to_owned()),
        (Some(_), _) => bail!("--to is no PostgreSQL database: write postgres://USER:PASSWORD@HOST/DATABASE"),
        (None, Database::Postgres) => Ok(config.database_url.expose().to_owned()),
        (None, Database::Sqlite) => {
            bail!("where to? Set DATABASE_URL, or give --to postgres://USER:PASSWORD@HOST/DATABASE")
        }
    }
}

/// Whoever serves the source has one of these: the folder of the file, or the data folder when it was configured
/// elsewhere.
fn locks(config: &Config, file: &Path) -> Result<Vec<File>> {
    let own = match config.database() {
        Database::Sqlite => embedded_file(config.database_url.expose())?,
        Database::Postgres => config.data_dir.join("velro.db"),
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    let beside = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    folders.push(beside.to_owned());
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(&own, file) && !same(&config.data_dir, beside) {
        folders.push(config.data_dir.clone());
    }
    let taken = folders.iter().map(|folder| lock::take(folder));
    taken
        .collect::<Result<_>>()
        .context("an installation is copied while it stands still")
}

/// A URL as it may be shown: no password, and no query, which may hold one too.
fn without_secrets(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return "PostgreSQL".to_owned();
    };
    if url.password().is_some() && url.set_password(None).is_err() {
        return "PostgreSQL".to_owned();
    }
    url.set_query(None);
    url.into()
}

fn what_next(config: &Config, file: &Path) -> String {
    format!(
        "\nNext:\n\
         1. Set DATABASE_URL to the new database.\n\
         2. Keep the folder {outputs}, or copy it to where VELRO_DATA will be: it has the pictures.\n\
         3. Keep JWT_SECRET, or the file jwt_secret of the data folder: people stay signed in by it.\n\
         4. Start velro. Do not start it on {file} again: what happens there would not be copied any more.",
        outputs = config.outputs_dir().display(),
        file = file.display()
    )
}

/// Tells how far it is: one line for each table, and more for a long one, which replace each other on a terminal.
struct Teller {
    on_terminal: bool,
    told_at: Instant,
}

impl Teller {
    fn new() -> Teller {
        Teller {
            on_terminal: stdout().is_terminal(),
            told_at: Instant::now(),
        }
    }

    fn tell(&mut self, stage: CopyStage) {
        match stage {
            CopyStage::Copying { table, rows, of } if rows < of => {
                if self.told_at.elapsed() >= TELL_EVERY {
                    self.told_at = Instant::now();
                    let end = if self.on_terminal { "\r" } else { "\n" };
                    print!("  {table:<18} {rows:>10} of {of}{end}");
                    // Progress that nobody can see is no reason to stop.
                    let _ = stdout().flush();
                }
            }
            CopyStage::Copying { table, rows, .. } => {
                // Covers what stood there.
                let rest = if self.on_terminal {
                    " ".repeat(12)
                } else {
                    String::new()
                };
                println!("  {table:<18} {rows:>10} rows{rest}");
                failpoint::at(&format!("copy::{table}"));
            }
            CopyStage::Verifying => {
                println!("comparing, and verifying the books of the copy");
                failpoint::at("copy::verifying");
            }
            CopyStage::Committing => failpoint::at("copy::committing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            (
                "postgres://velro:hunter2@db:5433/velro",
                "postgres://velro@db:5433/velro",
            ),
            ("postgresql://db/velro?user=a&password=hunter2", "postgresql://db/velro"),
            ("postgres://velro@db/velro?pgbouncer=true", "postgres://velro@db/velro"),
            ("postgres://:hunter2", "PostgreSQL"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
