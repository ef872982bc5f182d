//! What can go wrong under the port, and the one place where it becomes a [`StoreError`].
//!
//! Inside the store everything returns [`Fault`]; the boundary converts it once.

use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::postgres::PgDatabaseError;

use crate::store::StoreError;

/// A failure inside the store.
#[derive(Debug)]
pub(super) enum Fault {
    /// The driver or the database itself.
    Sql(sqlx::Error),
    /// A row says what cannot be, or an argument breaks the port's rules.
    Data(anyhow::Error),
    /// The database did not answer in time.
    TooSlow,
}

/// What the functions of the store return.
pub(super) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// True when a constraint refused the statement, whichever it was.
    pub(super) fn is_refusal(&self) -> bool {
        let Fault::Sql(sqlx::Error::Database(e)) = self else {
            return false;
        };
        !matches!(e.kind(), ErrorKind::Other)
    }

    /// True when the same transaction may well succeed if it is tried again at once: another one was in its way. What was
    /// refused as a duplicate counts, because the next try sees what the other one wrote.
    pub(super) fn is_conflict(&self) -> bool {
        let Fault::Sql(sqlx::Error::Database(e)) = self else {
            return false;
        };
        // serialization_failure, deadlock_detected
        matches!(sqlstate(&**e), Some("40001" | "40P01")) || e.is_unique_violation() || e.is_foreign_key_violation()
    }

    /// True when somebody else kept what was asked for locked for too long.
    pub(super) fn is_locked(&self) -> bool {
        let Fault::Sql(sqlx::Error::Database(e)) = self else {
            return false;
        };
        // lock_not_available
        sqlstate(&**e) == Some("55P03")
    }

    /// True when the next try would only wait as long: no answer, or no connection to be had.
    pub(super) fn is_out_of_reach(&self) -> bool {
        let no_connection = |e: &sqlx::Error| matches!(e, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
        matches!(self, Fault::TooSlow) || matches!(self, Fault::Sql(e) if no_connection(e))
    }

    /// True when the connection is of no use any more, or the server behind it.
    pub(super) fn is_disconnected(&self) -> bool {
        match self {
            Fault::Sql(sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_)) => true,
            // admin_shutdown, crash_shutdown, cannot_connect_now; PgBouncer: 08P01
            Fault::Sql(sqlx::Error::Database(e)) => {
                matches!(sqlstate(&**e), Some(state) if state.starts_with("57P") || state.starts_with("08"))
            }
            _ => false,
        }
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
            Fault::TooSlow => StoreError::Unavailable(anyhow::anyhow!("the database did not answer in time")),
        }
    }
}

/// True for what another try, more disk or a restart may heal; false for bugs and damage.
fn is_passing(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Database(e) => match sqlstate(&**e) {
            // Classes: connection, transaction rollback, resources, object state (locks), operator intervention, system;
            // and 25006: a server that has become a read-only standby.
            Some(state) => {
                ["08", "40", "53", "55", "57", "58"]
                    .iter()
                    .any(|class| state.starts_with(class))
                    || state == "25006"
            }
            // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
            None => matches!(primary_code(&**e), 5 | 6 | 7 | 8 | 9 | 10 | 13 | 14 | 15),
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// PostgreSQL's five characters; `None` for SQLite.
fn sqlstate(e: &dyn DatabaseError) -> Option<&str> {
    e.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code)
}

/// SQLite's primary result code: the low byte of the extended one, which is what the driver gives. 1 is ERROR.
fn primary_code(e: &dyn DatabaseError) -> i32 {
    e.code().and_then(|c| c.parse::<i32>().ok()).unwrap_or(1) & 0xff
}
