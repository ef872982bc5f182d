//! `make release`: in a repository made of this working tree it changes notes, manifests and chart and tags the commit, and
//! what looks like a mistake is refused before anything is changed.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Outcome, root, run};

const CHART: &str = "helm/velro/Chart.yaml";

/// A repository of its own, on `main`, with this working tree as its only commit.
struct Clone(TempDir);

impl Clone {
    fn new() -> Clone {
        let clone = Clone(tempfile::tempdir().unwrap());
        let mut listed = Command::new("git");
        let all = [
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ];
        let listed = run(listed.args(all).current_dir(root())).ok();
        for path in listed.split_terminator('\0') {
            let (from, to) = (root().join(path), clone.path().join(path));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            // A file that was deleted and not committed yet is still listed.
            if from.exists() {
                std::fs::copy(from, to).unwrap();
            }
        }
        if !clone.path().join(CHART).exists() {
            clone.write(
                CHART,
                "apiVersion: v2\nname: velro\nversion: 0.0.1\nappVersion: \"0.0.1\"\n",
            );
        }
        for name in ["CHANGELOG.md", "docs/UPGRADING.md"] {
            let text = clone
                .read(name)
                .replacen("## Unreleased\n", "## Unreleased\n\nSomething is new.\n", 1);
            clone.write(name, &text);
        }
        clone.git(&["init", "--quiet", "--initial-branch=main"]);
        clone.commit("everything");
        clone
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A program here, with a git that has nothing of this machine's user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Test")
                .env(format!("GIT_{role}_EMAIL"), "test@example.com");
        }
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command
    }

    fn git(&self, args: &[&str]) -> String {
        run(self.command("git").args(args)).ok()
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    /// `make release VERSION=...`.
    fn release(&self, version: &str) -> Outcome {
        run(self
            .command("make")
            .args(["--no-print-directory", "release", &format!("VERSION={version}")]))
    }

    /// What a refusal must leave as it was.
    fn state(&self) -> String {
        self.git(&["rev-parse", "HEAD"]) + &self.git(&["tag", "--list"]) + &self.git(&["status", "--porcelain"])
    }

    #[track_caller]
    fn refuses(&self, version: &str, sentence: &str) {
        let before = self.state();
        self.release(version).refused(sentence);
        assert_eq!(
            self.state(),
            before,
            "something is changed by a release that was refused"
        );
    }
}

#[test]
fn a_release_is_one_commit_with_a_tag_and_the_version_everywhere() {
    let clone = Clone::new();
    let said = clone.release("7.1.0").ok();
    assert!(said.contains("git push origin main v7.1.0"), "{said}");
    assert_eq!(clone.git(&["log", "-1", "--format=%s"]).trim(), "Release 7.1.0");
    assert_eq!(clone.git(&["describe", "--exact-match"]).trim(), "v7.1.0");
    assert_eq!(clone.git(&["status", "--porcelain"]), "");
    for name in ["CHANGELOG.md", "docs/UPGRADING.md"] {
        let text = clone.read(name);
        let (_, rest) = text
            .split_once("## Unreleased\n\n## 7.1.0 - 20")
            .unwrap_or_else(|| panic!("{name}:\n{text}"));
        assert!(
            rest.split_once("\n\n").unwrap().1.starts_with("Something is new.\n"),
            "{name}:\n{text}"
        );
    }
    assert!(
        clone
            .read("Cargo.toml")
            .contains("[workspace.package]\nversion = \"7.1.0\"\n")
    );
    let lock = clone.read("Cargo.lock");
    let ours = lock.matches("version = \"7.1.0\"\n").count();
    assert!(
        ours > 5 && lock.contains("name = \"velro\"\nversion = \"7.1.0\"\n"),
        "{ours}"
    );
    let chart = clone.read(CHART);
    assert!(
        chart.contains("\nversion: 7.1.0\n") && chart.contains("\nappVersion: \"7.1.0\"\n"),
        "{chart}"
    );
    // Only our own crates have moved.
    let changed = clone.git(&["show", "--format=", "--unified=0", "--", "Cargo.lock"]);
    let lines = changed
        .lines()
        .filter(|line| line.starts_with('+') && !line.starts_with("+++"));
    assert!(lines.clone().all(|line| line == "+version = \"7.1.0\""), "{changed}");

    // The next one has to be newer, and has to have something to say.
    clone.refuses("7.1.0", "7.1.0 is not newer than 7.1.0");
    clone.refuses("7.0.9", "7.0.9 is not newer than 7.1.0");
    clone.refuses("7.1.0-rc.2", "7.1.0-rc.2 is not newer than 7.1.0");
    clone.refuses("7.2.0", "CHANGELOG.md says nothing under \"Unreleased\"");
}

#[test]
fn what_looks_like_a_mistake_is_refused_and_changes_nothing() {
    let clone = Clone::new();
    clone.refuses("", "which version? type: make release VERSION=X.Y.Z");
    for nonsense in [
        "v7.1.0",
        "7.1",
        "7.1.0.0",
        "07.1.0",
        "7.1.0-beta",
        "latest",
        "7.1.0; true",
    ] {
        clone.refuses(nonsense, "is no version");
    }
    clone.refuses("0.0.9", "0.0.9 is older than");
    clone.git(&["tag", "v7.1.0"]);
    clone.refuses("7.1.0", "the tag v7.1.0 is there already");
    clone.git(&["tag", "--delete", "v7.1.0"]);
    clone.git(&["switch", "--quiet", "--create", "feature"]);
    clone.refuses("7.1.0", "this is the branch feature");
    clone.git(&["switch", "--quiet", "--detach"]);
    clone.refuses("7.1.0", "no branch is checked out");
    clone.git(&["switch", "--quiet", "main"]);
    clone.write("notes.txt", "not committed");
    clone.refuses("7.1.0", "?? notes.txt");
    clone.commit("notes");
    let upgrades = clone.read("docs/UPGRADING.md");
    clone.write(
        "docs/UPGRADING.md",
        "# Upgrading\n\n## Unreleased\n\n## 0.0.1 - 2026-01-01\n\nNothing.\n",
    );
    clone.commit("nothing to say");
    clone.refuses("7.1.0", "docs/UPGRADING.md says nothing under \"Unreleased\"");
    clone.write("docs/UPGRADING.md", &upgrades.replace("## Unreleased", "## Next"));
    clone.commit("no section");
    clone.refuses("7.1.0", "docs/UPGRADING.md has no section");
    clone.write("docs/UPGRADING.md", &upgrades);
    // What fails half-way is taken back: a chart without a version cannot get one.
    clone.write(CHART, "apiVersion: v2\nname: velro\n");
    clone.commit("no version");
    clone.refuses("7.1.0", "that failed, and nothing is changed");
}
