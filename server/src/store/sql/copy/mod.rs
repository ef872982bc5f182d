//! Copies an embedded database into PostgreSQL, and again when it has lived on since.
//!
//! # Invariants
//!
//! - All of it is one transaction of the target, which is committed only when every row has been read back as it was sent,
//!   the counts and sums of both databases are the same, and the books of both are in order. Otherwise nothing happened.
//! - The target holds nothing but what a copy put there. What it left in each table is kept as a digest in
//!   `copied_tables`; whoever used the target in between has changed one of them, and is refused.
//! - Append-only rows are only added. One that is there already must be the same.
//!
//! The source is read in one transaction and in batches; whoever calls makes sure that nobody writes it.

mod tables;

use anyhow::{Context, anyhow};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::collections::BTreeMap;

use self::tables::{Fate, TABLES, Table};
use super::conn::{Arg, Conn, args, sql};
use super::error::Fault;
use super::rows::to_json;
use super::{OpenOptions, postgres, schema, sqlite, verify};
use crate::store::{self, LedgerReport, StoreError};

/// A batch is sent when it has so many rows...
const BATCH_ROWS: usize = 2_000;
/// ...or so many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStage {
    /// So many rows of a table are written; the last call for a table has all of them.
    Copying {
        /// The table.
        table: &'static str,
        /// Rows that are written.
        rows: u64,
        /// Rows that there are.
        of: u64,
    },
    /// The books of the target are recomputed and compared.
    Verifying,
    /// Everything is right.
    Committing,
}

/// What a copy did to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name.
    pub name: &'static str,
    /// Rows of both databases.
    pub rows: u64,
    /// Rows that were new.
    pub added: u64,
    /// Rows that had changed.
    pub changed: u64,
    /// Rows that are gone from the source.
    pub removed: u64,
}

/// What became of a copy.
#[derive(Debug)]
pub enum Copied {
    /// Both databases hold the same, and the books of both say this.
    Done {
        /// Every table, in the order in which they were copied.
        tables: Vec<CopiedTable>,
        /// The books.
        ledger: LedgerReport,
    },
    /// Nothing was changed, for these reasons, a sentence each.
    Refused(Vec<String>),
}

/// Why it ends early.
enum Stop {
    Refused(Vec<String>),
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Self {
        Stop::Failed(e)
    }
}

impl From<Fault> for Stop {
    fn from(e: Fault) -> Self {
        Stop::Failed(e.into())
    }
}

impl From<sqlx::Error> for Stop {
    fn from(e: sqlx::Error) -> Self {
        Fault::from(e).into()
    }
}

type Step<T> = std::result::Result<T, Stop>;

/// Stops with the sentences, if there are any.
fn refuse(faults: Vec<String>) -> Step<()> {
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Stop::Refused(faults)),
    }
}

/// Copies everything from `from`, SQLite, to `to`, PostgreSQL, whose schema is made when there is none; `watch` hears how
/// far it is.
///
/// # Errors
///
/// When a database cannot be opened, has another schema than this program knows, or fails; nothing was changed then.
pub async fn copy(from: &str, to: &str, watch: &mut (dyn FnMut(CopyStage) + Send)) -> store::Result<Copied> {
    match carry_out(from, to, watch).await {
        Ok(done) => Ok(done),
        Err(Stop::Refused(faults)) => Ok(Copied::Refused(faults)),
        Err(Stop::Failed(e)) => Err(e),
    }
}

