//! The registry: providers and models by name, replaced as a whole.

use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Model;
use super::declaration::Declaration;
use crate::clock::Micros;
use crate::generation::MediaType;

/// One `[providers.NAME]` of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderEntry {
    /// The name models refer to.
    pub name: String,
    /// What serves it.
    pub kind: ProviderKind,
    /// Switched off by the operator: its models are listed as unavailable and refused.
    pub enabled: bool,
    /// Jobs at once.
    pub concurrency: u32,
    /// Jobs of one user at once.
    pub concurrency_per_user: u32,
    /// Time-out of one request, in milliseconds.
    pub timeout_ms: u32,
    /// Hosts its requests may go to, as `host` or `host:port`; `None` leaves it to the provider's manifest.
    pub hosts: Option<Vec<String>>,
    /// Its hosts may be on a private network.
    pub allow_private: bool,
    /// Environment variables of its secrets, by the name that the provider uses; a secret that is not here comes from
    /// the variable of its own name.
    pub secrets: BTreeMap<String, String>,
    /// Where the entry begins in the file.
    pub line: usize,
}

/// Which code serves a provider.
#[derive(Debug, Clone, PartialEq)]
pub enum ProviderKind {
    /// Built in: FAL.ai's queue API.
    Fal,
    /// Built in: draws locally.
    Sandbox,
    /// Described in the registry only.
    Http(Arc<Declaration>),
    /// A dynamic library.
    Plugin(PluginSource),
}

/// Which library, and what it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSource {
    /// Below the folder of plugins, or absolute and inside it.
    pub path: PathBuf,
    /// SHA-256 of the file in lower-case hex: the only content that is loaded.
    pub sha256: String,
    /// The provider's own configuration.
    pub config: Map<String, Value>,
    /// A library that cannot be loaded stops the start (and refuses an edit); otherwise only its models are missing.
    pub required: bool,
}

/// Everything that can be generated, as one consistent whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registry {
    /// By name.
    pub providers: BTreeMap<String, ProviderEntry>,
    /// In the order of the file.
    pub models: Vec<Arc<Model>>,
    by_id: HashMap<String, usize>,
    /// First 12 hex digits of the file's SHA-256; shown to operators.
    pub revision: String,
    /// When it was loaded.
    pub loaded_at: Micros,
}

impl Registry {
    /// Puts a registry together; ids must be unique (the reader of the file has reported duplicates).
    pub fn new(
        providers: BTreeMap<String, ProviderEntry>,
        models: Vec<Arc<Model>>,
        revision: String,
        loaded_at: Micros,
    ) -> Self {
        let by_id = models.iter().enumerate().map(|(i, m)| (m.id.clone(), i)).collect();
        Registry {
            providers,
            models,
            by_id,
            revision,
            loaded_at,
        }
    }

    /// A model by its public id, whether or not it can be used now.
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        self.by_id.get(id).map(|&i| &self.models[i])
    }

    /// True when the model and one of its providers are switched on.
    pub fn is_available(&self, model: &Model) -> bool {
        model.is_active() && model.providers().any(|name| self.is_enabled(name))
    }

    /// True when there is a provider of this name and it is switched on.
    pub fn is_enabled(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|p| p.enabled)
    }

    /// The longest that any model may take, an hour at least: what is open for longer needs a hand.
    pub fn longest_deadline(&self) -> Duration {
        let deadlines = self.models.iter().map(|model| Duration::from_millis(model.deadline_ms));
        deadlines.fold(Duration::from_secs(3600), Duration::max)
    }

    /// Models that can be used, in the order of the file, optionally of one media type.
    pub fn available(&self, media_type: Option<MediaType>) -> impl Iterator<Item = &Arc<Model>> {
        self.models
            .iter()
            .filter(move |m| self.is_available(m) && media_type.is_none_or(|t| t == m.media_type))
    }
}

/// Where everybody finds the present registry; a reload swaps it in one step.
pub struct Shelf {
    current: ArcSwap<Registry>,
}

impl Shelf {
    /// A shelf with a registry on it.
    pub fn new(registry: Registry) -> Self {
        Shelf {
            current: ArcSwap::from_pointee(registry),
        }
    }

    /// The present registry; hold it for one request, not longer.
    pub fn get(&self) -> Arc<Registry> {
        self.current.load_full()
    }

    /// Replaces it.
    pub fn set(&self, registry: Registry) {
        self.current.store(Arc::new(registry));
    }
}
