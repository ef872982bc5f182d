//! Recomputes the books from the rows beneath and says what does not agree, one sentence per fault.
//!
//! Every check is a statement that finds nothing while the invariants of [`crate::ledger`] hold; each row it finds is one
//! fault, with the ids and both numbers. Runs in one read transaction, so that it sees one moment of a living system.

use sqlx::SqliteConnection;

use super::error::Result;
use super::rows;
use crate::ledger::Platform;
use crate::store::LedgerReport;

/// Statements whose single text column is a fault.
const CHECKS: &[&str] = &[
    // ---- accounts
    "SELECT format('Account %s: its balance is %d, but its transfers sum to %d.', a.id, a.balance, coalesce(t.total, 0)) \
     FROM accounts AS a LEFT JOIN (SELECT account, sum(amount) AS total FROM \
     (SELECT to_account AS account, amount FROM transfers UNION ALL SELECT from_account, -amount FROM transfers) \
     GROUP BY account) AS t ON t.account = a.id WHERE a.balance <> coalesce(t.total, 0)",
    "SELECT format('All balances together are %d, but must be 0.', total) \
     FROM (SELECT coalesce(sum(balance), 0) AS total FROM accounts) WHERE total <> 0",
    "SELECT format('Account %s: it holds %d, but its unsettled holds sum to %d.', a.id, a.held, coalesce(h.total, 0)) \
     FROM accounts AS a LEFT JOIN (SELECT o.account_id, sum(o.amount) AS total FROM holds AS o \
     WHERE NOT EXISTS (SELECT 1 FROM settlements AS s WHERE s.generation_id = o.generation_id) GROUP BY o.account_id) AS h \
     ON h.account_id = a.id WHERE a.held <> coalesce(h.total, 0)",
    "SELECT format('Account %s: its balance of %d does not cover the %d it holds.', id, balance, held) \
     FROM accounts WHERE user_id IS NOT NULL AND balance < held",
    "SELECT format('User %s has 0 accounts, but must have 1.', u.id) FROM users AS u \
     WHERE NOT EXISTS (SELECT 1 FROM accounts AS a WHERE a.user_id = u.id)",
    // ---- statements
    "SELECT format('User %s: the available balance is %d, but the statement sums to %d.', \
     a.user_id, a.balance - a.held, coalesce(l.total, 0)) FROM accounts AS a \
     LEFT JOIN (SELECT user_id, sum(amount) AS total FROM statement_lines GROUP BY user_id) AS l ON l.user_id = a.user_id \
     WHERE a.user_id IS NOT NULL AND a.balance - a.held <> coalesce(l.total, 0)",
    "SELECT format('Statement line %s of user %s says %d is left, but the lines up to it sum to %d.', \
     id, user_id, balance_after, running) FROM (SELECT id, user_id, balance_after, \
     sum(amount) OVER (PARTITION BY user_id ORDER BY seq) AS running FROM statement_lines) WHERE balance_after <> running",
    "SELECT format('Generation %s was held for %d, but its usage lines sum to %d.', \
     h.generation_id, h.amount, coalesce(l.total, 0)) FROM holds AS h LEFT JOIN (SELECT generation_id, sum(amount) AS total \
     FROM statement_lines WHERE line_type = 'usage' GROUP BY generation_id) AS l ON l.generation_id = h.generation_id \
     WHERE coalesce(l.total, 0) <> -h.amount",
    "SELECT format('Generation %s released %d, but its refund lines sum to %d.', \
     h.generation_id, coalesce(s.released, 0), coalesce(l.total, 0)) FROM holds AS h \
     LEFT JOIN settlements AS s ON s.generation_id = h.generation_id \
     LEFT JOIN (SELECT generation_id, sum(amount) AS total FROM statement_lines WHERE line_type = 'refund' \
     GROUP BY generation_id) AS l ON l.generation_id = h.generation_id \
     WHERE coalesce(l.total, 0) <> coalesce(s.released, 0)",
    // ---- holds and settlements
    "SELECT format('Generation %s has a price of %d and no hold.', g.id, g.price) FROM generations AS g \
     WHERE NOT EXISTS (SELECT 1 FROM holds AS h WHERE h.generation_id = g.id)",
    "SELECT format('Generation %s of user %s costs %d, but account %s holds %d for it.', \
     g.id, g.user_id, g.price, h.account_id, h.amount) FROM holds AS h JOIN generations AS g ON g.id = h.generation_id \
     WHERE g.price <> h.amount OR g.user_id <> h.account_id",
    "SELECT format('Generation %s is %s and has 0 settlements, but must have 1.', g.id, g.status) FROM generations AS g \
     WHERE g.status IN ('completed', 'failed', 'cancelled') \
     AND NOT EXISTS (SELECT 1 FROM settlements AS s WHERE s.generation_id = g.id)",
    "SELECT format('Generation %s is %s and has 1 settlement, but must have 0.', g.id, g.status) FROM generations AS g \
     JOIN settlements AS s ON s.generation_id = g.id WHERE g.status IN ('queued', 'processing')",
    "SELECT format('Generation %s: %d captured and %d released are not the %d that were held.', \
     s.generation_id, s.captured, s.released, h.amount) FROM settlements AS s \
     JOIN holds AS h ON h.generation_id = s.generation_id \
     WHERE s.captured + s.released <> h.amount OR s.account_id <> h.account_id",
    "SELECT format('Generation %s is %s and shows %d as charged, but its settlement captured %d.', \
     g.id, g.status, g.captured, s.captured) FROM generations AS g JOIN settlements AS s ON s.generation_id = g.id \
     WHERE g.captured <> s.captured",
    "SELECT format('Generation %s is %s, but %d was captured instead of 0.', g.id, g.status, s.captured) \
     FROM generations AS g JOIN settlements AS s ON s.generation_id = g.id \
     WHERE g.status IN ('failed', 'cancelled') AND s.captured <> 0",
    "SELECT format('Generation %s captured %d, but %d was transferred from account %s.', \
     s.generation_id, s.captured, coalesce(t.total, 0), s.account_id) FROM settlements AS s \
     LEFT JOIN (SELECT generation_id, from_account, sum(amount) AS total FROM transfers WHERE kind = 'capture' \
     AND to_account = 'platform:revenue' GROUP BY generation_id, from_account) AS t \
     ON t.generation_id = s.generation_id AND t.from_account = s.account_id WHERE s.captured <> coalesce(t.total, 0)",
    "SELECT format('Transfer %s captured %d for generation %s, which has 0 settlements.', t.id, t.amount, t.generation_id) \
     FROM transfers AS t WHERE t.kind = 'capture' \
     AND NOT EXISTS (SELECT 1 FROM settlements AS s WHERE s.generation_id = t.generation_id)",
    // ---- nothing is stuck: held credits belong to something that goes on
    "SELECT format('Generation %s is processing with %d held, but has 0 attempts that go on.', g.id, g.price) \
     FROM generations AS g WHERE g.status = 'processing' AND NOT EXISTS (SELECT 1 FROM attempts AS a \
     WHERE a.generation_id = g.id AND a.state IN ('prepared', 'sending', 'accepted', 'unknown'))",
    "SELECT format('Attempt %s is %s, but its generation %s is %s.', a.id, a.state, g.id, g.status) \
     FROM attempts AS a JOIN generations AS g ON g.id = a.generation_id \
     WHERE a.state IN ('prepared', 'sending', 'accepted', 'unknown') AND g.status <> 'processing'",
    // ---- rows that refer to nothing
    "SELECT format('Row %d of %s refers to a row of %s that does not exist.', rowid, \"table\", parent) \
     FROM pragma_foreign_key_check",
];

