//! Configuration: embedded defaults, `velro.toml`, environment, flags, in that order; all faults at once.
//!
//! [`Config`] is the resolved form everybody uses. Nothing reads the environment besides this module.

mod secret;

pub use secret::Secret;

use std::path::PathBuf;
use std::time::Duration;

/// Everything an operator can set, resolved and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `ENVIRONMENT` (or `RAILWAY_ENVIRONMENT`).
    pub environment: Environment,
    /// `HOST`: address to listen on; 127.0.0.1 in development, 0.0.0.0 elsewhere.
    pub host: String,
    /// `PORT`.
    pub port: u16,
    /// `PUBLIC_URL` without a trailing slash: base of links and webhooks. Defaults to `http://HOST:PORT`.
    pub public_url: String,
    /// True when `PUBLIC_URL` was set, so that providers can reach our webhooks.
    pub public_url_is_set: bool,
    /// Folder of the embedded database, outputs and generated secrets.
    pub data_dir: PathBuf,
    /// `DATABASE_URL`; `sqlite:` under `data_dir` by default.
    pub database_url: Secret,
    /// `REDIS_URL`.
    pub redis_url: Option<Secret>,
    /// `VELRO_PROVIDERS`: path of `providers.toml`.
    pub providers_path: PathBuf,
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
    /// `UPSTREAM_ALLOW_PRIVATE`: providers and outputs may live on private addresses.
    pub upstream_allow_private: bool,
    /// How long a drain waits for requests and steps in flight.
    pub shutdown_grace: Duration,
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
