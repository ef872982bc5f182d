//! From merged layers to a checked [`Config`]. Faults are noted and resolving goes on, so that all are seen at once;
//! what is returned beside a fault is never used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::jwt_secret::{self, MIN_CHARACTERS};
use super::layers::Layers;
use super::{Config, Environment, FalConfig, Role, Secret, display, is_postgres};
use super::{payments, supabase, tracing};

/// Largest size that can be set, in bytes; keeps arithmetic with sizes far from its limits.
const MAX_BYTES: i64 = 1 << 40;

/// Where metrics are outside development.
const METRICS_PORT: u16 = 9090;

pub(super) fn resolve(layers: &Layers, read_only: bool) -> Config {
    let environment = environment(layers);
    let development = environment == Environment::Development;
    let host = host(layers, development);
    let port = layers.integer("server.port", 0..=65_535) as u16;
    let public_url = url(layers, "server.public_url");
    let data_dir = PathBuf::from(required(layers, "storage.data_dir", "./data"));
    let (database_url, redis_url) = (database_url(layers, &data_dir), redis_url(layers));
    let role = role(layers, &database_url, redis_url.is_some());
    let bytes = |key, least| layers.integer(key, least..=MAX_BYTES).unsigned_abs();
    let seconds = |key, range, unit: u64| Duration::from_secs(layers.integer(key, range).unsigned_abs() * unit);
    if layers.boolean("providers.allow_private_addresses") && !development {
        layers.notice(
            layers.place("providers.allow_private_addresses"),
            "lets providers and output links reach private addresses; that is for development and tests",
        );
    }
    Config {
        environment,
        role,
        public_url_is_set: public_url.is_some(),
        public_url: public_url.unwrap_or_else(|| local_url(&host, port)),
        metrics_port: metrics_port(layers, port, development),
        host,
        port,
        database_url,
        redis_url,
        redis_prefix: redis_prefix(layers),
        redis_connections: layers.integer("storage.redis_connections", 1..=256) as u32,
        providers_path: PathBuf::from(required(layers, "providers.path", "./providers.toml")),
        plugin_dir: plugin_dir(layers, &data_dir),
        provider_secrets: Default::default(),
        jwt_secret: jwt_secret(layers, development, &data_dir, read_only),
        data_dir,
        access_token_ttl: seconds("auth.access_token_minutes", 1..=1440, 60),
        refresh_token_ttl: seconds("auth.refresh_token_days", 1..=3650, 86_400),
        output_url_ttl: seconds("auth.output_url_minutes", 1..=525_600, 60),
        default_user_credits: layers.integer("credits.default_user_credits", 0..=1_000_000_000),
        operator_emails: operator_emails(layers),
        cors_origins: cors_origins(layers),
        rate_limit_enabled: layers.boolean("server.rate_limit_enabled"),
        trust_proxy_headers: layers.boolean("server.trust_proxy_headers"),
        max_body_bytes: bytes("server.max_body_bytes", 1024),
        max_upload_bytes: bytes("server.max_upload_bytes", 1024),
        max_connections: layers.integer("server.max_connections", 1..=1_000_000) as usize,
        max_requests: layers.integer("server.max_requests", 1..=1_000_000) as usize,
        max_output_bytes: bytes("storage.max_output_bytes", 1024),
        log_level: log_level(layers),
        log_json: log_json(layers, development),
        service_name: required(layers, "server.service_name", "velro"),
        fal: fal(layers),
        payments: payments::payments(layers, development),
        upstream_allow_private: layers.boolean("providers.allow_private_addresses"),
        shutdown_grace: seconds("server.shutdown_grace_seconds", 0..=3600, 1),
        shutdown_delay: shutdown_delay(layers),
        ledger_check_every: Some(seconds("credits.ledger_check_minutes", 0..=10_080, 60))
            .filter(|every| !every.is_zero()),
        tracing: tracing::tracing(layers),
        supabase: supabase::supabase(layers, development, url),
    }
}

