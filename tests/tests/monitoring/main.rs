//! Alerts, dashboard and runbooks say what is true: every rule is proven by promtool, every name they use is there, every
//! alert has its test and its runbook, every command can be typed; and a real Prometheus that watches a healthy
//! installation answers every question and finds nothing to complain about.

#![allow(clippy::unwrap_used, clippy::panic)]

mod live;
mod promql;
mod source;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use source::{RULE_TESTS, RULES, RUNBOOKS, lines_after, read, root};
use tests::services::program;

/// Labels that Prometheus gives to whatever it scrapes.
const TARGET_LABELS: [&str; 3] = ["namespace", "job", "instance"];

/// What no server of ours defines: Prometheus' own, and those of a process, which are compared with a running server.
const OTHERS: [&str; 3] = ["up", "ALERTS", "process_"];

/// Runs promtool with these arguments, below the root, and gives what it said.
fn promtool(arguments: &[&str]) -> String {
    let tool = program("promtool").unwrap_or_else(|error| panic!("{error:#}"));
    let output = Command::new(tool).args(arguments).current_dir(root()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
    text
}

fn alerts() -> BTreeSet<String> {
    let names = lines_after(RULES, "- alert:");
    let alerts: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(names.len(), alerts.len(), "an alert is there twice: {names:?}");
    assert!(alerts.len() > 30, "{alerts:?}");
    alerts
}

#[test]
fn every_rule_is_valid_and_fires_on_a_bad_series_only() {
    promtool(&["check", "rules", "--lint-fatal", RULES]);
    promtool(&["test", "rules", RULE_TESTS[0], RULE_TESTS[1]]);
}

#[test]
fn every_alert_has_a_test_and_a_runbook() {
    let alerts = alerts();
    let tests: String = RULE_TESTS.map(read).concat();
    // `firing` is compared with whole labels, or a test asks for the alert by its name.
    let is_tested = |alert: &&String| {
        tests.contains(&format!("- name: {alert}\n")) && tests.contains(&format!(r#"alertname="{alert}", "#))
    };
    let untested: Vec<_> = alerts.iter().filter(|alert| !is_tested(alert)).collect();
    assert!(untested.is_empty(), "no test in {RULE_TESTS:?}: {untested:?}");

    let sections: BTreeSet<String> = lines_after(RUNBOOKS, "### ").into_iter().collect();
    assert_eq!(
        sections, alerts,
        "{RUNBOOKS} has other sections than {RULES} has alerts"
    );
    let links: BTreeSet<String> = lines_after(RULES, "runbook_url:").into_iter().collect();
    // As browsers find a heading of one word.
    let wanted = alerts
        .iter()
        .map(|alert| format!("{RUNBOOKS}#{}", alert.to_lowercase()));
    assert_eq!(
        links,
        wanted.collect(),
        "runbook_url is {RUNBOOKS}# and the name of the alert in small letters"
    );

    let text = read(RUNBOOKS);
    for section in text.split("\n### ").skip(1) {
        let name = section.lines().next().unwrap();
        for part in ["**Means.**", "**Look.**", "**Mend.**", "**Tried.**"] {
            assert!(section.contains(part), "{RUNBOOKS}, {name}: {part} is missing");
        }
    }
}

#[test]
fn every_metric_and_label_that_is_asked_for_is_defined() {
    let defined = source::definitions();
    let recorded: BTreeSet<String> = lines_after(RULES, "- record:").into_iter().collect();
    let mut faults = Vec::new();
    for question in source::rule_questions().iter().chain(&source::dashboard_questions()) {
        let names = promql::names(&question.expression);
        let place = &question.place;
        if names.metrics.is_empty() {
            faults.push(format!("{place} asks for no metric: {}", question.expression));
        }
        let mut known: BTreeSet<&str> = TARGET_LABELS.into_iter().collect();
        for (metric, labels) in &names.metrics {
            let is_other = OTHERS.iter().any(|other| metric.starts_with(other)) || recorded.contains(metric);
            match defined.get(metric) {
                Some(has) => {
                    let has = |label: &&String| has.contains(*label) || TARGET_LABELS.contains(&label.as_str());
                    let missing: Vec<_> = labels.iter().filter(|label| !has(label)).collect();
                    if !missing.is_empty() {
                        faults.push(format!("{place}: {metric} has no label {missing:?}"));
                    }
                    known.extend(defined[metric].iter().map(String::as_str));
                }
                None if is_other => known.extend(labels.iter().map(String::as_str)),
                None => faults.push(format!("{place}: there is no metric {metric}")),
            }
        }
        let unknown: Vec<_> = names
            .grouping
            .iter()
            .filter(|label| !known.contains(label.as_str()))
            .collect();
        if !unknown.is_empty() {
            faults.push(format!("{place} groups by {unknown:?}, which none of its metrics has"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_dashboard_is_what_its_script_makes_and_every_panel_says_what_it_answers() {
    let script = root().join("helm/dashboard.py");
    let made = Command::new("python3").arg(script).arg("--check").output();
    let made = made.unwrap_or_else(|error| panic!("this test needs python3: `make deps` installs it ({error})"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for panel in source::panels() {
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(
            description.contains('?'),
            "no question in the description of {}",
            panel["title"]
        );
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "no unit: {}",
            panel["title"]
        );
    }
}

/// Every `velro ...` in back quotes, and every line of a block that begins so. A command ends at what only a shell reads.
fn commands(path: &str) -> BTreeSet<String> {
    let text = read(path);
    let (mut prose, mut found, mut is_block) = (String::new(), Vec::new(), false);
    for line in text.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            found.push(line.trim().to_owned());
        } else {
            prose.push_str(line.trim());
            prose.push(' ');
        }
    }
    found.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    let ours = found.iter().filter(|command| command.starts_with("velro "));
    let until_the_shell = |command: &String| {
        command
            .split(" |")
            .next()
            .unwrap()
            .split(" #")
            .next()
            .unwrap()
            .to_owned()
    };
    ours.map(until_the_shell).collect()
}

#[test]
fn every_command_that_is_named_can_be_typed() {
    let binary = tests::harness::binary().unwrap_or_else(|error| panic!("{error:#}"));
    let commands: BTreeSet<String> = [RULES, RUNBOOKS].iter().flat_map(|path| commands(path)).collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        // What is in capitals, quoted or a name of somebody's is a value.
        let is_word = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let subcommand: Vec<&&str> = words
            .iter()
            .take_while(|word| is_word(word) && !word.starts_with("--"))
            .collect();
        let help = Command::new(&binary)
            .args(&subcommand)
            .arg("--help")
            .current_dir(Path::new("/"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&help.stdout);
        assert!(
            help.status.success(),
            "`{command}`: {}",
            String::from_utf8_lossy(&help.stderr)
        );
        let usage = text.lines().find(|line| line.starts_with("Usage: ")).unwrap();
        assert!(!usage.ends_with("<COMMAND>"), "`{command}` is not complete: {usage}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap();
            assert!(
                text.contains(&format!("{flag} ")) || text.contains(&format!("{flag}\n")),
                "`{command}`: there is no {flag}"
            );
        }
    }
}
