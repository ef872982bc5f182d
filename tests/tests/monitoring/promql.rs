//! Which metrics and labels an expression of PromQL names. Whether it is valid, Prometheus itself says.

use std::collections::BTreeSet;

/// What one expression names.
#[derive(Debug, Default)]
pub struct Names {
    /// Metrics, each with the labels that its selector compares.
    pub metrics: Vec<(String, BTreeSet<String>)>,
    /// Labels of `by (...)`, `on (...)` and `group_left (...)`.
    pub grouping: BTreeSet<String>,
}

/// Reads an expression.
pub fn names(expression: &str) -> Names {
    let text = without_strings(expression);
    let mut found = Names::default();
    let mut word = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if is_of_a_word(c, word.is_empty()) {
            word.push(c);
        } else if c.is_ascii_digit() {
            // A duration or a number: none of its letters begins a name.
            while chars.next_if(|(_, c)| c.is_ascii_alphanumeric() || *c == '.').is_some() {}
        }
        let ends = chars
            .peek()
            .is_none_or(|(_, next)| !is_of_a_word(*next, word.is_empty()));
        if ends && !word.is_empty() {
            let rest = text[at + c.len_utf8()..].trim_start();
            found.take(&word, rest);
            word.clear();
        }
    }
    found
}

impl Names {
    fn take(&mut self, word: &str, rest: &str) {
        let inside = |open, close| {
            rest.strip_prefix(open)
                .and_then(|rest: &str| rest.split_once(close))
                .map(|(inside, _)| inside)
        };
        if matches!(
            word,
            "by" | "without" | "on" | "ignoring" | "group_left" | "group_right"
        ) {
            let labels = inside('(', ')').unwrap_or_default().split(',').map(str::trim);
            self.grouping
                .extend(labels.filter(|label| !label.is_empty()).map(str::to_owned));
        } else if is_metric(word) {
            let comparisons = inside('{', '}').unwrap_or_default().split(',').map(str::trim);
            let label = |comparison: &str| {
                comparison
                    .split(['=', '!'])
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            };
            let labels = comparisons.filter(|comparison| !comparison.is_empty()).map(label);
            self.metrics.push((word.to_owned(), labels.collect()));
        }
    }
}

fn is_metric(word: &str) -> bool {
    let heads = ["velro_", "process_", "go_", "ALERTS"];
    word == "up" || word.contains(':') || heads.iter().any(|head| word.starts_with(head))
}

fn is_of_a_word(c: char, is_first: bool) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':' || (!is_first && c.is_ascii_digit())
}

/// Every string becomes an empty one.
fn without_strings(expression: &str) -> String {
    let mut outside = true;
    let kept = expression.chars().filter(|&c| {
        if c == '"' {
            outside = !outside;
            return true;
        }
        outside
    });
    kept.collect()
}

#[test]
fn names_are_found_in_selectors_and_groups() {
    let expression = r#"sum by (namespace, le) (rate(velro_a_bucket{route!~"x{velro_no}",le="1"}[10m])) > 1e3
        and on (job) up == 0 unless rec:name:mean1d offset 30m"#;
    let found = names(expression);
    let metrics: Vec<String> = found
        .metrics
        .iter()
        .map(|(name, labels)| format!("{name} {labels:?}"))
        .collect();
    assert_eq!(
        metrics,
        [r#"velro_a_bucket {"le", "route"}"#, "up {}", "rec:name:mean1d {}"]
    );
    assert_eq!(found.grouping, ["job", "le", "namespace"].map(str::to_owned).into());
}
