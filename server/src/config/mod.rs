//! Configuration: embedded defaults, `velro.toml`, environment, flags, in that order; all faults at once.
//!
//! [`Config`] is the resolved form everybody uses. Nothing reads the environment besides this module.

mod jwt_secret;
mod layers;
mod payments;
mod resolve;
mod role;
mod secret;
mod settings;
mod supabase;
#[cfg(test)]
mod tests;
mod tracing;
pub mod watch;

pub use payments::{PaymentsConfig, StripeConfig};
pub use role::Role;
pub use secret::Secret;
pub use tracing::TracingConfig;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use layers::Layers;

/// Everything an operator can set, resolved and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `ENVIRONMENT` (or `RAILWAY_ENVIRONMENT`).
    pub environment: Environment,
    /// `VELRO_ROLE`: which half of the server this process is; both by default.
    pub role: Role,
    /// `HOST`: address to listen on; 127.0.0.1 in development, 0.0.0.0 elsewhere.
    pub host: String,
    /// `PORT`.
    pub port: u16,
    /// `METRICS_PORT`: a port of their own for metrics and probes; `None` leaves them on the API's.
    pub metrics_port: Option<u16>,
    /// `PUBLIC_URL` without a trailing slash: base of links and webhooks. Defaults to `http://HOST:PORT`.
    pub public_url: String,
    /// True when `PUBLIC_URL` was set, so that providers can reach our webhooks.
    pub public_url_is_set: bool,
    /// Folder of the embedded database, outputs and generated secrets.
    pub data_dir: PathBuf,
    /// `DATABASE_URL`; `sqlite:` under `data_dir` by default. See [`Config::database`].
    pub database_url: Secret,
    /// `REDIS_URL`: queue, wake-ups, live events and limits over all replicas; in process without it.
    pub redis_url: Option<Secret>,
    /// `VELRO_REDIS_PREFIX`: in front of every key and channel.
    pub redis_prefix: String,
    /// `VELRO_REDIS_CONNECTIONS`: size of the pool; the subscription has one more.
    pub redis_connections: u32,
    /// `VELRO_PROVIDERS`: path of `providers.toml`.
    pub providers_path: PathBuf,
    /// `VELRO_PLUGIN_DIR`: folder of provider libraries; `plugins` in the data folder by default.
    pub plugin_dir: PathBuf,
    /// What the environment says that is no setting of ours: secrets of providers come from here.
    pub provider_secrets: ProviderSecrets,
    /// `JWT_SECRET` (alias `JWT_SECRET_KEY`): signs our tokens and output URLs; 32 characters at least.
    pub jwt_secret: Secret,
    /// Life of an access token.
    pub access_token_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_token_ttl: Duration,
    /// Life of a signed output URL.
    pub output_url_ttl: Duration,
    /// `DEFAULT_USER_CREDITS`.
    pub default_user_credits: i64,
    /// `OPERATOR_EMAILS`, lower case: operators from registration on.
    pub operator_emails: Vec<String>,
    /// `CORS_ORIGINS`.
    pub cors_origins: Vec<String>,
    /// `RATE_LIMIT_ENABLED`.
    pub rate_limit_enabled: bool,
    /// `TRUST_PROXY_HEADERS`: believe `X-Forwarded-For` of the proxy in front (for rate limits by address).
    pub trust_proxy_headers: bool,
    /// Largest JSON or form body, in bytes.
    pub max_body_bytes: u64,
    /// Largest reference image, in bytes.
    pub max_upload_bytes: u64,
    /// `VELRO_MAX_CONNECTIONS`: open at once.
    pub max_connections: usize,
    /// `VELRO_MAX_REQUESTS`: worked on at once.
    pub max_requests: usize,
    /// Largest output file, in bytes.
    pub max_output_bytes: u64,
    /// `LOG_LEVEL`: `error|warn|info|debug|trace` or a tracing filter.
    pub log_level: String,
    /// `LOG_FORMAT`: `text` or `json`.
    pub log_json: bool,
    /// `SERVICE_NAME`.
    pub service_name: String,
    /// FAL.
    pub fal: FalConfig,
    /// Purchases of credits.
    pub payments: PaymentsConfig,
    /// `UPSTREAM_ALLOW_PRIVATE`: providers and outputs may live on private addresses.
    pub upstream_allow_private: bool,
    /// How long a stop may take in all. See [`Config::drain_time`].
    pub shutdown_grace: Duration,
    /// `VELRO_SHUTDOWN_DELAY_SECONDS`: how much of it new connections are still taken, while the process says it is not ready.
    pub shutdown_delay: Duration,
    /// `VELRO_LEDGER_CHECK_MINUTES`: how often the books are recomputed; `None`: never.
    pub ledger_check_every: Option<Duration>,
    /// Where traces go.
    pub tracing: TracingConfig,
    /// Supabase's settings; with a URL, accounts live there.
    pub supabase: SupabaseConfig,
}

