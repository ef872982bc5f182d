//! Fetches a delivered file into a file of ours: over HTTP, out of a `data:` URL, or from the sandbox's artist.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use percent_encoding::percent_decode_str;
use reqwest::StatusCode;
use reqwest::header::LOCATION;
use std::time::Duration;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tracing::{debug, warn};
use url::Url;

use super::{Upstream, chain, guard, policy};
use crate::provider::{LoadedProvider, sandbox};

const MAX_REDIRECTS: usize = 5;
/// For the whole file.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(600);
/// Between two pieces of it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A finished download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloaded {
    /// How much was written.
    pub bytes: u64,
}

/// Why a file could not be fetched; texts are for the operator and free of the URL's query.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// Another try may succeed.
    #[error("{0}")]
    Retryable(String),
    /// It would fail again.
    #[error("{0}")]
    Permanent(String),
}

impl DownloadError {
    fn permanent(text: impl Into<String>) -> Self {
        DownloadError::Permanent(text.into())
    }
}

impl Upstream {
    /// Writes what is behind `url` to `file`, at most `limit` bytes. No secret is ever sent.
    /// Private addresses are connected to only where that is allowed, or on the hosts of a provider that may be there.
    pub async fn download(
        &self,
        provider: &LoadedProvider,
        url: &str,
        limit: u64,
        file: &mut File,
    ) -> Result<Downloaded, DownloadError> {
        let bytes = match url
            .split_once(':')
            .map(|(scheme, _)| scheme.to_ascii_lowercase())
            .as_deref()
        {
            Some("http" | "https") => {
                let whole = self.download_http(provider, url, limit, file);
                tokio::time::timeout(TOTAL_TIMEOUT, whole)
                    .await
                    .map_err(|_| DownloadError::Retryable("the file did not arrive in ten minutes".into()))??
            }
            Some("data") => write(file, &data_url(url, limit)?, limit).await?,
            Some("sandbox") => {
                let owned = url.to_owned();
                let drawn = tokio::task::spawn_blocking(move || sandbox::draw(&owned))
                    .await
                    .map_err(|e| DownloadError::permanent(format!("the artist stopped: {e}")))?;
                let drawn = drawn.map_err(|e| DownloadError::permanent(e.to_string()))?;
                write(file, &drawn, limit).await?
            }
            _ => return Err(DownloadError::permanent("the output's URL is neither http(s) nor data")),
        };
        debug!(target = policy::loggable(url), bytes, "output fetched");
        Ok(Downloaded { bytes })
    }

    async fn download_http(
        &self,
        provider: &LoadedProvider,
        url: &str,
        limit: u64,
        file: &mut File,
    ) -> Result<u64, DownloadError> {
        let mut url =
            Url::parse(url).map_err(|e| DownloadError::permanent(format!("the output's URL is not valid: {e}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let private = self.allow_private || (provider.allow_private && policy::is_listed(provider, &url));
            check(&url, private)?;
            let request = self
                .clients(private)
                .read
                .get(url.clone())
                .header("accept", "*/*")
                .send();
            let answer = tokio::time::timeout(IDLE_TIMEOUT, request)
                .await
                .map_err(|_| DownloadError::Retryable("the file's host does not answer".into()))?
                .map_err(fetch_error)?;
            if answer.status().is_redirection() {
                let target = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok());
                let target = target.ok_or_else(|| DownloadError::permanent("a redirect without a target"))?;
                url = url
                    .join(target)
                    .map_err(|e| DownloadError::permanent(format!("a redirect to an invalid URL: {e}")))?;
                continue;
            }
            if !answer.status().is_success() {
                return Err(status_error(answer.status()));
            }
            return stream(answer, limit, file).await;
        }
        Err(DownloadError::permanent(format!("more than {MAX_REDIRECTS} redirects")))
    }
}

/// Every hop is checked like the first.
fn check(url: &Url, private: bool) -> Result<(), DownloadError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(DownloadError::permanent("a redirect away from http(s)"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(DownloadError::permanent("the output's URL contains credentials"));
    }
    if !guard::address_allowed(url, private) {
        return Err(DownloadError::permanent(
            "the output's URL names an address that is not public (UPSTREAM_ALLOW_PRIVATE=true allows it)",
        ));
    }
    Ok(())
}

async fn stream(mut answer: reqwest::Response, limit: u64, file: &mut File) -> Result<u64, DownloadError> {
    let expected = answer.content_length();
    if expected.is_some_and(|n| n > limit) {
        return Err(too_large(limit));
    }
    let mut bytes = 0_u64;
    loop {
        let piece = tokio::time::timeout(IDLE_TIMEOUT, answer.chunk())
            .await
            .map_err(|_| DownloadError::Retryable("the file stopped arriving".into()))?
            .map_err(fetch_error)?;
        let Some(piece) = piece else { break };
        bytes += piece.len() as u64;
        if bytes > limit {
            return Err(too_large(limit));
        }
        file.write_all(&piece).await.map_err(disk_error)?;
    }
    file.flush().await.map_err(disk_error)?;
    if bytes == 0 {
        return Err(DownloadError::Retryable("the file is empty".into()));
    }
    Ok(bytes)
}

async fn write(file: &mut File, bytes: &[u8], limit: u64) -> Result<u64, DownloadError> {
    if bytes.len() as u64 > limit {
        return Err(too_large(limit));
    }
    file.write_all(bytes).await.map_err(disk_error)?;
    file.flush().await.map_err(disk_error)?;
    Ok(bytes.len() as u64)
}

/// The bytes of a `data:` URL.
fn data_url(url: &str, limit: u64) -> Result<Vec<u8>, DownloadError> {
    let bad = || DownloadError::permanent("the output's data URL is not valid");
    // Base64 needs four characters for three bytes; percent-encoding at most three for one.
    if url.len() as u64 > limit.saturating_mul(3).saturating_add(1_024) {
        return Err(too_large(limit));
    }
    let (kind, payload) = url
        .split_once(':')
        .and_then(|(_, rest)| rest.split_once(','))
        .ok_or_else(bad)?;
    let bytes: Vec<u8> = percent_decode_str(payload).collect();
    if !kind.trim_end().to_ascii_lowercase().ends_with(";base64") {
        return Ok(bytes);
    }
    let bytes: Vec<u8> = bytes.into_iter().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD
        .decode(&bytes)
        .or_else(|_| STANDARD_NO_PAD.decode(&bytes))
        .map_err(|_| bad())
}

fn too_large(limit: u64) -> DownloadError {
    DownloadError::permanent(format!("the file is larger than {limit} bytes"))
}

/// A storage of files may lag behind the answer that names one, so 404 is worth another try.
fn status_error(status: StatusCode) -> DownloadError {
    let text = format!("the file's host answered {status}");
    match status.as_u16() {
        404 | 408 | 425 | 429 | 500..=599 => DownloadError::Retryable(text),
        _ => DownloadError::Permanent(text),
    }
}

fn fetch_error(error: reqwest::Error) -> DownloadError {
    let refused = std::iter::successors(std::error::Error::source(&error), |e| e.source())
        .any(|e| e.downcast_ref::<guard::NoPublicAddress>().is_some());
    let text = chain(&error.without_url());
    warn!(error = %text, "an output could not be fetched");
    if refused {
        DownloadError::permanent("the output's host has no public address")
    } else {
        DownloadError::Retryable(text)
    }
}

fn disk_error(error: std::io::Error) -> DownloadError {
    DownloadError::Retryable(format!("the file could not be written: {error}"))
}
