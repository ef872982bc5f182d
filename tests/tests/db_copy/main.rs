//! `velro db copy`: an embedded installation moves up to PostgreSQL with everything it has, can be copied again, and is
//! never copied by half or over something else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod guards;
mod moves;
mod rows;

use std::path::Path;
use std::process::{Command, Stdio};

use tests::harness::{JWT_SECRET, binary};
use tests::services::{Database, shared};
use tests::store_suite::fixtures::lived_in;
use velro::store::Store;
use velro::store::sql::{OpenOptions, SqlStore};

async fn database() -> Database {
    let shared = shared().unwrap_or_else(|error| panic!("{error:#}"));
    shared.create_database().await.unwrap()
}

/// The address with a password in it; the server of the tests takes any.
fn with_password(url: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    url.set_password(Some("hunter2")).unwrap();
    url.into()
}

/// An embedded installation without a server: a folder with a database in `data/`.
struct Source(tempfile::TempDir);

impl Source {
    fn new() -> Source {
        Source(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> std::path::PathBuf {
        self.path().join("data/velro.db")
    }

    async fn open(&self) -> SqlStore {
        let options = OpenOptions {
            create: true,
            migrate: true,
        };
        SqlStore::open(&self.file().to_string_lossy(), options).await.unwrap()
    }

    /// One with a bit of everything.
    async fn lived_in() -> Source {
        let source = Source::new();
        let store = source.open().await;
        lived_in(&store).await;
        store.close().await;
        source
    }

    /// `velro db copy` in this folder.
    fn copy(&self, to: &Database) -> Outcome {
        run(self.path(), &["db", "copy", "--to", &with_password(&to.url)])
    }
}

/// How a command ended, and what it said.
struct Outcome {
    code: Option<i32>,
    said: String,
}

impl Outcome {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.said);
        self.said
    }

    /// It failed, said all of this, and that nothing was changed.
    #[track_caller]
    fn refused(self, sentences: &[&str]) {
        assert_eq!(self.code, Some(1), "{}", self.said);
        for sentence in sentences {
            assert!(
                self.said.contains(sentence),
                "nothing says {sentence:?} in\n{}",
                self.said
            );
        }
    }
}

/// A `velro` with nothing but its secret in the environment.
fn velro(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary().unwrap());
    command
        .current_dir(folder)
        .env_clear()
        .env("JWT_SECRET", JWT_SECRET)
        .args(args)
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> Outcome {
    let output = velro(folder, args).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let said = out + &err;
    assert!(!said.contains("hunter2"), "the password is shown:\n{said}");
    Outcome {
        code: output.status.code(),
        said,
    }
}
