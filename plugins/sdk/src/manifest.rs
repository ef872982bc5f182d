//! What a provider says about itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A provider's description of itself; the host checks it against `providers.toml` at load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Short name, for example `fal`.
    pub provider: String,
    /// Version of the provider code.
    pub version: String,
    /// Secrets it needs, by the name it uses in `{{secret:NAME}}`.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Hosts its requests may go to, as `host` or `host:port`; the host refuses all others.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Models it brings along; empty when the operator lists them.
    #[serde(default)]
    pub models: Vec<Model>,
    /// How its webhooks are signed; `None` when it has none.
    #[serde(default)]
    pub webhook_auth: Option<WebhookAuth>,
}

impl Manifest {
    /// A manifest with a name and a version.
    pub fn new(provider: &str, version: &str) -> Self {
        Manifest {
            provider: provider.into(),
            version: version.into(),
            ..Manifest::default()
        }
    }

    /// Adds a host.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Adds a secret.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secrets.push(name.into());
        self
    }
}

/// How webhooks are signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum WebhookAuth {
    /// FAL: Ed25519 over request id, user id, timestamp and body hash, keys from a JWKS document.
    Ed25519Jwks {
        /// URL of the JWKS document.
        jwks: String,
    },
    /// Standard Webhooks with a shared secret.
    StandardWebhooks {
        /// Name of the secret.
        secret: String,
    },
}

/// A model a provider brings along.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The provider's name of it.
    pub id: String,
    /// For people.
    pub title: String,
    /// `image`, `video` or `audio`.
    pub output: String,
    /// JSON Schema of the input.
    pub params: Value,
    /// What the provider charges.
    pub pricing: Pricing,
    /// `cancel`, `webhook`, ...
    #[serde(default)]
    pub features: Vec<String>,
}

/// `usd_micros` times the product of the named parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pricing {
    /// What is counted.
    pub unit: String,
    /// Millionths of a US dollar per unit.
    pub usd_micros: u64,
    /// Parameters that multiply.
    #[serde(default)]
    pub times: Vec<String>,
}
