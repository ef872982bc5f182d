//! What those who run an installation see and set: counts, the latest check of the books, the log level at run time.

use async_trait::async_trait;
use serde_json::json;
use std::time::Duration;

use super::audit;
use super::conn::{Conn, args, sql};
use super::error::Result;
use super::writer::Write;
use crate::clock::Micros;
use crate::store::{LedgerCheck, LogLevel, SetLogLevel, SystemCounts};

/// Counts for the operator. Runs in a transaction.
pub(super) async fn system_counts(conn: &mut Conn<'_>, too_old: Micros) -> Result<SystemCounts> {
    let mut counts = SystemCounts::default();
    let sql = sql!("SELECT status, count(*) AS n FROM generations GROUP BY status");
    for row in conn.all(sql, args![]).await? {
        counts.by_status.insert(row.get("status")?, row.number("n")?);
    }
    // PostgreSQL has no index over `held`: it would have to be changed with every submit.
    let sql = sql!(
        sqlite: "SELECT (SELECT count(*) FROM attempts WHERE state = 'unknown') AS unknown, \
            (SELECT min(updated_at) FROM attempts WHERE state = 'unknown') AS oldest_unknown, \
            (SELECT count(*) FROM generations AS g WHERE g.status IN ('queued', 'processing') AND g.created_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.generation_id = g.id AND a.state = 'unknown')) AS too_long, \
            (SELECT coalesce(sum(held), 0) FROM accounts WHERE held > 0) AS held, \
            (SELECT created_at FROM generations WHERE status = 'queued' ORDER BY id LIMIT 1) AS oldest, \
            (SELECT coalesce(sum(debt), 0) FROM accounts WHERE debt > 0) AS debt, \
            (SELECT count(*) FROM orders WHERE trouble IS NOT NULL) AS trouble",
        postgres: "SELECT (SELECT count(*) FROM attempts WHERE state = 'unknown') AS unknown, \
            (SELECT min(updated_at) FROM attempts WHERE state = 'unknown') AS oldest_unknown, \
            (SELECT count(*) FROM generations AS g WHERE g.status IN ('queued', 'processing') AND g.created_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.generation_id = g.id AND a.state = 'unknown')) AS too_long, \
            (SELECT coalesce(sum(price), 0)::bigint FROM generations WHERE status IN ('queued', 'processing')) AS held, \
            (SELECT created_at FROM generations WHERE status = 'queued' ORDER BY id LIMIT 1) AS oldest, \
            (SELECT coalesce(sum(debt), 0)::bigint FROM accounts WHERE debt > 0) AS debt, \
            (SELECT count(*) FROM orders WHERE trouble IS NOT NULL) AS trouble",
    );
    let row = conn.one(sql, args![too_old]).await?;
    counts.unknown_attempts = row.number("unknown")?;
    counts.oldest_unknown_at = row.optional_micros("oldest_unknown")?;
    counts.open_too_long = row.number("too_long")?;
    counts.held = row.credits("held")?;
    counts.debt = row.credits("debt")?;
    counts.orders_in_trouble = row.number("trouble")?;
    counts.oldest_queued_at = row.optional_micros("oldest")?;
    counts.ledger_check = ledger_check(conn).await?;
    Ok(counts)
}

/// The last check that was finished.
async fn ledger_check(conn: &mut Conn<'_>) -> Result<Option<LedgerCheck>> {
    let sql = sql!(
        "SELECT finished_at, took_ms, faults, charged_without_output FROM ledger_checks \
         WHERE id = 1 AND finished_at IS NOT NULL"
    );
    let Some(row) = conn.optional(sql, args![]).await? else {
        return Ok(None);
    };
    Ok(Some(LedgerCheck {
        finished_at: row.micros("finished_at")?,
        took: Duration::from_millis(row.number("took_ms")?),
        faults: row.number("faults")?,
        charged_without_output: row.number("charged_without_output")?,
    }))
}

/// To be the one who recomputes the books next; true for one of several who ask at the same time.
pub(super) struct ClaimLedgerCheck {
    /// Not when somebody began later than this.
    pub(super) not_since: Micros,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for ClaimLedgerCheck {
    type Out = bool;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<bool> {
        let sql = sql!(
            "INSERT INTO ledger_checks (id, started_at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET \
             started_at = excluded.started_at WHERE ledger_checks.started_at <= $2"
        );
        Ok(conn.execute(sql, args![self.now, self.not_since]).await? > 0)
    }
}

#[async_trait]
impl Write for LedgerCheck {
    type Out = ();

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<()> {
        let sql = sql!(
            "UPDATE ledger_checks SET finished_at = $1, took_ms = $2, faults = $3, charged_without_output = $4 \
             WHERE id = 1"
        );
        let took_ms = i64::try_from(self.took.as_millis()).unwrap_or(i64::MAX);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (faults, lost) = (number(self.faults), number(self.charged_without_output));
        conn.execute(sql, args![self.finished_at, took_ms, faults, lost])
            .await?;
        Ok(())
    }
}

/// Charged generations without a file on record that were not refunded; see
/// [`Search::ChargedWithoutRecord`](crate::store::Search). Looks through all that were charged.
pub(super) async fn charged_without_output(conn: &mut Conn<'_>) -> Result<u64> {
    let sql = sql!(
        sqlite: "SELECT count(*) AS n FROM generations AS g WHERE g.status = 'completed' AND g.captured > 0 \
            AND g.deleted_at IS NULL AND g.provider_input <> '' AND g.outputs = '[]' AND g.captured > \
            coalesce((SELECT sum(t.amount) FROM transfers AS t WHERE t.generation_id = g.id AND t.kind = 'refund'), 0)",
        postgres: "SELECT count(*) AS n FROM generations AS g WHERE g.status = 'completed' AND g.captured > 0 \
            AND g.deleted_at IS NULL AND g.provider_input <> '' AND g.outputs = '[]'::jsonb AND g.captured > \
            coalesce((SELECT sum(t.amount) FROM transfers AS t WHERE t.generation_id = g.id AND t.kind = 'refund'), 0)",
    );
    conn.one(sql, args![]).await?.number("n")
}

/// What an operator asked for last, whether it is over or not.
pub(super) async fn log_level(conn: &mut Conn<'_>) -> Result<Option<LogLevel>> {
    let sql = sql!("SELECT filter, until, actor FROM log_levels WHERE id = 1");
    let Some(row) = conn.optional(sql, args![]).await? else {
        return Ok(None);
    };
    Ok(Some(LogLevel {
        filter: row.get("filter")?,
        until: row.micros("until")?,
        actor: row.get("actor")?,
    }))
}

#[async_trait]
impl Write for SetLogLevel {
    type Out = ();

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<()> {
        let before = log_level(conn).await?.filter(|level| level.until > self.by.now);
        let by = &self.by;
        let sql = sql!(
            "INSERT INTO log_levels (id, filter, until, actor, created_at) VALUES (1, $1, $2, $3, $4) ON CONFLICT (id) DO \
             UPDATE SET filter = excluded.filter, until = excluded.until, actor = excluded.actor, \
             created_at = excluded.created_at"
        );
        conn.execute(sql, args![&self.filter, self.until, &by.actor, by.now])
            .await?;
        let after = Some(self).filter(|set| set.until > by.now);
        let details = json!({
            "before": before.map(|level| json!({"filter": level.filter, "until": level.until.rfc3339()})),
            "after": after.map(|set| json!({"filter": set.filter, "until": set.until.rfc3339()})),
        });
        audit::write(conn, by, "log.level", "log", &details).await
    }
}
