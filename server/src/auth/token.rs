//! Signing and checking JWTs. One algorithm, one issuer, one audience per purpose.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{AuthError, Caller};
use crate::clock;
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
    /// Signed by us, but for something else.
    #[error("the token is for another purpose")]
    Purpose,
}

#[derive(Serialize, Deserialize)]
struct AccessClaims {
    sub: UserId,
    aud: String,
    iss: String,
    iat: i64,
    exp: i64,
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
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
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
        if claims.token_type != ACCESS || claims.role != AUDIENCE {
            return Err(TokenFault::Purpose);
        }
        Ok(Caller {
            user_id: claims.sub,
            session_id: claims.session_id,
            email: claims.email,
        })
    }

    pub(super) fn verify_stream(&self, token: &str, generation: GenerationId) -> Result<Caller, TokenFault> {
        let claims = decode::<StreamClaims>(token, &self.decoding, &self.stream)?.claims;
        let opens = claims.generation_id.is_none_or(|id| id == generation);
        if claims.token_type != STREAM || !opens {
            return Err(TokenFault::Purpose);
        }
        Ok(Caller {
            user_id: claims.sub,
            session_id: claims.session_id,
            email: String::new(),
        })
    }
}