/// `None`: on the port of the API.
fn metrics_port(layers: &Layers, port: u16, development: bool) -> Option<u16> {
    let given = layers.optional_integer("server.metrics_port", 0..=65_535);
    let wanted = given
        .map(|given| given as u16)
        .or((!development).then_some(METRICS_PORT))?;
    (wanted != port || wanted == 0).then_some(wanted)
}

/// A part of the grace: what is left of it has to be enough to finish.
fn shutdown_delay(layers: &Layers) -> Duration {
    let key = "server.shutdown_delay_seconds";
    let delay = layers.integer(key, 0..=3600);
    let grace = layers.integer("server.shutdown_grace_seconds", 0..=3600);
    if delay > 0 && delay >= grace {
        layers.fault_of(
            key,
            format!("is {delay}, but the whole stop may take {grace} seconds"),
            "set VELRO_SHUTDOWN_GRACE_SECONDS higher, or this lower",
        );
    }
    Duration::from_secs(delay.unsigned_abs())
}

fn plugin_dir(layers: &Layers, data_dir: &Path) -> PathBuf {
    match layers.text("providers.plugin_dir") {
        given if given.is_empty() => data_dir.join("plugins"),
        given => PathBuf::from(given),
    }
}

fn environment(layers: &Layers) -> Environment {
    match layers.text("environment").to_ascii_lowercase().as_str() {
        "development" | "dev" | "test" | "testing" | "local" => Environment::Development,
        // Whatever else it is called: strict is the safe reading.
        _ => Environment::Production,
    }
}

/// One half of the server needs a database that the other half can reach, and says when it will be slow.
fn role(layers: &Layers, database_url: &Secret, has_redis: bool) -> Role {
    let key = "server.role";
    let text = layers.text(key);
    let Some(role) = Role::parse(&text.to_ascii_lowercase()) else {
        layers.fault_of(key, format!("is \"{text}\""), "write all, api or worker");
        return Role::All;
    };
    if role == Role::All {
        return role;
    }
    if database_url.expose().starts_with("sqlite:") {
        layers.fault_of(
            key,
            format!("is \"{text}\", but the database is SQLite, which one process has for itself"),
            "run the role all, or set DATABASE_URL to a PostgreSQL server, postgres://USER:PASSWORD@HOST/DATABASE",
        );
    } else if !has_redis {
        layers.notice(
            layers.place(key),
            format!(
                "is \"{text}\" without REDIS_URL: other processes hear of new work and events by looking into the \
                 database, which takes seconds, and every worker begins its share of the limits alone"
            ),
        );
    }
    role
}

/// A text that must not be empty.
fn required(layers: &Layers, key: &str, example: &str) -> String {
    let text = layers.text(key);
    if text.is_empty() {
        layers.fault_of(key, "is empty", format!("write for example \"{example}\""));
    }
    text
}

pub(super) fn secret(layers: &Layers, key: &str) -> Option<Secret> {
    Some(layers.text(key)).filter(|text| !text.is_empty()).map(Secret::new)
}

