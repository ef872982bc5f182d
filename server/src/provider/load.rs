//! From an entry of the registry to a provider that is ready, or says why it is not.

use std::collections::HashMap;
use std::sync::Arc;
use velro_plugin::{Provider, WebhookAuth};

use super::{LoadedProvider, declared, fal, sandbox};
use crate::catalog::declaration::Declaration;
use crate::catalog::{PluginSource, ProviderEntry, ProviderKind, Registry, RegistryErrors};
use crate::config::{Config, ProviderSecrets};
use crate::document;
use crate::plugin::{self, Foreign, LoadFault, LoadProblem, Plugins};

/// Everything an entry is made with.
struct Loading<'a> {
    config: &'a Config,
    plugins: &'a Plugins,
}

/// Every provider of a registry, by the name of its entry; those of `before` that did not change are taken over.
pub(super) fn all(
    config: &Config,
    registry: &Registry,
    plugins: &Plugins,
    before: &HashMap<String, Arc<LoadedProvider>>,
) -> Result<HashMap<String, Arc<LoadedProvider>>, RegistryErrors> {
    let loading = Loading { config, plugins };
    let mut faults = Vec::new();
    let mut loaded = HashMap::new();
    for entry in registry.providers.values() {
        let same = before.get(&entry.name).filter(|before| is_same(before, entry));
        let provider = match same {
            Some(same) => Arc::clone(same),
            None => match loading.provider(entry) {
                Ok(provider) => Arc::new(provider),
                Err(fault) => {
                    faults.push(document::Fault {
                        line: entry.line,
                        what: format!("[providers.{}]: {}: {}", entry.name, fault.path.display(), fault.what),
                        remedy: fault.remedy,
                    });
                    continue;
                }
            },
        };
        loaded.insert(entry.name.clone(), provider);
    }
    match faults.is_empty() {
        true => Ok(loaded),
        false => Err(RegistryErrors {
            path: config.providers_path.clone(),
            faults,
        }),
    }
}

/// An entry that is only somewhere else in the file, or lets more jobs in, needs no new provider.
fn is_same(before: &LoadedProvider, entry: &ProviderEntry) -> bool {
    let relevant = |entry: &ProviderEntry| ProviderEntry {
        line: 0,
        enabled: true,
        concurrency: 0,
        concurrency_per_user: 0,
        ..entry.clone()
    };
    // What could not be loaded is tried again with every edit.
    let whole = before.library.is_some() || !matches!(entry.kind, ProviderKind::Plugin(_));
    whole
        && before
            .entry
            .as_ref()
            .is_some_and(|before| relevant(before) == relevant(entry))
}

