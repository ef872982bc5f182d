//! The reader of `providers.toml`: the whole file is checked and every fault is reported at once with its line.
//!
//! A file with a fault yields no registry at all, so that a half-written or mistyped edit never changes what is sold.
//! [`read`] is the only function of the catalog that touches the file system.

mod declared;
mod fallback;
#[cfg(test)]
mod fallback_tests;
mod model;
mod param;
mod provider;
mod rules;
#[cfg(test)]
mod tests;

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Model, ProviderEntry, Registry};
use crate::clock::Micros;
use crate::document::{self, Fault, Faults, Section, one_of};

/// Largest file that is read, in bytes; a hundred times the shipped one.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Everything that is wrong with a `providers.toml`. Displayed one per line as `path:line: what; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryErrors {
    /// The file, as it was named.
    pub path: PathBuf,
    /// In the order of the file; never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for RegistryErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            match fault.line {
                // A fault of the file as a whole.
                0 => write!(
                    f,
                    "{separator}{}: {}; {}",
                    self.path.display(),
                    fault.what,
                    fault.remedy
                )?,
                _ => write!(f, "{separator}{}:{fault}", self.path.display())?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for RegistryErrors {}

/// The text of a file; a missing, unreadable or oversized one is a fault like any other.
pub fn read(path: &Path) -> Result<String, RegistryErrors> {
    let fault = |what: String, remedy: &str| RegistryErrors {
        path: path.to_owned(),
        faults: vec![Fault {
            line: 0,
            what,
            remedy: remedy.to_owned(),
        }],
    };
    let cannot_read = |e: std::io::Error| {
        fault(
            format!("cannot be read ({e})"),
            "point VELRO_PROVIDERS or --providers to a readable providers.toml",
        )
    };
    let size = std::fs::metadata(path).map_err(cannot_read)?.len();
    if size > MAX_FILE_BYTES {
        return Err(fault(
            format!("is {size} bytes long"),
            "keep it below 4 MiB; is it the right file?",
        ));
    }
    let bytes = std::fs::read(path).map_err(cannot_read)?;
    String::from_utf8(bytes).map_err(|_| fault("is not UTF-8 text".into(), "save it as UTF-8; is it the right file?"))
}

/// First 12 hex digits of the SHA-256 of a registry's text: [`Registry::revision`].
pub fn revision(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    hex::encode(&digest[..6])
}

impl Registry {
    /// Reads and checks a whole `providers.toml`. `path` is only used in messages.
    pub fn from_toml(text: &str, path: &Path, now: Micros) -> Result<Registry, RegistryErrors> {
        let faults = Faults::new(text);
        let root = document::parse(text, &faults);
        let (providers, models) = if faults.is_empty() {
            let mut file = Section::new("the file", 1, root.get_ref(), &faults);
            let read = read_file(&mut file);
            file.finish();
            read
        } else {
            // Below a syntax fault anything may be missing; reporting that would only bury the cause.
            Default::default()
        };
        let faults = faults.into_sorted();
        if !faults.is_empty() {
            return Err(RegistryErrors {
                path: path.to_owned(),
                faults,
            });
        }
        Ok(Registry::new(providers, models, revision(text), now))
    }

    /// Reads and checks the file at `path`.
    pub fn from_file(path: &Path, now: Micros) -> Result<Registry, RegistryErrors> {
        Registry::from_toml(&read(path)?, path, now)
    }
}

type Contents = (BTreeMap<String, ProviderEntry>, Vec<Arc<Model>>);

fn read_file(file: &mut Section<'_, '_>) -> Contents {
    let mut providers = BTreeMap::new();
    let mut provider_names = Vec::new();
    for (name, section) in file.named_sections("providers", |name| format!("[providers.{name}]")) {
        provider_names.push(name);
        if let Some(entry) = provider::read(name, section) {
            providers.insert(entry.name.clone(), entry);
        }
    }
    let mut models = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    let sections = file.listed_sections("models");
    // An editor that empties a file before it writes must not take all models off the shelf.
    if sections.is_empty() {
        file.fault(1, "there is no [[models]] entry", "add at least one model");
    }
    for mut section in sections {
        if let Some(id) = section.text("id") {
            section.label = format!("model `{}`", id.value);
            if let Some(first) = lines.insert(id.value.to_owned(), id.line) {
                let what = format!("the id is used twice, first on line {first}");
                section.fault(id.line, what, "give every model its own id");
            }
        }
        check_provider(&mut section, &provider_names);
        models.extend(model::read(section, &provider_names).map(Arc::new));
    }
    (providers, models)
}

/// The provider that a model or a fallback names must be one of the file's.
fn check_provider(section: &mut Section<'_, '_>, known: &[&str]) {
    let Some(provider) = section.text("provider") else {
        return;
    };
    if known.contains(&provider.value) {
        return;
    }
    let what = format!("there is no provider `{}`", provider.value);
    let remedy = match document::nearest(provider.value, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("write {} or add [providers.{}]", one_of(known), provider.value),
    };
    section.fault(provider.line, what, remedy);
}
