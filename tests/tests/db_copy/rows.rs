//! All rows of both databases, made comparable without the program's own list of tables and columns.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

/// What a database has for itself.
const OWN: &str = "'_sqlx_migrations', 'schema_floor', 'copied_tables', 'leases', 'ledger_checks', 'log_levels'";

/// Rows by table, each a text per column, sorted.
pub type Rows = BTreeMap<String, Vec<Vec<String>>>;

pub async fn postgres(url: &str) -> PgConnection {
    PgConnectOptions::from_str(url).unwrap().connect().await.unwrap()
}

pub async fn sqlite(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}

pub async fn execute(url: &str, text: &str) {
    let mut conn = postgres(url).await;
    let done = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut conn).await;
    done.unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// Columns of each table with their types in PostgreSQL; who held an attempt is not copied.
async fn columns(conn: &mut PgConnection) -> BTreeMap<String, Vec<(String, String)>> {
    let sql = format!(
        "SELECT c.table_name::text, c.column_name::text, c.data_type::text FROM information_schema.columns AS c \
         WHERE c.table_schema = 'public' AND c.table_name NOT IN ({OWN}) AND c.column_name <> 'lease_owner' \
         ORDER BY c.ordinal_position"
    );
    let all: Vec<(String, String, String)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(conn).await.unwrap();
    let mut columns: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for (table, column, kind) in all {
        columns.entry(table).or_default().push((column, kind));
    }
    assert_eq!(columns.len(), 21, "{:?}", columns.keys());
    columns
}

/// The same JSON is the same text.
fn comparable(kind: &str, text: Option<String>) -> String {
    match (kind, text) {
        (_, None) => "null".to_owned(),
        ("jsonb", Some(text)) => serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string(),
        (_, Some(text)) => format!("'{text}'"),
    }
}

/// Everything in a PostgreSQL database.
pub async fn copied(url: &str) -> Rows {
    let mut conn = postgres(url).await;
    let mut rows = Rows::new();
    for (table, columns) in columns(&mut conn).await {
        let texts: Vec<String> = columns
            .iter()
            .map(|(name, kind)| match kind.as_str() {
                "timestamp with time zone" => {
                    format!("CAST(CAST(extract(epoch FROM \"{name}\") * 1000000 AS bigint) AS text)")
                }
                "boolean" => format!("CAST(CAST(\"{name}\" AS int) AS text)"),
                "bytea" => format!("encode(\"{name}\", 'hex')"),
                _ => format!("CAST(\"{name}\" AS text)"),
            })
            .collect();
        let sql = format!("SELECT {} FROM {table}", texts.join(", "));
        let found = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut conn).await.unwrap();
        let found = found.iter().map(|row| {
            let texts = columns.iter().enumerate();
            texts.map(|(at, (_, kind))| comparable(kind, row.get(at))).collect()
        });
        let mut found: Vec<Vec<String>> = found.collect();
        found.sort();
        rows.insert(table, found);
    }
    rows
}

/// Everything in an SQLite file, in the columns of the PostgreSQL database.
pub async fn embedded(file: &Path, url: &str) -> Rows {
    let columns = columns(&mut postgres(url).await).await;
    let mut conn = sqlite(file).await;
    let mut rows = Rows::new();
    for (table, columns) in columns {
        let texts: Vec<String> = columns
            .iter()
            .map(|(name, kind)| match kind.as_str() {
                "bytea" => format!("CASE WHEN \"{name}\" IS NOT NULL THEN lower(hex(\"{name}\")) END"),
                _ => format!("CAST(\"{name}\" AS text)"),
            })
            .collect();
        let sql = format!("SELECT {} FROM {table}", texts.join(", "));
        let found = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut conn).await.unwrap();
        let found = found.iter().map(|row| {
            let texts = columns.iter().enumerate();
            texts.map(|(at, (_, kind))| comparable(kind, row.get(at))).collect()
        });
        let mut found: Vec<Vec<String>> = found.collect();
        found.sort();
        rows.insert(table, found);
    }
    rows
}

/// Asserts that both hold the same, and gives it.
pub async fn same(file: &Path, url: &str) -> Rows {
    let (here, there) = (embedded(file, url).await, copied(url).await);
    for (table, rows) in &here {
        assert_eq!(rows, &there[table], "{table}");
    }
    let mut conn = postgres(url).await;
    let held = "SELECT count(*) FROM attempts WHERE lease_owner IS NOT NULL";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&mut conn).await.unwrap();
    assert_eq!(held, 0, "attempts still belong to workers of the source");
    here
}
