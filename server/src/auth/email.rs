//! What we accept as an e-mail address. No message is ever sent to it by this module.

/// Longest address (RFC 5321 path, less its brackets), and longest part before the `@`.
const MAX_CHARS: usize = 254;
const MAX_LOCAL_CHARS: usize = 64;

/// The lower-case form of an address, or none when it is not one: `local@domain`, the local part of RFC 5322 atoms
/// with single dots between, the domain of two ASCII labels at least (international ones in their `xn--` form).
pub fn normal_email(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > MAX_CHARS {
        return None;
    }
    let (local, domain) = text.rsplit_once('@')?;
    let labels = domain.split('.').collect::<Vec<_>>();
    let labels_end = labels
        .last()
        .copied()
        .filter(|l| l.eq_ignore_ascii_case("invalid"))
        .map(|_| "invalid");
    let last_is_name = labels
        .last()
        .is_some_and(|l| l.bytes().any(|b| b.is_ascii_alphabetic()));
    let fits = local.len() <= MAX_LOCAL_CHARS
        && local.split('.').all(is_atom)
        && labels.len() >= 2
        && last_is_name
        && labels.into_iter().all(is_label);
    // RFC 2606: nobody's. Our own rows use it for people without an address.
    let is_somebodys = labels_end != Some("invalid");
    (fits && is_somebodys).then(|| text.to_ascii_lowercase())
}

fn is_atom(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b))
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::normal_email;

    #[test]
    fn addresses_people_have() {
        for (text, normal) in [
            ("a@example.com", "a@example.com"),
            (" Ada.Lovelace+x@Sub.Example.ORG ", "ada.lovelace+x@sub.example.org"),
            ("o'brien_1@xn--bcher-kva.example", "o'brien_1@xn--bcher-kva.example"),
        ] {
            assert_eq!(normal_email(text).as_deref(), Some(normal), "{text}");
        }
    }

    #[test]
    fn everything_else() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "a",
            "@example.com",
            "a@",
            "a@b",
            "a@@b.c",
            "a b@c.de",
            "a..b@c.de",
            ".a@c.de",
            "a.@c.de",
            "a@-c.de",
            "a@c..de",
            "a@c.de.",
            "a@1.2.3.4",
            "a@ex\u{e4}mple.com",
            "a\u{0}@c.de",
            "a@c.de\n.x",
            long.as_str(),
        ] {
            assert_eq!(normal_email(text), None, "{text:?}");
        }
    }
}
