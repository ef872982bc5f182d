//! `velro plugin check`: good libraries pass, broken ones are told what is wrong, crashes are lines of the report.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tests::harness::binary;
use tests::libraries::{PluginFolder, built};

/// Enough to find what the zoo does wrong, and quick.
const QUESTIONS: &str = "400";

fn check(library: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command
        .args(["plugin", "check", "--questions", QUESTIONS])
        .args(more)
        .arg(library);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The finding of a case in a JSON report.
fn finding<'r>(report: &'r Value, case: &str) -> &'r Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["case"] == case)
        .unwrap_or_else(|| panic!("no case {case}: {report}"))
}

fn report(library: &Path, more: &[&str]) -> (bool, Value) {
    let output = check(library, &[more, &["--json"]].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    (output.status.success(), report)
}

#[test]
fn a_good_library_passes_and_the_block_for_the_registry_is_printed() {
    let folder = PluginFolder::new();
    let installed = folder.install(&built("velro-zoo"), "libvelro_zoo.so");
    let output = check(&folder.path().join(&installed.name), &[]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let block = format!(
        "[providers.zoo]\nkind = \"plugin\"\npath = \"libvelro_zoo.so\"\nsha256 = \"{}\"\n",
        installed.sha256
    );
    assert!(text.ends_with(&block), "{text}");
    assert!(text.contains("ok       hostile"), "{text}");
}

#[test]
fn what_is_wrong_is_found_and_a_crash_is_a_line_of_the_report() {
    let folder = PluginFolder::new();
    let wrong: [(&str, &str, &str, &str); 8] = [
        ("BROKEN_CRASH", "hostile", "crashed", "ended the process (signal: 11"),
        (
            "BROKEN_CONSTRUCTOR",
            "loads",
            "crashed",
            "ended the process (exit status: 3",
        ),
        (
            "BROKEN_SPIN",
            "hostile",
            "failed",
            "the library does not answer within 1000 ms",
        ),
        ("BROKEN_TWO_ACTIONS", "hostile", "failed", "emitted 2 actions"),
        ("BROKEN_UTF8", "hostile", "failed", "its URL is not UTF-8"),
        ("BROKEN_LEAK", "memory", "failed", "memory grows by"),
        (
            "BROKEN_HOST",
            "hostile",
            "failed",
            "which the manifest's hosts do not name",
        ),
        (
            "BROKEN_MANIFEST",
            "manifest",
            "failed",
            "its manifest is not what it should be",
        ),
    ];
    for (fault, case, verdict, words) in wrong {
        let library = folder.broken(fault);
        let (passed, report) = report(&folder.path().join(&library.name), &[]);
        let finding = finding(&report, case);
        assert!(!passed, "{fault} passes: {report}");
        assert_eq!(finding["verdict"], verdict, "{fault}: {finding}");
        assert!(finding["problems"].to_string().contains(words), "{fault}: {finding}");
    }
}

#[test]
fn a_panic_is_named_with_its_place() {
    let library = built("velro-zoo");
    let (passed, report) = report(&library, &["--config-json", "{\"panic\": \"step\"}"]);
    assert!(!passed);
    let finding = finding(&report, "hostile");
    assert!(
        finding["problems"]
            .to_string()
            .contains("panics (the zoo panics in step (at "),
        "{finding}"
    );
}

#[test]
fn what_is_no_library_is_refused_before_any_of_it_runs() {
    let folder = PluginFolder::new();
    folder.install_bytes(b"\x7fELF but not really", "text.so");
    let output = check(&folder.path().join("text.so"), &[]);
    assert!(!output.status.success());
    assert!(said(&output).contains("is not a shared library"), "{}", said(&output));
    let major = folder.broken("BROKEN_MAJOR");
    let output = check(&folder.path().join(&major.name), &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["problem"], "major", "{report}");
}
