//! Recomputes the books from the rows beneath and says what does not agree, one sentence per fault.
//!
//! Every check is a statement that finds nothing while the invariants of [`crate::ledger`] hold; each row it finds is one
//! fault, with the ids and both numbers. Runs in one read transaction, so that it sees one moment of a living system.

use super::conn::{Conn, Sql, args, sql};
use super::error::Result;
use super::operations;
use crate::ledger::Platform;
use crate::store::LedgerReport;

/// A statement that finds nothing while an invariant holds; all its columns are text.
struct Check {
    /// What to say about a row, with a `{}` for each column.
    says: &'static str,
    sql: Sql,
}

const fn check(says: &'static str, sql: &'static str) -> Check {
    Check { says, sql: sql!(sql) }
}

const CHECKS: &[Check] = &[
    // ---- accounts
    check(
        "Account {}: its balance is {}, but its transfers sum to {}.",
        "SELECT CAST(a.id AS text), CAST(a.balance AS text), CAST(coalesce(t.total, 0) AS text) FROM \
         accounts AS a LEFT JOIN (SELECT account, sum(amount) AS total FROM (SELECT to_account AS account, \
         amount FROM transfers UNION ALL SELECT from_account, -amount FROM transfers) AS s GROUP BY account) AS \
         t ON t.account = a.id WHERE a.balance <> coalesce(t.total, 0)",
    ),
    check(
        "All balances together are {}, but must be 0.",
        "SELECT CAST(total AS text) FROM (SELECT coalesce(sum(balance), 0) AS total FROM accounts) AS s \
         WHERE total <> 0",
    ),
    check(
        "Account {}: it holds {}, but its unsettled holds sum to {}.",
        "SELECT CAST(a.id AS text), CAST(a.held AS text), CAST(coalesce(h.total, 0) AS text) FROM accounts \
         AS a LEFT JOIN (SELECT o.account_id, sum(o.amount) AS total FROM holds AS o WHERE NOT EXISTS \
         (SELECT 1 FROM settlements AS s WHERE s.generation_id = o.generation_id) GROUP BY o.account_id) AS \
         h ON h.account_id = a.id WHERE a.held <> coalesce(h.total, 0)",
    ),
    check(
        "Account {}: its balance of {} does not cover the {} it holds, and its debt of {} does not make up for it.",
        "SELECT CAST(id AS text), CAST(balance AS text), CAST(held AS text), CAST(debt AS text) FROM accounts \
         WHERE user_id IS NOT NULL AND balance + debt < held",
    ),
    check(
        "Account {}: it has a debt of {}, but its balance of {} with {} held does not explain it.",
        "SELECT CAST(id AS text), CAST(debt AS text), CAST(balance AS text), CAST(held AS text) FROM accounts \
         WHERE debt > 0 AND (user_id IS NULL OR balance + debt <> held OR NOT EXISTS (SELECT 1 FROM transfers AS t \
         WHERE t.from_account = accounts.id AND t.kind = 'reversal'))",
    ),
    check(
        "User {} has 0 accounts, but must have 1.",
        "SELECT CAST(u.id AS text) FROM users AS u WHERE NOT EXISTS (SELECT 1 FROM accounts AS a WHERE \
         a.user_id = u.id)",
    ),
    // ---- statements
    check(
        "User {}: the available balance is {}, but the statement sums to {}.",
        "SELECT CAST(a.user_id AS text), CAST(a.balance - a.held AS text), CAST(coalesce(l.total, 0) AS \
         text) FROM accounts AS a LEFT JOIN (SELECT user_id, sum(amount) AS total FROM statement_lines \
         GROUP BY user_id) AS l ON l.user_id = a.user_id WHERE a.user_id IS NOT NULL AND a.balance - a.held \
         <> coalesce(l.total, 0)",
    ),
    check(
        "Statement line {} of user {} says {} is left, but the lines up to it sum to {}.",
        "SELECT CAST(id AS text), CAST(user_id AS text), CAST(balance_after AS text), CAST(running AS text) \
         FROM (SELECT id, user_id, balance_after, sum(amount) OVER (PARTITION BY user_id ORDER BY seq) AS \
         running FROM statement_lines) AS s WHERE balance_after <> running",
    ),
    check(
        "Generation {} was held for {}, but its usage lines sum to {}.",
        "SELECT CAST(h.generation_id AS text), CAST(h.amount AS text), CAST(coalesce(l.total, 0) AS text) \
         FROM holds AS h LEFT JOIN (SELECT generation_id, sum(amount) AS total FROM statement_lines WHERE \
         line_type = 'usage' GROUP BY generation_id) AS l ON l.generation_id = h.generation_id WHERE \
         coalesce(l.total, 0) <> -h.amount",
    ),
    check(
        "Generation {} released {} and refunded {}, but its refund lines sum to {}.",
        "SELECT CAST(h.generation_id AS text), CAST(coalesce(s.released, 0) AS text), \
         CAST(coalesce(t.total, 0) AS text), \
         CAST(coalesce(l.total, 0) AS text) FROM holds AS h LEFT JOIN settlements AS s ON s.generation_id = \
         h.generation_id LEFT JOIN (SELECT generation_id, sum(amount) AS total FROM statement_lines WHERE \
         line_type = 'refund' GROUP BY generation_id) AS l ON l.generation_id = h.generation_id \
         LEFT JOIN (SELECT generation_id, sum(amount) AS total FROM transfers WHERE kind = 'refund' \
         GROUP BY generation_id) AS t ON t.generation_id = h.generation_id WHERE \
         coalesce(l.total, 0) <> coalesce(s.released, 0) + coalesce(t.total, 0)",
    ),
    check(
        "Generation {} captured {}, but {} were refunded.",
        "SELECT CAST(t.generation_id AS text), CAST(coalesce(s.captured, 0) AS text), CAST(t.total AS text) FROM \
         (SELECT generation_id, sum(amount) AS total FROM transfers WHERE kind = 'refund' GROUP BY generation_id) AS t \
         LEFT JOIN settlements AS s ON s.generation_id = t.generation_id WHERE t.total > coalesce(s.captured, 0)",
    ),
    // ---- purchases
    check(
        "Order {} of user {} is {}, but {} of its {} credits were booked.",
        "SELECT CAST(o.id AS text), CAST(o.user_id AS text), o.status, CAST(coalesce(t.total, 0) AS text), \
         CAST(o.credits AS text) FROM orders AS o LEFT JOIN (SELECT order_id, to_account, sum(amount) AS total FROM \
         transfers WHERE kind = 'purchase' GROUP BY order_id, to_account) AS t ON t.order_id = o.id AND t.to_account = \
         CAST(o.user_id AS text) WHERE coalesce(t.total, 0) <> CASE o.status WHEN 'paid' THEN o.credits ELSE 0 END",
    ),
    check(
        "Order {} took back {}, but its reversals sum to {}.",
        "SELECT CAST(o.id AS text), CAST(o.reversed AS text), CAST(coalesce(t.total, 0) AS text) FROM orders AS o \
         LEFT JOIN (SELECT order_id, sum(CASE to_account WHEN 'platform:purchases' THEN amount ELSE -amount END) AS \
         total FROM transfers WHERE kind = 'reversal' GROUP BY order_id) AS t ON t.order_id = o.id \
         WHERE o.reversed <> coalesce(t.total, 0)",
    ),
    check(
        "Transfer {} is a {} of {} and belongs to no order.",
        "SELECT CAST(id AS text), kind, CAST(amount AS text) FROM transfers WHERE kind IN ('purchase', 'reversal') AND \
         order_id IS NULL",
    ),
    // ---- API keys and redeem codes
    check(
        "API key {} has spent {}, but its generations hold or captured {}.",
        "SELECT CAST(k.id AS text), CAST(k.spent AS text), CAST(coalesce(g.total, 0) AS text) FROM api_keys AS k LEFT \
         JOIN (SELECT g.api_key_id, sum(h.amount - coalesce(s.released, 0)) AS total FROM generations AS g JOIN holds \
         AS h ON h.generation_id = g.id LEFT JOIN settlements AS s ON s.generation_id = g.id WHERE g.api_key_id IS NOT \
         NULL GROUP BY g.api_key_id) AS g ON g.api_key_id = k.id WHERE k.spent <> coalesce(g.total, 0)",
    ),
    check(
        "Redeem code {} was used {} times, but has {} redemptions.",
        "SELECT CAST(c.id AS text), CAST(c.uses AS text), CAST(coalesce(r.n, 0) AS text) FROM redeem_codes AS c LEFT \
         JOIN (SELECT code_id, count(*) AS n FROM redemptions GROUP BY code_id) AS r ON r.code_id = c.id WHERE c.uses \
         <> coalesce(r.n, 0)",
    ),
    check(
        "Redemption {} of code {} by user {} is worth {}, but {} were booked.",
        "SELECT CAST(r.ordinal AS text), CAST(r.code_id AS text), CAST(r.user_id AS text), CAST(r.credits AS text), \
         CAST(coalesce(t.amount, 0) AS text) FROM redemptions AS r LEFT JOIN transfers AS t ON t.idempotency_key = \
         'redeem:' || CAST(r.code_id AS text) || ':' || CAST(r.user_id AS text) || ':' || CAST(r.ordinal AS text) AND \
         t.to_account = CAST(r.user_id AS text) WHERE r.credits <> coalesce(t.amount, 0)",
    ),
    // ---- holds and settlements
    check(
        "Generation {} has a price of {} and no hold.",
        "SELECT CAST(g.id AS text), CAST(g.price AS text) FROM generations AS g WHERE NOT EXISTS (SELECT 1 \
         FROM holds AS h WHERE h.generation_id = g.id)",
    ),
    check(
        "Generation {} of user {} costs {}, but account {} holds {} for it.",
        "SELECT CAST(g.id AS text), CAST(g.user_id AS text), CAST(g.price AS text), CAST(h.account_id AS \
         text), CAST(h.amount AS text) FROM holds AS h JOIN generations AS g ON g.id = h.generation_id \
         WHERE g.price <> h.amount OR CAST(g.user_id AS text) <> h.account_id",
    ),
    check(
        "Generation {} is {} and has 0 settlements, but must have 1.",
        "SELECT CAST(g.id AS text), CAST(g.status AS text) FROM generations AS g WHERE g.status IN \
         ('completed', 'failed', 'cancelled') AND NOT EXISTS (SELECT 1 FROM settlements AS s WHERE \
         s.generation_id = g.id)",
    ),
    check(
        "Generation {} is {} and has 1 settlement, but must have 0.",
        "SELECT CAST(g.id AS text), CAST(g.status AS text) FROM generations AS g JOIN settlements AS s ON \
         s.generation_id = g.id WHERE g.status IN ('queued', 'processing')",
    ),
    check(
        "Generation {}: {} captured and {} released are not the {} that were held.",
        "SELECT CAST(s.generation_id AS text), CAST(s.captured AS text), CAST(s.released AS text), \
         CAST(h.amount AS text) FROM settlements AS s JOIN holds AS h ON h.generation_id = s.generation_id \
         WHERE s.captured + s.released <> h.amount OR s.account_id <> h.account_id",
    ),
    check(
        "Generation {} is {} and shows {} as charged, but its settlement captured {}.",
        "SELECT CAST(g.id AS text), CAST(g.status AS text), CAST(g.captured AS text), CAST(s.captured AS \
         text) FROM generations AS g JOIN settlements AS s ON s.generation_id = g.id WHERE g.captured <> \
         s.captured",
    ),
    check(
        "Generation {} is {}, but {} was captured instead of 0.",
        "SELECT CAST(g.id AS text), CAST(g.status AS text), CAST(s.captured AS text) FROM generations AS g \
         JOIN settlements AS s ON s.generation_id = g.id WHERE g.status IN ('failed', 'cancelled') AND \
         s.captured <> 0",
    ),
    check(
        "Generation {} captured {}, but {} was transferred from account {}.",
        "SELECT CAST(s.generation_id AS text), CAST(s.captured AS text), CAST(coalesce(t.total, 0) AS \
         text), CAST(s.account_id AS text) FROM settlements AS s LEFT JOIN (SELECT generation_id, \
         from_account, sum(amount) AS total FROM transfers WHERE kind = 'capture' AND to_account = \
         'platform:revenue' GROUP BY generation_id, from_account) AS t ON t.generation_id = s.generation_id \
         AND t.from_account = s.account_id WHERE s.captured <> coalesce(t.total, 0)",
    ),
    check(
        "Transfer {} captured {} for generation {}, which has 0 settlements.",
        "SELECT CAST(t.id AS text), CAST(t.amount AS text), CAST(t.generation_id AS text) FROM transfers AS \
         t WHERE t.kind = 'capture' AND NOT EXISTS (SELECT 1 FROM settlements AS s WHERE s.generation_id = \
         t.generation_id)",
    ),
    // ---- nothing is stuck: held credits belong to something that goes on
    check(
        "Generation {} is processing with {} held, but has 0 attempts that go on.",
        "SELECT CAST(g.id AS text), CAST(g.price AS text) FROM generations AS g WHERE g.status = \
         'processing' AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.generation_id = g.id AND a.state \
         IN ('prepared', 'sending', 'accepted', 'unknown'))",
    ),
    check(
        "Attempt {} is {}, but its generation {} is {}.",
        "SELECT CAST(a.id AS text), CAST(a.state AS text), CAST(g.id AS text), CAST(g.status AS text) FROM \
         attempts AS a JOIN generations AS g ON g.id = a.generation_id WHERE a.state IN ('prepared', \
         'sending', 'accepted', 'unknown') AND g.status <> 'processing'",
    ),
    // ---- rows that refer to nothing
];

