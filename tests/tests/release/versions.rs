//! One version: Cargo.toml, CHANGELOG.md, docs/UPGRADING.md and the chart say the same.

use super::{read, root};

/// The version of every crate.
fn of_cargo() -> String {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    manifest["workspace"]["package"]["version"].as_str().unwrap().to_owned()
}

/// The released versions of a document, newest first: `## 0.2.0 - 2027-01-31`.
fn released(text: &str) -> Vec<&str> {
    let heads = text.lines().filter_map(|line| line.strip_prefix("## "));
    let versions = heads.filter_map(|head| Some(head.split_once(" - ")?.0));
    versions
        .filter(|head| head.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

#[test]
fn the_version_is_the_newest_of_the_changelog_and_that_of_the_chart() {
    let version = of_cargo();
    let (changes, upgrades) = (read("CHANGELOG.md"), read("docs/UPGRADING.md"));
    let newest = released(&changes).first().copied();
    assert!(
        newest.is_none_or(|newest| newest == version),
        "Cargo.toml says {version}, CHANGELOG.md says {newest:?}: versions are made by `make release`"
    );
    assert_eq!(
        released(&changes),
        released(&upgrades),
        "every release has its section in docs/UPGRADING.md"
    );
    let chart = root().join("helm/velro/Chart.yaml");
    if chart.parent().is_some_and(std::path::Path::exists) {
        let chart = std::fs::read_to_string(chart).unwrap();
        for line in [format!("version: {version}"), format!("appVersion: \"{version}\"")] {
            assert!(
                chart.lines().any(|own| own == line),
                "helm/velro/Chart.yaml has no line `{line}`"
            );
        }
    }
}

#[test]
fn every_package_of_ours_has_the_version() {
    let (version, lock) = (of_cargo(), read("Cargo.lock"));
    let lock: toml::Table = lock.parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let ours: Vec<_> = packages
        .iter()
        .filter(|package| package.get("source").is_none())
        .collect();
    assert!(ours.len() > 5, "{ours:?}");
    for package in ours {
        assert_eq!(package["version"].as_str(), Some(version.as_str()), "{package}");
    }
}

#[test]
fn releases_are_read_from_their_heads() {
    let text =
        "# Changelog\n## Unreleased\n## 0.2.0 - 2027-01-31\n### Added - much\n## 0.1.0 - 2026-12-01\n## Notes - none\n";
    assert_eq!(released(text), ["0.2.0", "0.1.0"]);
}
