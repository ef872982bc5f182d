//! Providers this process can use, by the name of their entry in `providers.toml`.
//!
//! Everything behind here is a pure [`velro_plugin::Provider`]; the HTTP is performed by [`crate::upstream`].

pub mod declared;
pub mod fal;
mod health;
mod load;
mod reading;
pub mod routes;
pub mod sandbox;

pub use health::{Admission, Health, Standing};

use arc_swap::ArcSwap;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use velro_plugin::{Manifest, Provider};

use crate::catalog::{ProviderEntry, ProviderKind, Registry, RegistryErrors};
use crate::config::{Config, Secret};
use crate::plugin::{Library, Plugins};

/// A provider that is ready to be stepped, with what the host needs to perform its requests.
pub struct LoadedProvider {
    /// Name of the entry.
    pub name: String,
    /// The code.
    pub provider: Arc<dyn Provider>,
    /// What it said about itself.
    pub manifest: Manifest,
    /// Values of `manifest.secrets`, by name.
    pub secrets: HashMap<String, Secret>,
    /// Hosts it may talk to (from the manifest and the operator's configuration), `host` or `host:port`.
    pub hosts: Vec<String>,
    /// Those hosts may be on a private network, because the operator says so of this provider.
    pub allow_private: bool,
    /// Why its models cannot be used at present (for example `FAL_KEY is not set`); `None` when they can.
    pub not_ready: Option<String>,
    /// Time-out of one request when the provider does not say, in milliseconds.
    pub timeout_ms: u32,
    /// The library its code is in; `None` for what is built in.
    pub library: Option<Arc<Library>>,
    /// How it has been doing.
    pub health: Health,
    /// What it was made of; an entry that did not change is not made again.
    pub entry: Option<ProviderEntry>,
}

impl LoadedProvider {
    /// A provider that is ready, with nothing but what it says about itself. A manifest that it cannot give makes it not
    /// ready.
    pub fn of(name: &str, provider: Arc<dyn Provider>) -> Self {
        let mut not_ready = None;
        let manifest = provider.manifest().unwrap_or_else(|fault| {
            not_ready = Some(format!("the provider cannot describe itself: {fault}"));
            Manifest::new(name, "")
        });
        LoadedProvider {
            not_ready,
            ..LoadedProvider::described(name, provider, manifest)
        }
    }

    /// The same for one that has described itself already.
    fn described(name: &str, provider: Arc<dyn Provider>, manifest: Manifest) -> Self {
        LoadedProvider {
            name: name.to_owned(),
            provider,
            hosts: manifest.hosts.clone(),
            manifest,
            secrets: HashMap::new(),
            allow_private: false,
            not_ready: None,
            timeout_ms: 20_000,
            library: None,
            health: Health::default(),
            entry: None,
        }
    }

    /// True when this only stands for a library that could not be loaded.
    pub fn is_missing(&self) -> bool {
        let entry = self.entry.as_ref();
        self.library.is_none() && entry.is_some_and(|entry| matches!(entry.kind, ProviderKind::Plugin(_)))
    }

    /// True when its webhooks can be told from forged ones.
    pub fn takes_webhooks(&self) -> bool {
        use velro_plugin::WebhookAuth::{Ed25519Jwks, StandardWebhooks};
        match &self.manifest.webhook_auth {
            None => false,
            Some(Ed25519Jwks { .. }) => true,
            Some(StandardWebhooks { secret }) => self.secrets.contains_key(secret),
        }
    }
}

/// Where everybody finds the present providers; a change of the registry replaces them in one step.
pub struct ProviderShelf {
    current: ArcSwap<HashMap<String, Arc<LoadedProvider>>>,
    plugins: Plugins,
}

impl ProviderShelf {
    /// An empty shelf; [`ProviderShelf::put`] and [`ProviderShelf::take_up`] fill it.
    pub fn new(config: &Config) -> ProviderShelf {
        ProviderShelf::staged(&config.staged_plugins_dir())
    }

    fn staged(staging: &Path) -> ProviderShelf {
        ProviderShelf {
            current: ArcSwap::default(),
            plugins: Plugins::new(staging),
        }
    }

    /// A shelf with the providers of a registry. One that cannot be used is there all the same and says why; a library
    /// that is required and cannot be loaded is a fault of the registry.
    pub fn load(config: &Config, registry: &Registry) -> Result<ProviderShelf, RegistryErrors> {
        ProviderShelf::load_staged(config, registry, &config.staged_plugins_dir())
    }

    /// The same with the private copies of libraries in a folder of the caller's.
    pub fn load_staged(config: &Config, registry: &Registry, staging: &Path) -> Result<ProviderShelf, RegistryErrors> {
        let shelf = ProviderShelf::staged(staging);
        shelf.take_up(config, registry)?;
        Ok(shelf)
    }

    /// Takes up the providers of a changed registry, or none of them. Those that did not change stay as they are, and
    /// those that are gone stay too: jobs in flight may need them.
    pub fn take_up(&self, config: &Config, registry: &Registry) -> Result<(), RegistryErrors> {
        let before = self.current.load_full();
        let loaded = load::all(config, registry, &self.plugins, &before)?;
        let mut next = HashMap::clone(&before);
        next.extend(loaded);
        self.current.store(Arc::new(next));
        Ok(())
    }

    /// A provider by the name of its entry.
    pub fn get(&self, name: &str) -> Option<Arc<LoadedProvider>> {
        self.current.load().get(name).cloned()
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<LoadedProvider>> {
        self.current.load().values().cloned().collect()
    }

    /// Puts these on the shelf, replacing those of the same name.
    pub fn put(&self, providers: impl IntoIterator<Item = Arc<LoadedProvider>>) {
        let mut next = HashMap::clone(&self.current.load());
        next.extend(providers.into_iter().map(|provider| (provider.name.clone(), provider)));
        self.current.store(Arc::new(next));
    }

    /// Libraries in the address space: how many serve an entry of the registry, and how many are left over from before.
    pub fn libraries(&self, registry: &Registry) -> (usize, usize) {
        let current = self.current.load();
        let serving: HashSet<&str> = registry
            .providers
            .keys()
            .filter_map(|name| Some(current.get(name)?.library.as_ref()?.sha256.as_str()))
            .collect();
        (serving.len(), self.plugins.loaded().saturating_sub(serving.len()))
    }
}
