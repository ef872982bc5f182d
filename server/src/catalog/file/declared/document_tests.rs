//! `docs/DECLARATIVE.md` says what the reader does: its example is read, its tables name the keys that there are.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use crate::catalog::Registry;
use crate::clock::Micros;

const DOCUMENT: &str = include_str!("../../../../../docs/DECLARATIVE.md");

fn faults(text: &str) -> Vec<String> {
    match Registry::from_toml(text, Path::new("p"), Micros(0)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.faults.iter().map(ToString::to_string).collect(),
    }
}

fn example() -> &'static str {
    let (_, rest) = DOCUMENT.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_example_is_read_without_faults() {
    assert_eq!(faults(example()), Vec::<String>::new());
}

/// The keys in the first column of the table below a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let at = DOCUMENT
        .find(&format!("### `{heading}`"))
        .unwrap_or_else(|| panic!("{heading}"));
    let section = DOCUMENT[at + 4..].split("\n##").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        row.split('|')
            .nth(1)
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
    })
    .collect()
}

/// The keys the reader knows: it lists them to whoever writes one that is like none.
fn known(table: &str, more: &str) -> BTreeSet<String> {
    let odd = "qqqqqqqqqqqq = 1\n";
    let text = match example().split_once(&format!("[{table}]")) {
        // What stands behind a heading on its line is a comment.
        Some((before, after)) => {
            let (comment, after) = after.split_once('\n').unwrap();
            format!("{before}[{table}]{comment}\n{odd}{after}")
        }
        None => {
            let (before, after) = example().split_once("[[models]]").unwrap();
            let list = if more.is_empty() {
                format!("[{table}]")
            } else {
                more.to_owned()
            };
            format!("{before}{list}\n{odd}[[models]]{after}")
        }
    };
    let all = faults(&text);
    let found = all.iter().find_map(|fault| fault.split_once("known here: "));
    let (_, names) = found.unwrap_or_else(|| panic!("{table}: {all:?}"));
    names.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented() {
    for (heading, table, more) in [
        ("[providers.NAME]", "providers.acme", ""),
        ("[providers.NAME.job]", "providers.acme.job", ""),
        ("[[providers.NAME.errors]]", "", "[[providers.acme.errors]]"),
        ("[providers.NAME.poll]", "providers.acme.poll", ""),
        ("[providers.NAME.webhook]", "providers.acme.webhook", ""),
    ] {
        assert_eq!(documented(heading), known(table, more), "{heading}");
    }
    let mut requests = known("providers.acme.submit", "");
    requests.extend(known("providers.acme.status", ""));
    requests.extend(known("providers.acme.result", ""));
    requests.extend(known("providers.acme.cancel", ""));
    assert_eq!(documented("[providers.NAME.submit]"), requests);
    let odd = example().replace("at = \"/images\"", "at = \"/images\", qqqqqqqqqqqq = 1");
    let all = faults(&odd).join("\n");
    let (_, names) = all.split_once("known here: ").unwrap();
    let names: BTreeSet<String> = names.split(", ").map(str::to_owned).collect();
    assert_eq!(documented("[[providers.NAME.outputs]]"), names);
}
