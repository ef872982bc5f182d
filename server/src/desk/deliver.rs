//! Fetches what a provider delivered for a generation that an operator settles, as the worker would have.

use thiserror::Error;
use velro_plugin::Output;

use crate::generation::{Generation, StoredOutput};
use crate::outputs::{CollectError, Outputs};
use crate::provider::ProviderShelf;
use crate::upstream::Upstream;

/// Why it could not be fetched; the texts are for the operator.
#[derive(Debug, Error)]
pub enum Undelivered {
    /// Whose addresses and secrets they are is not known.
    #[error("the registry has no provider `{0}`; add it again for as long as this takes")]
    NoProvider(String),
    /// One of the files.
    #[error("cannot copy {url}: {why}")]
    File {
        /// Which one.
        url: String,
        /// What happened.
        why: CollectError,
    },
}

/// Copies the files into our storage, in order; `told` hears of each before it is fetched.
///
/// # Errors
/// When the provider is gone or a file cannot be fetched. What was copied before stays, and is found by the next try.
pub async fn deliver(
    upstream: &Upstream,
    outputs: &Outputs,
    providers: &ProviderShelf,
    generation: &Generation,
    urls: &[String],
    told: impl Fn(&str) + Send,
) -> Result<Vec<StoredOutput>, Undelivered> {
    let missing = || Undelivered::NoProvider(generation.provider.clone());
    let provider = providers.get(&generation.provider).ok_or_else(missing)?;
    let mut stored = Vec::new();
    for (index, url) in (0u32..).zip(urls) {
        told(url);
        let output = Output::url(generation.media_type.as_str(), url.as_str());
        let copied = outputs
            .collect(upstream, &provider, generation.id, index, &output, None)
            .await;
        stored.push(copied.map_err(|why| Undelivered::File { url: url.clone(), why })?);
    }
    Ok(stored)
}
