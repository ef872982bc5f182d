//! Schemas of other versions of the program: one that is older, and one that a newer version would make.

use std::path::{Path, PathBuf};

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/postgres")
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the migrations are there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// The newest migration of this version.
pub fn newest() -> i64 {
    files().len() as i64
}

/// Brings a PostgreSQL database to what the next version would make of it, as its `velro migrate` would.
pub async fn apply(conn: &mut PgConnection, next: &str) {
    run(conn, &files(), Some(next)).await;
}

/// Gives an empty PostgreSQL database the schema of the first version.
pub async fn apply_first(conn: &mut PgConnection) {
    run(conn, &files()[..1], None).await;
}

async fn run(conn: &mut PgConnection, files: &[PathBuf], next: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    for file in files {
        let name = file.file_name().expect("a name");
        std::fs::copy(file, folder.path().join(name)).expect("a copy");
    }
    if let Some(next) = next {
        let name = format!("{:04}_later.sql", files.len() + 1);
        std::fs::write(folder.path().join(name), next).expect("a file");
    }
    let migrator = Migrator::new(folder.path()).await.expect("migrations");
    migrator.run(conn).await.expect("they apply");
}
