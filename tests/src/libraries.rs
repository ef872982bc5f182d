//! Provider libraries for the tests: those of the workspace, and broken ones made by the system's C compiler.

#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a harness fails its test by panicking; every function here may"
)]

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use toml::{Table, Value};
use velro::plugin::{self, Foreign, Library, Plugins};
use velro_plugin::{Fault, FaultCode};

use crate::harness::{Options, binary};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The library that a crate of the workspace was built into.
pub fn built(krate: &str) -> PathBuf {
    let velro = binary().unwrap_or_else(|error| panic!("{error:#}"));
    let path = velro.with_file_name(format!("lib{}.so", krate.replace('-', "_")));
    assert!(path.is_file(), "there is no {}: run `make build` first", path.display());
    path
}

/// Compiles C into a library.
pub fn compile_c(source: &Path, into: &Path, defines: &[&str]) {
    let mut command = Command::new("cc");
    command.args([
        "-std=c11",
        "-O1",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]);
    command.args(["-Wno-unused-function", "-Wno-unused-variable", "-Wno-unused-parameter"]);
    command.arg(format!("-I{ROOT}/plugins/sdk/include"));
    command.args(defines.iter().map(|define| format!("-D{define}")));
    let output = command
        .arg(source)
        .arg("-o")
        .arg(into)
        .output()
        .expect("there is a C compiler: make deps");
    assert!(
        output.status.success(),
        "cc {defines:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Loads a library as the server does. What is mapped is a copy in a folder that may go.
pub fn load(file: &Path) -> Arc<Library> {
    let staging = tempfile::tempdir().expect("a folder");
    let verified = plugin::read(file).unwrap_or_else(|fault| panic!("{fault}"));
    Plugins::new(staging.path())
        .load(&verified)
        .unwrap_or_else(|fault| panic!("{fault}"))
}

/// An instance of it, as recordings want one.
///
/// # Errors
/// When it does not take the configuration.
pub fn create(library: &Arc<Library>, config: &[u8]) -> Result<Foreign, Fault> {
    let Ok(Json::Object(config)) = serde_json::from_slice(config) else {
        panic!("configurations are objects");
    };
    Foreign::create(Arc::clone(library), "test", &config)
        .map_err(|fault| Fault::new(FaultCode::BadInput, fault.to_string()))
}

/// A folder of plugins, as an operator has it.
pub struct PluginFolder(TempDir);

impl Default for PluginFolder {
    fn default() -> Self {
        PluginFolder::new()
    }
}

impl PluginFolder {
    /// An empty one.
    pub fn new() -> Self {
        PluginFolder(
            tempfile::Builder::new()
                .prefix("velro-plugins-")
                .tempdir()
                .expect("a folder"),
        )
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a library there, the way it should be done: under another name first.
    pub fn install(&self, library: &Path, name: &str) -> Installed {
        self.install_bytes(&fs::read(library).expect("the library is there"), name)
    }

    /// The same with its bytes.
    pub fn install_bytes(&self, bytes: &[u8], name: &str) -> Installed {
        let aside = self.path().join(format!("{name}.new"));
        fs::write(&aside, bytes).expect("the folder can be written");
        fs::rename(&aside, self.path().join(name)).expect("the folder can be written");
        Installed {
            name: name.to_owned(),
            sha256: hex::encode(Sha256::digest(bytes)),
        }
    }

    /// Compiles `tests/zoo/broken.c` with a fault and puts it there.
    pub fn broken(&self, fault: &str) -> Installed {
        let name = format!("{}.so", fault.to_ascii_lowercase());
        let made = self.path().join(format!("{name}.made"));
        compile_c(Path::new(&format!("{ROOT}/tests/zoo/broken.c")), &made, &[fault]);
        let installed = self.install(&made, &name);
        fs::remove_file(made).expect("the folder can be written");
        installed
    }
}

/// A library in the folder.
#[derive(Debug, Clone)]
pub struct Installed {
    /// File name.
    pub name: String,
    /// What the registry pins.
    pub sha256: String,
}

/// Adds a provider of `kind = "plugin"` to a registry, with one model `NAME/pixel` for seven credits.
pub fn add(registry: &mut Table, name: &str, library: &Installed, more: Table) {
    let mut entry = Table::from_iter([
        ("kind".to_owned(), Value::from("plugin")),
        ("path".to_owned(), Value::from(library.name.as_str())),
        ("sha256".to_owned(), Value::from(library.sha256.as_str())),
    ]);
    entry.extend(more);
    let providers = registry
        .get_mut("providers")
        .and_then(Value::as_table_mut)
        .expect("it has providers");
    providers.insert(name.to_owned(), Value::Table(entry));
    let text = format!(
        "id = \"{name}/pixel\"\nprovider = \"{name}\"\nprovider_model = \"pixel\"\nmedia_type = \"image\"\ndescription = \"A \
         pixel.\"\ncredits = 7\nmax_resolution = \"1x1\"\nformats = [\"png\"]\ntypical_ms = 1000\ndeadline_ms = 600000\n\
         poll_ceiling_ms = 1000\nnegative_prompt = {{ refused = \"not here\" }}\nreference_image = {{ refused = \"not here\" \
         }}\n"
    );
    let model: Table = text.parse().expect("it is TOML");
    let models = registry
        .get_mut("models")
        .and_then(Value::as_array_mut)
        .expect("it has models");
    models.push(Value::Table(model));
}

/// A table out of TOML text.
pub fn table(text: &str) -> Table {
    text.parse().expect("it is TOML")
}

/// Options of a server with this folder of plugins.
pub fn options(folder: &PluginFolder) -> Options {
    Options::new().env("VELRO_PLUGIN_DIR", folder.path().to_str().expect("a path of ours"))
}