fn host(layers: &Layers, development: bool) -> String {
    let host = layers.text("server.host");
    if host.is_empty() {
        return if development { "127.0.0.1" } else { "0.0.0.0" }.to_owned();
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = |h: &str| h.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if bare.parse::<IpAddr>().is_err() && !name(&bare) {
        layers.fault_of(
            "server.host",
            format!("is \"{host}\""),
            "write an address such as 127.0.0.1 or a host name, without scheme and port",
        );
    }
    bare
}

/// What a browser on this machine would open.
pub(super) fn local_url(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => format!("http://{}:{port}", Ipv4Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => format!("http://[{}]:{port}", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) => format!("http://[{ip}]:{port}"),
        _ => format!("http://{host}:{port}"),
    }
}

/// A base URL without a trailing slash; `None` when it is not set or wrong (which has been noted).
pub(super) fn url(layers: &Layers, key: &str) -> Option<String> {
    let text = layers.text(key);
    if text.is_empty() {
        return None;
    }
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    if Url::parse(&text).ok().as_ref().is_some_and(plain) {
        return Some(text.trim_end_matches('/').to_owned());
    }
    // Not repeated in the message: there may be a password in it.
    layers.fault_of(
        key,
        "is not a base URL",
        "write for example \"https://example.com\", without query, user name and password",
    );
    None
}

/// The database of a data folder.
pub(super) fn embedded_url(data_dir: &Path) -> String {
    // `?`, `#` and `%` would end or escape the path of the URL.
    let path = display(&data_dir.join("velro.db"));
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("sqlite:{path}")
}

fn database_url(layers: &Layers, data_dir: &Path) -> Secret {
    let key = "storage.database_url";
    let text = layers.text(key);
    if text.is_empty() {
        return Secret::new(embedded_url(data_dir));
    }
    if !text.starts_with("sqlite:") && !is_postgres(&text) {
        // Not repeated in the message: there may be a password in it.
        layers.fault_of(
            key,
            "is neither a PostgreSQL nor an SQLite URL",
            "write postgres://USER:PASSWORD@HOST/DATABASE or sqlite:PATH, or leave it unset for SQLite in the data folder",
        );
    }
    Secret::new(text)
}

fn redis_url(layers: &Layers) -> Option<Secret> {
    let key = "storage.redis_url";
    let redis = secret(layers, key)?;
    if !["redis://", "rediss://"]
        .iter()
        .any(|scheme| redis.expose().starts_with(scheme))
    {
        layers.fault_of(
            key,
            "is not a Redis URL",
            "write redis://HOST:PORT or rediss://HOST:PORT",
        );
    }
    Some(redis)
}

/// A name in front of every key. Braces would move the hash tag of the lanes' keys.
fn redis_prefix(layers: &Layers) -> String {
    let key = "storage.redis_prefix";
    let prefix = required(layers, key, "velro:");
    if prefix.contains(|c: char| c.is_whitespace() || c.is_control() || "{}*?[]".contains(c)) {
        layers.fault_of(
            key,
            format!("is \"{prefix}\""),
            "write letters, digits and : - _ only, for example \"velro:\"",
        );
    }
    prefix
}

fn jwt_secret(layers: &Layers, development: bool, data_dir: &Path, read_only: bool) -> Secret {
    let key = "auth.jwt_secret";
    let advice = "set JWT_SECRET to 32 random characters or more, for example from `openssl rand -hex 32`";
    let given = layers.text(key);
    if !given.is_empty() {
        let length = given.chars().count();
        if length < MIN_CHARACTERS {
            layers.fault_of(key, format!("has {length} characters"), advice);
        }
        return Secret::new(given);
    }
    if !development {
        layers.fault(
            "JWT_SECRET",
            "is not set, and outside development none is made up",
            advice,
        );
        return Secret::new("");
    }
    let file = data_dir.join(jwt_secret::FILE);
    let kept = if read_only {
        match jwt_secret::kept(data_dir) {
            Ok(None) => {
                let text = format!(
                    "is not set; the start will generate one and keep it in {}",
                    display(&file)
                );
                layers.notice("JWT_SECRET", text);
                jwt_secret::generate()
            }
            kept => kept.map(Option::unwrap_or_default),
        }
    } else {
        jwt_secret::keep(data_dir)
    };
    match kept {
        Ok(secret) => {
            let length = secret.chars().count();
            if length < MIN_CHARACTERS {
                layers.fault(
                    display(&file),
                    format!("has {length} characters, {MIN_CHARACTERS} are needed"),
                    "delete it, and the next start generates a new one",
                );
            }
            Secret::new(secret)
        }
        Err(e) => {
            layers.fault(
                display(&file),
                format!("cannot be kept ({e})"),
                "make the data folder writable, choose another with VELRO_DATA, or set JWT_SECRET",
            );
            Secret::new("")
        }
    }
}

fn operator_emails(layers: &Layers) -> Vec<String> {
    let key = "auth.operator_emails";
    let emails: Vec<String> = layers.list(key).iter().map(|e| e.to_lowercase()).collect();
    for email in &emails {
        let well_formed = email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        if !well_formed || email.contains(char::is_whitespace) {
            layers.fault_of(
                key,
                format!("has \"{email}\""),
                "write e-mail addresses, with commas between them",
            );
        }
    }
    emails
}

fn cors_origins(layers: &Layers) -> Vec<String> {
    let key = "server.cors_origins";
    let mut origins = Vec::new();
    for text in layers.list(key) {
        let origin = text.trim_end_matches('/').to_owned();
        if origin == "*" {
            layers.fault_of(
                key,
                "has \"*\"",
                "list the origins: browsers refuse `*` together with credentials",
            );
            continue;
        }
        let parsed = Url::parse(&origin)
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https"));
        // The form a browser sends, without a default port and in lower case.
        let sent = parsed.map(|url| {
            (
                url.origin().ascii_serialization(),
                url.path() == "/" && url.query().is_none(),
            )
        });
        match sent {
            Some((origin, true)) if !origins.contains(&origin) => origins.push(origin),
            Some((_, true)) => {}
            _ => layers.fault_of(
                key,
                format!("has \"{text}\""),
                "write origins such as \"https://app.example.com\", without a path",
            ),
        }
    }
    origins
}

/// The level in the form tracing knows; Python's names are understood.
fn log_level(layers: &Layers) -> String {
    let key = "log.level";
    let text = layers.text(key);
    let level = match text.to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        "critical" | "fatal" => "error".to_owned(),
        level @ ("error" | "warn" | "info" | "debug" | "trace" | "off") => level.to_owned(),
        // One word would be taken for the name of a module, so that a typing mistake silences everything.
        word if !word.contains(['=', ',']) => String::new(),
        _ if EnvFilter::try_new(&text).is_ok() => text.clone(),
        _ => String::new(),
    };
    if level.is_empty() {
        layers.fault_of(
            key,
            format!("is \"{text}\""),
            "write error, warn, info, debug or trace, or a filter such as info,velro::worker=debug",
        );
    }
    level
}

