//! `velro check`: is everything an operator wrote valid, and what does it say? Offline, writes nothing.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use crate::catalog::{Model, ModelStatus, ProviderKind, Registry};
use crate::clock;
use crate::config::{Config, Overrides, SupabaseConfig};

/// Reports on `out`; true when nothing is wrong.
pub fn run(flags: &Overrides, env: &BTreeMap<String, String>, out: &mut impl Write) -> io::Result<bool> {
    let flags = Overrides {
        read_only: true,
        ..flags.clone()
    };
    let (config, faults, notices) = Config::load_leniently(&flags, env);
    let registry = Registry::from_file(&config.providers_path, clock::now());

    if faults.is_empty() {
        writeln!(out, "Configuration")?;
        for line in config.redacted_lines() {
            writeln!(out, "  {line}")?;
        }
        writeln!(out)?;
        accounts(&config.supabase, out)?;
    }
    if let Ok(registry) = &registry {
        describe(registry, &config, out)?;
    }
    if !notices.is_empty() {
        writeln!(out, "To know")?;
        for notice in &notices {
            writeln!(out, "  {notice}")?;
        }
        writeln!(out)?;
    }
    let mut wrong = faults.len();
    for fault in &faults {
        writeln!(out, "error: {}: {}; {}", fault.place, fault.what, fault.remedy)?;
    }
    if let Err(errors) = &registry {
        wrong += errors.faults.len();
        for line in errors.to_string().lines() {
            writeln!(out, "error: {line}")?;
        }
    }
    match wrong {
        0 => writeln!(out, "Everything is valid.")?,
        1 => writeln!(out, "1 error.")?,
        n => writeln!(out, "{n} errors.")?,
    }
    Ok(wrong == 0)
}

/// Where accounts live.
fn accounts(supabase: &SupabaseConfig, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "Accounts")?;
    let Some(auth_url) = supabase.auth_url() else {
        return writeln!(
            out,
            "  local: e-mails and passwords are in this installation's database\n"
        );
    };
    let signed = match supabase.jwt_secret {
        Some(_) => "signed with its published keys or with SUPABASE_JWT_SECRET",
        None => "signed with its published keys",
    };
    let registration = match supabase.service_key {
        Some(_) => "confirmed at once",
        None => "by its rules; a mail may have to be confirmed",
    };
    writeln!(out, "  at Supabase: {auth_url}")?;
    writeln!(out, "  tokens: of {}, {signed}", supabase.issuer().unwrap_or_default())?;
    writeln!(out, "  registration: {registration}\n")
}

fn describe(registry: &Registry, config: &Config, out: &mut impl Write) -> io::Result<()> {
    let path: &Path = &config.providers_path;
    writeln!(out, "Providers ({}, revision {})", path.display(), registry.revision)?;
    for provider in registry.providers.values() {
        let state = match &provider.kind {
            _ if !provider.enabled => "switched off".to_owned(),
            ProviderKind::Fal if config.fal.key.is_none() => "FAL_KEY is not set: its models are refused".to_owned(),
            ProviderKind::Fal | ProviderKind::Sandbox => "ready".to_owned(),
            ProviderKind::Http(declaration) => {
                let mut variables = declaration
                    .secrets
                    .iter()
                    .map(|name| provider.secrets.get(name).unwrap_or(name));
                match variables.find(|variable| config.provider_secrets.get(variable).is_none()) {
                    Some(variable) => format!("{variable} is not set: its models are refused"),
                    None => "ready".to_owned(),
                }
            }
            ProviderKind::Plugin(_) => "a library; `velro plugin list` loads it".to_owned(),
        };
        writeln!(
            out,
            "  {}: {state}; {} at once, {} of one user",
            provider.name, provider.concurrency, provider.concurrency_per_user
        )?;
    }
    writeln!(out, "\nModels")?;
    let longest = registry.models.iter().map(|m| m.id.len()).max().unwrap_or(0);
    for model in &registry.models {
        writeln!(out, "  {:longest$}  {}", model.id, price_and_state(model, registry))?;
    }
    writeln!(out)
}