/// Variables of the environment that a provider's secret may come from. Velro's own settings are not among them: a
/// library that calls its secret `JWT_SECRET` must not get ours.
#[derive(Debug, Clone, Default)]
pub struct ProviderSecrets(Arc<BTreeMap<String, Secret>>);

impl ProviderSecrets {
    fn of(env: &BTreeMap<String, String>) -> Self {
        let theirs = env
            .iter()
            .filter(|(name, value)| !ProviderSecrets::is_ours(name) && !value.trim().is_empty());
        ProviderSecrets(Arc::new(
            theirs
                .map(|(name, value)| (name.clone(), Secret::new(value.trim())))
                .collect(),
        ))
    }

    /// True for a variable that never goes to a provider.
    pub fn is_ours(variable: &str) -> bool {
        let mut settings = settings::SETTINGS.iter().flat_map(|setting| setting.vars);
        variable.starts_with("VELRO_") || settings.any(|ours| *ours == variable && !SHARED.contains(&variable))
    }

    /// The secret in a variable; `None` when it is not set, is empty, or is ours.
    pub fn get(&self, variable: &str) -> Option<&Secret> {
        self.0.get(variable)
    }
}

/// Settings of ours that are a provider's key, so that a provider of the same service may use them.
const SHARED: &[&str] = &["FAL_KEY"];

/// Where accounts live when they do not live here. Without a URL nothing of it has an effect.
#[derive(Debug, Clone, Default)]
pub struct SupabaseConfig {
    /// `SUPABASE_URL`, no trailing slash. See [`SupabaseConfig::auth_url`].
    pub url: Option<String>,
    /// `SUPABASE_ANON_KEY` or `SUPABASE_PUBLISHABLE_KEY`; there is one when there is a URL.
    pub anon_key: Option<Secret>,
    /// `SUPABASE_SERVICE_KEY` or `SUPABASE_SERVICE_ROLE_KEY`: opens confirmed accounts.
    pub service_key: Option<Secret>,
    /// `SUPABASE_JWT_SECRET`: of projects that still sign with a shared secret.
    pub jwt_secret: Option<Secret>,
    /// `SUPABASE_JWT_ISSUER`, where it is not [`SupabaseConfig::auth_url`].
    pub jwt_issuer: Option<String>,
}

impl SupabaseConfig {
    /// Base of the account service (GoTrue), no trailing slash; `None` when accounts are local. A URL with a path is that
    /// base already, any other is a project's.
    pub fn auth_url(&self) -> Option<String> {
        let url = self.url.as_deref()?;
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        Some(if has_path {
            url.to_owned()
        } else {
            format!("{url}/auth/v1")
        })
    }

    /// What tokens have to name as their issuer; `None` when accounts are local.
    pub fn issuer(&self) -> Option<String> {
        let auth_url = self.auth_url()?;
        Some(self.jwt_issuer.clone().unwrap_or(auth_url))
    }
}

/// What the command line says; it wins over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`: instead of `VELRO_CONFIG` or `./velro.toml`.
    pub config_path: Option<PathBuf>,
    /// `--role`.
    pub role: Option<String>,
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--data`.
    pub data_dir: Option<PathBuf>,
    /// `--providers`.
    pub providers_path: Option<PathBuf>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// Write nothing: a secret that would be generated and kept is made up for this one time.
    pub read_only: bool,
}

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// A variable, a flag, or `file:line`.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Everything wrong with the configuration; displayed one per line as `place: what; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigFault>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {}; {}", fault.place, fault.what, fault.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something an operator should know that does not stop the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// A variable, a flag, or `file:line`.
    pub place: String,
    /// What to know.
    pub text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.text)
    }
}

