//! What signs, and what is published of it.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

/// The legacy secret of projects without keys.
pub const SECRET: &str = "a-legacy-secret-of-the-project-that-is-long-enough";

/// Which algorithm signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ECDSA over P-256.
    Es256,
    /// RSA.
    Rs256,
    /// Ed25519.
    EdDsa,
    /// The legacy secret; nothing is published.
    Hs256,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed(Ed25519KeyPair),
    Secret,
}

struct Key {
    kid: String,
    pair: Pair,
    published: bool,
}

/// All keys there were; the last one signs.
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub(super) fn new(kind: Kind) -> Self {
        Keys(vec![Key::new(kind)])
    }

    pub(super) fn rotate(&mut self, kind: Kind) -> String {
        self.0.push(Key::new(kind));
        self.last().kid.clone()
    }

    pub(super) fn retire(&mut self, kid: &str) {
        for key in self.0.iter_mut().filter(|key| key.kid == kid) {
            key.published = false;
        }
    }

    fn last(&self) -> &Key {
        self.0.last().expect("there is always one")
    }

    pub(super) fn signing_key(&self) -> (String, Value) {
        let key = self.last();
        (key.kid.clone(), key.jwk().unwrap_or_default())
    }

    /// The document at `/.well-known/jwks.json`.
    pub(super) fn published(&self) -> Value {
        let keys: Vec<Value> = self.0.iter().filter(|k| k.published).filter_map(Key::jwk).collect();
        json!({ "keys": keys })
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let key = self.last();
        let header = json!({ "alg": key.algorithm(), "kid": key.kid, "typ": "JWT" });
        let [header, claims] = [&header, claims].map(|part| BASE64.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let signature = BASE64.encode(key.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }

    /// Whether a token was signed by one of them, published or not.
    pub(super) fn verifies(&self, token: &str) -> bool {
        let Some((text, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let header = text.split('.').next().and_then(|part| BASE64.decode(part).ok());
        let header: Value = header.and_then(|h| serde_json::from_slice(&h).ok()).unwrap_or_default();
        let key = self.0.iter().find(|key| header["kid"] == key.kid.as_str());
        let signature = BASE64.decode(signature).unwrap_or_default();
        key.is_some_and(|key| key.verifies(text.as_bytes(), &signature))
    }
}

impl Key {
    fn new(kind: Kind) -> Self {
        let pair = match kind {
            Kind::Es256 => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            Kind::Rs256 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
            Kind::EdDsa => Pair::Ed(Ed25519KeyPair::generate().expect("a key")),
            Kind::Hs256 => Pair::Secret,
        };
        Key {
            kid: uuid::Uuid::new_v4().to_string(),
            pair,
            published: true,
        }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ec(_) => "ES256",
            Pair::Rsa(_) => "RS256",
            Pair::Ed(_) => "EdDSA",
            Pair::Secret => "HS256",
        }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, text).expect("a signature").as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature)
                    .expect("a signature");
                signature
            }
            Pair::Ed(pair) => pair.sign(text).as_ref().to_vec(),
            Pair::Secret => hmac::sign(&secret(), text).as_ref().to_vec(),
        }
    }

    fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
        match &self.pair {
            Pair::Ec(pair) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
                .verify(text, signature)
                .is_ok(),
            Pair::Rsa(pair) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
                .verify(text, signature)
                .is_ok(),
            Pair::Ed(pair) => UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref())
                .verify(text, signature)
                .is_ok(),
            Pair::Secret => hmac::verify(&secret(), text, signature).is_ok(),
        }
    }

    /// The public part; none of a secret.
    fn jwk(&self) -> Option<Value> {
        let mut jwk = match &self.pair {
            Pair::Ec(pair) => {
                // 0x04, x, y.
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65]) })
            }
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": BASE64.encode(public.modulus().big_endian_without_leading_zero()),
                    "e": BASE64.encode(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Pair::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key().as_ref()) }),
            Pair::Secret => return None,
        };
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        jwk["key_ops"] = json!(["verify"]);
        jwk["ext"] = json!(true);
        Some(jwk)
    }
}

/// The secret as it stands: it is not Base64.
fn secret() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes())
}
