//! The Helm chart (`helm/velro`), rendered by the real helm and read with the schemas of Kubernetes: it is valid, keeps the
//! rules of a safe pod, refuses what cannot work, and changes nothing behind anybody's back.
//!
//! Every file of `helm/velro/ci` is a case, and so are the default values. A cluster is not needed, and nothing here proves
//! what only a cluster can: that images start and volumes are there.

#![allow(clippy::unwrap_used, clippy::panic)]

mod golden;
mod lifecycle;
mod manifest;
mod network;
mod references;
mod refusals;
mod rules;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;
use tests::clients;

use manifest::Manifest;

/// Which Kubernetes a cluster would say it is.
const KUBERNETES: &str = "1.31.0";
/// What every case is called and where it is, as `helm install` would be told.
const RELEASE: &str = "velro";
const NAMESPACE: &str = "shop";

/// The values of a case and what becomes of them.
pub struct Case {
    /// The name of its file without `.yaml`; `default` has none.
    pub name: String,
    /// The values as they are written.
    pub values: String,
    /// What helm prints.
    pub text: String,
    /// The same, read.
    pub manifests: Vec<Manifest>,
}

/// Every case, and what the schemas of Kubernetes object to in any of them.
pub struct Cases {
    pub all: Vec<Case>,
    pub faults: Vec<String>,
}

impl Cases {
    /// One of them.
    pub fn named(&self, name: &str) -> &Case {
        let found = self.all.iter().find(|case| case.name == name);
        found.unwrap_or_else(|| panic!("helm/velro/ci has no {name}.yaml"))
    }
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub fn chart() -> PathBuf {
    repository().join("helm/velro")
}

pub fn read_file(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cache() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Runs helm; `Err` is what it says when it refuses.
pub fn helm(arguments: &[&str]) -> Result<String, String> {
    static PROGRAM: LazyLock<PathBuf> =
        LazyLock::new(|| clients::helm(cache()).unwrap_or_else(|error| panic!("{error:#}")));
    let mut command = Command::new(&*PROGRAM);
    // Nothing of whoever runs the test: no cluster, no plugins, no repositories.
    command.args(arguments).env_clear().env("HOME", cache());
    let Output { status, stdout, stderr } = command
        .output()
        .unwrap_or_else(|error| panic!("{}, which is for Linux on x86-64: {error}", PROGRAM.display()));
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if status.success() {
        Ok(stdout)
    } else {
        Err(format!("{stdout}{stderr}"))
    }
}

/// `helm template` of the chart under a release's name.
pub fn template(release: &str, arguments: &[&str]) -> Result<String, String> {
    let chart = chart();
    let fixed = ["template", release, chart.to_str().unwrap()];
    let place = ["--namespace", NAMESPACE, "--kube-version", KUBERNETES];
    helm(&[&fixed[..], &place, arguments].concat())
}

/// The values file of a case, as an argument.
pub fn values_of(case: &str) -> String {
    chart().join(format!("ci/{case}.yaml")).to_str().unwrap().to_owned()
}

/// YAML texts by name as JSON, and what is wrong with the manifests among them. One interpreter reads them all.
pub fn read_yaml(texts: &[(&str, &str)]) -> (BTreeMap<String, Vec<Value>>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(format!("{name}.yaml"));
    for (name, text) in texts {
        std::fs::write(path(name), text).unwrap();
    }
    let python = clients::kubernetes(cache()).unwrap_or_else(|error| panic!("{error:#}"));
    let output = Command::new(python)
        .arg(clients::folder().join("kubernetes_manifests.py"))
        .args(texts.iter().map(|(name, _)| path(name)))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubernetes_manifests.py: {complaint}");
    let mut read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let prefix = format!("{}/", folder.path().display());
    let faults: Vec<String> = serde_json::from_value(read["faults"].take()).unwrap();
    let files: BTreeMap<String, Vec<Value>> = serde_json::from_value(read["files"].take()).unwrap();
    let name = |path: &str| path.strip_prefix(&prefix).unwrap().trim_end_matches(".yaml").to_owned();
    (
        files
            .into_iter()
            .map(|(path, documents)| (name(&path), documents))
            .collect(),
        faults.into_iter().map(|fault| fault.replace(&prefix, "")).collect(),
    )
}

/// Rendered texts as cases; `values` are not kept.
pub fn read_cases(texts: &[(&str, String)]) -> Cases {
    let borrowed: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let (mut files, faults) = read_yaml(&borrowed);
    let case = |(name, text): &(&str, String)| Case {
        name: (*name).to_owned(),
        values: String::new(),
        text: text.clone(),
        manifests: files.remove(*name).unwrap().into_iter().map(Manifest).collect(),
    };
    Cases {
        all: texts.iter().map(case).collect(),
        faults,
    }
}

/// The default values and every file of `ci/`, rendered once.
pub fn cases() -> &'static Cases {
    static CASES: LazyLock<Cases> = LazyLock::new(|| {
        let mut files: Vec<PathBuf> = std::fs::read_dir(chart().join("ci"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let named: Vec<(String, Option<PathBuf>)> = std::iter::once(("default".to_owned(), None))
            .chain(files.into_iter().map(|file| {
                let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, Some(file))
            }))
            .collect();
        assert!(named.len() > 5, "helm/velro/ci has lost its cases");
        let texts: Vec<(&str, String)> = named
            .iter()
            .map(|(name, file)| {
                let given = file.as_ref().map(|file| ["-f", file.to_str().unwrap()]);
                let arguments = given.as_ref().map_or(&[][..], |pair| &pair[..]);
                let text = template(RELEASE, arguments).unwrap_or_else(|error| panic!("{name}: {error}"));
                (name.as_str(), text)
            })
            .collect();
        let mut cases = read_cases(&texts);
        for (case, (_, file)) in cases.all.iter_mut().zip(&named) {
            case.values = file.as_deref().map(read_file).unwrap_or_default();
        }
        cases
    });
    &CASES
}
