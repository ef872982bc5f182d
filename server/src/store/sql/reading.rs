//! Connections that only read, alone or as one moment.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Postgres, Sqlite, Transaction};

use super::conn::Conn;
use crate::store::Connections;

/// Connections that only read; cheap to clone.
#[derive(Clone)]
pub(super) enum Readers {
    Sqlite(SqlitePool),
    Postgres { pool: PgPool, named: bool },
}

/// A connection for reads; a transaction is rolled back when it is dropped, for there is nothing to commit.
pub(super) enum Reading {
    Sqlite(PoolConnection<Sqlite>),
    SqliteMoment(Transaction<'static, Sqlite>),
    Postgres(PoolConnection<Postgres>),
    PostgresMoment {
        transaction: Transaction<'static, Postgres>,
        named: bool,
    },
}

impl Reading {
    pub(super) fn conn(&mut self) -> Conn<'_> {
        match self {
            Reading::Sqlite(conn) => Conn::Sqlite(conn),
            Reading::SqliteMoment(transaction) => Conn::Sqlite(transaction),
            Reading::Postgres(conn) => Conn::Postgres { conn, named: true },
            Reading::PostgresMoment { transaction, named } => Conn::Postgres {
                conn: transaction,
                named: *named,
            },
        }
    }
}

impl Readers {
    pub(super) fn connections(&self) -> Connections {
        let of = |idle, open, limit| Connections::of("read", idle, open, limit);
        match self {
            Readers::Sqlite(pool) => of(pool.num_idle(), pool.size(), pool.options().get_max_connections()),
            Readers::Postgres { pool, .. } => of(pool.num_idle(), pool.size(), pool.options().get_max_connections()),
        }
    }

    pub(super) async fn begin(&self) -> sqlx::Result<Reading> {
        Ok(match self {
            Readers::Sqlite(pool) => Reading::SqliteMoment(pool.begin().await?),
            Readers::Postgres { pool, named } => {
                let begin = pool.begin_with(match named {
                    true => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                    // Not set for the connection: a pooler knows no options at the start of a session.
                    false => {
                        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '10s'; \
                         SET LOCAL random_page_cost = 1.1"
                    }
                });
                Reading::PostgresMoment {
                    transaction: begin.await?,
                    named: *named,
                }
            }
        })
    }
}
