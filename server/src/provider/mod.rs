//! Providers this process can use, by the name of their entry in `providers.toml`.
//!
//! Everything behind here is a pure [`velro_plugin::Provider`]; the HTTP is performed by [`crate::upstream`].

pub mod fal;
pub mod sandbox;

use std::collections::HashMap;
use std::sync::Arc;
use velro_plugin::{Manifest, Provider};

use crate::config::Secret;

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
