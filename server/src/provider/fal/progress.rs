//! What FAL's status says about the progress of a job, in a form that can be shown to its owner.

use velro_plugin::{Progress, Value};

/// Longest message, in characters.
const MESSAGE_CHARS: usize = 200;
/// Only the newest lines are looked at.
const LINES: usize = 20;

/// Reads queue position, newest log line and percentage. `permille` is the largest seen so far.
pub(super) fn read(status: &Value, permille: &mut Option<u16>) -> Progress {
    let lines = status["logs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let newest = lines
        .iter()
        .rev()
        .take(LINES)
        .filter_map(|line| line["message"].as_str());
    let mut message = None;
    let mut seen = None;
    for raw in newest {
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
    // `None` is smaller than any number.
    *permille = (*permille).max(seen);
    Progress {
        permille: *permille,
        queue_position: status["queue_position"]
            .as_u64()
            .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        message,
    }
}

/// One line of printable text: no escape sequences, no links, bounded.
fn clean(raw: &str) -> String {
    let mut text = String::new();
    let mut chars = raw.chars().take(4 * MESSAGE_CHARS).peekable();
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
    words
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(MESSAGE_CHARS)
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn newest_line_and_percentage() {
        let mut permille = None;
        let status = json!({"logs": [
            {"message": "loading"}, {"message": "step \u{1b}[31mtwo\u{1b}[0m at https://internal/x 45%"},
            {"message": " 50%|#####     | 5/10 [00:01<00:01]"}]});
        let progress = read(&status, &mut permille);
        assert_eq!(progress.permille, Some(500));
        assert_eq!(progress.message.as_deref(), Some("step two at [link] 45%"));
        // It never goes backwards, and nonsense is not progress.
        let progress = read(
            &json!({"logs": [{"message": "20% of 900%"}], "queue_position": 3}),
            &mut permille,
        );
        assert_eq!(progress.permille, Some(500));
        assert_eq!(progress.queue_position, Some(3));
        assert_eq!(read(&json!({"logs": null}), &mut None), Progress::default());
    }

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
        assert_eq!(clean(&"long ".repeat(10_000)).chars().count(), MESSAGE_CHARS);
        assert_eq!(clean("a\u{202e}b\r\n\u{0}c"), "ab c");
    }
}
