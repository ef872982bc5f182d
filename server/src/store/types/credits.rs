//! Statements, grants and what a verification found.

use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::id::{GenerationId, StatementLineId, UserId};
use crate::ledger::{Credits, LineType};

/// Which statement lines.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct StatementFilter {
    pub line_type: Option<LineType>,
    pub skip: u64,
    pub limit: u32,
}

/// A line of the statement a person sees.
#[derive(Debug, Clone, PartialEq)]
pub struct StatementLine {
    /// Unique.
    pub id: StatementLineId,
    /// Whose.
    pub user_id: UserId,
    /// The contract's `transaction_type`.
    pub line_type: LineType,
    /// Negative for spending.
    pub amount: Credits,
    /// Available balance after this line.
    pub balance_after: Credits,
    /// One sentence.
    pub description: String,
    /// What it was for.
    pub generation_id: Option<GenerationId>,
    /// Model id and the like; no secret.
    pub metadata: Map<String, Value>,
    /// When.
    pub created_at: Micros,
}

/// Sums over a user's statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreditStats {
    /// Now.
    pub available: Credits,
    /// Usage less refunds in the period, positive.
    pub spent: Credits,
    /// Purchases and bonuses in the period.
    pub purchased: Credits,
    /// Generations charged in the period.
    pub generation_count: u64,
    /// Lines in the period.
    pub transaction_count: u64,
}

/// To give credits to a user.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Grant {
    pub user_id: UserId,
    /// More than zero.
    pub amount: Credits,
    /// Shown to the user and kept for audit.
    pub reason: String,
    /// Who did it, for audit.
    pub actor: String,
    /// The same key gives once.
    pub idempotency_key: Option<String>,
    pub now: Micros,
}

/// A grant that is booked.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Available balance now.
    pub available: Credits,
    /// The key had been used before; nothing was given again.
    pub replayed: bool,
}

/// What `velro ledger verify` found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LedgerReport {
    /// Accounts looked at.
    pub accounts: u64,
    /// Transfers looked at.
    pub transfers: u64,
    /// Unsettled holds.
    pub open_holds: u64,
    /// Credits in unsettled holds.
    pub held: Credits,
    /// Charged generations without a file on record that were not refunded: no fault of the books, and a wrong to somebody.
    pub charged_without_output: u64,
    /// One sentence for every broken invariant; empty when the books are in order.
    pub faults: Vec<String>,
}
