//! `[providers.NAME]`.

use crate::catalog::{ProviderEntry, ProviderKind};
use crate::document::Section;

const KINDS: [(&str, ProviderKind); 2] = [("fal", ProviderKind::Fal), ("sandbox", ProviderKind::Sandbox)];

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
        section.missing("kind", "\"fal\" or \"sandbox\"");
    }
    let enabled = section.boolean("enabled").is_none_or(|spot| spot.value);
    let concurrency = section.integer("concurrency", 1..=10_000).map_or(20, |spot| spot.value);
    let per_user = section.integer("concurrency_per_user", 1..=10_000);
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
    section.finish();
    Some(ProviderEntry {
        name: name.to_owned(),
        kind: kind?.value,
        enabled,
        concurrency: u32::try_from(concurrency).ok()?,
        concurrency_per_user: u32::try_from(per_user).ok()?,
        timeout_ms: u32::try_from(timeout_ms).ok()?,
    })
}
