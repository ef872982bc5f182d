//! The documents say what is true: problem codes, environment variables, names of tests and links are compared with the
//! code. To change one is to change the other in the same commit.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tests::sources::rust_below;
use velro::http::problem::Code;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of every row of every table in a document, without heads and rulers.
fn table_rows(text: &str) -> Vec<Vec<&str>> {
    let is_row = |line: &&str| line.starts_with('|');
    let is_ruler = |line: &str| line.starts_with("|-");
    let lines: Vec<&str> = text.lines().collect();
    let rows = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| is_row(line))
        .filter(|(at, line)| {
            let is_head = lines.get(at + 1).is_some_and(|next| is_ruler(next));
            !is_ruler(line) && !is_head
        });
    rows.map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// The words in back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_problem_code_is_documented() {
    let text = read("docs/ERRORS.md");
    let documented: Vec<_> = table_rows(&text)
        .into_iter()
        .map(|cells| {
            assert!(
                cells.len() == 4 && !cells[3].is_empty(),
                "what to do about it is missing: {cells:?}"
            );
            (
                cells[0].trim_matches('`').to_owned(),
                cells[1].to_owned(),
                cells[2].to_owned(),
            )
        })
        .collect();
    let codes: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            let status = code.status().as_u16().to_string();
            (code.as_str().to_owned(), status, code.title().to_owned())
        })
        .collect();
    assert_eq!(
        documented, codes,
        "docs/ERRORS.md has other codes, statuses, titles or another order than Code::ALL"
    );
}

#[test]
fn every_environment_variable_is_documented() {
    let readme = read("README.md");
    let documented: BTreeSet<&str> = table_rows(&readme).iter().flat_map(|cells| quoted(cells[0])).collect();
    let defaults = read("server/src/config/defaults.toml");
    // `# [FIRST, SECOND] What it does.`
    let lists = defaults
        .lines()
        .filter_map(|line| line.strip_prefix("# [")?.split_once(']'));
    let mut known: BTreeSet<&str> = lists.flat_map(|(names, _)| names.split(", ")).collect();
    assert!(
        known.contains("DATABASE_URL"),
        "defaults.toml names its variables in another way now: {known:?}"
    );
    known.insert("VELRO_CONFIG");
    assert_eq!(documented, known, "README.md and defaults.toml name other variables");
}

/// Every Rust file, in one text.
fn sources() -> String {
    let folders = ["server/src", "plugins", "tests"];
    folders.map(|folder| rust_below(&root().join(folder)).unwrap()).concat()
}

#[test]
fn the_tests_named_in_the_architecture_exist() {
    let text = read("ARCHITECTURE.md");
    // `Test: `one`, `two`.`, at the end of an invariant; it may run over several lines.
    let joined = text.replace('\n', " ");
    let named: Vec<&str> = joined
        .split("Test: ")
        .skip(1)
        .flat_map(|rest| quoted(rest.split_once(".)").expect("ends with `.)`").0))
        .collect();
    assert!(named.len() > 20, "{named:?}");
    assert_tests_exist(&named);
}

#[track_caller]
fn assert_tests_exist(named: &[&str]) {
    let sources = sources();
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !sources.contains(&format!("fn {name}(")))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

#[test]
fn every_threat_names_what_protects_and_a_test_that_exists() {
    let text = read("SECURITY.md");
    let threats: Vec<_> = table_rows(&text).into_iter().filter(|cells| cells.len() == 3).collect();
    assert!(threats.len() > 20, "{threats:?}");
    let mut named = Vec::new();
    for cells in &threats {
        let tests: Vec<&str> = quoted(cells[2]).collect();
        assert!(!cells[1].is_empty() && !tests.is_empty(), "{cells:?}");
        named.extend(tests);
    }
    assert_tests_exist(&named);
}

#[test]
fn every_rate_limit_is_documented_as_it_is() {
    let source = read("server/src/http/limits/mod.rs");
    // `Policy::Login => ("login", 20),`
    let limits: BTreeSet<(String, String)> = source
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("Policy::")?
                .split_once("=> (\"")?
                .1
                .strip_suffix("),")
        })
        .filter_map(|limit| limit.split_once("\", "))
        .map(|(name, calls)| (name.to_owned(), calls.to_owned()))
        .collect();
    assert!(
        limits.len() > 10,
        "limits/mod.rs names its limits in another way now: {limits:?}"
    );
    let text = read("docs/LIMITS.md");
    let section = text
        .split_once("## Calls per caller")
        .unwrap()
        .1
        .split_once("\n## ")
        .unwrap()
        .0;
    let documented: BTreeSet<(String, String)> = table_rows(section)
        .iter()
        .flat_map(|cells| quoted(cells[0]).zip(cells[1].split(", ")))
        .map(|(name, calls)| (name.to_owned(), calls.to_owned()))
        .collect();
    assert_eq!(
        documented, limits,
        "docs/LIMITS.md and http/limits/mod.rs say something else"
    );
}

#[test]
fn links_lead_somewhere() {
    let mut documents = Vec::new();
    for folder in [".", "docs", "docs/providers", "benches", "migrations", "helm/velro"] {
        let files = std::fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        documents.extend(
            names
                .filter(|name| name.ends_with(".md"))
                .map(|name| format!("{folder}/{name}")),
        );
    }
    assert!(documents.len() > 20, "{documents:?}");
    let mut broken = Vec::new();
    for document in &documents {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_path_buf();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.starts_with("http") || path.is_empty();
            if !is_elsewhere && !folder.join(path).exists() {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_registry_blocks_of_plugins_are_read() {
    for plugin in ["replicate", "openai-images", "comfyui", "examples/pixie-c"] {
        let document = format!("plugins/{plugin}/README.md");
        let text = read(&document);
        let blocks = text
            .split("```toml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next());
        let registry: String = blocks.collect::<Vec<_>>().join("\n");
        assert!(
            registry.contains("[providers.") && registry.contains("[[models]]"),
            "{document}"
        );
        let registry = registry.replace("sha256 = \"...\"", &format!("sha256 = \"{}\"", "0".repeat(64)));
        let now = velro::clock::now();
        if let Err(faults) = velro::catalog::Registry::from_toml(&registry, Path::new(&document), now) {
            panic!("{document}:\n{faults}\n{registry}");
        }
    }
}

#[test]
fn tables_are_read_as_they_are_drawn() {
    let text = "words | not a table\n\n| Code | Status |\n|---|---|\n| `a` | 1 |\n| `b`, `c` | 2 |\n";
    assert_eq!(table_rows(text), [["`a`", "1"], ["`b`, `c`", "2"]]);
    assert_eq!(quoted("`b`, `c` d").collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn every_metric_is_documented() {
    let defined = read("server/src/telemetry/metrics/mod.rs");
    let defined: BTreeSet<&str> = defined
        .lines()
        .filter_map(|line| line.split_once("= \"velro_")?.1.split_once('"'))
        .map(|(name, _)| name)
        .collect();
    let text = read("docs/OBSERVING.md");
    let rows = table_rows(&text);
    let documented: BTreeSet<&str> = rows
        .iter()
        .flat_map(|cells| quoted(cells[1]))
        .filter_map(|name| name.strip_prefix("velro_"))
        .collect();
    assert!(defined.len() > 40, "{defined:?}");
    assert_eq!(
        documented, defined,
        "the table of docs/OBSERVING.md and telemetry/metrics/mod.rs"
    );
}
