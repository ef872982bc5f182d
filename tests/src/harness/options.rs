//! How a server under test is set up.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fal_sim::FalSim;

/// Signs the tokens of every server of the tests, so that a test can forge good and bad ones.
pub const JWT_SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";

/// What servers present to the simulator.
pub const FAL_KEY: &str = "key-id:key-secret";

/// The shipped registry.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../providers.toml");

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// How to start a [`super::Server`].
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) env: BTreeMap<String, String>,
    pub(super) registry: String,
    pub(super) webhooks: bool,
    pub(super) open_holds: usize,
    /// The name of one of several processes over the same data.
    pub(super) replica: Option<String>,
}

impl Options {
    /// The embedded default with a known secret and without rate limits; the shipped registry.
    #[must_use]
    pub fn new() -> Self {
        let mut env = BTreeMap::new();
        env.insert("JWT_SECRET".into(), JWT_SECRET.into());
        env.insert("RATE_LIMIT_ENABLED".into(), "false".into());
        env.insert("LOG_LEVEL".into(), "info".into());
        Self {
            env,
            registry: std::fs::read_to_string(SHIPPED).unwrap_or_else(|error| panic!("read {SHIPPED}: {error}")),
            webhooks: false,
            open_holds: 0,
            replica: None,
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Removes an environment variable that [`Self::new`] has set.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// FAL is this simulator, and polling is quick.
    #[must_use]
    pub fn fal(self, sim: &FalSim) -> Self {
        self.env("FAL_KEY", FAL_KEY)
            .env("FAL_QUEUE_URL", &sim.base_url)
            .env("FAL_RUN_URL", sim.run_url())
            .env("FAL_REST_URL", &sim.base_url)
            .env("UPSTREAM_ALLOW_PRIVATE", "true")
            .edit_registry(|registry| {
                for model in models(registry) {
                    if model.get("provider").and_then(toml::Value::as_str) == Some("fal") {
                        model.insert("poll_ceiling_ms".into(), 200.into());
                    }
                }
            })
    }

    /// Tells the server its own address, so that it asks providers for webhooks.
    #[must_use]
    pub fn webhooks(mut self) -> Self {
        self.webhooks = true;
        self
    }

    /// At the end of the test so many holds are still open; none by default.
    #[must_use]
    pub fn open_holds(mut self, count: usize) -> Self {
        self.open_holds = count;
        self
    }

    /// One of several processes over the same data, whose end is not the end of the test. The name is for messages.
    pub(super) fn replica(mut self, name: String) -> Self {
        self.replica = Some(name);
        self
    }

    /// Changes the registry file.
    #[must_use]
    pub fn edit_registry(mut self, edit: impl FnOnce(&mut toml::Table)) -> Self {
        let mut registry: toml::Table = self.registry.parse().expect("the registry is TOML");
        edit(&mut registry);
        self.registry = toml::to_string(&registry).expect("a TOML table can be written");
        self
    }

    /// Changes one model entry of the registry file.
    #[must_use]
    pub fn edit_model(self, id: &str, edit: impl FnOnce(&mut toml::Table)) -> Self {
        self.edit_registry(|registry| {
            let mut found = models(registry).filter(|m| m.get("id").and_then(toml::Value::as_str) == Some(id));
            edit(found.next().unwrap_or_else(|| panic!("no model {id} in the registry")));
        })
    }

    pub(super) fn write_registry(&self, folder: &Path) {
        std::fs::write(folder.join("providers.toml"), &self.registry).expect("the folder can be written");
    }
}

/// The model entries of a registry file.
pub fn models(registry: &mut toml::Table) -> impl Iterator<Item = &mut toml::Table> {
    registry
        .get_mut("models")
        .and_then(toml::Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_table_mut)
}
