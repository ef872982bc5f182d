//! The two kinds of installation, and how each is backed up and restored: the commands of docs/BACKUP.md.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tests::harness::{JWT_SECRET, Options, binary};
use tests::services::{Database, program, shared};

/// Where an installation has its books.
pub enum Books {
    Embedded,
    Postgres(Database),
}

impl Books {
    pub async fn new_postgres() -> Books {
        let shared = shared().unwrap_or_else(|error| panic!("{error:#}"));
        Books::Postgres(shared.create_database().await.unwrap())
    }

    /// Empty ones of the same kind.
    pub async fn another(&self) -> Books {
        match self {
            Books::Embedded => Books::Embedded,
            Books::Postgres(_) => Books::new_postgres().await,
        }
    }

    /// What a server on them is told.
    pub fn options(&self, options: Options) -> Options {
        match self {
            Books::Embedded => options,
            Books::Postgres(database) => options.env("DATABASE_URL", &database.url),
        }
    }

    /// Backs up what lives in `data`: the books first, then the files, so that every file of the books is there.
    pub async fn back_up(&self, data: &Path) -> Backup {
        let backup = Backup(tempfile::tempdir().unwrap());
        match self {
            Books::Embedded => {
                let live = SqliteConnectOptions::new().filename(data.join("velro.db"));
                let mut connection = live.connect().await.unwrap();
                let copy = sqlx::query("VACUUM INTO ?").bind(backup.books().to_str().unwrap().to_owned());
                copy.execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Books::Postgres(database) => {
                let dump = program("pg_dump").unwrap_or_else(|error| panic!("{error:#}"));
                let mut command = Command::new(dump);
                run(command
                    .args(["--format=custom", "--file"])
                    .arg(backup.books())
                    .arg(&database.url));
            }
        }
        copy_folder(&data.join("outputs"), &backup.0.path().join("outputs"));
        backup
    }

    /// Restores a backup into an empty place.
    pub fn restore(self, backup: &Backup) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        match &self {
            Books::Embedded => drop(std::fs::copy(backup.books(), data.join("velro.db")).unwrap()),
            Books::Postgres(database) => {
                let restore = program("pg_restore").unwrap_or_else(|error| panic!("{error:#}"));
                let mut command = Command::new(restore);
                command.args([
                    "--no-owner",
                    "--exit-on-error",
                    "--single-transaction",
                    "--dbname",
                    &database.url,
                ]);
                run(command.arg(backup.books()));
            }
        }
        copy_folder(&backup.0.path().join("outputs"), &data.join("outputs"));
        Place { folder, books: self }
    }
}

/// The books in one file, and the folder `outputs`.
pub struct Backup(TempDir);

impl Backup {
    fn books(&self) -> PathBuf {
        self.0.path().join("books")
    }
}

/// A restored installation on which nothing has been started yet.
pub struct Place {
    folder: TempDir,
    books: Books,
}

impl Place {
    /// What a server here is told.
    pub fn options(&self, options: Options) -> Options {
        let data = self.folder.path().join("data");
        self.books.options(options).env("VELRO_DATA", data.to_str().unwrap())
    }

    /// Runs a sub-command here, without a server.
    pub fn velro(&self, args: &[&str]) -> String {
        let mut command = Command::new(binary().unwrap_or_else(|error| panic!("{error:#}")));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("JWT_SECRET", JWT_SECRET)
            .args(args);
        if let Books::Postgres(database) = &self.books {
            command.env("DATABASE_URL", &database.url);
        }
        run(&mut command)
    }
}

/// Copies a folder that is being written to: what is there when it is looked at, whole.
fn copy_folder(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").args([from, to]));
}

/// Runs a program to its end and gives what it printed.
fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{said}", output.status);
    said.into_owned()
}
