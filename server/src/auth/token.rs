//! Signing and checking JWTs. One algorithm, one issuer, one audience per purpose.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{AuthError, Caller};
use crate::clock::{self, Micros};
use crate::config::Secret;
use crate::id::{GenerationId, SessionId, UserId};
use crate::store::User;

/// How much the clocks of replicas may differ.
pub(super) const LEEWAY: Duration = Duration::from_secs(5);

const ISSUER: &str = "velro";
/// Audience of access tokens, as Supabase names it; existing clients look at it.
const AUDIENCE: &str = "authenticated";
/// Audience of stream tokens: no other route accepts it.
const STREAM_AUDIENCE: &str = "velro-stream";
const ACCESS: &str = "access";
const STREAM: &str = "stream";

/// Why a token was refused; for debug logs only, a client hears one sentence for all.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenFault {
    /// Signature, algorithm, issuer, audience, times or shape.
    #[error(transparent)]
    Jwt(#[from] jsonwebtoken::errors::Error),
    /// Not valid yet, or not any more.
    #[error("the token is out of date")]
    OutOfDate,
    /// Signed by us, but for something else.
    #[error("the token is for another purpose")]
    Purpose,
}

/// By the clock that all replicas follow; a machine's own, which the library would ask, may be wrong.
pub(super) fn in_date(exp_s: i64, nbf_s: Option<i64>, now: Micros) -> Result<(), TokenFault> {
    let (now_s, leeway_s) = (now.seconds(), LEEWAY.as_secs() as i64);
    let begun = nbf_s.is_none_or(|nbf_s| nbf_s.saturating_sub(leeway_s) <= now_s);
    match begun && exp_s.saturating_add(leeway_s) >= now_s {
        true => Ok(()),
        false => Err(TokenFault::OutOfDate),
    }
}

#[derive(Serialize, Deserialize)]
struct AccessClaims {
    sub: UserId,
    aud: String,
    iss: String,
    iat: i64,
    exp: i64,
    /// Not in our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    email: String,
    role: String,
    session_id: SessionId,
    token_type: String,
}

#[derive(Serialize, Deserialize)]
struct StreamClaims {
    sub: UserId,
    aud: String,
    iss: String,
    iat: i64,
    exp: i64,
    /// Not in our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    session_id: SessionId,
    token_type: String,
    /// Which stream it opens; any of the caller's without.
    generation_id: Option<GenerationId>,
}

/// The keys, prepared once.
pub(super) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    access: Validation,
    stream: Validation,
    access_token_ttl: Duration,
}

fn validation(audience: &str) -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    // By the library's clock, the machine's; see `in_date`.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_audience(&[audience]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    validation
}

impl Signer {
    pub(super) fn new(secret: &Secret, access_token_ttl: Duration) -> Self {
        Signer {
            encoding: EncodingKey::from_secret(secret.expose().as_bytes()),
            decoding: DecodingKey::from_secret(secret.expose().as_bytes()),
            access: validation(AUDIENCE),
            stream: validation(STREAM_AUDIENCE),
            access_token_ttl,
        }
    }

    pub(super) fn access_token_ttl(&self) -> Duration {
        self.access_token_ttl
    }

    pub(super) fn sign_access(&self, user: &User, session_id: SessionId) -> Result<String, AuthError> {
        let now = clock::now();
        self.sign(&AccessClaims {
            sub: user.id,
            aud: AUDIENCE.into(),
            iss: ISSUER.into(),
            iat: now.seconds(),
            exp: now.plus(self.access_token_ttl).seconds(),
            nbf: None,
            email: user.email.clone(),
            role: AUDIENCE.into(),
            session_id,
            token_type: ACCESS.into(),
        })
    }

    pub(super) fn sign_stream(
        &self,
        caller: &Caller,
        generation_id: Option<GenerationId>,
        ttl: Duration,
    ) -> Result<String, AuthError> {
        let now = clock::now();
        self.sign(&StreamClaims {
            sub: caller.user_id,
            aud: STREAM_AUDIENCE.into(),
            iss: ISSUER.into(),
            iat: now.seconds(),
            exp: now.plus(ttl).seconds(),
            nbf: None,
            session_id: caller.session_id,
            token_type: STREAM.into(),
            generation_id,
        })
    }

