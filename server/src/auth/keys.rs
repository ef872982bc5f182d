//! API keys: how one is made, told from a token, and checked without asking the database for every request.
//!
//! `velro_sk_`, 32 random characters and a checksum of 6 in base 62, as secret scanners like it: the beginning finds a key
//! in a leaked file, the checksum tells it from a word that looks like one, and a mistyped key costs no look-up. Only its
//! SHA-256 is stored; that is enough for a secret of 190 random bits.
//!
//! What is known of a key is kept for a few seconds, so that a change of its scopes is late by that much. That it was
//! revoked comes with the ended sessions, and what it has spent is read by the submit itself.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use moka::future::Cache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{AuthError, Caller, hash_token};
use crate::clock::{self, Micros};
use crate::id::{ApiKeyId, SessionId};
use crate::store::{KeyHolder, Scope, Store, StoreError};

/// The beginning of every key.
pub const KEY_PREFIX: &str = "velro_sk_";
/// Keys of one person that are not revoked.
pub const MOST_KEYS: u32 = 100;

const RANDOM_CHARS: usize = 32;
const CHECKSUM_CHARS: usize = 6;
/// How many random characters the hint shows.
const HINT_CHARS: usize = 4;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How long what is known of a key counts.
const KNOWN_FOR: Duration = Duration::from_secs(5);
const KNOWN_KEYS: u64 = 100_000;
/// A key that was noted as used within this time is not noted again.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// A fresh key: what its owner is shown once, and what is stored.
pub struct FreshKey {
    /// The key itself.
    pub key: String,
    /// SHA-256 of it, hex.
    pub hash: String,
    /// Its first characters.
    pub hint: String,
}

/// What a request that came with a key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRights {
    /// Which key.
    pub id: ApiKeyId,
    scopes: Vec<Scope>,
    models: Option<Vec<String>>,
}

impl KeyRights {
    /// True when the key has the scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// True when the key may use the model.
    pub fn may_use(&self, model_id: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|model| model == model_id))
    }
}

/// Makes a key.
pub fn fresh_key() -> Result<FreshKey, AuthError> {
    let random = random_chars()?;
    let body = format!("{KEY_PREFIX}{random}");
    let key = format!("{body}{}", checksum(&body));
    Ok(FreshKey {
        hash: hash_token(&key),
        hint: key.chars().take(KEY_PREFIX.len() + HINT_CHARS).collect(),
        key,
    })
}

/// True for what has the form of a key, whoever made it.
pub(super) fn looks_like_a_key(credential: &str) -> bool {
    credential.starts_with(KEY_PREFIX)
}

/// True when the checksum is right.
fn is_well_formed(key: &str) -> bool {
    let length = KEY_PREFIX.len() + RANDOM_CHARS;
    match (key.get(..length), key.get(length..)) {
        (Some(body), Some(end)) => end == checksum(body),
        _ => false,
    }
}

/// Evenly distributed: bytes that would make the first characters likelier are thrown away.
fn random_chars() -> Result<String, AuthError> {
    let system = SystemRandom::new();
    let mut chars = String::with_capacity(RANDOM_CHARS);
    while chars.len() < RANDOM_CHARS {
        let mut bytes = [0u8; 64];
        let no_random = |_| AuthError::Internal(anyhow::anyhow!("the system gives no random bytes"));
        system.fill(&mut bytes).map_err(no_random)?;
        let fair = bytes.iter().filter(|&&byte| byte < 248).map(|byte| byte % 62);
        let wanted = RANDOM_CHARS - chars.len();
        chars.extend(fair.take(wanted).map(|digit| char::from(ALPHABET[usize::from(digit)])));
    }
    Ok(chars)
}

/// CRC-32 in base 62, as long as the largest.
fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

/// The keys that requests came with lately.
pub(super) struct Keys {
    store: Arc<dyn Store>,
    /// By hash; `None` for what is nobody's.
    known: Cache<String, Option<Arc<Known>>>,
    uses: Mutex<Uses>,
}

/// A key and who it stands for.
struct Known {
    caller: Caller,
    id: ApiKeyId,
    revoked: bool,
    expires_at: Option<Micros>,
}