async fn carry_out(from: &str, to: &str, watch: &mut (dyn FnMut(CopyStage) + Send)) -> Step<Copied> {
    let source = sqlite::open(from, OpenOptions::default()).await?;
    let mut source = source.readers.begin().await?;
    schema::check_same(&mut Conn::Sqlite(&mut source), &sqlite::MIGRATIONS).await?;
    let books = verify::ledger(&mut Conn::Sqlite(&mut source)).await?;
    refuse(
        books
            .faults
            .iter()
            .map(|fault| format!("The source: {fault}"))
            .collect(),
    )?;

    let empty_only = OpenOptions {
        create: true,
        migrate: false,
    };
    let (mut conn, named) = postgres::open_one(to, empty_only).await?;
    let mut transaction = conn.begin().await?;
    let mut target = Conn::Postgres {
        conn: &mut transaction,
        named,
    };
    schema::check_same(&mut target, &postgres::MIGRATIONS).await?;
    take(&mut target).await?;
    refuse(used_since(&mut target).await?)?;
    let mut done = Vec::new();
    for table in TABLES {
        done.push(copy_table(&mut source, &mut target, table, watch).await?);
    }
    watch(CopyStage::Verifying);
    go_on_counting(&mut source, &mut target).await?;
    refuse(differences(&mut source, &books, &mut target).await?)?;
    remember(&mut target).await?;
    watch(CopyStage::Committing);
    transaction
        .commit()
        .await
        .context("the end of the copy was not heard of: run it again")
        .map_err(StoreError::Unavailable)?;
    Ok(Copied::Done {
        tables: done,
        ledger: books,
    })
}

/// The target is nobody else's until the end. Its own limits are for requests, not for this.
async fn take(target: &mut Conn<'_>) -> Step<()> {
    // A plan made while a table was small would read all of it for each batch. The others are for digests: the text of a
    // row is the same in every session.
    target
        .command(
            "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = 0; \
             SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL synchronous_commit = on; \
             SET LOCAL plan_cache_mode = force_custom_plan; \
             SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL bytea_output = 'hex'",
        )
        .await?;
    let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    let lock = format!(
        "LOCK TABLE {}, leases, copied_tables IN EXCLUSIVE MODE",
        names.join(", ")
    );
    match target.composed(lock, args![]).await {
        Ok(_) => {}
        Err(fault) if fault.is_locked() => {
            return refuse(vec![
                "The target is in use: somebody else writes to it. Stop every velro that serves it.".into(),
            ]);
        }
        Err(fault) => return Err(fault.into()),
    }
    let leases = sql!("SELECT count(*) AS n FROM leases WHERE lease_until > clock_timestamp()");
    match target.one(leases, args![]).await?.number::<u64>("n")? {
        0 => Ok(()),
        _ => refuse(vec![
            "The target is in use: a worker holds leases there. Stop every velro that serves it.".into(),
        ]),
    }
}

/// How many rows a table has, and their digest.
async fn digest(target: &mut Conn<'_>, table: &Table) -> Step<(u64, String)> {
    let rows = target.composed(table.digest(), args![]).await?;
    let row = rows.first().ok_or_else(|| Fault::Data(anyhow!("a sum gave no row")))?;
    Ok((row.number("n")?, row.get("digest")?))
}

/// What is in the target that no copy has put there.
async fn used_since(target: &mut Conn<'_>) -> Step<Vec<String>> {
    let rows = target
        .all(sql!("SELECT name, row_count, digest FROM copied_tables"), args![])
        .await?;
    let mut left: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for row in rows {
        left.insert(row.get("name")?, (row.number("row_count")?, row.get("digest")?));
    }
    if left.is_empty() {
        return anything(target).await;
    }
    let mut faults = Vec::new();
    for table in TABLES {
        let name = table.name;
        let (rows, digest) = digest(target, table).await?;
        match left.get(name) {
            Some((then, _)) if *then != rows => faults.push(format!(
                "The target has been used since the last copy: {name} had {then} rows and has {rows} now."
            )),
            Some((_, then)) if *then != digest => faults.push(format!(
                "The target has been used since the last copy: its {rows} rows of {name} are not those that were copied."
            )),
            Some(_) => {}
            None if rows == 0 => {}
            None => faults.push(format!("The target has {rows} rows of {name}, which no copy has put there.")),
        }
    }
    Ok(faults)
}

