//! Signed links: whoever has one may read the file until it expires, nobody else.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use std::time::Duration;
use thiserror::Error;

use crate::clock::Micros;
use crate::config::Secret;

/// What the key derived from the server's secret is for; another purpose gets another key.
const PURPOSE: &[u8] = b"velro output links, version 1";

/// Makes and checks signed links.
pub(super) struct Signer {
    key: Key,
    public_url: String,
    ttl_s: i64,
}

/// Why a link is not honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LinkRefused {
    /// Not signed by this server for this file.
    #[error("the link is not valid")]
    Signature,
    /// It was valid once.
    #[error("the link has expired: ask for the generation again to get a new one")]
    Expired,
}

impl Signer {
    pub(super) fn new(secret: &Secret, public_url: &str, ttl: Duration) -> Self {
        let root = Key::new(HMAC_SHA256, secret.expose().as_bytes());
        Signer {
            key: Key::new(HMAC_SHA256, hmac::sign(&root, PURPOSE).as_ref()),
            public_url: public_url.trim_end_matches('/').to_owned(),
            ttl_s: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 4).max(1),
        }
    }

    /// The link is valid for at least the configured time and at most a quarter longer, and is the same for a quarter
    /// of that time.
    pub(super) fn url(&self, key: &str, now: Micros) -> String {
        let window = (self.ttl_s / 4).max(1);
        let exp = (now.seconds() + self.ttl_s).div_euclid(window) * window + window;
        let tag = hmac::sign(&self.key, &message(key, exp));
        format!("{}/outputs/{key}?exp={exp}&sig={}", self.public_url, hex::encode(tag))
    }

    /// The key in a link of ours, whether or not it is still valid.
    pub(super) fn key_of<'a>(&self, url: &'a str) -> Option<&'a str> {
        let rest = url.strip_prefix(&self.public_url)?.strip_prefix("/outputs/")?;
        Some(rest.split('?').next().unwrap_or(rest))
    }

    pub(super) fn verify(&self, key: &str, exp: &str, sig: &str, now: Micros) -> Result<(), LinkRefused> {
        // One spelling only, or the signature would cover several texts.
        let seconds: i64 = exp.parse().map_err(|_| LinkRefused::Signature)?;
        let tag = hex::decode(sig).map_err(|_| LinkRefused::Signature)?;
        if exp != seconds.to_string() || sig.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(LinkRefused::Signature);
        }
        hmac::verify(&self.key, &message(key, seconds), &tag).map_err(|_| LinkRefused::Signature)?;
        if now.seconds() >= seconds {
            return Err(LinkRefused::Expired);
        }
        Ok(())
    }
}

/// Keys contain no line break, so that no two pairs give the same text.
fn message(key: &str, exp: i64) -> Vec<u8> {
    format!("{exp}\n{key}").into_bytes()
}
