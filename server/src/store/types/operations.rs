//! What those who run an installation see and set: counts, checks of the books, the log level.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Micros;
use crate::ledger::Credits;

use super::By;

/// Counts for the operator.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SystemCounts {
    /// Generations by status.
    pub by_status: BTreeMap<String, u64>,
    /// Attempts whose outcome is not known.
    pub unknown_attempts: u64,
    /// Since when the outcome of the oldest of them is not known.
    pub oldest_unknown_at: Option<Micros>,
    /// Generations that have not ended though they were submitted before the moment asked for; `unknown` ones are not among
    /// them.
    pub open_too_long: u64,
    /// Credits in unsettled holds.
    pub held: Credits,
    /// Credits that reversed purchases have left accounts short of.
    pub debt: Credits,
    /// Orders that need an operator.
    pub orders_in_trouble: u64,
    /// When the oldest queued generation was submitted.
    pub oldest_queued_at: Option<Micros>,
    /// What the last check of the books found; `None` before the first.
    pub ledger_check: Option<LedgerCheck>,
}

/// What a check of the books found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerCheck {
    /// When it was done.
    pub finished_at: Micros,
    /// How long it took.
    pub took: Duration,
    /// Broken invariants; 0 when the books are in order.
    pub faults: u64,
    /// Charged generations without a file on record that were not refunded.
    pub charged_without_output: u64,
}

/// A pool of connections to the database, of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// `read` or `write`.
    pub pool: &'static str,
    /// Open and waiting for work.
    pub idle: u64,
    /// At work.
    pub used: u64,
    /// How many there may be.
    pub limit: u64,
}

impl Connections {
    /// Of a pool with `idle` of `open` connections waiting.
    pub(crate) fn of(pool: &'static str, idle: usize, open: u32, limit: u32) -> Connections {
        let idle = (idle as u64).min(u64::from(open));
        Connections {
            pool,
            idle,
            used: u64::from(open) - idle,
            limit: limit.into(),
        }
    }
}

/// A filter of the logs that an operator has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel {
    /// A level, or a whole tracing filter.
    pub filter: String,
    /// When the configured one is back.
    pub until: Micros,
    /// Who asked.
    pub actor: String,
}

/// To change the filter of the logs of every process for a while.
#[derive(Debug, Clone)]
pub struct SetLogLevel {
    /// A level, or a whole tracing filter.
    pub filter: String,
    /// When the configured one is back; not later than now ends it at once.
    pub until: Micros,
    /// Who, and why.
    pub by: By,
}
