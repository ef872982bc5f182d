//! Opening SQLite: file, pragmas, schema.

use anyhow::Context;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::OpenOptions;
use super::conn::Conn;
use super::error::Fault;
use super::schema;
use crate::store::StoreError;

/// Every migration this program knows, compiled in.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Read connections; writers and readers do not block each other in WAL mode.
const READERS: u32 = 8;
/// How long to wait for another process that writes, such as `velro migrate` beside a running server.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How the writer opens its connection, and the readers.
pub(super) struct Opened {
    pub(super) options: SqliteConnectOptions,
    pub(super) readers: SqlitePool,
}

/// The file of `location`, a path or a `sqlite:` URL.
///
/// # Errors
///
/// When the URL is not valid.
pub fn embedded_file(location: &str) -> std::result::Result<PathBuf, StoreError> {
    Ok(parse(location)?.get_filename().to_owned())
}

fn parse(location: &str) -> std::result::Result<SqliteConnectOptions, StoreError> {
    if !location.starts_with("sqlite:") {
        return Ok(SqliteConnectOptions::new().filename(location));
    }
    SqliteConnectOptions::from_str(location)
        .context("the SQLite URL is not valid")
        .map_err(StoreError::Broken)
}

/// Opens `location`, a path or a `sqlite:` URL.
pub(super) async fn open(location: &str, options: OpenOptions) -> std::result::Result<Opened, StoreError> {
    // Every connection to an in-memory database would see one of its own.
    if location.is_empty() || location.contains(":memory:") || location.contains("mode=memory") {
        let text = "SQLite needs a file: an in-memory database cannot be shared between connections";
        return Err(StoreError::Schema(text.into()));
    }
    let connect = parse(location)?;
    let file = connect.get_filename().to_owned();
    prepare_file(&file, options.create)?;
    let connect = connect
        .create_if_missing(options.create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let mut writer = connect.connect().await.map_err(Fault::from)?;
    if options.migrate {
        migrate(&mut writer).await?;
    }
    schema::check(&mut Conn::Sqlite(&mut writer), &MIGRATIONS).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(connect.clone().create_if_missing(false).pragma("query_only", "on"))
        .await
        .map_err(Fault::from)?;
    Ok(Opened {
        options: connect.create_if_missing(false),
        readers,
    })
}

fn prepare_file(file: &Path, create: bool) -> std::result::Result<(), StoreError> {
    if file.exists() {
        return Ok(());
    }
    if !create {
        let file = file.display();
        return Err(StoreError::Schema(format!(
            "there is no database at {file}: create it with `velro migrate`"
        )));
    }
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))
            .map_err(StoreError::Unavailable),
        _ => Ok(()),
    }
}

/// Applies what is missing, each migration in its own transaction.
///
/// Foreign keys are off meanwhile, as SQLite asks for where a table is built anew: dropping the old one would take the rows
/// that refer to it along. What refers to nothing afterwards is a fault of the migration or of the file, and told.
async fn migrate(conn: &mut SqliteConnection) -> std::result::Result<(), StoreError> {
    if schema::check(&mut Conn::Sqlite(conn), &MIGRATIONS).await.is_ok() {
        return Ok(());
    }
    let migrator = schema::tolerant(&MIGRATIONS);
    let run = async |conn: &mut SqliteConnection, sql| sqlx::query(sql).execute(conn).await.map_err(Fault::from);
    run(conn, "PRAGMA foreign_keys = OFF").await?;
    // `run` asks for `Acquire`, which callers cannot prove `Send`; sqlx made this one for just that reason.
    let migrated = migrator.run_direct(None, conn, false).await;
    run(conn, "PRAGMA foreign_keys = ON").await?;
    migrated.map_err(schema::explain)?;
    let dangling: Option<String> = sqlx::query_scalar("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1")
        .fetch_optional(conn)
        .await
        .map_err(Fault::from)?;
    match dangling {
        None => Ok(()),
        Some(table) => Err(StoreError::Schema(format!(
            "after the migration a row of {table} refers to nothing: restore the backup taken before it and report this"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn pragma(conn: &mut SqliteConnection, sql: &'static str) -> String {
        let value: String = sqlx::query_scalar(sql).fetch_one(conn).await.unwrap();
        value
    }

    #[tokio::test]
    async fn commits_are_durable_and_readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            create: true,
            migrate: true,
        };
        let file = folder.path().join("velro.db");
        let opened = open(&file.to_string_lossy(), options).await.unwrap();
        let mut reader = opened.readers.acquire().await.unwrap();
        let mut writer = opened.options.connect().await.unwrap();
        for conn in [&mut writer, &mut *reader] {
            let journal = pragma(conn, "SELECT journal_mode FROM pragma_journal_mode").await;
            let sync = pragma(conn, "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous").await;
            let keys = pragma(conn, "SELECT CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys").await;
            // 2 is FULL.
            assert_eq!((journal.as_str(), sync.as_str(), keys.as_str()), ("wal", "2", "1"));
        }
        let write = sqlx::query("DELETE FROM leases").execute(&mut *reader).await;
        assert!(write.unwrap_err().to_string().contains("readonly"));
    }

    /// The macro does not notice a new file by itself; this does.
    #[test]
    fn every_migration_file_is_compiled_in_and_numbered_without_gaps() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/sqlite");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let known: Vec<String> = MIGRATIONS
            .iter()
            .map(|m| format!("{:04}_{}.sql", m.version, m.description.replace(' ', "_")))
            .collect();
        assert_eq!(files, known);
        assert!(MIGRATIONS.iter().map(|m| m.version).eq(1..=files.len() as i64));
    }
}
