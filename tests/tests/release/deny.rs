//! deny.toml, through cargo-deny: what Velro is built from passes, and what must not come in does not.

use std::process::Command;

use tempfile::TempDir;

use super::{Outcome, run, script};

/// A crate of its own with one dependency beside it, checked against Velro's rules.
fn check_with(dependency: &str, what: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let manifest = |name: &str, license: &str, rest: &str| {
        let head = format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\npublish = false\n");
        format!("{head}license = \"{license}\"\n{rest}")
    };
    write(
        &folder,
        "Cargo.toml",
        &manifest("shop", "Apache-2.0", "[dependencies]\nguest.path = \"guest\"\n"),
    );
    write(&folder, "src/lib.rs", "");
    write(&folder, "guest/Cargo.toml", &manifest("guest", dependency, ""));
    write(&folder, "guest/src/lib.rs", "");
    run(Command::new("cargo")
        .args(["generate-lockfile", "--offline"])
        .current_dir(folder.path()))
    .ok();
    // Ours needs licences and exceptions that this crate does not.
    let mut check = script(".ci/deny");
    check.args([
        "--allow",
        "license-not-encountered",
        "--allow",
        "license-exception-not-encountered",
        what,
    ]);
    run(check.current_dir(folder.path()).env("DENY_FLAGS", "--offline"))
}

fn write(folder: &TempDir, path: &str, text: &str) {
    let path = folder.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn what_velro_is_built_from_is_allowed() {
    let mut check = script(".ci/deny");
    run(check.args(["licenses", "bans", "sources"]).current_dir(super::root())).ok();
}

#[test]
fn a_licence_that_nobody_allowed_does_not_come_in() {
    check_with("MIT OR GPL-3.0-only", "licenses").ok();
    check_with("GPL-3.0-only", "licenses").refused("license is not explicitly allowed");
    check_with("AGPL-3.0-or-later AND MIT", "licenses").refused("license is not explicitly allowed");
}
