//! Checks the account service's access tokens, here, without asking it.
//!
//! The key decides the algorithm, never the token: a published key is used for its own one only, the shared secret for
//! HS256 only, and only when no published key has the token's id.

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::jwks::{Keys, Looked};
use crate::auth::Caller;
use crate::auth::token::{TokenFault, in_date};
use crate::clock::{self, Micros};
use crate::config::Secret;
use crate::id::{SessionId, UserId};

/// Audience and role of a signed-in person.
const AUTHENTICATED: &str = "authenticated";

/// What a token says.
#[derive(Deserialize)]
struct Claims {
    sub: UserId,
    exp: i64,
    nbf: Option<i64>,
    role: String,
    email: Option<String>,
    session_id: Option<String>,
    is_anonymous: Option<bool>,
    user_metadata: Option<Map<String, Value>>,
}

/// Who brought a valid token.
#[derive(Clone)]
pub(super) struct Proof {
    pub(super) caller: Caller,
    /// As the token says, so at most as old as it.
    pub(super) full_name: Option<String>,
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It is not valid.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// Signed with a key that is not known.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// Signed with a key that may well be right, but the service cannot be asked for it.
    #[error("the keys cannot be fetched")]
    KeysAway,
    /// Of somebody who has not signed in.
    #[error("the token is of nobody")]
    Nobody,
}

impl From<jsonwebtoken::errors::Error> for Fault {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Fault::Token(error.into())
    }
}

/// The rules and the keys.
pub(super) struct Tokens {
    pub(super) keys: Keys,
    secret: Option<DecodingKey>,
    /// One for each algorithm: what is allowed is never more than what the key is for.
    rules: [(Algorithm, Validation); 4],
}

impl Tokens {
    /// Tokens of `issuer`, signed with published keys or with the secret, as it stands (it is not Base64).
    pub(super) fn new(issuer: &str, secret: Option<&Secret>) -> Tokens {
        let rules = |algorithm| {
            let mut rules = Validation::new(algorithm);
            // By the library's clock, the machine's; see `in_date`.
            rules.validate_exp = false;
            rules.validate_nbf = false;
            rules.set_audience(&[AUTHENTICATED]);
            rules.set_issuer(&[issuer]);
            rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
            (algorithm, rules)
        };
        Tokens {
            keys: Keys::new(),
            secret: secret.map(|secret| DecodingKey::from_secret(secret.expose().as_bytes())),
            rules: [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA, Algorithm::HS256].map(rules),
        }
    }

    /// Whether there is a shared secret.
    pub(super) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// The owner of a token. Waits only when its key is not known and may have been published meanwhile.
    pub(super) async fn verify(&self, token: &str) -> Result<Proof, Fault> {
        if let Some(known) = self.keys.now().checked.find(token, clock::now()) {
            return Ok(known?);
        }
        let header = decode_header(token)?;
        match self.check(token, &header, clock::now()) {
            Err(Fault::UnknownKey) => {}
            done => return done,
        }
        match self.keys.look_again().await {
            Looked::Away => Err(Fault::KeysAway),
            Looked::Refused => Err(Fault::UnknownKey),
            Looked::Fresh => self.check(token, &header, clock::now()),
        }
    }

    fn check(&self, token: &str, header: &Header, now: Micros) -> Result<Proof, Fault> {
        let keys = self.keys.now();
        let published = header.kid.as_ref().and_then(|kid| keys.get(kid));
        let (key, algorithm) = match (published, &self.secret) {
            (Some(key), _) => (&key.decoding, key.algorithm),
            (None, Some(secret)) if header.alg == Algorithm::HS256 => (secret, Algorithm::HS256),
            // Nothing that will be published can verify it.
            (None, _) if header.kid.is_none() || header.alg == Algorithm::HS256 => {
                return Err(TokenFault::Purpose.into());
            }
            (None, _) => return Err(Fault::UnknownKey),
        };
        let (_, rules) = self
            .rules
            .iter()
            .find(|(of, _)| *of == algorithm)
            .ok_or(TokenFault::Purpose)?;
        let claims = decode::<Claims>(token, key, rules)?.claims;
        in_date(claims.exp, claims.nbf, now)?;
        if claims.role != AUTHENTICATED {
            return Err(TokenFault::Purpose.into());
        }
        if claims.is_anonymous == Some(true) || claims.sub.uuid().is_nil() {
            return Err(Fault::Nobody);
        }
        let session_id = claims.session_id.as_deref().and_then(|id| id.parse().ok());
        let proof = Proof {
            caller: Caller {
                user_id: claims.sub,
                session_id: session_id.unwrap_or_else(|| session_of(token)),
                email: super::email(claims.email.as_deref()),
                key: None,
            },
            full_name: super::full_name(claims.user_metadata.as_ref()),
        };
        keys.checked.remember(token, &proof, claims.exp, claims.nbf);
        Ok(proof)
    }
}

/// A token that names no session is one of its own, the same wherever it comes.
fn session_of(token: &str) -> SessionId {
    let digest = Sha256::digest(token.as_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    SessionId::from(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
