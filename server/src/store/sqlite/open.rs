//! Opening the database: file, pragmas, schema.

use anyhow::Context;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::error::{Fault, Result};
use crate::store::StoreError;

/// Every migration this program knows, compiled in.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Read connections; writers and readers do not block each other in WAL mode.
const READERS: u32 = 8;
/// How long to wait for another process that writes, such as `velro migrate` beside a running server.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How to open a database.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Make the file, and its folder, when there is none.
    pub create: bool,
    /// Bring the schema up to date.
    pub migrate: bool,
}

/// The writer's connection, how to open it again, and the readers.
pub(super) struct Opened {
    pub(super) writer: SqliteConnection,
    pub(super) options: SqliteConnectOptions,
    pub(super) readers: SqlitePool,
}

/// Opens `location`, a path or a `sqlite:` URL.
pub(super) async fn open(location: &str, options: OpenOptions) -> std::result::Result<Opened, StoreError> {
    // Every connection to an in-memory database would see one of its own.
    if location.is_empty() || location.contains(":memory:") || location.contains("mode=memory") {
        let text = "SQLite needs a file: an in-memory database cannot be shared between connections";
        return Err(StoreError::Schema(text.into()));
    }
    let connect = if location.starts_with("sqlite:") {
        SqliteConnectOptions::from_str(location)
            .context("the SQLite URL is not valid")
            .map_err(StoreError::Broken)?
    } else {
        SqliteConnectOptions::new().filename(location)
    };
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
    check_schema(&mut writer).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(connect.clone().create_if_missing(false).pragma("query_only", "on"))
        .await
        .map_err(Fault::from)?;
    Ok(Opened {
        writer,
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
async fn migrate(conn: &mut SqliteConnection) -> std::result::Result<(), StoreError> {
    // `run` asks for `Acquire`, which callers cannot prove `Send`; sqlx made this one for just that reason.
    match MIGRATIONS.run_direct(None, conn, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(newer(version)),
        Err(MigrateError::VersionMismatch(version)) => Err(changed(version)),
        Err(MigrateError::Execute(e)) => Err(Fault::from(e).into()),
        Err(e) => Err(StoreError::Schema(format!("the migration failed: {e}"))),
    }
}

/// Refuses every schema but the one this program knows.
pub(super) async fn check_schema(conn: &mut SqliteConnection) -> std::result::Result<(), StoreError> {
    let Some(applied) = applied(conn).await? else {
        let text = "the database has no schema yet: create it with `velro migrate`";
        return Err(StoreError::Schema(text.into()));
    };
    if let Some(&version) = applied.keys().find(|&&v| !MIGRATIONS.version_exists(v)) {
        return Err(newer(version));
    }
    for migration in MIGRATIONS.iter() {
        match applied.get(&migration.version) {
            Some((true, checksum)) if *checksum == *migration.checksum => {}
            Some((true, _)) => return Err(changed(migration.version)),
            Some((false, _)) | None => {
                let version = migration.version;
                return Err(StoreError::Schema(format!(
                    "the database is older than this program, migration {version} is missing: run `velro migrate`"
                )));
            }
        }
    }
    Ok(())
}

/// Applied migrations: whether each succeeded, and its checksum. `None` when nothing was ever applied.
async fn applied(conn: &mut SqliteConnection) -> Result<Option<BTreeMap<i64, (bool, Vec<u8>)>>> {
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *conn)
        .await?;
    if there == 0 {
        return Ok(None);
    }
    let rows: Vec<(i64, bool, Vec<u8>)> = sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations")
        .fetch_all(conn)
        .await?;
    Ok(Some(rows.into_iter().map(|(v, ok, sum)| (v, (ok, sum))).collect()))
}

fn newer(version: i64) -> StoreError {
    StoreError::Schema(format!(
        "the database is newer than this program, which does not know migration {version}: start the newer `velro`, \
         or restore the backup taken before `velro migrate`"
    ))
}

fn changed(version: i64) -> StoreError {
    StoreError::Schema(format!(
        "migration {version} of the database is not the one this program knows: start the `velro` that applied it, or \
         restore a backup and run `velro migrate`"
    ))
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
        let mut opened = open(&file.to_string_lossy(), options).await.unwrap();
        let mut reader = opened.readers.acquire().await.unwrap();
        for conn in [&mut opened.writer, &mut *reader] {
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
