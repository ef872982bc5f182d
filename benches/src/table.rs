//! Results: medians over the rounds, as a table for people or as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Clients or tasks at once.
    pub clients: usize,
    /// Calls that ended well, per second.
    pub rate: f64,
    /// Half of the calls took no longer, in milliseconds (of pgbench: the average).
    pub p50_ms: f64,
    /// 99 of 100 calls took no longer.
    pub p99_ms: Option<f64>,
    /// CPU time of the server (of the store alone: of this program) per call, in microseconds.
    pub server_us: Option<f64>,
    /// CPU time of PostgreSQL per call.
    pub postgres_us: Option<f64>,
    /// CPU time of the load generator per call.
    pub load_us: Option<f64>,
}

/// Measurements of several rounds.
#[derive(Debug, Default)]
pub struct Results {
    rows: Vec<Row>,
}

impl Results {
    /// Notes one.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// One row for each measurement and client count, in the order of their first time, with the median of each column.
    #[must_use]
    pub fn medians(&self) -> Vec<Row> {
        let mut medians: Vec<Row> = Vec::new();
        for row in &self.rows {
            if medians.iter().any(|m| m.what == row.what && m.clients == row.clients) {
                continue;
            }
            let same = || {
                self.rows
                    .iter()
                    .filter(|r| r.what == row.what && r.clients == row.clients)
            };
            medians.push(Row {
                what: row.what.clone(),
                clients: row.clients,
                rate: median(same().map(|r| r.rate)).unwrap_or(f64::NAN),
                p50_ms: median(same().map(|r| r.p50_ms)).unwrap_or(f64::NAN),
                p99_ms: median(same().filter_map(|r| r.p99_ms)),
                server_us: median(same().filter_map(|r| r.server_us)),
                postgres_us: median(same().filter_map(|r| r.postgres_us)),
                load_us: median(same().filter_map(|r| r.load_us)),
            });
        }
        medians
    }

    /// The row of a measurement in which the rate was best.
    #[must_use]
    pub fn best(&self, what: &str) -> Option<Row> {
        let rows = self.medians().into_iter().filter(|row| row.what == what);
        rows.max_by(|left, right| left.rate.total_cmp(&right.rate))
    }
}

/// The middle value; the mean of the two in the middle.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => None,
        1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A Markdown table.
#[must_use]
pub fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let rulers: Vec<&str> = head
        .iter()
        .enumerate()
        .map(|(at, _)| if at == 0 { "---" } else { "---:" })
        .collect();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "| {} |", head.join(" | "));
    let _ = writeln!(text, "|{}|", rulers.join("|"));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// The table of measurements.
#[must_use]
pub fn rows(rows: &[Row]) -> String {
    let optional = |value: Option<f64>| value.map_or_else(String::new, number);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.what.clone(),
                row.clients.to_string(),
                number(row.rate),
                number(row.p50_ms),
                optional(row.p99_ms),
                optional(row.server_us),
                optional(row.postgres_us),
                optional(row.load_us),
            ]
        })
        .collect();
    let head = [
        "",
        "clients",
        "per second",
        "p50 ms",
        "p99 ms",
        "server CPU us",
        "PostgreSQL CPU us",
        "load CPU us",
    ];
    markdown(&head, &cells)
}

/// Three digits are all that a noisy machine knows.
#[must_use]
pub fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".to_owned(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn medians_do_not_care_for_order_or_outliers() {
        assert_eq!(median([9.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 1000.0].into_iter()), Some(3.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn rounds_become_one_row() {
        let mut results = Results::default();
        for (clients, rate) in [(1, 10.0), (64, 50.0), (1, 30.0), (1, 20.0)] {
            results.add(Row {
                what: "submit".into(),
                clients,
                rate,
                p50_ms: 1.0,
                p99_ms: None,
                server_us: Some(rate),
                postgres_us: None,
                load_us: None,
            });
        }
        let medians = results.medians();
        assert_eq!(medians.len(), 2);
        assert_eq!((medians[0].clients, medians[0].rate), (1, 20.0));
        assert_eq!(results.best("submit").unwrap().clients, 64);
    }
}
