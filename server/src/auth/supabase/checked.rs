//! Tokens whose signature was found to be right, so that the next request with one costs a hash and a look-up.
//!
//! Times, ended sessions and people are checked with every request; only what cannot change is remembered. It is kept
//! with the keys, and goes when they are fetched anew.

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::tokens::Proof;
use crate::auth::token::{TokenFault, in_date};
use crate::clock::Micros;

/// Tokens that are remembered; then the memory begins anew.
const MOST: usize = 50_000;

/// A token is known by its SHA-256, whole: there is no secret of it in memory.
type TokenHash = [u8; 32];

struct Entry {
    proof: Proof,
    exp_s: i64,
    nbf_s: Option<i64>,
}

/// The memory.
#[derive(Default)]
pub(super) struct Checked(RwLock<HashMap<TokenHash, Entry>>);

impl Checked {
    /// What a token proves, when its signature was checked before; an error when it is out of date by now.
    pub(super) fn find(&self, token: &str, now: Micros) -> Option<Result<Proof, TokenFault>> {
        let hash = hash(token);
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&hash)?;
        Some(in_date(entry.exp_s, entry.nbf_s, now).map(|()| entry.proof.clone()))
    }

    /// Remembers a token whose signature and claims are right.
    pub(super) fn remember(&self, token: &str, proof: &Proof, exp_s: i64, nbf_s: Option<i64>) {
        let entry = Entry {
            proof: proof.clone(),
            exp_s,
            nbf_s,
        };
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert(hash(token), entry);
    }
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::auth::Caller;
    use crate::id::{SessionId, UserId};

    #[test]
    fn a_token_is_remembered_and_still_runs_out() {
        let checked = Checked::default();
        let at = |seconds: i64| Micros(seconds * 1_000_000);
        let proof = Proof {
            caller: Caller {
                user_id: UserId::new(),
                session_id: SessionId::new(),
                email: "ada@example.com".into(),
                key: None,
            },
            full_name: None,
        };
        assert!(checked.find("a.b.c", at(10)).is_none());
        checked.remember("a.b.c", &proof, 100, None);
        assert_eq!(checked.find("a.b.c", at(50)).unwrap().unwrap().caller, proof.caller);
        assert!(checked.find("a.b.c", at(500)).unwrap().is_err());
        assert!(checked.find("a.b.d", at(50)).is_none());
        for n in 0..MOST + 10 {
            checked.remember(&n.to_string(), &proof, 100, None);
        }
        assert!(checked.0.read().unwrap().len() <= MOST);
    }
}