/// Looks at everything. Runs in a transaction.
pub(super) async fn ledger(conn: &mut SqliteConnection) -> Result<LedgerReport> {
    let totals = sqlx::query(
        "SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM transfers) AS transfers, \
         count(*) AS open_holds, coalesce(sum(amount), 0) AS held FROM holds AS h \
         WHERE NOT EXISTS (SELECT 1 FROM settlements AS s WHERE s.generation_id = h.generation_id)",
    )
    .fetch_one(&mut *conn)
    .await?;
    let mut report = LedgerReport {
        accounts: rows::number(&totals, "accounts")?,
        transfers: rows::number(&totals, "transfers")?,
        open_holds: rows::number(&totals, "open_holds")?,
        held: rows::credits(&totals, "held")?,
        faults: Vec::new(),
    };
    for platform in Platform::ALL {
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts WHERE id = ?1 AND user_id IS NULL")
            .bind(platform.account())
            .fetch_one(&mut *conn)
            .await?;
        if found != 1 {
            let account = platform.account();
            report.faults.push(format!(
                "The platform's account {account} exists {found} times, but must exist once."
            ));
        }
    }
    for &check in CHECKS {
        report
            .faults
            .extend(sqlx::query_scalar::<_, String>(check).fetch_all(&mut *conn).await?);
    }
    Ok(report)
}
