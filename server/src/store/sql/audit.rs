//! The audit: what operators did, written in the transaction that did it.

use serde_json::Value;

use super::conn::{Conn, Row, args, sql};
use super::error::Result;
use super::rows::{columns, to_json};
use crate::store::{AuditEntry, AuditFilter, By, Listed};

/// Writes an entry.
pub(super) async fn write(conn: &mut Conn<'_>, by: &By, action: &str, subject: &str, details: &Value) -> Result<()> {
    let sql = sql!(
        sqlite: "INSERT INTO audit (actor, action, subject, reason, details, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        postgres: "INSERT INTO audit (actor, action, subject, reason, details, created_at) \
            VALUES ($1, $2, $3, $4, $5::jsonb, $6)",
    );
    let details = to_json(details)?;
    conn.execute(sql, args![&by.actor, action, subject, &by.reason, &details, by.now])
        .await?;
    Ok(())
}

/// Newest first.
pub(super) async fn list(conn: &mut Conn<'_>, filter: AuditFilter) -> Result<Listed<AuditEntry>> {
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(audit ""), " FROM audit WHERE seq < $1 AND ($2 IS NULL OR actor = $2) \
            AND ($3 IS NULL OR subject = $3) AND ($4 IS NULL OR action = $4) AND ($5 IS NULL OR created_at >= $5) \
            AND ($6 IS NULL OR created_at < $6) ORDER BY seq DESC LIMIT $7"),
        postgres: concat!("SELECT ", columns!(audit ""), " FROM audit WHERE seq < $1 AND ($2::text IS NULL OR actor = $2) \
            AND ($3::text IS NULL OR subject = $3) AND ($4::text IS NULL OR action = $4) \
            AND ($5::timestamptz IS NULL OR created_at >= $5) AND ($6::timestamptz IS NULL OR created_at < $6) \
            ORDER BY seq DESC LIMIT $7"),
    );
    let args = args![
        filter.after.unwrap_or(i64::MAX),
        &filter.actor,
        &filter.subject,
        &filter.action,
        filter.since,
        filter.until,
        filter.limit + 1,
    ];
    let rows = conn.all(sql, args).await?;
    let entries = rows.iter().map(entry).collect::<Result<_>>()?;
    Ok(Listed::of(entries, filter.limit))
}

/// What was done with something, oldest first.
pub(super) async fn of_subject(conn: &mut Conn<'_>, subject: &str) -> Result<Vec<AuditEntry>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(audit ""),
        " FROM audit WHERE subject = $1 ORDER BY seq LIMIT 200"
    ));
    conn.all(sql, args![subject]).await?.iter().map(entry).collect()
}

/// `columns!(audit)`.
fn entry(row: &Row) -> Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get("seq")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        reason: row.get("reason")?,
        details: row.json("details")?,
        created_at: row.micros("created_at")?,
    })
}
