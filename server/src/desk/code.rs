//! Redeem codes as people type them.
//!
//! A generated code has 100 random bits in an alphabet without look-alikes. The normal form forgives case, spaces, hyphens
//! and the usual confusions (O for 0, I and L for 1); its SHA-256 is all that is stored.

use anyhow::{Result, anyhow};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

/// Crockford's Base32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Five bits each.
const CHARS: usize = 20;
const GROUP: usize = 5;

/// Shortest and longest code that an operator may choose, in letters and digits.
pub const CHOSEN_CHARS: std::ops::RangeInclusive<usize> = 8..=64;

/// Longest text that is looked at when somebody redeems.
pub const MAX_TYPED_CHARS: usize = 200;

/// What [`chosen`] refuses, in words for the operator.
pub const CHOSEN_RULE: &str = "must have 8 to 64 letters and digits; spaces and hyphens do not count";

/// A code, once: it is shown to whoever made it and to nobody after.
pub struct FreshCode {
    /// As people type it.
    pub text: String,
    /// What is stored instead.
    pub hash: String,
    /// How people know it again.
    pub hint: String,
}

/// A random one, such as `7K2M9-QXT4B-0H8VD-3CWNE`.
///
/// # Errors
/// When the system has no random numbers.
pub fn generated() -> Result<FreshCode> {
    let mut bytes = [0; CHARS];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow!("the system has no random numbers"))?;
    // 256 is a multiple of 32: every letter is as likely.
    let letters: Vec<u8> = bytes.iter().map(|byte| ALPHABET[usize::from(byte % 32)]).collect();
    let groups: Vec<String> = letters
        .chunks(GROUP)
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect();
    let text = groups.join("-");
    Ok(FreshCode {
        hash: hash(&text),
        hint: format!("{}-...", groups[0]),
        text,
    })
}

/// One that an operator chose; `None` when it breaks [`CHOSEN_RULE`].
pub fn chosen(text: &str) -> Option<FreshCode> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == ' ';
    let normal = normal(text);
    if !text.chars().all(plain) || !CHOSEN_CHARS.contains(&normal.len()) {
        return None;
    }
    let hint: String = normal.chars().take(3).collect();
    Some(FreshCode {
        hash: hash(text),
        hint: format!("{hint}..."),
        text: text.trim().to_owned(),
    })
}

/// The normal form.
fn normal(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{2010}'..='\u{2015}'))
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect()
}

/// SHA-256 of the normal form, hex.
pub fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(normal(text)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn generated_codes_are_long_readable_and_never_the_same() {
        let codes: HashSet<String> = (0..1000).map(|_| generated().unwrap().text).collect();
        assert_eq!(codes.len(), 1000);
        for code in &codes {
            assert_eq!((code.len(), code.matches('-').count()), (23, 3), "{code}");
            assert!(!code.contains(['I', 'L', 'O', 'U']), "{code}");
        }
        let letters: HashSet<char> = codes.iter().flat_map(|code| code.chars()).collect();
        assert_eq!(letters.len(), 33, "every letter, and the hyphen");
    }

    #[test]
    fn what_people_confuse_is_the_same_code() {
        let code = "7K2M0-QXT41";
        for typed in ["7k2m0qxt41", " 7K2MO QXT4I ", "7k2mo-qxt4l", "7K2M0\u{2013}QXT41"] {
            assert_eq!(hash(typed), hash(code), "{typed}");
        }
        assert_ne!(hash("7K2M0-QXT42"), hash(code));
    }

    #[test]
    fn chosen_codes_have_a_least_length_and_plain_letters() {
        let code = chosen("welcome-2027").unwrap();
        assert_eq!((code.hint.as_str(), code.hash), ("WE1...", hash("WELCOME2027")));
        for bad in ["short", "a-b-c-d-e-f", "wëlcome2027", &"x".repeat(65), "welcome_2027"] {
            assert!(chosen(bad).is_none(), "{bad}");
        }
    }
}
