//! The bill of materials: it passes CycloneDX's own schema, names what cargo links into the server with version, licence
//! and hash, and is the same whenever it is written from the same sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{read, root, run, script};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Writes one, and gives its bytes.
fn written(into: &Path, binary: &Path) -> Vec<u8> {
    let tools = run(script(".ci/tools").arg("sbom")).ok();
    let mut sbom = Command::new(Path::new(tools.trim()).join("python"));
    sbom.arg(root().join(".ci/sbom"))
        .args(["--target", TARGET, "--output"])
        .arg(into)
        .arg("--binary")
        .arg(binary);
    let said = run(sbom.current_dir(root()).env("SOURCE_DATE_EPOCH", "1800000000")).ok();
    assert!(said.contains("valid CycloneDX 1.6"), "{said}");
    std::fs::read(into).unwrap()
}

/// Name and version of what `cargo tree` prints for these edges.
fn tree(edges: &str) -> BTreeSet<(String, String)> {
    let mut tree = Command::new("cargo");
    tree.args([
        "tree",
        "--locked",
        "--package",
        "velro",
        "--edges",
        edges,
        "--target",
        TARGET,
    ]);
    let listed = run(tree
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .env_remove("RUSTC_WRAPPER"));
    let lines = listed.ok();
    let crates = lines.lines().filter(|line| line.contains(" v")).map(|line| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        (name.to_owned(), version.trim_start_matches('v').to_owned())
    });
    crates.filter(|(name, _)| name != "velro").collect()
}

#[test]
fn the_bill_of_materials_is_valid_and_says_what_is_shipped() {
    let folder = tempfile::tempdir().unwrap();
    let (file, binary) = (folder.path().join("velro.cdx.json"), folder.path().join("velro"));
    std::fs::write(&binary, "a program").unwrap();
    let bytes = written(&file, &binary);
    assert!(written(&file, &binary) == bytes, "written twice, the bytes differ");

    let bill: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(bill["specVersion"], "1.6");
    let main = &bill["metadata"]["component"];
    assert_eq!(
        (&main["name"], &main["version"]),
        (&Value::from("velro"), &Value::from(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(main["hashes"][0]["content"], hex::encode(Sha256::digest("a program")));

    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let of = |package: &toml::Value, key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or("").to_owned();
    let packages = lock["package"].as_array().unwrap().iter();
    let checksums: BTreeMap<_, _> = packages
        .map(|package| ((of(package, "name"), of(package, "version")), of(package, "checksum")))
        .collect();
    let mut named = BTreeSet::new();
    let mut linked = BTreeSet::new();
    for component in bill["components"].as_array().unwrap() {
        let text = |key: &str| component[key].as_str().unwrap_or_default().to_owned();
        let key = (text("name"), text("version"));
        let hash = component["hashes"][0]["content"].as_str().unwrap_or_default();
        assert_eq!(Some(hash), checksums.get(&key).map(String::as_str), "{component}");
        let license = &component["licenses"][0];
        assert!(
            license["expression"].is_string() || license["license"]["id"].is_string(),
            "{component}"
        );
        assert_eq!(
            text("purl"),
            format!("pkg:cargo/{}@{}", key.0, key.1.replace('+', "%2B"))
        );
        if text("scope") == "required" {
            linked.insert(key.clone());
        }
        named.insert(key);
    }
    assert_eq!(named, tree("normal,build"), "it names other crates than cargo builds");
    let not_linked: Vec<_> = ["serde_derive", "syn", "quote", "cc", "cmake"].into_iter().collect();
    assert!(
        linked.iter().all(|(name, _)| !not_linked.contains(&name.as_str())),
        "{linked:?}"
    );
    for name in ["tokio", "salvo", "sqlx-core", "rustls", "libsqlite3-sys"] {
        assert!(
            linked.iter().any(|(linked, _)| linked == name),
            "{name} is linked and not named"
        );
    }
    let text = String::from_utf8(bytes).unwrap();
    for library in ["pkg:generic/sqlite@3.", "pkg:generic/aws-lc@"] {
        assert!(text.contains(library), "{library}: what is brought along is not named");
    }
}
