//! Statements that write many rows, given as one JSON array.
//!
//! SQLite runs them one after the other: it lives in this process. PostgreSQL gets all of them as one statement with a
//! common table expression each, because there a round trip costs more than the work. Foreign keys are checked at the end
//! of that statement, so the parts may refer to each other; no two parts may touch the same row.

use serde::Serialize;

use super::conn::{Arg, Conn, Dialect, Row, Sql};
use super::error::Result;
use super::rows::to_json;

/// A statement whose only parameter is the array, and how many rows it must write.
pub(super) struct Bulk {
    sql: Sql,
    rows: String,
    count: usize,
}

impl Bulk {
    /// `None` when there is nothing to write.
    pub(super) fn of<T: Serialize>(sql: Sql, rows: &[T]) -> Result<Option<Bulk>> {
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Bulk {
            sql,
            rows: to_json(rows)?,
            count: rows.len(),
        }))
    }
}

/// Runs the statements in order and checks that every row had its effect.
pub(super) async fn write(conn: &mut Conn<'_>, bulks: &[Bulk]) -> Result<()> {
    write_returning(conn, bulks, None).await.map(drop)
}

/// As [`write()`]; `last`, with the columns it returns, is run last, and its rows are the answer.
pub(super) async fn write_returning(
    conn: &mut Conn<'_>,
    bulks: &[Bulk],
    last: Option<(&Bulk, &'static str)>,
) -> Result<Vec<Row>> {
    match conn.dialect() {
        Dialect::Sqlite => one_by_one(conn, bulks, last).await,
        Dialect::Postgres => together(conn, bulks, last).await,
    }
}

async fn one_by_one(conn: &mut Conn<'_>, bulks: &[Bulk], last: Option<(&Bulk, &'static str)>) -> Result<Vec<Row>> {
    for bulk in bulks {
        let done = conn.execute(bulk.sql, &[Arg::from(&bulk.rows)]).await?;
        check(bulk, done as usize)?;
    }
    let Some((bulk, _)) = last else { return Ok(Vec::new()) };
    let rows = conn.all(bulk.sql, &[Arg::from(&bulk.rows)]).await?;
    check(bulk, rows.len())?;
    Ok(rows)
}

async fn together(conn: &mut Conn<'_>, bulks: &[Bulk], last: Option<(&Bulk, &'static str)>) -> Result<Vec<Row>> {
    let parts: Vec<&Bulk> = bulks.iter().chain(last.map(|(bulk, _)| bulk)).collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut text = String::from("WITH ");
    let mut counts = Vec::with_capacity(bulks.len());
    for (n, part) in parts.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let parameter = format!("${}", n + 1);
        let statement = part.sql.postgres.replace("$1", &parameter);
        let returning = if n < bulks.len() { " RETURNING 1" } else { "" };
        text.push_str(&format!("{comma}w{n} AS ({statement}{returning})"));
        if n < bulks.len() {
            counts.push(format!("(SELECT count(*) FROM w{n}) AS n{n}"));
        }
    }
    let from = bulks.len();
    match last {
        Some((_, columns)) => {
            counts.insert(0, columns.to_owned());
            text.push_str(&format!(" SELECT {} FROM w{from}", counts.join(", ")));
        }
        None => text.push_str(&format!(" SELECT {}", counts.join(", "))),
    }
    let args: Vec<Arg<'_>> = parts.iter().map(|part| Arg::from(&part.rows)).collect();
    let rows = conn.composed(text, &args).await?;
    for (n, bulk) in bulks.iter().enumerate() {
        let done = match rows.first() {
            Some(row) => row.number(&format!("n{n}"))?,
            None => 0,
        };
        check(bulk, done)?;
    }
    if let Some((bulk, _)) = last {
        check(bulk, rows.len())?;
    }
    Ok(rows)
}

fn check(bulk: &Bulk, done: usize) -> Result<()> {
    if done == bulk.count {
        return Ok(());
    }
    let (asked, sql) = (bulk.count, bulk.sql.sqlite);
    Err(anyhow::anyhow!("a statement over {asked} rows wrote {done}: {sql}").into())
}
