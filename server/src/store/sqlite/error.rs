//! What can go wrong under the port, and the one place where it becomes a [`StoreError`].
//!
//! Inside the SQLite store everything returns [`Fault`]; the boundary converts it once. A constraint that stands for a
//! typed answer of a use case is recognised by [`Fault::violates`], nowhere else.

use crate::store::StoreError;

/// A failure inside the SQLite store.
#[derive(Debug)]
pub(super) enum Fault {
    /// The driver or SQLite itself.
    Sql(sqlx::Error),
    /// A row says what cannot be, or an argument breaks the port's rules.
    Data(anyhow::Error),
}

/// What the functions of the SQLite store return.
pub(super) type Result<T> = std::result::Result<T, Fault>;

/// Constraints that stand for an answer of a use case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constraint {
    /// Somebody has this e-mail.
    Email,
    /// A transfer with this idempotency key is booked.
    TransferKey,
}

impl Constraint {
    /// How SQLite names it in its message.
    fn message(self) -> &'static str {
        match self {
            Constraint::Email => "UNIQUE constraint failed: users.email",
            Constraint::TransferKey => "UNIQUE constraint failed: transfers.idempotency_key",
        }
    }
}

impl Fault {
    /// True when the statement was refused because of this constraint.
    pub(super) fn violates(&self, constraint: Constraint) -> bool {
        match self {
            Fault::Sql(sqlx::Error::Database(e)) => e.message() == constraint.message(),
            _ => false,
        }
    }
}

impl Fault {
    /// True when a constraint refused the statement, whichever it was.
    pub(super) fn is_refusal(&self) -> bool {
        // CONSTRAINT
        matches!(self, Fault::Sql(sqlx::Error::Database(e)) if primary_code(&**e) == 19)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(e: sqlx::Error) -> Self {
        Fault::Sql(e)
    }
}

impl From<anyhow::Error> for Fault {
    fn from(e: anyhow::Error) -> Self {
        Fault::Data(e)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(e: serde_json::Error) -> Self {
        Fault::Data(e.into())
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Data(e) => StoreError::Broken(e),
            Fault::Sql(e) if is_passing(&e) => StoreError::Unavailable(e.into()),
            Fault::Sql(e) => StoreError::Broken(e.into()),
        }
    }
}

/// True for what another try, more disk or a restart may heal; false for bugs and damage.
fn is_passing(e: &sqlx::Error) -> bool {
    match e {
        // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
        sqlx::Error::Database(e) => matches!(primary_code(&**e), 5 | 6 | 7 | 8 | 9 | 10 | 13 | 14 | 15),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// SQLite's primary result code: the low byte of the extended one, which is what the driver gives. 1 is ERROR.
fn primary_code(e: &dyn sqlx::error::DatabaseError) -> i32 {
    e.code().and_then(|c| c.parse::<i32>().ok()).unwrap_or(1) & 0xff
}