/// The process environment as [`Config::load`] takes it; variables that are not UTF-8 are left out.
pub fn process_env() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Config {
    /// Merges defaults, file, environment and flags, and checks all of it. In development, unless
    /// [`Overrides::read_only`] is set, a missing signing secret is generated and kept in the data folder.
    pub fn load(flags: &Overrides, env: &BTreeMap<String, String>) -> Result<(Config, Vec<Notice>), ConfigErrors> {
        let (config, faults, notices) = Config::load_leniently(flags, env);
        match faults.is_empty() {
            true => Ok((config, notices)),
            false => Err(ConfigErrors(faults)),
        }
    }

    /// As [`Config::load`], but gives what could be resolved beside the faults; only for commands that report, such as
    /// `velro check`. What is at fault has a placeholder.
    pub(crate) fn load_leniently(
        flags: &Overrides,
        env: &BTreeMap<String, String>,
    ) -> (Config, Vec<ConfigFault>, Vec<Notice>) {
        let from_env = env.get("VELRO_CONFIG").filter(|v| !v.trim().is_empty());
        let named = flags.config_path.clone().or(from_env.map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from("velro.toml"));
        let (file, unreadable) = match std::fs::read_to_string(&path) {
            Ok(text) => (Some(text), None),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => (None, None),
            Err(e) => (None, Some(e)),
        };
        let layers = Layers::new(file.as_deref().map(|text| (path.as_path(), text)), env, flags);
        if let Some(e) = unreadable {
            let what = format!("cannot be read ({e})");
            let remedy = "correct VELRO_CONFIG, --config or the file's rights";
            layers.fault(display(&path), what, remedy);
        }
        let mut config = resolve::resolve(&layers, flags.read_only);
        config.provider_secrets = ProviderSecrets::of(env);
        let (faults, notices) = layers.into_findings();
        (config, faults, notices)
    }

    /// How this server is reached from the machine it runs on, whatever `PUBLIC_URL` says: `http://127.0.0.1:8000`.
    pub fn local_url(&self) -> String {
        resolve::local_url(&self.host, self.port)
    }

    /// Where the metrics of this server are, from the machine it runs on.
    pub fn metrics_url(&self) -> String {
        resolve::local_url(&self.host, self.metrics_port.unwrap_or(self.port))
    }

    /// The effective configuration, one `key = value` per line in the order of the defaults file, secrets not shown.
    pub fn redacted_lines(&self) -> Vec<String> {
        resolve::redacted_lines(self)
    }

    /// Which database it is.
    pub fn database(&self) -> Database {
        match is_postgres(self.database_url.expose()) {
            true => Database::Postgres,
            false => Database::Sqlite,
        }
    }

    /// The database that the data folder has when no other is configured.
    pub fn embedded_url(&self) -> String {
        resolve::embedded_url(&self.data_dir)
    }

    /// How long requests and steps in flight may take once no connections are taken any more: the grace, less the delay
    /// before that and what the last words need (giving leases back, closing the store).
    pub fn drain_time(&self) -> Duration {
        let left = self.shutdown_grace.saturating_sub(self.shutdown_delay);
        left.saturating_sub(LAST_WORDS.min(left / 5))
    }

    /// Where verified copies of provider libraries are kept: what is mapped is what was hashed.
    pub fn staged_plugins_dir(&self) -> PathBuf {
        self.data_dir.join("staged-plugins")
    }

    /// The folder of delivered files.
    pub fn outputs_dir(&self) -> PathBuf {
        self.data_dir.join("outputs")
    }
}

impl Secret {
    /// How a secret is shown to an operator.
    fn redacted(&self) -> String {
        format!("set ({} characters)", self.expose().chars().count())
    }
}

/// How much of the grace of a stop is kept for the end of it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Both names of the scheme are in use; libpq takes both.
fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

/// The database that `DATABASE_URL` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// Embedded, for one process that keeps the data folder for itself.
    Sqlite,
    /// A server, for any number of processes.
    Postgres,
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// Where FAL is and how we pay.
#[derive(Debug, Clone)]
pub struct FalConfig {
    /// `FAL_KEY`; without it FAL's models are refused with a reason.
    pub key: Option<Secret>,
    /// `FAL_QUEUE_URL`, no trailing slash.
    pub queue_url: String,
    /// `FAL_RUN_URL`, no trailing slash.
    pub run_url: String,
    /// `FAL_REST_URL`, no trailing slash.
    pub rest_url: String,
}

/// Where the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Friendly defaults: a secret is generated and kept, it listens on loopback.
    Development,
    /// Strict: secrets must be given.
    Production,
}

impl Environment {
    /// The form in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Production => "production",
        }
    }
}
