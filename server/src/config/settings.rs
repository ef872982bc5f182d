//! The settings there are: key in the file, environment variables, whether the value is secret.
//!
//! `defaults.toml` documents the same keys; a test holds the two together.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// Table in the file; empty for the root.
    pub(super) section: &'static str,
    /// Key in the table.
    pub(super) name: &'static str,
    /// Environment variables; the first one that is set counts.
    pub(super) vars: &'static [&'static str],
    /// Never shown.
    pub(super) secret: bool,
}

impl Setting {
    /// `server.port`.
    pub(super) fn key(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }
}

const fn open(section: &'static str, name: &'static str, vars: &'static [&'static str]) -> Setting {
    Setting {
        section,
        name,
        vars,
        secret: false,
    }
}

const fn secret(section: &'static str, name: &'static str, vars: &'static [&'static str]) -> Setting {
    Setting {
        section,
        name,
        vars,
        secret: true,
    }
}

/// All settings, in the order of `defaults.toml`.
pub(super) const SETTINGS: &[Setting] = &[
    // Railway's own variable wins, as it always has.
    open("", "environment", &["RAILWAY_ENVIRONMENT", "ENVIRONMENT"]),
    open("server", "role", &["VELRO_ROLE"]),
    open("server", "host", &["HOST"]),
    open("server", "port", &["PORT"]),
    open("server", "metrics_port", &["METRICS_PORT"]),
    open("server", "public_url", &["PUBLIC_URL"]),
    open("server", "cors_origins", &["CORS_ORIGINS"]),
    open("server", "rate_limit_enabled", &["RATE_LIMIT_ENABLED"]),
    open("server", "trust_proxy_headers", &["TRUST_PROXY_HEADERS"]),
    open("server", "max_body_bytes", &["VELRO_MAX_BODY_BYTES"]),
    open("server", "max_upload_bytes", &["VELRO_MAX_UPLOAD_BYTES"]),
    open("server", "max_connections", &["VELRO_MAX_CONNECTIONS"]),
    open("server", "max_requests", &["VELRO_MAX_REQUESTS"]),
    open("server", "shutdown_grace_seconds", &["VELRO_SHUTDOWN_GRACE_SECONDS"]),
    open("server", "shutdown_delay_seconds", &["VELRO_SHUTDOWN_DELAY_SECONDS"]),
    open("server", "service_name", &["SERVICE_NAME"]),
    open("storage", "data_dir", &["VELRO_DATA"]),
    secret("storage", "database_url", &["DATABASE_URL"]),
    secret("storage", "redis_url", &["REDIS_URL"]),
    open("storage", "redis_prefix", &["VELRO_REDIS_PREFIX"]),
    open("storage", "redis_connections", &["VELRO_REDIS_CONNECTIONS"]),
    open("storage", "max_output_bytes", &["VELRO_MAX_OUTPUT_BYTES"]),
    secret("auth", "jwt_secret", &["JWT_SECRET", "JWT_SECRET_KEY"]),
    open("auth", "access_token_minutes", &["JWT_EXPIRATION_MINUTES"]),
    open("auth", "refresh_token_days", &["VELRO_REFRESH_TOKEN_DAYS"]),
    open("auth", "output_url_minutes", &["VELRO_OUTPUT_URL_MINUTES"]),
    open("auth", "operator_emails", &["OPERATOR_EMAILS"]),
    open("credits", "default_user_credits", &["DEFAULT_USER_CREDITS"]),
    open("credits", "ledger_check_minutes", &["VELRO_LEDGER_CHECK_MINUTES"]),
    open("log", "level", &["LOG_LEVEL"]),
    open("log", "format", &["LOG_FORMAT"]),
    open("tracing", "otlp_endpoint", &["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    secret("tracing", "otlp_headers", &["OTEL_EXPORTER_OTLP_HEADERS"]),
    open("tracing", "sample_ratio", &["OTEL_TRACES_SAMPLER_ARG"]),
    open("providers", "path", &["VELRO_PROVIDERS"]),
    open("providers", "plugin_dir", &["VELRO_PLUGIN_DIR"]),
    open("providers", "allow_private_addresses", &["UPSTREAM_ALLOW_PRIVATE"]),
    secret("fal", "key", &["FAL_KEY"]),
    open("fal", "queue_url", &["FAL_QUEUE_URL"]),
    open("fal", "run_url", &["FAL_RUN_URL"]),
    open("fal", "rest_url", &["FAL_REST_URL"]),
    secret("payments", "stripe_secret_key", &["STRIPE_SECRET_KEY"]),
    secret("payments", "stripe_webhook_secret", &["STRIPE_WEBHOOK_SECRET"]),
    secret(
        "payments",
        "stripe_webhook_secret_previous",
        &["STRIPE_WEBHOOK_SECRET_PREVIOUS"],
    ),
    open("payments", "stripe_api_url", &["STRIPE_API_URL"]),
    open("payments", "success_url", &["PAYMENT_SUCCESS_URL"]),
    open("payments", "cancel_url", &["PAYMENT_CANCEL_URL"]),
    open("payments", "packages", &["CREDIT_PACKAGES"]),
    open("supabase", "url", &["SUPABASE_URL"]),
    secret(
        "supabase",
        "anon_key",
        &["SUPABASE_ANON_KEY", "SUPABASE_PUBLISHABLE_KEY"],
    ),
    secret(
        "supabase",
        "service_key",
        &["SUPABASE_SERVICE_KEY", "SUPABASE_SERVICE_ROLE_KEY"],
    ),
    secret("supabase", "jwt_secret", &["SUPABASE_JWT_SECRET"]),
    open("supabase", "jwt_issuer", &["SUPABASE_JWT_ISSUER"]),
];

/// `VELRO_*` variables that are no settings of the file.
pub(super) const OTHER_VARS: &[&str] = &[
    "VELRO_CONFIG",
    "VELRO_SMOKE_TOKEN",
    #[cfg(feature = "failpoints")]
    crate::failpoint::CLOCK_SKEW_VAR,
];

/// Variables of the original service that have no effect here, and why; whoever sets one should know.
pub(super) const OBSOLETE_VARS: &[(&str, &str)] = &[
    ("AUTH_ENABLED", "authentication cannot be switched off"),
    ("BYPASS_ALL_MIDDLEWARE", "nothing bypasses authentication and limits"),
    (
        "CATCH_ALL_EXCEPTIONS",
        "every error is answered with a problem document",
    ),
    ("DEBUG_ENDPOINTS", "there are no debug endpoints"),
    ("DEPLOYMENT_MODE", "it never had an effect"),
    ("DISABLE_HEAVY_MIDDLEWARE", "compression is always on"),
    ("FAL_QUEUE_RUN_HOST", "set FAL_QUEUE_URL with scheme and host"),
    ("FAL_RUN_HOST", "set FAL_RUN_URL and FAL_QUEUE_URL with scheme and host"),
    ("SERVICE_VERSION", "the version is the program's own"),
    ("USE_SERVICE_CLIENT_FALLBACK", "there is no such fallback"),
];