fn price_and_state(model: &Model, registry: &Registry) -> String {
    let factors: String = model.credits_per.iter().map(|name| format!(" x {name}")).collect();
    let state = match model.status {
        ModelStatus::Disabled => ", disabled",
        _ if !registry.is_available(model) => ", provider switched off",
        ModelStatus::Deprecated => ", deprecated",
        ModelStatus::Active => "",
    };
    let ways: Vec<&str> = model.providers().collect();
    let ways = match ways.len() {
        1 => String::new(),
        _ => format!(", at {}", ways.join(", then ")),
    };
    format!(
        "{}, {} credits{factors}{ways}{state}",
        model.media_type.as_str(),
        model.credits
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../providers.toml");

    fn check(providers: &str, pairs: &[(&str, &str)]) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("providers.toml");
        std::fs::write(&path, providers).unwrap();
        let flags = Overrides {
            data_dir: Some(folder.path().join("data")),
            providers_path: Some(path),
            ..Overrides::default()
        };
        let env = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut out = Vec::new();
        let valid = run(&flags, &env, &mut out).unwrap();
        assert!(!folder.path().join("data").exists(), "check writes nothing");
        (valid, String::from_utf8(out).unwrap())
    }

    #[test]
    fn it_says_where_accounts_live() {
        let secret = ("JWT_SECRET", "0123456789abcdef0123456789abcdef");
        let (valid, shown) = check(SHIPPED, &[secret]);
        assert!(valid && shown.contains("\nAccounts\n  local: "), "{shown}");
        let (valid, shown) = check(
            SHIPPED,
            &[
                secret,
                ("SUPABASE_URL", "https://ref.supabase.co"),
                ("SUPABASE_ANON_KEY", "sb_publishable_key"),
                ("SUPABASE_SERVICE_ROLE_KEY", "sb_secret_key"),
            ],
        );
        assert!(valid, "{shown}");
        for expected in [
            "  at Supabase: https://ref.supabase.co/auth/v1\n",
            "  tokens: of https://ref.supabase.co/auth/v1, signed with its published keys\n",
            "  registration: confirmed at once\n",
        ] {
            assert!(shown.contains(expected), "missing: {expected}\nin:\n{shown}");
        }
        assert!(!shown.contains("sb_secret_key"), "{shown}");
    }

    #[test]
    fn the_shipped_files_are_valid() {
        let (valid, shown) = check(SHIPPED, &[("JWT_SECRET", "0123456789abcdef0123456789abcdef")]);
        assert!(valid, "{shown}");
        for expected in [
            "  auth.jwt_secret = set (32 characters)",
            "  fal: FAL_KEY is not set: its models are refused; 20 at once, 5 of one user",
            "  sandbox: ready; 8 at once, 4 of one user",
            "image, 5 credits x num_images\n",
            "image, 45 credits x num_images, deprecated\n",
            "video, 500 credits\n",
            "Everything is valid.",
        ] {
            assert!(shown.contains(expected), "missing: {expected}\nin:\n{shown}");
        }
        assert!(!shown.contains("0123456789abcdef"), "{shown}");
    }

    #[test]
    fn a_described_provider_is_ready_with_its_secrets() {
        let text = include_str!("../../../docs/providers/replicate.toml");
        let jwt = ("JWT_SECRET", "0123456789abcdef0123456789abcdef");
        for (pairs, expected) in [
            (
                &[jwt][..],
                "  replicate: REPLICATE_API_TOKEN is not set: its models are refused; ",
            ),
            (&[jwt, ("REPLICATE_API_TOKEN", "r8_x")], "  replicate: ready; "),
        ] {
            let (valid, shown) = check(text, pairs);
            assert!(valid && shown.contains(expected), "{shown}");
        }
    }

    #[test]
    fn the_ways_of_a_model_are_shown() {
        let text = format!(
            "{SHIPPED}\n[[models.fallbacks]]\nprovider = \"sandbox\"\nprovider_model = \"sandbox/video\"\n\
             reference_image = {{ refused = \"it draws from the words alone\" }}\n"
        );
        let (valid, shown) = check(&text, &[]);
        assert!(valid, "{shown}");
        assert_eq!(shown.matches(" credits, at fal, then sandbox").count(), 1, "{shown}");
    }

    #[test]
    fn faults_of_both_files_are_shown_together() {
        let broken =
            SHIPPED
                .replacen("credits = 5", "credits = -5", 1)
                .replacen("kind = \"fal\"", "kind = \"foul\"", 1);
        let (valid, shown) = check(
            &broken,
            &[
                ("PORT", "http"),
                ("ENVIRONMENT", "production"),
                ("SUPABASE_URL", "https://x.co"),
            ],
        );
        assert!(!valid);
        for expected in [
            "error: PORT: `server.port` is \"http\"",
            "error: JWT_SECRET: is not set",
            "providers.toml:",
            "`credits` is -5",
            "`kind` is `foul`",
            "error: SUPABASE_ANON_KEY: is not set, but SUPABASE_URL is",
            "5 errors.",
        ] {
            assert!(shown.contains(expected), "missing: {expected}\nin:\n{shown}");
        }
    }
}
