//! What stands around a release: the version is the same everywhere, the script that makes one changes all of it or
//! nothing, what Velro is built from is allowed (deny.toml), and the bill of materials says what is shipped.
//!
//! The scripts in `.ci` are run as people type them, on copies of this working tree.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod deny;
mod sbom;
mod script;
mod versions;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// How a program ended, and all it said.
struct Outcome {
    name: String,
    success: bool,
    said: String,
}

impl Outcome {
    #[track_caller]
    fn ok(self) -> String {
        assert!(self.success, "{}:\n{}", self.name, self.said);
        self.said
    }

    /// It failed and said this.
    #[track_caller]
    fn refused(self, sentence: &str) {
        assert!(!self.success, "{}: should have failed\n{}", self.name, self.said);
        assert!(
            self.said.contains(sentence),
            "{}: nothing says {sentence:?} in\n{}",
            self.name,
            self.said
        );
    }
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Outcome {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    Outcome {
        name,
        success: output.status.success(),
        said: String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    }
}

/// A script of this repository. What it installs lies in the build folder of this test.
fn script(path: &str) -> Command {
    let mut command = Command::new(root().join(path));
    command.env("CARGO_TARGET_DIR", build_folder());
    command
}

/// `<target>/<profile>/deps/<this test>`.
fn build_folder() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().to_path_buf()
}
