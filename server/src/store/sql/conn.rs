//! One way to speak to two databases: statements in the words of each, arguments and rows that both drivers understand.
//!
//! A use case is written once. Where the dialects differ, both texts stand side by side ([`sql!`]); parameters are `$1`,
//! `$2`, … in both. Each database keeps its own types: PostgreSQL has uuid, timestamptz, jsonb, boolean and bytea, SQLite
//! the text and integers that stand for them. Own code, because `sqlx::Any` knows neither these types nor bulk
//! statements, which is where the speed is.

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Decode, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite, Type};
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::Result;
use super::rows::without_nul;
use crate::clock::Micros;
use crate::ledger::Credits;

/// A statement in the words of each database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sql {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

/// A statement that both databases understand, or one for each.
macro_rules! sql {
    (sqlite: $sqlite:expr, postgres: $postgres:expr $(,)?) => {
        $crate::store::sql::conn::Sql {
            sqlite: $sqlite,
            postgres: $postgres,
        }
    };
    ($both:expr $(,)?) => {
        $crate::store::sql::conn::Sql {
            sqlite: $both,
            postgres: $both,
        }
    };
}
pub(super) use sql;

/// Arguments of a statement, in the order of their numbers.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::conn::Arg::from($value)),*] };
}
pub(super) use args;

/// A value for a parameter. Nulls have a type too, because PostgreSQL asks for it.
#[derive(Debug, Clone)]
pub(super) enum Arg<'a> {
    Id(Option<Uuid>),
    Text(Option<&'a str>),
    Number(Option<i64>),
    Flag(bool),
    Time(Option<Micros>),
    Bytes(Option<&'a [u8]>),
}

macro_rules! from {
    ($($type:ty => |$value:ident| $arg:expr;)+) => {$(
        impl<'a> From<$type> for Arg<'a> {
            fn from($value: $type) -> Self {
                $arg
            }
        }
    )+};
}

from! {
    crate::id::UserId => |id| Arg::Id(Some(id.uuid()));
    crate::id::SessionId => |id| Arg::Id(Some(id.uuid()));
    crate::id::ProjectId => |id| Arg::Id(Some(id.uuid()));
    crate::id::GenerationId => |id| Arg::Id(Some(id.uuid()));
    crate::id::AttemptId => |id| Arg::Id(Some(id.uuid()));
    crate::id::ApiKeyId => |id| Arg::Id(Some(id.uuid()));
    crate::id::OrderId => |id| Arg::Id(Some(id.uuid()));
    crate::id::RedeemCodeId => |id| Arg::Id(Some(id.uuid()));
    Option<crate::id::SessionId> => |id| Arg::Id(id.map(|id| id.uuid()));
    Option<crate::id::OrderId> => |id| Arg::Id(id.map(|id| id.uuid()));
    Option<crate::id::UserId> => |id| Arg::Id(id.map(|id| id.uuid()));
    Option<crate::id::RedeemCodeId> => |id| Arg::Id(id.map(|id| id.uuid()));
    Option<crate::id::ProjectId> => |id| Arg::Id(id.map(|id| id.uuid()));
    Option<crate::id::GenerationId> => |id| Arg::Id(id.map(|id| id.uuid()));
    &'a str => |text| Arg::Text(Some(text));
    &'a String => |text| Arg::Text(Some(text));
    Option<&'a str> => |text| Arg::Text(text);
    &'a Option<String> => |text| Arg::Text(text.as_deref());
    i64 => |number| Arg::Number(Some(number));
    Option<i64> => |number| Arg::Number(number);
    u32 => |number| Arg::Number(Some(i64::from(number)));
    Credits => |credits| Arg::Number(Some(credits.0));
    bool => |flag| Arg::Flag(flag);
    Micros => |time| Arg::Time(Some(time));
    Option<Micros> => |time| Arg::Time(time);
    &'a Vec<u8> => |bytes| Arg::Bytes(Some(bytes));
}

/// The database beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// A borrowed connection, in a transaction or not.
pub(super) enum Conn<'c> {
    Sqlite(&'c mut SqliteConnection),
    /// `named`: prepared statements stay with the connection. A pooler in transaction mode gives the next transaction
    /// another one, so there they must not.
    Postgres {
        conn: &'c mut PgConnection,
        named: bool,
    },
}

/// Binds every argument to a query of one driver.
macro_rules! bind_all {
    ($query:expr, $args:expr, time: $time:expr, id: $id:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match arg {
                Arg::Id(id) => query.bind(id.map($id)),
                Arg::Text(text) => query.bind(text.map(without_nul)),
                Arg::Number(number) => query.bind(*number),
                Arg::Flag(flag) => query.bind(*flag),
                Arg::Time(time) => query.bind(time.map($time)),
                Arg::Bytes(bytes) => query.bind(bytes.map(<[u8]>::to_vec)),
            };
        }
        query
    }};
}

