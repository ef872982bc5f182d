//! Forges access tokens, to see that the server refuses them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

/// The claims of a token, unchecked.
#[must_use]
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a JWT has three parts");
    let json = BASE64.decode(payload).expect("a JWT is base64url");
    serde_json::from_slice(&json).expect("claims are JSON")
}

/// A token with these claims, signed with HMAC-SHA-256.
#[must_use]
pub fn sign(claims: &Value, secret: &str) -> String {
    sign_as("HS256", claims, secret)
}

/// The same, with another algorithm in the header than the one that signed.
#[must_use]
pub fn sign_as(algorithm: &str, claims: &Value, secret: &str) -> String {
    let text = unsigned(algorithm, claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, text.as_bytes()));
    format!("{text}.{signature}")
}

/// A token without a signature that says so: `alg: none`.
#[must_use]
pub fn none(claims: &Value) -> String {
    format!("{}.", unsigned("none", claims))
}

fn unsigned(algorithm: &str, claims: &Value) -> String {
    let header = json!({ "alg": algorithm, "typ": "JWT" });
    let [header, claims] = [&header, claims].map(|part| BASE64.encode(part.to_string()));
    format!("{header}.{claims}")
}
