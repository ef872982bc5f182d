//! Checks who sent a webhook, by the scheme its provider's manifest names.
//!
//! Invariants: the body is not looked at before the signature holds; a signature older than [`TOLERANCE_S`] is refused;
//! foreign keys are fetched only from the manifest's URL, at most once a minute, whatever arrives.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Mutex;
use tracing::warn;
use velro_plugin::{HttpRequest, WebhookAuth};

use super::Upstream;
use crate::clock::Micros;
use crate::provider::LoadedProvider;

/// Largest difference between a signature's time and ours, in seconds.
const TOLERANCE_S: i64 = 300;
/// Keys are believed this long.
const KEYS_TTL: Duration = Duration::from_secs(24 * 3600);
/// Shortest time between two look-ups of the same key document.
const KEYS_PAUSE: Duration = Duration::from_secs(60);
const MAX_KEYS: usize = 32;

/// Why a webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HookRefused {
    /// The provider signs no webhooks, so none can be checked.
    #[error("this provider has no signed webhooks")]
    NoScheme,
    /// A header of the scheme is missing or unreadable.
    #[error("the header `{0}` is missing or not valid")]
    Header(&'static str),
    /// Too old or from the future.
    #[error("the signature's time is more than 300 seconds away")]
    Stale,
    /// No key matches.
    #[error("the signature does not match")]
    Signature,
    /// The secret or the key document cannot be had: answer 503, so that the sender tries again.
    #[error("the keys to check the signature are not available")]
    KeysUnavailable,
}

/// Verifies webhooks and keeps the key documents it fetched.
pub struct WebhookVerifier {
    upstream: Upstream,
    cache: RwLock<HashMap<String, Arc<KeySet>>>,
    /// One look-up at a time; when each document was last asked for.
    lookups: Mutex<HashMap<String, Micros>>,
}

struct KeySet {
    keys: Vec<[u8; 32]>,
    fetched_at: Micros,
}

impl WebhookVerifier {
    /// A verifier that fetches keys through `upstream`.
    pub fn new(upstream: Upstream) -> Self {
        WebhookVerifier {
            upstream,
            cache: RwLock::default(),
            lookups: Mutex::default(),
        }
    }

    /// Checks the signature of a webhook of `provider`.
    pub async fn verify(
        &self,
        provider: &LoadedProvider,
        headers: &HeaderMap,
        body: &[u8],
        now: Micros,
    ) -> Result<(), HookRefused> {
        match &provider.manifest.webhook_auth {
            None => Err(HookRefused::NoScheme),
            Some(WebhookAuth::StandardWebhooks { secret }) => {
                let secret = provider.secrets.get(secret).ok_or(HookRefused::KeysUnavailable)?;
                standard(secret.expose(), headers, body, now)
            }
            Some(WebhookAuth::Ed25519Jwks { jwks }) => {
                let signed = FalSigned::read(headers, body, now)?;
                let known = self.known(jwks, now);
                if known.as_ref().is_some_and(|set| signed.matches(&set.keys)) {
                    return Ok(());
                }
                // Unknown key: it may be a new one.
                match self.refreshed(provider, jwks, known.as_deref(), now).await {
                    Some(set) if signed.matches(&set.keys) => Ok(()),
                    Some(_) => Err(HookRefused::Signature),
                    None if known.is_some() => Err(HookRefused::Signature),
                    None => Err(HookRefused::KeysUnavailable),
                }
            }
        }
    }