/// What is in a target that was never copied to. The platform's accounts come with the schema, and are empty.
async fn anything(target: &mut Conn<'_>) -> Step<Vec<String>> {
    let mut faults = Vec::new();
    for table in TABLES {
        let count = match table.name {
            "accounts" => {
                format!(
                    "{} WHERE user_id IS NOT NULL OR balance <> 0 OR held <> 0",
                    table.count()
                )
            }
            _ => table.count(),
        };
        let rows = target.composed(count, args![]).await?;
        let rows: u64 = rows.first().map_or(Ok(0), |row| row.number("n"))?;
        if rows > 0 {
            let name = table.name;
            faults.push(format!(
                "The target has {rows} rows of {name}, which no copy has put there."
            ));
        }
    }
    Ok(faults)
}

/// One table, from beginning to end.
async fn copy_table(
    source: &mut SqliteConnection,
    target: &mut Conn<'_>,
    table: &'static Table,
    watch: &mut (dyn FnMut(CopyStage) + Send),
) -> Step<CopiedTable> {
    let of: i64 = sqlx::query_scalar(AssertSqlSafe(table.count()))
        .fetch_one(&mut *source)
        .await?;
    let mut done = CopiedTable {
        name: table.name,
        rows: 0,
        added: 0,
        changed: 0,
        removed: 0,
    };
    let mut tell = |rows: u64| {
        let (table, of) = (table.name, of.unsigned_abs());
        watch(CopyStage::Copying { table, rows, of });
    };
    let mut batch: Vec<String> = Vec::new();
    let mut bytes = 0;
    let mut rows = sqlx::query_scalar::<_, String>(AssertSqlSafe(table.read())).fetch(&mut *source);
    while let Some(row) = rows.try_next().await? {
        bytes += row.len();
        batch.push(row);
        if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
            write(target, table, &batch, &mut done).await?;
            tell(done.rows);
            (batch, bytes) = (Vec::new(), 0);
        }
    }
    drop(rows);
    if !batch.is_empty() {
        write(target, table, &batch, &mut done).await?;
    }
    let there = target.composed(table.count(), args![]).await?;
    let there: u64 = there.first().map_or(Ok(0), |row| row.number("n"))?;
    if there != done.rows {
        done.removed = match table.fate {
            Fate::ChangedOrGone => remove_gone(source, target, table).await?,
            Fate::Kept | Fate::Changed => 0,
        };
        if there - done.removed != done.rows {
            let (name, rows) = (table.name, done.rows);
            return refuse(vec![format!(
                "The target has {there} rows of {name}, the source {rows}: it is not the source of the last copy, or an \
                 older state of it."
            )])
            .map(|()| done);
        }
    }
    tell(done.rows);
    Ok(done)
}

/// Writes rows and reads them back.
async fn write(target: &mut Conn<'_>, table: &Table, batch: &[String], done: &mut CopiedTable) -> Step<()> {
    let name = table.name;
    let json = format!("[{}]", batch.join(","));
    let args = [Arg::from(&json)];
    let refused = |fault: Fault| match fault {
        Fault::Sql(e @ sqlx::Error::Database(_)) => {
            Fault::Data(anyhow::Error::new(e).context(format!("the target does not take these rows of {name}")))
        }
        other => other,
    };
    let written = target.composed(table.write(), &args).await.map_err(refused)?;
    let written = written
        .first()
        .ok_or_else(|| Fault::Data(anyhow!("a sum gave no row")))?;
    let same = target.composed(table.compare(), &args).await?;
    let same: usize = same.first().map_or(Ok(0), |row| row.number("same"))?;
    if same != batch.len() {
        let other = batch.len() - same;
        return refuse(vec![format!(
            "{other} rows of {name} are other ones in the target than in the source, and rows of {name} never change: it \
             is not the source of the last copy."
        )]);
    }
    done.rows += batch.len() as u64;
    done.added += written.number::<u64>("added")?;
    done.changed += written.number::<u64>("changed")?;
    Ok(())
}

