//! The account service's public keys: fetched by one task, read by everybody without a lock.
//!
//! [`Keys::keep`] fetches them at start, as often as their `Cache-Control` says within bounds, and when a token names a key
//! that is not known. However many such tokens come, they share one fetch every few seconds, and tokens of known keys do
//! not notice. While the service is away, what is known stays known.

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::checked::Checked;
use super::gotrue::{GoTrue, SHORT_PATIENCE};

/// Bounds of how long keys are kept without asking again. The service says ten minutes.
const KEPT_LEAST: Duration = Duration::from_secs(60);
const KEPT_MOST: Duration = Duration::from_secs(600);
/// The first pause after a fetch that failed; it doubles up to [`KEPT_LEAST`].
const RETRY: Duration = Duration::from_secs(1);
/// Between two fetches, whatever tokens ask for.
const FETCH_EVERY: Duration = Duration::from_secs(3);
/// How long a token waits for a fetch: the pause before it and the fetch itself.
const TOKEN_PATIENCE: Duration = Duration::from_millis(4200);
/// How many tokens may wait; more are refused at once. A wait costs a request in flight for a few seconds.
const WAITING: usize = 1024;
/// Keys that are taken from one answer.
const MOST_KEYS: usize = 32;

/// A key with the one algorithm it may be used for.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys of one fetch by their ids, and what is remembered of tokens that were checked with them: a signature costs
/// a hundred times a look-up, and what was checked with a key must go with it.
#[derive(Default)]
pub(super) struct KeySet {
    keys: HashMap<String, Key>,
    pub(super) checked: Checked,
}

impl KeySet {
    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.keys.get(id)
    }

    fn len(&self) -> usize {
        self.keys.len()
    }
}

/// How the fetches are going.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: u64,
    ended: u64,
    /// The last one gave keys.
    worked: bool,
}

/// What waiting for a fetch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// The keys are those of now.
    Fresh,
    /// The service cannot be asked.
    Away,
    /// Too many wait already.
    Refused,
}

/// The keys.
pub(super) struct Keys {
    set: ArcSwap<KeySet>,
    progress: watch::Sender<Progress>,
    wanted: Notify,
    waiting: Semaphore,
}

impl Keys {
    pub(super) fn new() -> Keys {
        Keys {
            set: ArcSwap::default(),
            progress: watch::Sender::default(),
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// The present keys by their ids.
    pub(super) fn now(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.set.load()
    }

    /// Has the keys fetched again and waits for it.
    pub(super) async fn look_again(&self) -> Looked {
        let Ok(_place) = self.waiting.try_acquire() else {
            // Nobody is signed out because the service is away.
            return match self.progress.borrow().worked {
                true => Looked::Refused,
                false => Looked::Away,
            };
        };
        let until = Instant::now() + TOKEN_PATIENCE;
        let mut progress = self.progress.subscribe();
        let Progress { begun, ended, .. } = *progress.borrow();
        let target = match ended {
            // At the start, the first one is as good as any.
            0 => 1,
            // One that is under way may have been answered before the key was there.
            _ => {
                self.wanted.notify_one();
                begun + 1
            }
        };
        let ended = timeout_at(until, progress.wait_for(|p| p.ended >= target)).await;
        match ended {
            Ok(Ok(progress)) if progress.worked => Looked::Fresh,
            _ => Looked::Away,
        }
    }

    /// Keeps the keys fresh until told to stop. `secret` says that there is a shared secret too.
    pub(super) async fn keep(&self, gotrue: &GoTrue, secret: bool, stop: CancellationToken) {
        let mut retry = RETRY;
        let mut failing = false;
        let mut told_empty = false;
        loop {
            self.progress.send_modify(|p| p.begun += 1);
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = gotrue.keys(Instant::now() + SHORT_PATIENCE) => fetched,
            };
            let fetched = fetched.ok().and_then(|(body, age)| Some((parse(&body)?, age)));
            let worked = fetched.is_some();
            let pause = match fetched {
                Some((set, age)) => {
                    if set.len() == 0 && !secret && !told_empty {
                        tracing::error!(
                            "the account service publishes no keys and SUPABASE_JWT_SECRET is not set: every token is refused"
                        );
                    }
                    told_empty = set.len() == 0;
                    if failing {
                        tracing::info!(keys = set.len(), "the account service's keys are here");
                    }
                    self.set.store(Arc::new(set));
                    (retry, failing) = (RETRY, false);
                    age.unwrap_or(KEPT_MOST).clamp(KEPT_LEAST, KEPT_MOST)
                }
                None => {
                    if !failing {
                        tracing::warn!(
                            known = self.now().len(),
                            "the account service's keys cannot be fetched; trying again, with what is known until then"
                        );
                    }
                    failing = true;
                    let pause = retry;
                    retry = (retry * 2).min(KEPT_LEAST);
                    pause
                }
            };
            self.progress.send_modify(|p| {
                p.ended += 1;
                p.worked = worked;
            });
            let not_before = Instant::now() + FETCH_EVERY;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = self.wanted.notified() => tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(not_before) => {}
                },
            }
        }
    }
}

/// The keys of a JWKS that can verify a signature; `None` when it is none.
fn parse(body: &Value) -> Option<KeySet> {
    let keys = body.get("keys")?.as_array()?;
    let usable = keys.iter().take(MOST_KEYS).filter_map(key);
    Some(KeySet {
        keys: usable.collect(),
        checked: Checked::default(),
    })
}

/// One key with its id. Symmetric ones are none: whoever can read them could sign.
fn key(jwk: &Value) -> Option<(String, Key)> {
    let text = |name: &str| jwk.get(name)?.as_str();
    let id = text("kid").filter(|kid| !kid.is_empty())?;
    let signs = text("use").is_none_or(|u| u == "sig");
    let verifies = jwk
        .get("key_ops")
        .and_then(Value::as_array)
        .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !signs || !verifies {
        return None;
    }
    let (algorithm, decoding) = match (text("kty")?, text("crv")) {
        ("EC", Some("P-256")) => (
            Algorithm::ES256,
            DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?,
        ),
        ("RSA", _) => (
            Algorithm::RS256,
            DecodingKey::from_rsa_components(text("n")?, text("e")?).ok()?,
        ),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, DecodingKey::from_ed_components(text("x")?).ok()?),
        _ => return None,
    };
    let named = text("alg").and_then(|alg| alg.parse::<Algorithm>().ok());
    let fits = text("alg").is_none() || named == Some(algorithm);
    fits.then(|| (id.to_owned(), Key { algorithm, decoding }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_public_signature_keys_with_an_id_are_taken() {
        let ec = |extra: Value| {
            let mut key = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "a", "alg": "ES256"});
            key.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            key
        };
        let taken = |key: Value| parse(&json!({ "keys": [key] })).unwrap().len();
        assert_eq!(taken(ec(json!({}))), 1);
        assert_eq!(taken(ec(json!({"use": "sig", "key_ops": ["verify"]}))), 1);
        for spoilt in [
            json!({"use": "enc"}),
            json!({"key_ops": ["sign"]}),
            json!({"alg": "HS256"}),
            json!({"alg": "RS256"}),
            json!({"crv": "P-384"}),
            json!({"kid": ""}),
            json!({"kid": 7}),
            json!({"x": "*"}),
        ] {
            assert_eq!(taken(ec(spoilt.clone())), 0, "{spoilt}");
        }
        let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"});
        assert_eq!(taken(secret), 0);
        assert!(parse(&json!({"keys": "none"})).is_none());
        assert!(parse(&json!([])).is_none());
    }
}