fn log_json(layers: &Layers, development: bool) -> bool {
    let key = "log.format";
    let text = layers.text(key);
    match text.to_ascii_lowercase().as_str() {
        "json" => true,
        "text" => false,
        "" => !development,
        // The original took a format string of Python's logging module.
        python if python.contains("%(") => {
            layers.notice(
                layers.place(key),
                "is a Python format and has no effect; write text or json",
            );
            !development
        }
        _ => {
            layers.fault_of(key, format!("is \"{text}\""), "write text or json");
            false
        }
    }
}

fn fal(layers: &Layers) -> FalConfig {
    let base = |key| {
        if layers.text(key).is_empty() {
            layers.fault_of(key, "is empty", "remove it to use FAL's own address");
        }
        let url = url(layers, key).unwrap_or_default();
        let parsed = Url::parse(&url).ok();
        let local = parsed
            .as_ref()
            .and_then(Url::host_str)
            .is_some_and(|h| h == "localhost" || h.starts_with("127."));
        if url.starts_with("http://") && !local {
            layers.notice(layers.place(key), "is not https: FAL_KEY travels unencrypted");
        }
        url
    };
    FalConfig {
        key: secret(layers, "fal.key"),
        queue_url: base("fal.queue_url"),
        run_url: base("fal.run_url"),
        rest_url: base("fal.rest_url"),
    }
}

