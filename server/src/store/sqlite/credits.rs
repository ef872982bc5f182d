//! Balances, statements and grants.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use std::collections::BTreeSet;

use super::books::{Books, Gift};
use super::error::{Constraint, Result};
use super::rows;
use super::writer::Write;
use crate::clock::Micros;
use crate::id::UserId;
use crate::ledger::{Balance, Credits};
use crate::store::{CreditStats, Grant, Granted, Page, StatementFilter, StatementLine};

/// `None` without an account.
pub(super) async fn balance(conn: &mut SqliteConnection, user: UserId) -> Result<Option<Balance>> {
    let row = sqlx::query("SELECT balance, held FROM accounts WHERE id = ?1")
        .bind(user.to_string())
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(Balance {
            balance: rows::credits(&row, "balance")?,
            held: rows::credits(&row, "held")?,
        })
    })
    .transpose()
}

/// Newest first. Runs in a transaction, so that the total fits the page.
pub(super) async fn statement(
    conn: &mut SqliteConnection,
    user: UserId,
    filter: StatementFilter,
) -> Result<Page<StatementLine>> {
    let line_type = filter.line_type.map(|t| t.as_str());
    let total: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM statement_lines WHERE user_id = ?1 AND (?2 IS NULL OR line_type = ?2)",
    )
    .bind(user.to_string())
    .bind(line_type)
    .fetch_one(&mut *conn)
    .await?;
    let lines = sqlx::query(
        "SELECT * FROM statement_lines WHERE user_id = ?1 AND (?2 IS NULL OR line_type = ?2) \
         ORDER BY seq DESC LIMIT ?3 OFFSET ?4",
    )
    .bind(user.to_string())
    .bind(line_type)
    .bind(filter.limit)
    .bind(offset(filter.skip))
    .fetch_all(conn)
    .await?;
    Ok(Page {
        items: lines.iter().map(rows::statement_line).collect::<Result<_>>()?,
        total: total.unsigned_abs(),
    })
}

/// SQLite counts in signed integers; nobody skips more than that.
pub(super) fn offset(skip: u64) -> i64 {
    i64::try_from(skip).unwrap_or(i64::MAX)
}

/// Sums since a moment; zeros without an account. Runs in a transaction.
pub(super) async fn stats(conn: &mut SqliteConnection, user: UserId, since: Micros) -> Result<CreditStats> {
    let available = balance(conn, user).await?.unwrap_or_default().available();
    let sums = sqlx::query(
        "SELECT count(*) AS lines, \
         coalesce(-sum(amount) FILTER (WHERE line_type IN ('usage', 'refund')), 0) AS spent, \
         coalesce(sum(amount) FILTER (WHERE line_type IN ('purchase', 'bonus')), 0) AS purchased \
         FROM statement_lines WHERE user_id = ?1 AND created_at >= ?2",
    )
    .bind(user.to_string())
    .bind(since.0)
    .fetch_one(&mut *conn)
    .await?;
    let charged: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM settlements WHERE account_id = ?1 AND created_at >= ?2 AND captured > 0",
    )
    .bind(user.to_string())
    .bind(since.0)
    .fetch_one(conn)
    .await?;
    Ok(CreditStats {
        available,
        spent: rows::credits(&sums, "spent")?,
        purchased: rows::credits(&sums, "purchased")?,
        generation_count: charged.unsigned_abs(),
        transaction_count: rows::number(&sums, "lines")?,
    })
}

#[async_trait]
impl Write for Grant {
    type Out = Option<Granted>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<Granted>> {
        if self.amount <= Credits::ZERO {
            return Err(anyhow::anyhow!("a grant must be more than zero, not {}", self.amount).into());
        }
        let mut books = Books::open(conn, &BTreeSet::from([self.user_id])).await?;
        let Some(before) = books.available(self.user_id) else {
            return Ok(None);
        };
        let gift = Gift {
            amount: self.amount,
            reason: &self.reason,
            actor: &self.actor,
            idempotency_key: self.idempotency_key.as_deref(),
            now: self.now,
        };
        books.give(self.user_id, &gift)?;
        let available = before + self.amount;
        // The key is looked up by the constraint itself: whoever comes second, in whatever process, finds it taken.
        sqlx::query("SAVEPOINT gift").execute(&mut *conn).await?;
        match books.write(conn).await {
            Ok(()) => {
                sqlx::query("RELEASE gift").execute(conn).await?;
                Ok(Some(Granted {
                    available,
                    replayed: false,
                }))
            }
            Err(fault) if fault.violates(Constraint::TransferKey) => {
                sqlx::query("ROLLBACK TO gift").execute(&mut *conn).await?;
                sqlx::query("RELEASE gift").execute(conn).await?;
                Ok(Some(Granted {
                    available: before,
                    replayed: true,
                }))
            }
            Err(fault) => Err(fault),
        }
    }
}