fn for_sqlite(sql: &'static str, args: &[Arg<'_>]) -> Query<'static, Sqlite, SqliteArguments> {
    bind_all!(sqlx::query(sql), args, time: |t: Micros| t.0, id: |id: Uuid| id.as_hyphenated().to_string())
}

fn for_postgres(sql: SqlStr, args: &[Arg<'_>], named: bool) -> Query<'static, Postgres, PgArguments> {
    bind_all!(sqlx::query(sql), args, time: to_timestamp, id: |id| id).persistent(named)
}

impl Conn<'_> {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Conn::Sqlite(_) => Dialect::Sqlite,
            Conn::Postgres { .. } => Dialect::Postgres,
        }
    }

    /// All rows.
    pub(super) async fn all(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        Ok(match self {
            Conn::Sqlite(conn) => {
                let rows = for_sqlite(sql.sqlite, args).fetch_all(&mut **conn).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Conn::Postgres { conn, named } => {
                let query = for_postgres(sql.postgres.into_sql_str(), args, *named);
                let rows = query.fetch_all(&mut **conn).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row, if there is one.
    pub(super) async fn optional(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Option<Row>> {
        Ok(match self {
            Conn::Sqlite(conn) => {
                let row = for_sqlite(sql.sqlite, args).fetch_optional(&mut **conn).await?;
                row.map(Row::Sqlite)
            }
            Conn::Postgres { conn, named } => {
                let query = for_postgres(sql.postgres.into_sql_str(), args, *named);
                query.fetch_optional(&mut **conn).await?.map(Row::Postgres)
            }
        })
    }

    /// The one row that there must be.
    pub(super) async fn one(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<Row> {
        let row = self.optional(sql, args).await?;
        Ok(row.ok_or_else(|| anyhow!("a statement gave no row: {}", sql.sqlite))?)
    }

    /// How many rows were changed.
    pub(super) async fn execute(&mut self, sql: Sql, args: &[Arg<'_>]) -> Result<u64> {
        Ok(match self {
            Conn::Sqlite(conn) => for_sqlite(sql.sqlite, args).execute(&mut **conn).await?.rows_affected(),
            Conn::Postgres { conn, named } => for_postgres(sql.postgres.into_sql_str(), args, *named)
                .execute(&mut **conn)
                .await?
                .rows_affected(),
        })
    }

    /// Rows of a PostgreSQL statement that was put together at run time from texts of this program.
    pub(super) async fn composed(&mut self, sql: String, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        match self {
            Conn::Sqlite(_) => Err(anyhow!("statements are composed for PostgreSQL only").into()),
            Conn::Postgres { conn, named } => {
                let query = for_postgres(AssertSqlSafe(sql).into_sql_str(), args, *named);
                let rows = query.fetch_all(&mut **conn).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// A command without arguments and rows, such as `COMMIT`.
    pub(super) async fn command(&mut self, text: &'static str) -> Result<()> {
        match self {
            Conn::Sqlite(conn) => sqlx::query(text).execute(&mut **conn).await.map(drop)?,
            // The simple protocol: nothing to prepare, one round trip.
            Conn::Postgres { conn, .. } => sqlx::raw_sql(text).execute(&mut **conn).await.map(drop)?,
        }
        Ok(())
    }
}

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column may be asked for without a conversion.
pub(super) trait Plain:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}
impl<T> Plain for T where T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}

impl Row {
    /// A column as the driver gives it.
    pub(super) fn get<T: Plain>(&self, column: &str) -> Result<T> {
        Ok(match self {
            Row::Sqlite(row) => row.try_get(column)?,
            Row::Postgres(row) => row.try_get(column)?,
        })
    }

    fn text(&self, column: &str) -> Result<&str> {
        Ok(match self {
            Row::Sqlite(row) => row.try_get(column)?,
            Row::Postgres(row) => row.try_get(column)?,
        })
    }

    /// An id column.
    pub(super) fn id<T: From<Uuid>>(&self, column: &str) -> Result<T> {
        let id = self.optional_id(column)?;
        Ok(id.ok_or_else(|| anyhow!("column {column} holds no id"))?)
    }

    /// An id column that may be null.
    pub(super) fn optional_id<T: From<Uuid>>(&self, column: &str) -> Result<Option<T>> {
        let id = match self {
            Row::Sqlite(row) => match row.try_get::<Option<&str>, _>(column)? {
                None => None,
                Some(text) => {
                    let unknown = || format!("column {column} holds no id: {text:?}");
                    Some(Uuid::parse_str(text).with_context(unknown)?)
                }
            },
            Row::Postgres(row) => row.try_get::<Option<Uuid>, _>(column)?,
        };
        Ok(id.map(T::from))
    }

    /// A text column with a fixed set of values.
    pub(super) fn parsed<T>(&self, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
        let text = self.text(column)?;
        Ok(parse(text).ok_or_else(|| anyhow!("column {column} holds a value this program does not know: {text:?}"))?)
    }

    /// A JSON column.
    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        let unexpected = || format!("column {column} holds unexpected JSON");
        Ok(match self {
            Row::Sqlite(row) => serde_json::from_str(row.try_get(column)?).with_context(unexpected)?,
            Row::Postgres(row) => row.try_get::<Json<T>, _>(column).with_context(unexpected)?.0,
        })
    }

    /// A JSON column that may be null.
    pub(super) fn optional_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        let unexpected = || format!("column {column} holds unexpected JSON");
        Ok(match self {
            Row::Sqlite(row) => match row.try_get::<Option<&str>, _>(column)? {
                None => None,
                Some(text) => Some(serde_json::from_str(text).with_context(unexpected)?),
            },
            Row::Postgres(row) => {
                let value = row.try_get::<Option<Json<T>>, _>(column).with_context(unexpected)?;
                value.map(|json| json.0)
            }
        })
    }

    /// A time column.
    pub(super) fn micros(&self, column: &str) -> Result<Micros> {
        let time = self.optional_micros(column)?;
        Ok(time.ok_or_else(|| anyhow!("column {column} holds no time"))?)
    }

    /// A time column that may be null.
    pub(super) fn optional_micros(&self, column: &str) -> Result<Option<Micros>> {
        Ok(match self {
            Row::Sqlite(row) => row.try_get::<Option<i64>, _>(column)?.map(Micros),
            Row::Postgres(row) => row.try_get::<Option<OffsetDateTime>, _>(column)?.map(from_timestamp),
        })
    }

    /// A credits column.
    pub(super) fn credits(&self, column: &str) -> Result<Credits> {
        Ok(Credits(self.get(column)?))
    }

    /// A count or another number that is never negative.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T> {
        let value: i64 = self.get(column)?;
        Ok(T::try_from(value).map_err(|_| anyhow!("column {column} is out of range: {value}"))?)
    }

    /// All columns, which must be text, in order; null is `-`.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        let columns = match self {
            Row::Sqlite(row) => row.len(),
            Row::Postgres(row) => row.len(),
        };
        (0..columns)
            .map(|index| {
                let text: Option<String> = match self {
                    Row::Sqlite(row) => row.try_get(index)?,
                    Row::Postgres(row) => row.try_get(index)?,
                };
                Ok(text.unwrap_or_else(|| "-".to_owned()))
            })
            .collect()
    }
}

/// PostgreSQL keeps microseconds too, so nothing is lost.
fn to_timestamp(time: Micros) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn from_timestamp(time: OffsetDateTime) -> Micros {
    Micros(i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX))
}