impl Known {
    fn of(holder: KeyHolder) -> Known {
        let key = holder.key;
        let rights = KeyRights {
            id: key.id,
            scopes: key.scopes,
            models: key.models,
        };
        Known {
            caller: Caller {
                user_id: key.user_id,
                session_id: SessionId::from(key.id.uuid()),
                email: holder.email,
                key: Some(Arc::new(rights)),
            },
            id: key.id,
            revoked: key.revoked_at.is_some(),
            expires_at: key.expires_at,
        }
    }
}

#[derive(Default)]
struct Uses {
    /// To be noted.
    waiting: HashMap<ApiKeyId, Micros>,
    noted: HashMap<ApiKeyId, Micros>,
}

impl Keys {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let known = Cache::builder()
            .max_capacity(KNOWN_KEYS)
            .time_to_live(KNOWN_FOR)
            .build();
        Keys {
            store,
            known,
            uses: Mutex::default(),
        }
    }

    /// The caller with this key, if it is good now. Requests that come together ask the database once.
    pub(super) async fn verify(&self, key: &str) -> Result<Caller, AuthError> {
        if !is_well_formed(key) {
            return Err(AuthError::InvalidToken);
        }
        let hash = hash_token(key);
        let look = async {
            let found = self.store.api_key_by_hash(&hash).await?;
            Ok::<_, StoreError>(found.map(|holder| Arc::new(Known::of(holder))))
        };
        let known = self.known.try_get_with(hash.clone(), look).await;
        let known = known.map_err(|error| AuthError::Store(StoreError::Unavailable(anyhow::anyhow!(error))))?;
        let known = known.ok_or(AuthError::InvalidToken)?;
        let now = clock::now();
        if known.revoked || known.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(AuthError::InvalidToken);
        }
        self.used(known.id, now);
        Ok(known.caller.clone())
    }

    /// Forgets what is known, after a change by its owner at this process.
    pub(super) fn forget(&self) {
        self.known.invalidate_all();
    }

    fn used(&self, key: ApiKeyId, now: Micros) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = uses.noted.get(&key).is_some_and(|at| at.plus(NOTED_EVERY) > now);
        if !noted {
            uses.waiting.insert(key, now);
        }
    }

    /// Writes when keys were used. What cannot be written now is written the next time.
    pub(super) async fn note_uses(&self) -> Result<(), StoreError> {
        let waiting: Vec<(ApiKeyId, Micros)> = {
            let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = clock::now().minus(NOTED_EVERY);
            uses.noted.retain(|_, at| *at > oldest);
            uses.waiting.iter().map(|(&id, &at)| (id, at)).collect()
        };
        if waiting.is_empty() {
            return Ok(());
        }
        self.store.touch_api_keys(&waiting).await?;
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, at) in waiting {
            uses.noted.insert(id, at);
            if uses.waiting.get(&id) == Some(&at) {
                uses.waiting.remove(&id);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_are_unique_well_formed_and_show_only_their_beginning() {
        let keys: Vec<FreshKey> = (0..200).map(|_| fresh_key().unwrap()).collect();
        let distinct: HashSet<&str> = keys.iter().map(|k| k.key.as_str()).collect();
        assert_eq!(distinct.len(), keys.len());
        for fresh in &keys {
            assert!(
                is_well_formed(&fresh.key) && looks_like_a_key(&fresh.key),
                "{}",
                fresh.key
            );
            assert_eq!(fresh.key.len(), KEY_PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS);
            assert!(fresh.key.starts_with(&fresh.hint) && fresh.hint.len() < 14);
            assert_eq!(fresh.hash, hash_token(&fresh.key));
        }
    }

    #[test]
    fn a_mistyped_key_is_told_from_a_real_one() {
        let key = fresh_key().unwrap().key;
        for at in 0..key.len() {
            let other = if key.as_bytes()[at] == b'x' { "y" } else { "x" };
            let mistyped = format!("{}{other}{}", &key[..at], &key[at + 1..]);
            assert!(!is_well_formed(&mistyped), "{mistyped}");
        }
        for wrong in ["", KEY_PREFIX, "velro_sk_é", &key[..key.len() - 1], &format!("{key}0")] {
            assert!(!is_well_formed(wrong), "{wrong}");
        }
    }
}
