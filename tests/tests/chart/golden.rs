//! What helm makes of every case is what it was: `golden/CASE.yaml`. A change of the chart shows there what it does to
//! installations, and a review reads it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tests --test chart` writes the files anew and fails all the same: what was written has to be
//! looked at.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart/golden")
}

/// The text without what other files have already: the version of the program and of the chart, alerts and dashboard.
fn comparable(text: &str) -> String {
    let chart = read_file(&chart().join("Chart.yaml"));
    let values = chart.lines().filter_map(|line| line.split_once("ersion: "));
    let versions: Vec<&str> = values
        .filter(|(name, _)| matches!(*name, "v" | "appV"))
        .map(|(_, version)| version.trim_matches('"'))
        .collect();
    assert_eq!(versions.len(), 2, "version and appVersion of Chart.yaml");
    let elsewhere = ["prometheusrule.yaml\n", "dashboard-configmap.yaml\n"];
    let beginning = "---\n# Source: velro/templates/";
    let mut comparable = String::new();
    for document in text.split(beginning).filter(|document| !document.is_empty()) {
        if !elsewhere.iter().any(|file| document.starts_with(file)) {
            comparable += beginning;
            comparable += document;
        }
    }
    // As they are written: a bare number may be a part of an address.
    for version in versions {
        for place in ["velro-", "velro:", "version: \""] {
            comparable = comparable.replace(&format!("{place}{version}"), &format!("{place}VERSION"));
        }
    }
    comparable
}

/// The first line that is another one, with its number.
fn first_difference(golden: &str, now: &str) -> String {
    let (mut before, mut after) = (golden.lines(), now.lines());
    for number in 1.. {
        match (before.next(), after.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                let line = |side: Option<&str>| side.unwrap_or("(the end)").to_owned();
                return format!("line {number}\n  - {}\n  + {}", line(old), line(new));
            }
        }
    }
    "only the end of the last line".into()
}

#[test]
fn every_case_renders_as_before() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut differences = Vec::new();
    for case in &cases().all {
        let file = folder().join(format!("{}.yaml", case.name));
        let now = comparable(&case.text);
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        if golden == now {
            continue;
        }
        differences.push(format!("{}.yaml: {}", case.name, first_difference(&golden, &now)));
        if update {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&file, now).unwrap();
        }
    }
    let what = if update {
        "these were written anew: look at `git diff`, and run again without UPDATE_GOLDEN"
    } else {
        "the chart renders something else: UPDATE_GOLDEN=1 writes the files anew"
    };
    assert!(differences.is_empty(), "{what}\n{}", differences.join("\n"));
}

#[test]
fn no_golden_file_is_left_over() {
    let known: BTreeSet<String> = cases().all.iter().map(|case| format!("{}.yaml", case.name)).collect();
    let files = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let there: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(there, known, "golden/ and helm/velro/ci name other cases");
}

#[test]
fn helm_finds_nothing_to_object_to() {
    let chart = chart();
    for case in &cases().all {
        let file = values_of(&case.name);
        let values: &[&str] = if case.values.is_empty() { &[] } else { &["-f", &file] };
        let arguments = [&["lint", "--strict", chart.to_str().unwrap()], values].concat();
        if let Err(complaint) = helm(&arguments) {
            panic!("{}: {complaint}", case.name);
        }
    }
}
