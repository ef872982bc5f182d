//! Providers this process can use, by the name of their entry in `providers.toml`.
//!
//! Everything behind here is a pure [`velro_plugin::Provider`]; the HTTP is performed by [`crate::upstream`].

pub mod fal;
pub mod sandbox;

use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;
use velro_plugin::{Manifest, Provider};

use crate::catalog::{ProviderEntry, ProviderKind, Registry};
use crate::config::{Config, Secret};

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
    /// Why its models cannot be used at present (for example `FAL_KEY is not set`); `None` when they can.
    pub not_ready: Option<String>,
    /// Time-out of one request when the provider does not say, in milliseconds.
    pub timeout_ms: u32,
}

/// Loads every provider of a registry, by the name of its entry. One that cannot be used is there all the same and
/// says why.
pub fn load_all(config: &Config, registry: &Registry) -> HashMap<String, Arc<LoadedProvider>> {
    registry
        .providers
        .values()
        .map(|entry| (entry.name.clone(), Arc::new(load(config, entry))))
        .collect()
}

fn load(config: &Config, entry: &ProviderEntry) -> LoadedProvider {
    let mut secrets = HashMap::new();
    let mut not_ready = None;
    let provider: Arc<dyn Provider> = match entry.kind {
        ProviderKind::Sandbox => Arc::new(sandbox::Sandbox),
        ProviderKind::Fal => {
            let fal = fal::Fal::new(&config.fal);
            match &config.fal.key {
                Some(key) => drop(secrets.insert(fal::KEY_NAME.to_owned(), key.clone())),
                None => not_ready = Some(format!("{} is not set", fal::KEY_NAME)),
            }
            if let Some(fault) = fal.fault() {
                not_ready = Some(format!("FAL_QUEUE_URL: {fault}"));
            } else if config.fal.queue_url.starts_with("http:") && !config.upstream_allow_private {
                not_ready = Some("FAL_QUEUE_URL must use https (http only with UPSTREAM_ALLOW_PRIVATE=true)".into());
            }
            Arc::new(fal)
        }
    };
    let manifest = provider.manifest().unwrap_or_else(|fault| {
        not_ready = Some(format!("the provider cannot describe itself: {fault}"));
        Manifest::new(&entry.name, "")
    });
    LoadedProvider {
        name: entry.name.clone(),
        hosts: manifest.hosts.clone(),
        provider,
        manifest,
        secrets,
        not_ready,
        timeout_ms: entry.timeout_ms,
    }
}

/// Where everybody finds the present providers; a change of the registry replaces them in one step.
pub struct ProviderShelf {
    current: ArcSwap<HashMap<String, Arc<LoadedProvider>>>,
}

impl ProviderShelf {
    /// A shelf with these providers on it.
    pub fn new(providers: HashMap<String, Arc<LoadedProvider>>) -> Self {
        ProviderShelf {
            current: ArcSwap::from_pointee(providers),
        }
    }

    /// A provider by the name of its entry.
    pub fn get(&self, name: &str) -> Option<Arc<LoadedProvider>> {
        self.current.load().get(name).cloned()
    }

    /// Adds these, replacing those of the same name. The others stay: jobs in flight may need them.
    pub fn add(&self, providers: &HashMap<String, Arc<LoadedProvider>>) {
        self.current.rcu(|current| {
            let mut next = HashMap::clone(current);
            next.extend(
                providers
                    .iter()
                    .map(|(name, provider)| (name.clone(), Arc::clone(provider))),
            );
            next
        });
    }
}