impl Loading<'_> {
    fn provider(&self, entry: &ProviderEntry) -> Result<LoadedProvider, LoadFault> {
        let mut loaded = match &entry.kind {
            ProviderKind::Sandbox => LoadedProvider::of(&entry.name, Arc::new(sandbox::Sandbox)),
            ProviderKind::Fal => self.fal(entry),
            ProviderKind::Http(declaration) => self.declared(entry, Arc::clone(declaration))?,
            ProviderKind::Plugin(source) => match self.plugin(entry, source) {
                Err(fault) if !source.required => unavailable(entry, &fault),
                loaded => loaded?,
            },
        };
        loaded.timeout_ms = entry.timeout_ms;
        loaded.entry = Some(entry.clone());
        Ok(loaded)
    }

    fn fal(&self, entry: &ProviderEntry) -> LoadedProvider {
        let config = &self.config.fal;
        let fal = fal::Fal::new(config);
        let mut not_ready = None;
        if config.key.is_none() {
            not_ready = Some(format!("{} is not set", fal::KEY_NAME));
        }
        if let Some(fault) = fal.fault() {
            not_ready = Some(format!("FAL_QUEUE_URL: {fault}"));
        } else if config.queue_url.starts_with("http:") && !self.config.upstream_allow_private {
            not_ready = Some("FAL_QUEUE_URL must use https (http only with UPSTREAM_ALLOW_PRIVATE=true)".into());
        }
        let mut loaded = LoadedProvider::of(&entry.name, Arc::new(fal));
        loaded
            .secrets
            .extend(config.key.clone().map(|key| (fal::KEY_NAME.to_owned(), key)));
        loaded.not_ready = loaded.not_ready.or(not_ready);
        loaded
    }

    fn declared(&self, entry: &ProviderEntry, declaration: Arc<Declaration>) -> Result<LoadedProvider, LoadFault> {
        let provider = declared::Declared::new(&entry.name, declaration);
        self.described(entry, Arc::new(provider))
            .map_err(|(problem, what, remedy)| LoadFault::new(&self.config.providers_path, problem, what, remedy))
    }

    fn plugin(&self, entry: &ProviderEntry, source: &PluginSource) -> Result<LoadedProvider, LoadFault> {
        let verified = plugin::verify(&self.config.plugin_dir, &source.path, &source.sha256)?;
        let library = self.plugins.load(&verified)?;
        let foreign = Foreign::create(Arc::clone(&library), &entry.name, &source.config)?;
        let mut loaded = self
            .described(entry, Arc::new(foreign))
            .map_err(|(problem, what, remedy)| LoadFault::new(&verified.path, problem, what, remedy))?;
        loaded.library = Some(library);
        Ok(loaded)
    }

    /// A provider whose manifest has been held against what the operator allows.
    fn described(
        &self,
        entry: &ProviderEntry,
        provider: Arc<dyn Provider>,
    ) -> Result<LoadedProvider, (LoadProblem, String, String)> {
        let manifest = provider.manifest().map_err(|fault| {
            let what = format!("cannot describe itself ({fault})");
            (
                LoadProblem::Manifest,
                what,
                "see what `velro plugin check` says".to_owned(),
            )
        })?;
        let mut loaded = LoadedProvider::described(&entry.name, provider, manifest);
        if let Some(allowed) = &entry.hosts {
            let stranger = loaded
                .hosts
                .iter()
                .find(|host| !allowed.iter().any(|a| a.eq_ignore_ascii_case(host)));
            if let Some(stranger) = stranger {
                let what = format!("wants to talk to `{stranger}`, which `hosts` does not name");
                return Err((LoadProblem::Host, what, "add it to `hosts` if it shall".to_owned()));
            }
        }
        loaded.allow_private = entry.allow_private;
        let optional = match &loaded.manifest.webhook_auth {
            Some(WebhookAuth::StandardWebhooks { secret }) => Some(secret.clone()),
            _ => None,
        };
        let mut names = loaded.manifest.secrets.clone();
        names.extend(optional.clone().filter(|name| !names.contains(name)));
        for name in names {
            let variable = entry.secrets.get(&name).unwrap_or(&name);
            match self.config.provider_secrets.get(variable) {
                Some(secret) => drop(loaded.secrets.insert(name, secret.clone())),
                None if ProviderSecrets::is_ours(variable) => {
                    let what = format!("asks for `{variable}`, which is a setting of Velro");
                    let remedy = format!("name another variable: secrets = {{ {name} = \"ANOTHER_VARIABLE\" }}");
                    return Err((LoadProblem::Secret, what, remedy));
                }
                // Without the secret of its webhooks it is asked instead.
                None if optional.as_ref() == Some(&name) => {}
                None => loaded.not_ready = Some(format!("{variable} is not set")),
            }
        }
        Ok(loaded)
    }
}

/// In the place of a library that is not required and cannot be loaded.
fn unavailable(entry: &ProviderEntry, fault: &LoadFault) -> LoadedProvider {
    tracing::error!(provider = entry.name, fault = %fault, "a provider library is not loaded; its models are unavailable");
    let mut loaded = LoadedProvider::of(&entry.name, Arc::new(Missing));
    loaded.not_ready = Some(fault.to_string());
    loaded
}

/// What stands for a library that is not there: it never steps, because its provider is not ready.
struct Missing;

impl Provider for Missing {
    fn manifest(&self) -> Result<velro_plugin::Manifest, velro_plugin::Fault> {
        Ok(velro_plugin::Manifest::new("missing", ""))
    }

    fn step(
        &self,
        _job: &velro_plugin::Job<'_>,
        _event: velro_plugin::Event<'_>,
    ) -> Result<velro_plugin::Step, velro_plugin::Fault> {
        Err(velro_plugin::Fault::unsupported("a library that is not loaded"))
    }
}
