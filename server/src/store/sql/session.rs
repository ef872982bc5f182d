//! Connections for transactions: the writer's own in SQLite, one of the pool in PostgreSQL.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Postgres};

use super::conn::Conn;
use super::error::Result;

/// Begins a transaction with limits for what it may wait: through a pooler they cannot be set for the connection.
const BEGIN_WITH_LIMITS: &str = "BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '10s'; \
     SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL random_page_cost = 1.1";

/// Where connections come from; cheap to clone.
#[derive(Clone)]
pub(super) enum Source {
    /// One connection for one writer, opened again when it breaks.
    Sqlite(Box<SqliteConnectOptions>),
    /// A pool; see [`Conn`] for `named`.
    Postgres { pool: PgPool, named: bool },
}

impl Source {
    /// A connection without a transaction.
    pub(super) async fn open(&self) -> Result<Session> {
        Ok(match self {
            Source::Sqlite(options) => Session::Sqlite(options.connect().await?),
            Source::Postgres { pool, named } => Session::Postgres {
                conn: pool.acquire().await?,
                named: *named,
            },
        })
    }

    /// True when a connection is given back after every transaction.
    pub(super) fn is_pooled(&self) -> bool {
        matches!(self, Source::Postgres { .. })
    }
}

/// A connection that writes.
pub(super) enum Session {
    Sqlite(SqliteConnection),
    Postgres {
        conn: PoolConnection<Postgres>,
        named: bool,
    },
}

impl Session {
    pub(super) fn conn(&mut self) -> Conn<'_> {
        match self {
            Session::Sqlite(conn) => Conn::Sqlite(conn),
            Session::Postgres { conn, named } => Conn::Postgres { conn, named: *named },
        }
    }

    /// Begins a transaction that may write at once.
    pub(super) async fn begin(&mut self) -> Result<()> {
        let text = match self {
            Session::Sqlite(_) => "BEGIN IMMEDIATE",
            Session::Postgres { named: true, .. } => "BEGIN",
            Session::Postgres { named: false, .. } => BEGIN_WITH_LIMITS,
        };
        self.conn().command(text).await
    }

    /// Closes it; what it was doing is rolled back. For a connection whose state is not known.
    pub(super) fn discard(self) {
        match self {
            Session::Sqlite(conn) => drop(conn),
            // Out of the pool, so that nobody gets it, and closed by being dropped.
            Session::Postgres { conn, .. } => drop(conn.detach()),
        }
    }

    /// Closes it in order.
    pub(super) async fn close(self) {
        if let Session::Sqlite(conn) = self
            // The file is consistent whatever happens here: closing only tidies the write-ahead log away.
            && let Err(error) = conn.close().await
        {
            tracing::warn!(%error, "closing the database failed");
        }
    }
}