/// Removes the rows that the source has no more; answers how many.
async fn remove_gone(source: &mut SqliteConnection, target: &mut Conn<'_>, table: &Table) -> Step<u64> {
    let name = table.name;
    let (mut removed, mut after) = (0, String::new());
    loop {
        let page =
            format!("SELECT id::text AS id FROM {name} WHERE id::text > $1 ORDER BY id::text LIMIT {BATCH_ROWS}");
        let page = target.composed(page, args![&after]).await?;
        let ids = page.iter().map(|row| row.get("id"));
        let ids: Vec<String> = ids.collect::<super::error::Result<_>>()?;
        let Some(last) = ids.last() else { return Ok(removed) };
        after.clone_from(last);
        let gone = format!("SELECT value FROM json_each($1) WHERE value NOT IN (SELECT id FROM {name})");
        let gone: Vec<String> = sqlx::query_scalar(AssertSqlSafe(gone))
            .bind(to_json(&ids)?)
            .fetch_all(&mut *source)
            .await?;
        let delete = format!(
            "DELETE FROM {name} WHERE id IN (SELECT x::uuid FROM json_array_elements_text($1::json) AS j (x)) RETURNING 1"
        );
        removed += target.composed(delete, args![&to_json(&gone)?]).await?.len() as u64;
    }
}

/// What is numbered goes on behind the source's numbers, those included that are used no more. Unlike `setval`, this is
/// undone with the transaction.
async fn go_on_counting(source: &mut SqliteConnection, target: &mut Conn<'_>) -> Step<()> {
    for table in TABLES.iter().filter(|table| table.is_counted()) {
        let name = table.name;
        let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *source)
            .await?;
        let sequence = sql!("SELECT pg_get_serial_sequence($1, 'seq') AS name");
        let sequence: String = target.one(sequence, args![name]).await?.get("name")?;
        let next = last.unwrap_or(0) + 1;
        let restart = format!("ALTER SEQUENCE {sequence} RESTART WITH {next}");
        target.composed(restart, args![]).await?;
    }
    Ok(())
}

/// What the two do not agree about, now that every row has been read back.
async fn differences(source: &mut SqliteConnection, books: &LedgerReport, target: &mut Conn<'_>) -> Step<Vec<String>> {
    let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    // Without numbers about the new rows the books would be recomputed by the worst of plans.
    target
        .composed(format!("ANALYZE {}", names.join(", ")), args![])
        .await?;
    let copy = verify::ledger(target).await?;
    let mut faults: Vec<String> = copy.faults.iter().map(|fault| format!("The copy: {fault}")).collect();
    let sums = sql!(
        "SELECT CAST(coalesce(sum(balance), 0) AS text), CAST(coalesce(sum(held), 0) AS text), \
         CAST(coalesce(sum(CASE WHEN user_id IS NULL THEN balance END), 0) AS text) FROM accounts"
    );
    let here = Conn::Sqlite(source).one(sums, args![]).await?.texts()?;
    let there = target.one(sums, args![]).await?.texts()?;
    let numbers = |report: &LedgerReport, sums: Vec<String>| {
        let LedgerReport {
            accounts,
            transfers,
            open_holds,
            held,
            ..
        } = report;
        let mut numbers = vec![
            accounts.to_string(),
            transfers.to_string(),
            open_holds.to_string(),
            held.to_string(),
        ];
        numbers.extend(sums);
        numbers
    };
    let what = [
        "accounts",
        "transfers",
        "open holds",
        "credits in open holds",
        "credits in all balances",
        "credits held by accounts",
        "credits in the platform's balances",
    ];
    let pairs = numbers(books, here).into_iter().zip(numbers(&copy, there));
    for (what, (here, there)) in what.iter().zip(pairs) {
        if here != there {
            faults.push(format!("The source has {here} {what}, the copy {there}."));
        }
    }
    Ok(faults)
}

/// Notes what is in each table now.
async fn remember(target: &mut Conn<'_>) -> Step<()> {
    for table in TABLES {
        let (rows, digest) = digest(target, table).await?;
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let sql = sql!(
            "INSERT INTO copied_tables (name, row_count, digest) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET row_count = excluded.row_count, digest = excluded.digest"
        );
        target.execute(sql, args![table.name, rows, &digest]).await?;
    }
    Ok(())
}
