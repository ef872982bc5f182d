//! Tables and times for a person at a terminal.

use crate::clock::Micros;

/// Rows below a head, aligned; the last column is as long as it is. Columns whose head begins with `>` are numbers.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let name = |at: usize| head[at].trim_start_matches('>');
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(name(at).chars().count())
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            match head[at].starts_with('>') {
                true => text.push_str(&format!("{pad}{cell}")),
                false => text.push_str(&format!("{cell}{pad}")),
            }
            text.push_str("  ");
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line((0..head.len()).map(name).collect())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// How long ago, or in how long, in one unit: `3 min ago`.
pub(super) fn ago(time: Micros, now: Micros) -> String {
    let seconds = (now.0 - time.0) / 1_000_000;
    let span = match seconds.unsigned_abs() {
        s @ 0..=59 => format!("{s} s"),
        s @ 60..=3599 => format!("{} min", s / 60),
        s @ 3600..=172_799 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    };
    match seconds < 0 {
        true => format!("in {span}"),
        false => format!("{span} ago"),
    }
}

/// A text of at most `most` characters on one line.
pub(super) fn short(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.chars().count() > most {
        true => line.chars().take(most.saturating_sub(3)).collect::<String>() + "...",
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_to_the_right() {
        let rows = [["a", "5", "x"], ["bbb", "1000", ""]].map(|row| row.map(str::to_owned).to_vec());
        let shown = table(&["name", ">credits", "note"], &rows);
        assert_eq!(shown, "name  credits  note\na           5  x\nbbb      1000");
    }

    #[test]
    fn times_are_told_in_one_unit() {
        let now = Micros(1_000_000_000_000);
        let shown = |seconds: i64| ago(Micros(now.0 - seconds * 1_000_000), now);
        assert_eq!([shown(0), shown(59), shown(60)], ["0 s ago", "59 s ago", "1 min ago"]);
        assert_eq!(
            [shown(7200), shown(86_400 * 3), shown(-120)],
            ["2 h ago", "3 days ago", "in 2 min"]
        );
    }

    #[test]
    fn long_texts_and_line_breaks_do_not_break_the_table() {
        assert_eq!(short("one\ntwo", 20), "one two");
        assert_eq!(short("0123456789", 8), "01234...");
    }
}
