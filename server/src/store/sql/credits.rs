//! Balances, statements and grants.

use async_trait::async_trait;
use serde_json::json;
use std::collections::BTreeSet;

use super::books::{Books, Gift};
use super::conn::{Conn, args, sql};
use super::error::Result;
use super::rows::{self, columns};
use super::writer::Write;
use super::{audit, bulk};
use crate::clock::Micros;
use crate::id::UserId;
use crate::ledger::{Balance, Credits};
use crate::store::{By, CreditStats, Grant, Granted, Page, StatementFilter, StatementLine};

/// `None` without an account.
pub(super) async fn balance(conn: &mut Conn<'_>, user: UserId) -> Result<Option<Balance>> {
    let sql = sql!("SELECT balance, held, debt FROM accounts WHERE user_id = $1");
    let row = conn.optional(sql, args![user]).await?;
    row.as_ref().map(rows::balance).transpose()
}

/// Newest first. Runs in a transaction, so that the total fits the page.
pub(super) async fn statement(
    conn: &mut Conn<'_>,
    user: UserId,
    filter: StatementFilter,
) -> Result<Page<StatementLine>> {
    let line_type = filter.line_type.map(|t| t.as_str());
    let sql = sql!(
        sqlite: "SELECT count(*) AS n FROM statement_lines WHERE user_id = $1 AND ($2 IS NULL OR line_type = $2)",
        postgres: "SELECT count(*) AS n FROM statement_lines WHERE user_id = $1 \
            AND ($2::text IS NULL OR line_type = $2)",
    );
    let total = conn.one(sql, args![user, line_type]).await?;
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(statement_lines ""), " FROM statement_lines WHERE user_id = $1 AND ($2 IS NULL OR line_type = $2) \
            ORDER BY seq DESC LIMIT $3 OFFSET $4"),
        postgres: concat!("SELECT ", columns!(statement_lines ""), " FROM statement_lines WHERE user_id = $1 AND ($2::text IS NULL OR line_type = $2) \
            ORDER BY seq DESC LIMIT $3 OFFSET $4"),
    );
    let args = args![user, line_type, filter.limit, offset(filter.skip)];
    let lines = conn.all(sql, args).await?;
    Ok(Page {
        items: lines.iter().map(rows::statement_line).collect::<Result<_>>()?,
        total: total.number("n")?,
    })
}

/// SQLite counts in signed integers; nobody skips more than that.
pub(super) fn offset(skip: u64) -> i64 {
    i64::try_from(skip).unwrap_or(i64::MAX)
}

/// Sums since a moment; zeros without an account. Runs in a transaction.
pub(super) async fn stats(conn: &mut Conn<'_>, user: UserId, since: Micros) -> Result<CreditStats> {
    let available = balance(conn, user).await?.unwrap_or_default().available();
    let sql = sql!(
        "SELECT count(*) AS lines, \
         CAST(coalesce(-sum(amount) FILTER (WHERE line_type IN ('usage', 'refund')), 0) AS bigint) AS spent, \
         CAST(coalesce(sum(amount) FILTER (WHERE line_type IN ('purchase', 'bonus')), 0) AS bigint) AS purchased \
         FROM statement_lines WHERE user_id = $1 AND created_at >= $2"
    );
    let sums = conn.one(sql, args![user, since]).await?;
    let sql = sql!("SELECT count(*) AS n FROM settlements WHERE account_id = $1 AND created_at >= $2 AND captured > 0");
    let account = user.to_string();
    let charged = conn.one(sql, args![&account, since]).await?;
    Ok(CreditStats {
        available,
        spent: sums.credits("spent")?,
        purchased: sums.credits("purchased")?,
        generation_count: charged.number("n")?,
        transaction_count: sums.number("lines")?,
    })
}

#[async_trait]
impl Write for Grant {
    type Out = Option<Granted>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<Granted>> {
        if self.amount <= Credits::ZERO {
            return Err(anyhow::anyhow!("a grant must be more than zero, not {}", self.amount).into());
        }
        let mut books = Books::open(conn, &BTreeSet::from([self.user_id])).await?;
        let Some(before) = books.available(self.user_id) else {
            return Ok(None);
        };
        // Whoever comes second waits for the account, and finds the key taken; the constraint catches what is left: the
        // same key for another user at the same moment, which is tried again.
        if let Some(key) = &self.idempotency_key {
            let sql = sql!("SELECT to_account FROM transfers WHERE idempotency_key = $1");
            if let Some(row) = conn.optional(sql, args![key]).await? {
                let receiver: String = row.get("to_account")?;
                if receiver != self.user_id.to_string() {
                    return Err(anyhow::anyhow!(
                        "the key {key} was used for a grant to somebody else: nothing was given"
                    )
                    .into());
                }
                return Ok(Some(Granted {
                    available: before,
                    replayed: true,
                }));
            }
        }
        let gift = Gift {
            amount: self.amount,
            reason: &self.reason,
            actor: &self.actor,
            idempotency_key: self.idempotency_key.as_deref(),
            now: self.now,
        };
        books.give(self.user_id, &gift)?;
        bulk::write(conn, &books.into_bulks()?).await?;
        let by = By {
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            now: self.now,
        };
        let details = json!({
            "before": {"available": before}, "after": {"available": before + self.amount},
            "amount": self.amount, "idempotency_key": self.idempotency_key,
        });
        audit::write(conn, &by, "credits.grant", &self.user_id.to_string(), &details).await?;
        Ok(Some(Granted {
            available: before + self.amount,
            replayed: false,
        }))
    }
}
