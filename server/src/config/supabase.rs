//! Where accounts live: Supabase's settings, checked together.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::jwt_secret::MIN_CHARACTERS;
use super::layers::Layers;
use super::{Secret, SupabaseConfig};

const URL: &str = "supabase.url";
const ANON_KEY: &str = "supabase.anon_key";
const SERVICE_KEY: &str = "supabase.service_key";
const JWT_SECRET: &str = "supabase.jwt_secret";
const JWT_ISSUER: &str = "supabase.jwt_issuer";

/// Notes every fault; `url` gives the base URL of a setting, or none and a fault.
pub(super) fn supabase(
    layers: &Layers,
    development: bool,
    url: impl Fn(&Layers, &str) -> Option<String>,
) -> SupabaseConfig {
    let secret = |key| Some(layers.text(key)).filter(|text| !text.is_empty()).map(Secret::new);
    let supabase = SupabaseConfig {
        url: url(layers, URL),
        anon_key: secret(ANON_KEY),
        service_key: secret(SERVICE_KEY),
        jwt_secret: secret(JWT_SECRET),
        jwt_issuer: Some(layers.text(JWT_ISSUER)).filter(|text| !text.is_empty()),
    };
    if layers.text(URL).is_empty() {
        for key in [ANON_KEY, SERVICE_KEY, JWT_SECRET, JWT_ISSUER] {
            if !layers.text(key).is_empty() {
                let text = "has no effect: SUPABASE_URL is not set, so accounts are local";
                layers.notice(layers.place(key), text);
            }
        }
        return supabase;
    }
    if let Some(auth_url) = supabase.auth_url().filter(|url| url.starts_with("http://")) {
        unencrypted(layers, development, &auth_url);
    }
    match &supabase.anon_key {
        None => layers.fault(
            "SUPABASE_ANON_KEY",
            "is not set, but SUPABASE_URL is",
            "copy the project's anon or publishable key (Project Settings, API keys), or remove SUPABASE_URL for local accounts",
        ),
        Some(key) if is_of(key, "sb_secret_", "service_role") => layers.fault_of(
            ANON_KEY,
            "is a secret key",
            "write the anon or publishable key here and the secret one into SUPABASE_SERVICE_KEY",
        ),
        Some(_) => {}
    }
    match &supabase.service_key {
        None => layers.notice(
            "SUPABASE_SERVICE_KEY",
            "is not set: whoever registers may have to confirm a mail before the first login, as the project decides",
        ),
        Some(key) if is_of(key, "sb_publishable_", "anon") => layers.fault_of(
            SERVICE_KEY,
            "is a public key, which may not open accounts",
            "write the service_role or secret key, or remove it",
        ),
        Some(_) => {}
    }
    if let Some(secret) = &supabase.jwt_secret {
        let length = secret.expose().chars().count();
        if length < MIN_CHARACTERS {
            layers.fault_of(
                JWT_SECRET,
                format!("has {length} characters, {MIN_CHARACTERS} are needed"),
                "copy it whole (Project Settings, JWT keys), or remove it when the project signs with keys that it publishes",
            );
        }
    }
    supabase
}