/// Rows that refer to nothing. SQLite can be written with foreign keys switched off; PostgreSQL cannot.
const DANGLING: Check = Check {
    says: "Row {} of {} refers to a row of {} that does not exist.",
    sql: sql!(
        sqlite: "SELECT CAST(rowid AS text), \"table\", parent FROM pragma_foreign_key_check",
        postgres: "SELECT '', '', '' WHERE false",
    ),
};

/// Looks at everything. Runs in a transaction that sees one moment.
pub(super) async fn ledger(conn: &mut Conn<'_>) -> Result<LedgerReport> {
    let sql = sql!(
        "SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM transfers) AS transfers, \
         count(*) AS open_holds, CAST(coalesce(sum(amount), 0) AS bigint) AS held FROM holds AS h \
         WHERE NOT EXISTS (SELECT 1 FROM settlements AS s WHERE s.generation_id = h.generation_id)"
    );
    let totals = conn.one(sql, args![]).await?;
    let mut report = LedgerReport {
        accounts: totals.number("accounts")?,
        transfers: totals.number("transfers")?,
        open_holds: totals.number("open_holds")?,
        held: totals.credits("held")?,
        charged_without_output: operations::charged_without_output(conn).await?,
        faults: Vec::new(),
    };
    for platform in Platform::ALL {
        let account = platform.account();
        let sql = sql!("SELECT count(*) AS n FROM accounts WHERE id = $1 AND user_id IS NULL");
        let found: u64 = conn.one(sql, args![account]).await?.number("n")?;
        if found != 1 {
            report.faults.push(format!(
                "The platform's account {account} exists {found} times, but must exist once."
            ));
        }
    }
    for check in CHECKS.iter().chain([&DANGLING]) {
        for row in conn.all(check.sql, args![]).await? {
            report.faults.push(fill(check.says, &row.texts()?));
        }
    }
    Ok(report)
}

/// Puts the values where the `{}` are, in order.
fn fill(says: &str, values: &[String]) -> String {
    let mut parts = says.split("{}");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (value, part) in values.iter().zip(parts) {
        text.push_str(value);
        text.push_str(part);
    }
    text
}
