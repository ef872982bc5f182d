//! `Stripe-Signature`: who sent a webhook, and when.

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use thiserror::Error;

use crate::clock::Micros;
use crate::config::Secret;

/// How old a signature may be, and how far from the future, in seconds.
const TOLERANCE_S: i64 = 300;

/// Why a webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureRefused {
    /// No header, or none that can be read.
    #[error("the Stripe-Signature header is missing or cannot be read")]
    Unreadable,
    /// Signed with none of the secrets, or another body.
    #[error("no signature fits the body and a configured secret")]
    Wrong,
    /// A replay, or a clock that is wrong.
    #[error("the signature is more than five minutes old, or from the future")]
    Time,
}

/// Checks a header (`t=UNIX,v1=HEX,...`) over the raw body: one `v1` has to fit one of the secrets.
///
/// # Errors
///
/// [`SignatureRefused`].
pub fn verify(header: &str, body: &[u8], secrets: &[Secret], now: Micros) -> Result<(), SignatureRefused> {
    let (mut time, mut tags) = (None, Vec::new());
    for item in header.split(',') {
        match item.trim().split_once('=') {
            Some(("t", value)) => time = Some(value),
            Some(("v1", value)) => tags.extend(hex::decode(value)),
            _ => {}
        }
    }
    let time = time.ok_or(SignatureRefused::Unreadable)?;
    let seconds: i64 = time.parse().map_err(|_| SignatureRefused::Unreadable)?;
    let mut message = format!("{time}.").into_bytes();
    message.extend_from_slice(body);
    // In constant time for each pair.
    let fits = secrets.iter().any(|secret| {
        let key = Key::new(HMAC_SHA256, secret.expose().as_bytes());
        tags.iter().any(|tag| hmac::verify(&key, &message, tag).is_ok())
    });
    if !fits {
        return Err(SignatureRefused::Wrong);
    }
    match now.seconds().abs_diff(seconds) <= TOLERANCE_S.unsigned_abs() {
        true => Ok(()),
        false => Err(SignatureRefused::Time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    /// Made with Stripe's own library.
    const V1: &str = "c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925";

    fn check(header: &str, secrets: &[&str], seconds: i64) -> Result<(), SignatureRefused> {
        let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
        verify(header, BODY, &secrets, Micros(seconds * 1_000_000))
    }

    #[test]
    fn a_signature_of_stripe_s_library_fits() {
        let (now, good) = (1_700_000_000, format!("t=1700000000,v1={V1}"));
        let other = "00".repeat(32);
        for (header, secrets, at, expected) in [
            (good.clone(), vec!["whsec_test"], now, Ok(())),
            (good.clone(), vec!["whsec_new", "whsec_test"], now, Ok(())),
            (
                format!("t=1700000000,v1={other},v1={V1},v0=aa"),
                vec!["whsec_test"],
                now,
                Ok(()),
            ),
            (good.clone(), vec!["whsec_test"], now + 300, Ok(())),
            (good.clone(), vec!["whsec_test"], now + 301, Err(SignatureRefused::Time)),
            (good.clone(), vec!["whsec_test"], now - 301, Err(SignatureRefused::Time)),
            (good.clone(), vec!["whsec_other"], now, Err(SignatureRefused::Wrong)),
            (good.clone(), vec![], now, Err(SignatureRefused::Wrong)),
            (
                format!("t=1700000001,v1={V1}"),
                vec!["whsec_test"],
                now,
                Err(SignatureRefused::Wrong),
            ),
            (
                format!("t=1700000000,v0={V1}"),
                vec!["whsec_test"],
                now,
                Err(SignatureRefused::Wrong),
            ),
            (
                format!("v1={V1}"),
                vec!["whsec_test"],
                now,
                Err(SignatureRefused::Unreadable),
            ),
            (
                format!("t=soon,v1={V1}"),
                vec!["whsec_test"],
                now,
                Err(SignatureRefused::Unreadable),
            ),
            (
                String::new(),
                vec!["whsec_test"],
                now,
                Err(SignatureRefused::Unreadable),
            ),
        ] {
            assert_eq!(check(&header, &secrets, at), expected, "{header} {secrets:?}");
        }
    }
}