/// Passwords and keys would travel in the clear.
fn unencrypted(layers: &Layers, development: bool, auth_url: &str) {
    let local = Url::parse(auth_url).ok().and_then(|url| {
        url.host_str()
            .map(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
    });
    match (development, local) {
        (_, Some(true)) => {}
        (true, _) => layers.notice(
            layers.place(URL),
            "is not https: passwords and keys travel unencrypted; outside development that is refused",
        ),
        (false, _) => layers.fault_of(
            URL,
            "is not https: passwords would travel unencrypted",
            "write https://",
        ),
    }
}

/// Whether a key is of a kind: by its prefix, or an older one by the role in its JWT. Nothing is verified: it only finds
/// keys in the wrong place.
fn is_of(key: &Secret, prefix: &str, role: &str) -> bool {
    let claimed = || {
        let payload = URL_SAFE_NO_PAD.decode(key.expose().split('.').nth(1)?).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
        Some(claims["role"] == role)
    };
    key.expose().starts_with(prefix) || claimed() == Some(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use std::collections::BTreeMap;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// Configuration, faults and notices, as texts.
    fn load(pairs: &[(&str, &str)]) -> (Config, Vec<String>, Vec<String>) {
        let mut env: BTreeMap<String, String> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        env.insert("JWT_SECRET".into(), SECRET.into());
        let flags = Overrides {
            read_only: true,
            ..Overrides::default()
        };
        let (config, faults, notices) = Config::load_leniently(&flags, &env);
        let faults = faults
            .iter()
            .map(|f| format!("{}: {}; {}", f.place, f.what, f.remedy))
            .collect();
        (config, faults, notices.iter().map(ToString::to_string).collect())
    }

    fn jwt(role: &str) -> String {
        let payload = format!("{{\"iss\":\"supabase\",\"role\":\"{role}\"}}");
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_url_with_a_path_is_the_service_and_any_other_a_project() {
        for (url, auth_url) in [
            ("https://ref.supabase.co", "https://ref.supabase.co/auth/v1"),
            ("https://ref.supabase.co/", "https://ref.supabase.co/auth/v1"),
            ("https://ref.supabase.co/auth/v1", "https://ref.supabase.co/auth/v1"),
            ("https://ref.supabase.co/auth/v1/", "https://ref.supabase.co/auth/v1"),
            ("https://example.com/accounts", "https://example.com/accounts"),
        ] {
            let (config, faults, _) = load(&[("SUPABASE_URL", url), ("SUPABASE_ANON_KEY", "k")]);
            assert_eq!(faults, Vec::<String>::new());
            assert_eq!(config.supabase.auth_url().as_deref(), Some(auth_url));
            assert_eq!(config.supabase.issuer().as_deref(), Some(auth_url));
        }
        let (config, _, _) = load(&[
            ("SUPABASE_URL", "http://127.0.0.1:8000"),
            ("SUPABASE_JWT_ISSUER", "https://example.com/auth/v1"),
        ]);
        assert_eq!(config.supabase.issuer().as_deref(), Some("https://example.com/auth/v1"));
    }

    #[test]
    fn all_faults_of_supabase_are_told_at_once() {
        let (_, faults, _) = load(&[
            ("ENVIRONMENT", "production"),
            ("SUPABASE_URL", "http://ref.supabase.co"),
            ("SUPABASE_SERVICE_KEY", &jwt("anon")),
            ("SUPABASE_JWT_SECRET", "short-secret"),
        ]);
        let all = faults.join("\n");
        for told in [
            "SUPABASE_URL: `supabase.url` is not https",
            "SUPABASE_ANON_KEY: is not set, but SUPABASE_URL is; copy",
            "SUPABASE_SERVICE_KEY: `supabase.service_key` is a public key",
            "SUPABASE_JWT_SECRET: `supabase.jwt_secret` has 12 characters",
        ] {
            assert!(all.contains(told), "{told}\nin\n{all}");
        }
        assert_eq!(faults.len(), 4, "{all}");
        assert!(!all.contains("short-secret"), "{all}");
        for key in ["sb_secret_abc".to_owned(), jwt("service_role")] {
            let (_, faults, _) = load(&[("SUPABASE_URL", "https://a.co"), ("SUPABASE_ANON_KEY", &key)]);
            assert!(faults[0].contains("is a secret key"), "{faults:?}");
            assert!(!faults[0].contains(&key), "{faults:?}");
        }
    }

    #[test]
    fn without_a_url_accounts_are_local_and_the_rest_is_told_to_have_no_effect() {
        let (config, faults, notices) = load(&[("SUPABASE_SERVICE_KEY", "k"), ("SUPABASE_JWT_SECRET", "s")]);
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(config.supabase.auth_url(), None);
        assert_eq!(
            notices.iter().filter(|n| n.contains("accounts are local")).count(),
            2,
            "{notices:?}"
        );
    }

    #[test]
    fn what_an_unencrypted_url_means_depends_on_where_it_is() {
        let with = |environment, url| {
            load(&[
                ("ENVIRONMENT", environment),
                ("SUPABASE_URL", url),
                ("SUPABASE_ANON_KEY", "k"),
            ])
        };
        let (_, faults, notices) = with("development", "http://kong:8000/auth/v1");
        assert_eq!(faults, Vec::<String>::new());
        assert!(notices.iter().any(|n| n.contains("unencrypted")), "{notices:?}");
        assert_eq!(with("production", "http://kong:8000").1.len(), 1);
        assert_eq!(with("production", "http://127.0.0.1:9999").1, Vec::<String>::new());
    }
}
