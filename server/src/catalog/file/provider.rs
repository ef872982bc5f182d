//! `[providers.NAME]`.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::declared;
use crate::catalog::{PluginSource, ProviderEntry, ProviderKind};
use crate::document::Section;

/// What can be written as `kind`.
#[derive(Clone, Copy)]
enum Kind {
    Fal,
    Http,
    Plugin,
    Sandbox,
}

const KINDS: [(&str, Kind); 4] = [
    ("fal", Kind::Fal),
    ("http", Kind::Http),
    ("plugin", Kind::Plugin),
    ("sandbox", Kind::Sandbox),
];

/// Reads a provider entry; `None` when something in it is wrong (which has been noted).
pub(super) fn read(name: &str, mut section: Section<'_, '_>) -> Option<ProviderEntry> {
    let line = section.line;
    let well_formed = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
    if !well_formed {
        section.fault(
            line,
            "the name cannot be used",
            "begin with a letter and use only a-z, 0-9, `-` and `_`, at most 64 characters",
        );
    }
    let kind = section.choice("kind", &KINDS);
    if section.raw("kind").is_none() {
        section.missing("kind", "\"fal\", \"sandbox\", \"http\" or \"plugin\"");
    }
    let enabled = section.boolean("enabled").is_none_or(|spot| spot.value);
    let concurrency = section
        .integer("concurrency", 1..=100_000)
        .map_or(20, |spot| spot.value);
    let per_user = section.integer("concurrency_per_user", 1..=100_000);
    if let Some(spot) = &per_user
        && spot.value > concurrency
    {
        section.fault(
            spot.line,
            format_args!(
                "`concurrency_per_user` is {} but `concurrency` is {concurrency}",
                spot.value
            ),
            format!("write at most {concurrency}"),
        );
    }
    let per_user = per_user.map_or(concurrency.min(5), |spot| spot.value);
    let timeout_ms = section
        .integer("timeout_ms", 100..=600_000)
        .map_or(20_000, |spot| spot.value);
    // What a built-in provider has no use for is not asked for, so that it is reported as unknown.
    let kind = kind.map(|spot| spot.value);
    let (mut hosts, mut allow_private, mut secrets) = (None, false, BTreeMap::new());
    if matches!(kind, Some(Kind::Plugin | Kind::Http)) {
        hosts = read_hosts(&mut section);
        allow_private = section.boolean("allow_private").is_some_and(|spot| spot.value);
        secrets = read_secrets(&mut section);
    }
    let kind = kind.and_then(|kind| {
        Some(match kind {
            Kind::Fal => ProviderKind::Fal,
            Kind::Sandbox => ProviderKind::Sandbox,
            Kind::Http => {
                let shared = declared::Shared {
                    hosts: hosts.as_deref(),
                    allow_private,
                    secrets: &secrets,
                };
                let declaration = declared::read(&mut section, &shared);
                // Its requests go where it says, and nowhere else.
                hosts = declaration.as_ref().map(|d| d.all_hosts());
                ProviderKind::Http(Arc::new(declaration?))
            }
            Kind::Plugin => ProviderKind::Plugin(read_plugin(&mut section)?),
        })
    });
    section.finish();
    Some(ProviderEntry {
        name: name.to_owned(),
        kind: kind?,
        enabled,
        concurrency: u32::try_from(concurrency).ok()?,
        concurrency_per_user: u32::try_from(per_user).ok()?,
        timeout_ms: u32::try_from(timeout_ms).ok()?,
        hosts,
        allow_private,
        secrets,
        line,
    })
}

fn read_plugin(section: &mut Section<'_, '_>) -> Option<PluginSource> {
    let path = section
        .required_text("path", "\"libacme.so\"")
        .map(|spot| PathBuf::from(spot.value));
    let sha256 = match section.raw("sha256") {
        Some(_) => section.text("sha256"),
        None => {
            section.missing("sha256", "the hash of the file; `velro plugin check FILE` prints it");
            None
        }
    };
    let sha256 = sha256.and_then(|spot| {
        let hash = spot.value.to_ascii_lowercase();
        if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Some(hash);
        }
        section.fault(
            spot.line,
            "`sha256` is not 64 hex digits",
            "copy the line that `velro plugin check FILE` prints",
        );
        None
    });
    let config = section.json_table("config").map(|spot| spot.value).unwrap_or_default();
    let required = section.boolean("required").is_none_or(|spot| spot.value);
    Some(PluginSource {
        path: path?,
        sha256: sha256?,
        config,
        required,
    })
}

/// `hosts = ["api.acme.example", "gpu.internal:8188"]`.
fn read_hosts(section: &mut Section<'_, '_>) -> Option<Vec<String>> {
    let spot = section.texts("hosts")?;
    for host in &spot.value {
        let plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c));
        if !plain {
            let what = format!("`hosts` names `{host}`");
            section.fault(spot.line, what, "write `host` or `host:port`, without scheme and path");
        }
    }
    Some(spot.value)
}

/// `secrets = { ACME_KEY = "SECOND_ACME_KEY" }`: the provider's name of it, and the variable it comes from.
fn read_secrets(section: &mut Section<'_, '_>) -> BTreeMap<String, String> {
    let Some(spot) = section.json_table("secrets") else {
        return BTreeMap::new();
    };
    let mut secrets = BTreeMap::new();
    for (name, variable) in spot.value {
        match variable {
            Value::String(variable) if !variable.trim().is_empty() => {
                secrets.insert(name, variable);
            }
            _ => section.fault(
                spot.line,
                format!("`secrets.{name}` is not a text"),
                "write the name of an environment variable; the secret itself never stands in this file",
            ),
        }
    }
    secrets
}
