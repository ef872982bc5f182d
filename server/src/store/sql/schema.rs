//! Which schema a database has, and whether this program can work with it.
//!
//! A program works with the schema it knows, and with a newer one as long as that says so: `schema_floor` holds the oldest
//! migration a program must know. A migration that only adds things leaves it alone, so that the version before keeps
//! running beside the new one; one that takes something away raises it.

use sqlx::migrate::{MigrateError, Migrator};
use std::collections::BTreeMap;

use super::conn::{Conn, args, sql};
use super::error::{Fault, Result};
use crate::store::StoreError;

/// The migrations of a program, fit for a database that may be newer.
pub(super) fn tolerant(migrations: &Migrator) -> Migrator {
    let mut migrator = Migrator::with_migrations(migrations.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    // PostgreSQL's is taken for the transaction, because a pooler may give every transaction another session.
    migrator.set_locking(false);
    migrator
}

/// What a failed migration means.
pub(super) fn explain(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMismatch(version) => changed(version),
        MigrateError::Execute(e) => Fault::from(e).into(),
        // The file's name and the database's words: for whoever runs it.
        e => StoreError::Schema(format!("the migration failed: {e:#}")),
    }
}

/// Refuses every schema this program cannot work with.
pub(super) async fn check(conn: &mut Conn<'_>, migrations: &Migrator) -> std::result::Result<(), StoreError> {
    let Some(applied) = applied(conn).await? else {
        let text = "the database has no schema yet: create it with `velro migrate`";
        return Err(StoreError::Schema(text.into()));
    };
    for migration in migrations.iter() {
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
    let Some(&newest) = applied.keys().find(|&&v| !migrations.version_exists(v)) else {
        return Ok(());
    };
    let floor: i64 = conn
        .one(sql!("SELECT floor FROM schema_floor"), args![])
        .await?
        .get("floor")?;
    match migrations.version_exists(floor) {
        true => Ok(()),
        false => Err(newer(newest)),
    }
}

/// As [`check`], and refuses a newer schema too: what this program does not know it would lose.
pub(super) async fn check_same(conn: &mut Conn<'_>, migrations: &Migrator) -> std::result::Result<(), StoreError> {
    check(conn, migrations).await?;
    let applied = applied(conn).await?.unwrap_or_default();
    match applied.keys().find(|&&v| !migrations.version_exists(v)) {
        Some(&newest) => Err(newer(newest)),
        None => Ok(()),
    }
}

/// True when nothing was ever applied.
pub(super) async fn is_empty(conn: &mut Conn<'_>) -> Result<bool> {
    let sql = sql!(
        sqlite: "SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'",
        postgres: "SELECT 1 WHERE to_regclass('_sqlx_migrations') IS NOT NULL",
    );
    Ok(conn.optional(sql, args![]).await?.is_none())
}

/// Applied migrations: whether each succeeded, and its checksum. `None` when nothing was ever applied.
async fn applied(conn: &mut Conn<'_>) -> Result<Option<BTreeMap<i64, (bool, Vec<u8>)>>> {
    if is_empty(conn).await? {
        return Ok(None);
    }
    let sql = sql!("SELECT version, success, checksum FROM _sqlx_migrations");
    let rows = conn.all(sql, args![]).await?;
    let applied = rows
        .iter()
        .map(|row| Ok((row.get("version")?, (row.get("success")?, row.get("checksum")?))));
    applied.collect::<Result<_>>().map(Some)
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