    fn known(&self, jwks: &str, now: Micros) -> Option<Arc<KeySet>> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        cache
            .get(jwks)
            .filter(|set| set.fetched_at.plus(KEYS_TTL) > now)
            .cloned()
    }

    /// Fetches the document, unless somebody just did. `None` when there is nothing newer than `known`.
    async fn refreshed(
        &self,
        provider: &LoadedProvider,
        jwks: &str,
        known: Option<&KeySet>,
        now: Micros,
    ) -> Option<Arc<KeySet>> {
        let mut lookups = self.lookups.lock().await;
        // Another webhook may have fetched it while this one waited.
        if let Some(set) = self.known(jwks, now)
            && known.is_none_or(|known| known.fetched_at != set.fetched_at)
        {
            return Some(set);
        }
        if lookups.get(jwks).is_some_and(|asked| asked.plus(KEYS_PAUSE) > now) {
            return None;
        }
        lookups.insert(jwks.to_owned(), now);
        let keys = self.fetch(provider, jwks).await?;
        let set = Arc::new(KeySet { keys, fetched_at: now });
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.insert(jwks.to_owned(), set.clone());
        Some(set)
    }

    async fn fetch(&self, provider: &LoadedProvider, jwks: &str) -> Option<Vec<[u8; 32]>> {
        let request = HttpRequest::get(jwks).timeout_ms(10_000);
        let answer = self.upstream.perform(provider, &request).await.ok()?;
        let keys = if answer.status == 200 {
            read_jwks(&answer.body)
        } else {
            Vec::new()
        };
        if keys.is_empty() {
            warn!(provider = %provider.name, status = answer.status, "the key document holds no usable key");
            return None;
        }
        Some(keys)
    }
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
}

/// The Ed25519 keys of a JWKS document; others are passed over.
fn read_jwks(body: &[u8]) -> Vec<[u8; 32]> {
    let Ok(document) = serde_json::from_slice::<Jwks>(body) else {
        return Vec::new();
    };
    let ed25519 = document.keys.iter().filter(|k| k.kty == "OKP" && k.crv == "Ed25519");
    ed25519
        .filter_map(|k| URL_SAFE_NO_PAD.decode(k.x.trim_end_matches('=')).ok()?.try_into().ok())
        .take(MAX_KEYS)
        .collect()
}

/// What FAL signed.
struct FalSigned {
    message: String,
    signature: Vec<u8>,
}

impl FalSigned {
    fn read(headers: &HeaderMap, body: &[u8], now: Micros) -> Result<Self, HookRefused> {
        let request_id = header(headers, "x-fal-webhook-request-id")?;
        let user_id = header(headers, "x-fal-webhook-user-id")?;
        let timestamp = header(headers, "x-fal-webhook-timestamp")?;
        let signature = header(headers, "x-fal-webhook-signature")?;
        check_time(timestamp, "x-fal-webhook-timestamp", now)?;
        let signature = hex::decode(signature).map_err(|_| HookRefused::Header("x-fal-webhook-signature"))?;
        let hash = hex::encode(digest(&SHA256, body));
        Ok(FalSigned {
            message: format!("{request_id}\n{user_id}\n{timestamp}\n{hash}"),
            signature,
        })
    }

    /// There is no key id: every key is tried.
    fn matches(&self, keys: &[[u8; 32]]) -> bool {
        keys.iter().any(|key| {
            UnparsedPublicKey::new(&ED25519, key)
                .verify(self.message.as_bytes(), &self.signature)
                .is_ok()
        })
    }
}

/// Standard Webhooks with a shared secret (`whsec_...`).
fn standard(secret: &str, headers: &HeaderMap, body: &[u8], now: Micros) -> Result<(), HookRefused> {
    let id = header(headers, "webhook-id")?;
    let timestamp = header(headers, "webhook-timestamp")?;
    let signatures = header(headers, "webhook-signature")?;
    check_time(timestamp, "webhook-timestamp", now)?;
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
        .map_err(|_| HookRefused::KeysUnavailable)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    // Several signatures while the sender changes its secret; unknown versions are passed over.
    let good = signatures
        .split(' ')
        .filter_map(|s| s.strip_prefix("v1,"))
        .take(16)
        .any(|s| {
            STANDARD
                .decode(s)
                .is_ok_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
        });
    if good { Ok(()) } else { Err(HookRefused::Signature) }
}

fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, HookRefused> {
    let mut values = headers.get_all(name).iter();
    match (values.next().and_then(|v| v.to_str().ok()), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value),
        _ => Err(HookRefused::Header(name)),
    }
}

fn check_time(timestamp: &str, name: &'static str, now: Micros) -> Result<(), HookRefused> {
    let seconds: i64 = timestamp.parse().map_err(|_| HookRefused::Header(name))?;
    if now.seconds().abs_diff(seconds) > TOLERANCE_S.unsigned_abs() {
        return Err(HookRefused::Stale);
    }
    Ok(())
}