pub(super) fn redacted_lines(config: &Config) -> Vec<String> {
    let secret = |s: &Option<Secret>| s.as_ref().map_or("not set".to_owned(), Secret::redacted);
    let list = |items: &[String]| match items {
        [] => "none".to_owned(),
        items => items.join(", "),
    };
    let minutes = |d: Duration| format!("{}", d.as_secs() / 60);
    let format = if config.log_json { "json" } else { "text" };
    let public = if config.public_url_is_set {
        ""
    } else {
        " (not set: no webhooks)"
    };
    // A file's path is no secret; a password in a server's URL is.
    let database = match config.database_url.expose() {
        url if url.starts_with("sqlite:") => url.to_owned(),
        _ => config.database_url.redacted(),
    };
    let mut values = vec![
        ("environment", config.environment.as_str().to_owned()),
        ("server.role", config.role.as_str().to_owned()),
        ("server.host", config.host.clone()),
        ("server.port", config.port.to_string()),
        (
            "server.metrics_port",
            config.metrics_port.unwrap_or(config.port).to_string(),
        ),
        ("server.public_url", format!("{}{public}", config.public_url)),
        ("server.cors_origins", list(&config.cors_origins)),
        ("server.rate_limit_enabled", config.rate_limit_enabled.to_string()),
        ("server.trust_proxy_headers", config.trust_proxy_headers.to_string()),
        ("server.max_body_bytes", config.max_body_bytes.to_string()),
        ("server.max_upload_bytes", config.max_upload_bytes.to_string()),
        ("server.max_connections", config.max_connections.to_string()),
        ("server.max_requests", config.max_requests.to_string()),
        (
            "server.shutdown_grace_seconds",
            config.shutdown_grace.as_secs().to_string(),
        ),
        (
            "server.shutdown_delay_seconds",
            config.shutdown_delay.as_secs().to_string(),
        ),
        ("server.service_name", config.service_name.clone()),
        ("storage.data_dir", display(&config.data_dir)),
        ("storage.database_url", database),
        ("storage.redis_url", secret(&config.redis_url)),
        ("storage.redis_prefix", config.redis_prefix.clone()),
        ("storage.redis_connections", config.redis_connections.to_string()),
        ("storage.max_output_bytes", config.max_output_bytes.to_string()),
        ("auth.jwt_secret", config.jwt_secret.redacted()),
        ("auth.access_token_minutes", minutes(config.access_token_ttl)),
        (
            "auth.refresh_token_days",
            (config.refresh_token_ttl.as_secs() / 86_400).to_string(),
        ),
        ("auth.output_url_minutes", minutes(config.output_url_ttl)),
        ("auth.operator_emails", list(&config.operator_emails)),
        ("credits.default_user_credits", config.default_user_credits.to_string()),
        (
            "credits.ledger_check_minutes",
            minutes(config.ledger_check_every.unwrap_or_default()),
        ),
        ("log.level", config.log_level.clone()),
        ("log.format", format.to_owned()),
        (
            "tracing.otlp_endpoint",
            config.tracing.otlp_endpoint.clone().unwrap_or("not set".into()),
        ),
        ("tracing.otlp_headers", config.tracing.headers_shown()),
        ("tracing.sample_ratio", config.tracing.sample_ratio.to_string()),
        ("providers.path", display(&config.providers_path)),
        ("providers.plugin_dir", display(&config.plugin_dir)),
        (
            "providers.allow_private_addresses",
            config.upstream_allow_private.to_string(),
        ),
        ("fal.key", secret(&config.fal.key)),
        ("fal.queue_url", config.fal.queue_url.clone()),
        ("fal.run_url", config.fal.run_url.clone()),
        ("fal.rest_url", config.fal.rest_url.clone()),
    ];
    values.extend(payments::shown(config));
    values.extend([
        ("supabase.url", config.supabase.url.clone().unwrap_or("not set".into())),
        ("supabase.anon_key", secret(&config.supabase.anon_key)),
        ("supabase.service_key", secret(&config.supabase.service_key)),
        ("supabase.jwt_secret", secret(&config.supabase.jwt_secret)),
        (
            "supabase.jwt_issuer",
            config.supabase.jwt_issuer.clone().unwrap_or("not set".into()),
        ),
    ]);
    values.iter().map(|(key, value)| format!("{key} = {value}")).collect()
}