    fn sign(&self, claims: &impl Serialize) -> Result<String, AuthError> {
        encode(&Header::new(Algorithm::HS256), claims, &self.encoding).map_err(|e| AuthError::Internal(e.into()))
    }

    pub(super) fn verify_access(&self, token: &str) -> Result<Caller, TokenFault> {
        let claims = decode::<AccessClaims>(token, &self.decoding, &self.access)?.claims;
        let now = clock::now();
        in_date(claims.exp, claims.nbf, now)?;
        // One from before the life of tokens was shortened: nobody remembers so long who has ended.
        in_date(
            claims.iat.saturating_add(self.access_token_ttl.as_secs() as i64),
            None,
            now,
        )?;
        if claims.token_type != ACCESS || claims.role != AUDIENCE {
            return Err(TokenFault::Purpose);
        }
        Ok(Caller {
            user_id: claims.sub,
            session_id: claims.session_id,
            email: claims.email,
            key: None,
        })
    }

    pub(super) fn verify_stream(&self, token: &str, generation: GenerationId) -> Result<Caller, TokenFault> {
        let claims = decode::<StreamClaims>(token, &self.decoding, &self.stream)?.claims;
        in_date(claims.exp, claims.nbf, clock::now())?;
        let opens = claims.generation_id.is_none_or(|id| id == generation);
        if claims.token_type != STREAM || !opens {
            return Err(TokenFault::Purpose);
        }
        Ok(Caller {
            user_id: claims.sub,
            session_id: claims.session_id,
            email: String::new(),
            key: None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::store::Role;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    const SECRET: &str = "a-secret-of-thirty-two-characters";

    fn signer() -> Signer {
        Signer::new(&Secret::new(SECRET), Duration::from_secs(3600))
    }

    fn user() -> User {
        let now = clock::now();
        User {
            id: UserId::new(),
            email: "ada@example.com".into(),
            password_hash: None,
            full_name: None,
            display_name: None,
            avatar_url: None,
            role: Role::User,
            plan: "free".into(),
            created_at: now,
            updated_at: now,
            last_sign_in_at: None,
            suspended_at: None,
            suspended_reason: None,
            deleted_at: None,
        }
    }

    fn caller() -> Caller {
        Caller {
            user_id: UserId::new(),
            session_id: SessionId::new(),
            email: "ada@example.com".into(),
            key: None,
        }
    }

    /// Claims that are all right, to be spoilt one at a time.
    fn good() -> Value {
        json!({
            "sub": UserId::new(), "aud": "authenticated", "iss": "velro", "iat": clock::now().seconds(),
            "exp": clock::now().seconds() + 600, "email": "ada@example.com", "role": "authenticated",
            "session_id": SessionId::new(), "token_type": "access",
        })
    }

    fn forged(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
        encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    }

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    #[test]
    fn our_own_tokens_name_their_owner() {
        let (user, session) = (user(), SessionId::new());
        let caller = signer()
            .verify_access(&signer().sign_access(&user, session).unwrap())
            .unwrap();
        assert_eq!((caller.user_id, caller.session_id), (user.id, session));
        assert_eq!(caller.email, "ada@example.com");
        assert!(
            signer()
                .verify_access(&forged(Algorithm::HS256, &good(), SECRET))
                .is_ok()
        );
    }

    #[test]
    fn no_algorithm_and_other_algorithms_are_refused() {
        for alg in ["none", "None", "NONE"] {
            let header = part(&json!({"alg": alg, "typ": "JWT"}));
            for signature in ["", "AAAA"] {
                let token = format!("{header}.{}.{signature}", part(&good()));
                assert!(signer().verify_access(&token).is_err(), "{alg} {signature:?}");
            }
        }
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            assert!(
                signer().verify_access(&forged(algorithm, &good(), SECRET)).is_err(),
                "{algorithm:?}"
            );
        }
        // A header that lies about the algorithm of an otherwise good signature.
        let token = forged(Algorithm::HS256, &good(), SECRET);
        let rest = token.split_once('.').unwrap().1;
        let lying = format!("{}.{rest}", part(&json!({"alg": "RS256", "typ": "JWT"})));
        assert!(signer().verify_access(&lying).is_err());
    }

    #[test]
    fn another_key_and_a_changed_payload_are_refused() {
        assert!(
            signer()
                .verify_access(&forged(Algorithm::HS256, &good(), "another-secret-of-32-characters!"))
                .is_err()
        );
        let token = forged(Algorithm::HS256, &good(), SECRET);
        let parts: Vec<&str> = token.split('.').collect();
        let tampered = format!("{}.{}.{}", parts[0], part(&good()), parts[2]);
        assert!(signer().verify_access(&tampered).is_err());
        for token in ["", ".", "..", "a.b.c", &token[..token.len() - 1], &format!("{token}.x")] {
            assert!(signer().verify_access(token).is_err(), "{token:?}");
        }
    }

    #[test]
    fn every_claim_is_needed_and_checked() {
        let past = clock::now().seconds() - LEEWAY.as_secs() as i64 - 2;
        for (claim, value) in [
            ("aud", json!("other")),
            ("aud", json!(STREAM_AUDIENCE)),
            ("iss", json!("https://example.supabase.co/auth/v1")),
            ("exp", json!(past)),
            ("exp", json!("never")),
            ("nbf", json!(clock::now().seconds() + 600)),
            ("sub", json!("not a uuid")),
            ("role", json!("service_role")),
            ("role", json!("anon")),
            ("token_type", json!("stream")),
            ("token_type", json!("refresh")),
        ] {
            let mut claims = good();
            claims[claim] = value.clone();
            let token = forged(Algorithm::HS256, &claims, SECRET);
            assert!(signer().verify_access(&token).is_err(), "{claim} = {value}");
        }
        for claim in ["aud", "iss", "exp", "sub", "session_id", "role", "token_type"] {
            let mut claims = good();
            claims.as_object_mut().unwrap().remove(claim);
            let token = forged(Algorithm::HS256, &claims, SECRET);
            assert!(signer().verify_access(&token).is_err(), "without {claim}");
        }
    }

    #[test]
    fn tokens_hold_between_their_times_give_or_take_the_leeway() {
        let at = |seconds: i64| Micros(seconds * 1_000_000);
        let leeway_s = LEEWAY.as_secs() as i64;
        assert!(in_date(1000, Some(500), at(700)).is_ok());
        assert!(in_date(1000, None, at(1000 + leeway_s)).is_ok());
        assert!(in_date(1000, None, at(1001 + leeway_s)).is_err());
        assert!(in_date(1000, Some(500), at(500 - leeway_s)).is_ok());
        assert!(in_date(1000, Some(500), at(499 - leeway_s)).is_err());
        assert!(in_date(i64::MAX, Some(i64::MIN), at(0)).is_ok());
    }

    #[test]
    fn a_stream_token_opens_its_stream_and_nothing_else() {
        let (signer, caller, id) = (signer(), caller(), GenerationId::new());
        let minute = Duration::from_secs(60);
        let bound = signer.sign_stream(&caller, Some(id), minute).unwrap();
        let opened = signer.verify_stream(&bound, id).unwrap();
        assert_eq!((opened.user_id, opened.session_id), (caller.user_id, caller.session_id));
        assert!(
            signer.verify_stream(&bound, GenerationId::new()).is_err(),
            "another generation's stream"
        );
        assert!(signer.verify_access(&bound).is_err(), "a normal route");

        let any = signer.sign_stream(&caller, None, minute).unwrap();
        assert!(signer.verify_stream(&any, GenerationId::new()).is_ok());
        let access = signer.sign_access(&user(), SessionId::new()).unwrap();
        assert!(signer.verify_stream(&access, id).is_err(), "an access token in a URL");
        assert!(!bound.contains("ada"), "no e-mail in a URL");
    }
}
