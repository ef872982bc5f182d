//! What every provider reads the same way: log lines for users, numbers without floats.

/// Longest line shown to a user, in characters.
const LINE_CHARS: usize = 200;
/// Only the newest lines of a log are looked at.
const LINES: usize = 20;

/// The newest line of a log worth showing, and the newest percentage in thousandths. Lines come newest first.
pub(super) fn log<'l>(newest_first: impl Iterator<Item = &'l str>) -> (Option<String>, Option<u16>) {
    let mut message = None;
    let mut seen = None;
    for raw in newest_first.take(LINES) {
        let text = clean(raw);
        seen = seen.or_else(|| percentage(&text));
        // A progress bar is for a terminal; its number is what counts.
        if message.is_none() && !text.is_empty() && !text.contains("%|") {
            message = Some(text);
        }
        if seen.is_some() && message.is_some() {
            break;
        }
    }
    (message, seen)
}

/// One line of printable text: no escape sequences, no links, bounded.
pub(super) fn clean(raw: &str) -> String {
    let mut text = String::new();
    let mut chars = raw.chars().take(4 * LINE_CHARS).peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                // A terminal sequence ends with a letter.
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                }
                chars.next();
            }
            // Direction marks could make a line read as another one.
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {}
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    let words = text
        .split_whitespace()
        .map(|word| if word.contains("://") { "[link]" } else { word });
    words.collect::<Vec<_>>().join(" ").chars().take(LINE_CHARS).collect()
}

/// The last `45%` or `45.5%` of a line, in thousandths.
fn percentage(text: &str) -> Option<u16> {
    let before = &text[..text.rfind('%')?];
    let start = before
        .rfind(|c: char| !c.is_ascii_digit() && c != '.')
        .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
    let (whole, fraction) = before[start..].split_once('.').unwrap_or((&before[start..], ""));
    let tenth = fraction.chars().next().and_then(|c| c.to_digit(10)).unwrap_or(0);
    let permille = whole.parse::<u32>().ok()?.checked_mul(10)?.checked_add(tenth)?;
    u16::try_from(permille).ok().filter(|&p| p <= 1_000)
}

/// A decimal number in thousandths, without a float in between; further digits are rounded up.
pub(super) fn milli(text: &str) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || whole.starts_with('+') {
        return None;
    }
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let rest = fraction.bytes().skip(3).any(|b| b != b'0');
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    whole
        .checked_mul(1_000)?
        .checked_add(digits.parse().ok()?)?
        .checked_add(u64::from(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        for (text, want) in [
            ("45%", Some(450)),
            ("done 12.5% now", Some(125)),
            ("100%", Some(1_000)),
            ("101%", None),
            ("é7%", Some(70)),
            ("%", None),
            ("no", None),
        ] {
            assert_eq!(percentage(text), want, "{text}");
        }
    }

    #[test]
    fn messages_are_bounded() {
        assert_eq!(clean(&"long ".repeat(10_000)).chars().count(), LINE_CHARS);
        assert_eq!(clean("a\u{202e}b\r\n\u{0}c"), "ab c");
    }

    #[test]
    fn units_are_exact() {
        for (text, want) in [
            ("1", Some(1_000)),
            ("1.5", Some(1_500)),
            (" 0.0001 ", Some(1)),
            (".25", Some(250)),
            ("2.", Some(2_000)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(milli(text), want, "{text}");
        }
    }
}
