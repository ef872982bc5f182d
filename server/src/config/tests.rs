//! The configuration against everything that can be wrong with it.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::document::{self, Faults};
use std::collections::BTreeSet;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// Loads with a file's text (if any) in an empty folder.
fn load_in(folder: &Path, file: Option<&str>, pairs: &[(&str, &str)]) -> Result<(Config, Vec<Notice>), ConfigErrors> {
    let mut env = env(pairs);
    let data = folder.join("data").display().to_string();
    env.entry("VELRO_DATA".into()).or_insert(data);
    if let Some(text) = file {
        let path = folder.join("velro.toml");
        std::fs::write(&path, text).unwrap();
        env.insert("VELRO_CONFIG".into(), path.display().to_string());
    }
    Config::load(&Overrides::default(), &env)
}

fn load(pairs: &[(&str, &str)]) -> (Config, Vec<Notice>) {
    let folder = tempfile::tempdir().unwrap();
    load_in(folder.path(), None, pairs).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(file: Option<&str>, pairs: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let errors = load_in(folder.path(), file, pairs).expect_err("was accepted");
    errors.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn every_default_is_a_setting_is_read_and_is_shown() {
    let faults = Faults::new(layers::DEFAULTS);
    let root = document::parse(layers::DEFAULTS, &faults);
    assert!(faults.is_empty());
    let mut in_file = BTreeSet::new();
    for (name, value) in root.get_ref().iter() {
        match value.get_ref().as_table() {
            Some(table) => in_file.extend(
                table
                    .iter()
                    .map(|(key, _)| format!("{}.{}", name.get_ref(), key.get_ref())),
            ),
            None => {
                in_file.insert(name.get_ref().to_string());
            }
        }
    }
    let in_table: BTreeSet<String> = settings::SETTINGS.iter().map(|s| s.key()).collect();
    assert_eq!(in_file, in_table, "defaults.toml and SETTINGS");

    let layers = Layers::new(None, &env(&[]), &Overrides::default());
    let config = resolve::resolve(&layers, true);
    assert_eq!(*layers.read.borrow(), in_table, "resolve() and SETTINGS");
    let shown: Vec<String> = config
        .redacted_lines()
        .iter()
        .map(|l| l.split(" = ").next().unwrap().into())
        .collect();
    let in_order: Vec<String> = settings::SETTINGS.iter().map(|s| s.key()).collect();
    assert_eq!(shown, in_order, "redacted_lines() and SETTINGS");
    for setting in settings::SETTINGS {
        for var in setting.vars {
            assert!(layers::DEFAULTS.contains(var), "{var} is not documented");
        }
    }
}

#[test]
fn defaults_in_development() {
    let (config, notices) = load(&[]);
    assert_eq!(notices, []);
    assert_eq!(config.environment, Environment::Development);
    assert_eq!((config.host.as_str(), config.port), ("127.0.0.1", 8000));
    assert_eq!(config.public_url, "http://127.0.0.1:8000");
    assert!(!config.public_url_is_set && config.rate_limit_enabled && !config.log_json);
    assert_eq!(config.default_user_credits, 1000);
    assert_eq!(config.cors_origins.len(), 8);
    assert!(config.database_url.expose().ends_with("/data/velro.db"));
    assert!(config.database_url.expose().starts_with("sqlite:"));
    assert_eq!(config.providers_path, PathBuf::from("./providers.toml"));
    assert_eq!(config.fal.queue_url, "https://queue.fal.run");
    assert_eq!(config.log_level, "info");
}

#[test]
fn every_variable_of_the_original_is_understood() {
    let (config, notices) = load(&[
        ("ENVIRONMENT", "production"),
        ("JWT_SECRET_KEY", SECRET),
        ("FAL_KEY", "id:secret"),
        ("DEFAULT_USER_CREDITS", "250"),
        ("CORS_ORIGINS", "[\"https://a.example\", \"https://b.example/\"]"),
        ("PORT", "9000"),
        ("LOG_LEVEL", "WARNING"),
        ("LOG_FORMAT", "JSON"),
        ("SERVICE_NAME", "mine"),
        ("RATE_LIMIT_ENABLED", "False"),
        ("JWT_EXPIRATION_MINUTES", "15"),
        ("PUBLIC_URL", "https://api.example/base/"),
        ("OPERATOR_EMAILS", "Ann@Example.com, bob@example.com"),
        ("TRUST_PROXY_HEADERS", "1"),
        ("FAL_QUEUE_URL", "http://127.0.0.1:9/"),
        ("DATABASE_URL", "sqlite:/tmp/x.db"),
        ("REDIS_URL", ""),
    ]);
    assert_eq!(notices, []);
    assert_eq!(config.environment, Environment::Production);
    assert_eq!((config.host.as_str(), config.port), ("0.0.0.0", 9000));
    assert_eq!(config.jwt_secret.expose(), SECRET);
    assert_eq!(config.fal.key.unwrap().expose(), "id:secret");
    assert_eq!(config.default_user_credits, 250);
    assert_eq!(config.cors_origins, ["https://a.example", "https://b.example"]);
    assert_eq!((config.log_level.as_str(), config.log_json), ("warn", true));
    assert_eq!(config.service_name, "mine");
    assert!(!config.rate_limit_enabled && config.trust_proxy_headers && config.public_url_is_set);
    assert_eq!(config.access_token_ttl, Duration::from_secs(900));
    assert_eq!(config.public_url, "https://api.example/base");
    assert_eq!(config.operator_emails, ["ann@example.com", "bob@example.com"]);
    assert_eq!(config.fal.queue_url, "http://127.0.0.1:9");
    assert!(config.redis_url.is_none());
}

#[test]
fn later_layers_win() {
    let folder = tempfile::tempdir().unwrap();
    let file = "[server]\nport = 1\nhost = \"10.0.0.1\"\nservice_name = \"file\"\n";
    std::fs::write(folder.path().join("velro.toml"), file).unwrap();
    let flags = Overrides {
        config_path: Some(folder.path().join("velro.toml")),
        port: Some(3),
        data_dir: Some(folder.path().join("d")),
        ..Overrides::default()
    };
    let (config, _) = Config::load(&flags, &env(&[("PORT", "2"), ("HOST", "10.0.0.2")])).unwrap();
    assert_eq!((config.port, config.host.as_str()), (3, "10.0.0.2"));
    assert_eq!(config.service_name, "file");
}

#[test]
fn environments() {
    for name in ["development", "dev", "TEST", "local"] {
        assert_eq!(load(&[("ENVIRONMENT", name)]).0.environment, Environment::Development);
    }
    for name in ["production", "staging", "prod", "develpment"] {
        let (config, _) = load(&[("ENVIRONMENT", name), ("JWT_SECRET", SECRET)]);
        assert_eq!(config.environment, Environment::Production);
    }
    let (config, notices) = load(&[
        ("RAILWAY_ENVIRONMENT", "production"),
        ("ENVIRONMENT", "dev"),
        ("JWT_SECRET", SECRET),
    ]);
    assert_eq!(config.environment, Environment::Production);
    assert_eq!(
        notices[0].to_string(),
        "ENVIRONMENT is set too and differs; RAILWAY_ENVIRONMENT counts"
    );
}

#[test]
fn all_faults_come_at_once_each_with_its_place() {
    let file = "colour = 1\n[server]\nport = \"http\"\nprot = 1\n[credits]\ndefault_user_credits = -1\n[sever]\n";
    let shown = refused(
        Some(file),
        &[
            ("ENVIRONMENT", "production"),
            ("RATE_LIMIT_ENABLED", "maybe"),
            ("LOG_LEVEL", "inof"),
            ("CORS_ORIGINS", "*,https://a.example/path"),
            ("PUBLIC_URL", "api.example"),
            ("OPERATOR_EMAILS", "nobody"),
            ("DATABASE_URL", "mysql://u:topsecret@h/db"),
            ("VELRO_ROLE", "wroker"),
        ],
    );
    for expected in [
        "velro.toml:1: the file: `colour` is not a known key; remove it; known here: auth, credits,",
        "velro.toml:3: `server.port` is \"http\"; write a whole number from 0 to 65535",
        "velro.toml:4: [server]: `prot` is not a known key; did you mean `port`?",
        "velro.toml:6: `credits.default_user_credits` is -1; write a whole number from 0",
        "velro.toml:7: the file: `sever` is not a known key; did you mean `server`?",
        "JWT_SECRET: is not set, and outside development none is made up; set JWT_SECRET to 32",
        "RATE_LIMIT_ENABLED: `server.rate_limit_enabled` is \"maybe\"; write true or false",
        "LOG_LEVEL: `log.level` is \"inof\"; write error, warn, info",
        "CORS_ORIGINS: `server.cors_origins` has \"*\"; list the origins",
        "CORS_ORIGINS: `server.cors_origins` has \"https://a.example/path\"; write origins",
        "PUBLIC_URL: `server.public_url` is not a base URL",
        "OPERATOR_EMAILS: `auth.operator_emails` has \"nobody\"",
        "DATABASE_URL: `storage.database_url` is neither a PostgreSQL nor an SQLite URL; write postgres://USER:PASSWORD@",
        "VELRO_ROLE: `server.role` is \"wroker\"; write all, api or worker",
    ] {
        assert!(shown.contains(expected), "missing: {expected}\nin:\n{shown}");
    }
    assert_eq!(shown.lines().count(), 14, "{shown}");
    assert!(!shown.contains("topsecret"));
}

#[test]
fn one_half_of_the_server_needs_a_database_for_both() {
    for role in ["api", "Worker"] {
        let shown = refused(None, &[("VELRO_ROLE", role)]);
        assert!(
            shown.starts_with(&format!(
                "VELRO_ROLE: `server.role` is \"{role}\", but the database is SQLite"
            )),
            "{shown}"
        );
        assert!(
            shown.contains("run the role all, or set DATABASE_URL to a PostgreSQL server"),
            "{shown}"
        );
    }
    let flags = Overrides {
        role: Some("worker".into()),
        read_only: true,
        ..Overrides::default()
    };
    let errors = Config::load(&flags, &env(&[("VELRO_ROLE", "api")])).unwrap_err();
    assert!(
        errors.to_string().starts_with("--role: `server.role` is \"worker\""),
        "{errors}"
    );

    for scheme in ["postgres", "postgresql"] {
        let url = format!("{scheme}://u:topsecret@h/db");
        let (config, notices) = load(&[("VELRO_ROLE", "Worker"), ("DATABASE_URL", &url)]);
        assert_eq!((config.role, config.database()), (Role::Worker, Database::Postgres));
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(
            notices[0]
                .to_string()
                .starts_with("VELRO_ROLE is \"Worker\" without REDIS_URL"),
            "{notices:?}"
        );
        let said = format!("{config:?}\n{}", config.redacted_lines().join("\n"));
        assert!(!said.contains("topsecret"), "{said}");
    }
    let (config, notices) = load(&[("DATABASE_URL", "postgres://u:p@h/db")]);
    assert_eq!((config.role, notices), (Role::All, vec![]));
    assert_eq!(load(&[]).0.database(), Database::Sqlite);
}

#[test]
fn the_grace_of_a_stop_keeps_time_for_its_end() {
    for (grace, drain_ms) in [("25", 23_000), ("5", 4_000), ("1", 800), ("0", 0)] {
        let (config, _) = load(&[("VELRO_SHUTDOWN_GRACE_SECONDS", grace)]);
        assert_eq!(config.drain_time(), Duration::from_millis(drain_ms));
    }
}

#[test]
fn broken_toml_and_missing_files_are_faults() {
    assert!(refused(Some("[server\nport = 1"), &[]).starts_with("velro.toml:1: not valid TOML"));
    let shown = refused(None, &[("VELRO_CONFIG", "/nowhere/velro.toml")]);
    assert!(shown.starts_with("/nowhere/velro.toml: cannot be read"), "{shown}");
}

#[test]
fn short_secrets_are_refused_and_never_shown() {
    let shown = refused(None, &[("JWT_SECRET", "tooshort-hunter2")]);
    assert!(
        shown.starts_with("JWT_SECRET: `auth.jwt_secret` has 16 characters; set JWT_SECRET"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"));
    let shown = refused(Some("[auth]\njwt_secret = 123456\n[fal]\nkey = 654321\n"), &[]);
    assert!(!shown.contains("123456") && !shown.contains("654321"), "{shown}");
    assert!(
        shown.contains("velro.toml:2: `auth.jwt_secret` not as it must be; write a text in quotes"),
        "{shown}"
    );

    let (config, _) = load(&[
        ("JWT_SECRET", SECRET),
        ("FAL_KEY", "id:hunter2"),
        ("REDIS_URL", "redis://:hunter2@h"),
    ]);
    let lines = config.redacted_lines().join("\n");
    assert!(lines.contains("auth.jwt_secret = set (32 characters)"), "{lines}");
    assert!(lines.contains("fal.key = set (10 characters)"), "{lines}");
    assert!(!lines.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
}

#[test]
fn in_development_a_secret_is_generated_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/jwt_secret");
    let flags = Overrides {
        data_dir: Some(folder.path().join("data")),
        read_only: true,
        ..Overrides::default()
    };
    let (_, notices) = Config::load(&flags, &env(&[])).unwrap();
    assert!(!file.exists(), "checking writes nothing");
    assert!(
        notices[0].text.starts_with("is not set; the start will generate one"),
        "{notices:?}"
    );

    let first = load_in(folder.path(), None, &[]).unwrap().0.jwt_secret;
    assert_eq!(first.expose().len(), 64);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first.expose());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(load_in(folder.path(), None, &[]).unwrap().0.jwt_secret, first);
    let kept = std::fs::read_dir(folder.path().join("data")).unwrap().count();
    assert_eq!(kept, 1, "no draft is left behind");

    std::fs::write(&file, "short").unwrap();
    let errors = load_in(folder.path(), None, &[]).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("has 5 characters, 32 are needed; delete it"),
        "{errors}"
    );
}

#[test]
fn processes_that_start_at_once_agree_on_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secrets: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| jwt_secret::keep(folder.path()).unwrap()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(secrets.iter().all(|s| *s == secrets[0]), "{secrets:?}");
}

#[test]
fn what_has_no_effect_is_said() {
    let (_, notices) = load(&[
        ("SUPABASE_SERVICE_ROLE_KEY", "k"),
        ("AUTH_ENABLED", "false"),
        ("VELRO_PROVIDRES", "x"),
        ("VELRO_PORT", "9000"),
        ("LOG_FORMAT", "%(asctime)s %(message)s"),
        ("PATH", "/bin"),
    ]);
    let shown: Vec<String> = notices.iter().map(Notice::to_string).collect();
    for expected in [
        "SUPABASE_SERVICE_ROLE_KEY has no effect: SUPABASE_URL is not set",
        "AUTH_ENABLED has no effect: authentication cannot be switched off",
        "VELRO_PROVIDRES is not a known variable; did you mean VELRO_PROVIDERS?",
        "VELRO_PORT is not a known variable",
        "LOG_FORMAT is a Python format",
    ] {
        assert!(
            shown.iter().any(|n| n.starts_with(expected)),
            "missing: {expected}\nin: {shown:#?}"
        );
    }
    assert_eq!(shown.len(), 5, "{shown:#?}");
}

#[test]
fn redis_is_reached_by_a_url_and_its_keys_have_a_prefix() {
    let (config, notices) = load(&[
        ("REDIS_URL", "rediss://:hunter2@h:6379/2"),
        ("VELRO_REDIS_PREFIX", "two:"),
    ]);
    assert_eq!(notices, []);
    assert_eq!(config.redis_url.unwrap().expose(), "rediss://:hunter2@h:6379/2");
    assert_eq!((config.redis_prefix.as_str(), config.redis_connections), ("two:", 4));
    let env = env(&[
        ("REDIS_URL", "http://:hunter2@h"),
        ("VELRO_REDIS_PREFIX", "a{b}"),
        ("VELRO_REDIS_CONNECTIONS", "0"),
    ]);
    let shown = Config::load(&Overrides::default(), &env).unwrap_err().to_string();
    for expected in [
        "REDIS_URL: `storage.redis_url` is not a Redis URL",
        "VELRO_REDIS_PREFIX: `storage.redis_prefix` is \"a{b}\"",
        "VELRO_REDIS_CONNECTIONS: `storage.redis_connections` is \"0\"; write a whole number from 1 to 256",
    ] {
        assert!(shown.contains(expected), "missing: {expected}\nin: {shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn service_links_of_kubernetes_are_not_ours() {
    let (_, notices) = load(&[
        ("VELRO_PORT", "tcp://10.0.0.1:8000"),
        ("VELRO_SERVICE_HOST", "10.0.0.1"),
        ("VELRO_SERVICE_PORT_HTTP", "8000"),
        ("VELRO_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("VELRO_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(notices, []);
}

#[test]
fn levels_lists_and_addresses() {
    for (given, level) in [
        ("INFO", "info"),
        ("Critical", "error"),
        ("info,velro::worker=debug", "info,velro::worker=debug"),
    ] {
        assert_eq!(load(&[("LOG_LEVEL", given)]).0.log_level, level);
    }
    assert!(refused(None, &[("LOG_LEVEL", "info,velro=loud")]).contains("LOG_LEVEL"));
    for (given, origins) in [
        ("https://a.example", vec!["https://a.example"]),
        (
            "https://A.example:443/, http://b.example:80",
            vec!["https://a.example", "http://b.example"],
        ),
    ] {
        assert_eq!(load(&[("CORS_ORIGINS", given)]).0.cors_origins, origins);
    }
    for (host, url) in [
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("[::1]", "http://[::1]:8000"),
    ] {
        assert_eq!(load(&[("HOST", host)]).0.public_url, url);
    }
    assert!(refused(None, &[("HOST", "http://x")]).contains("without scheme and port"));
    assert!(refused(None, &[("PORT", "70000")]).contains("from 0 to 65535"));
}

/// What outside development a shop must have.
fn shop(pairs: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let production = [("ENVIRONMENT", "production"), ("JWT_SECRET", SECRET)];
    production.into_iter().chain(pairs.iter().copied()).collect()
}

#[test]
fn packages_and_stripe_are_read_from_file_and_environment() {
    let (config, _) = load(&[]);
    let ids: Vec<&str> = config.payments.packages.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, ["starter", "plus", "studio"]);
    assert!(config.payments.stripe.is_none());

    let folder = tempfile::tempdir().unwrap();
    let file = "[payments]\nsuccess_url = \"https://a.example/x?s={CHECKOUT_SESSION_ID}\"\n\n[[payments.packages]]\n\
                id = \"yen\"\nname = \"Yen\"\ncredits = 5\nprice = \"700\"\ncurrency = \"jpy\"\n";
    let pairs = shop(&[
        ("STRIPE_SECRET_KEY", "sk_live_x"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_a,whsec_b"),
        ("STRIPE_WEBHOOK_SECRET_PREVIOUS", "whsec_c"),
    ]);
    let (config, notices) = load_in(folder.path(), Some(file), &pairs).unwrap();
    assert_eq!(notices, []);
    let payments = &config.payments;
    assert_eq!(payments.packages[0].price.to_string(), "700 JPY");
    let stripe = payments.stripe.as_ref().unwrap();
    let secrets: Vec<&str> = stripe.webhook_secrets.iter().map(Secret::expose).collect();
    assert_eq!(
        (stripe.livemode, secrets),
        (true, vec!["whsec_a", "whsec_b", "whsec_c"])
    );
    let shown = config.redacted_lines().join("\n");
    assert!(
        shown.contains("payments.packages = yen: 5 credits for 700 JPY"),
        "{shown}"
    );
    assert!(
        shown.contains("live mode") && !shown.contains("sk_live_x") && !shown.contains("whsec_"),
        "{shown}"
    );
}

#[test]
fn everything_wrong_with_payments_is_told_at_once() {
    let file = "[payments]\npackages = [\n  { id = \"a\", name = \"A\", credits = 5, price = 9.99, currency = \"usd\" },\n  \
                { id = \"a\", name = \"A\", credits = 0, price = \"1.005\", currency = \"usd\" },\n]\n";
    let text = refused(
        Some(file),
        &shop(&[
            ("STRIPE_SECRET_KEY", "pk_live_public"),
            ("PAYMENT_CANCEL_URL", "nowhere"),
            ("STRIPE_API_URL", "stripe"),
        ]),
    );
    for line in [
        "velro.toml:2: `payments.packages` package 1 \"a\": `price` is 9.99; write it in quotes",
        "velro.toml:2: `payments.packages` package 2 \"a\": its id is there twice",
        "velro.toml:2: `payments.packages` package 2 \"a\": `credits` is 0",
        "package 2 \"a\": `price` \"1.005\" has more than 2 decimals; USD has 2",
        "STRIPE_SECRET_KEY: `payments.stripe_secret_key` is a publishable key; write the secret",
        "`payments.stripe_webhook_secret` is not set, so no payment would ever be booked; set it to the signing secret",
        "PAYMENT_CANCEL_URL: `payments.cancel_url` is \"nowhere\"; write a URL",
        "STRIPE_API_URL: `payments.stripe_api_url` is not a base URL",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("pk_live_public"), "{text}");
    let text = refused(None, &[("CREDIT_PACKAGES", "[{]"), ("STRIPE_WEBHOOK_SECRET", "abc")]);
    assert!(
        text.contains("CREDIT_PACKAGES: `payments.packages` is no JSON"),
        "{text}"
    );
    assert!(
        text.contains("is no signing secret of Stripe") && !text.contains("abc"),
        "{text}"
    );
}

#[test]
fn in_development_a_shop_may_be_half_set_up_and_says_so() {
    let (config, notices) = load(&[("STRIPE_SECRET_KEY", "sk_test_x")]);
    assert!(!config.payments.stripe.unwrap().livemode);
    assert!(notices[0].text.contains("`velro orders reconcile` only"), "{notices:?}");
    let (_, notices) = load(&[("STRIPE_SECRET_KEY", "rk_live_x"), ("STRIPE_WEBHOOK_SECRET", "whsec_x")]);
    assert!(notices[0].text.contains("buyers pay real money"), "{notices:?}");
}

#[test]
fn metrics_have_a_port_of_their_own_outside_development() {
    let port = |pairs: &[(&str, &str)]| load(pairs).0.metrics_port;
    assert_eq!(port(&[]), None);
    assert_eq!(port(&[("METRICS_PORT", "0")]), Some(0), "any free one");
    assert_eq!(port(&[("METRICS_PORT", "8000")]), None, "the port of the API");
    let production = [("ENVIRONMENT", "production"), ("JWT_SECRET", SECRET)];
    assert_eq!(port(&production), Some(9090));
    assert_eq!(port(&[&production[..], &[("PORT", "9090")]].concat()), None);
    let (config, _) = load(&[&production[..], &[("METRICS_PORT", "9100")]].concat());
    assert_eq!(config.metrics_url(), "http://127.0.0.1:9100");
    let told = refused(Some("[server]\nmetrics_port = 70_000\n"), &[]);
    assert!(told.contains("velro.toml:2") && told.contains("0 to 65535"), "{told}");
}

#[test]
fn a_stop_may_wait_for_load_balancers_within_its_grace() {
    let (config, _) = load(&[("VELRO_SHUTDOWN_DELAY_SECONDS", "5")]);
    assert_eq!(config.shutdown_delay, Duration::from_secs(5));
    assert!(config.drain_time() > Duration::from_secs(15) && config.drain_time() < Duration::from_secs(20));
    let told = refused(None, &[("VELRO_SHUTDOWN_DELAY_SECONDS", "25")]);
    assert!(
        told.contains("VELRO_SHUTDOWN_DELAY_SECONDS") && told.contains("25 seconds"),
        "{told}"
    );
}

#[test]
fn traces_go_where_a_collector_is_named() {
    assert_eq!(load(&[]).0.tracing.otlp_endpoint, None);
    let (config, _) = load(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20tell-nobody, x-tenant=a",
        ),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ]);
    let tracing = &config.tracing;
    assert_eq!(tracing.otlp_endpoint.as_deref(), Some("http://collector:4318"));
    let headers: Vec<_> = tracing
        .otlp_headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.expose()))
        .collect();
    assert_eq!(headers, [("authorization", "Bearer tell-nobody"), ("x-tenant", "a")]);
    assert_eq!(tracing.sample_ratio, 0.25);
    let shown = config.redacted_lines().join("\n");
    assert!(
        shown.contains("authorization, x-tenant") && !shown.contains("tell-nobody"),
        "{shown}"
    );
    let told = refused(
        None,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "tell-nobody"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ],
    );
    for part in ["OTEL_EXPORTER_OTLP_ENDPOINT", "name=value", "from 0 to 1"] {
        assert!(told.contains(part), "{part} is missing from\n{told}");
    }
    assert!(!told.contains("tell-nobody"), "{told}");
}
