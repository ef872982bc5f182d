//! Projects: folders of generations.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::credits::offset;
use super::error::Result;
use super::rows::{self, to_json};
use super::writer::Write;
use crate::clock::Micros;
use crate::id::{ProjectId, UserId};
use crate::store::{NewProject, Project, ProjectChange, ProjectFilter, Visibility};

/// The columns of [`rows::project`]; hidden generations are not counted.
macro_rules! select_projects {
    ($rest:literal) => {
        concat!(
            "SELECT p.*, (SELECT count(*) FROM generations AS g WHERE g.project_id = p.id AND g.deleted_at IS NULL) \
             AS generation_count FROM projects AS p ",
            $rest
        )
    };
}

#[async_trait]
impl Write for NewProject {
    type Out = Project;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Project> {
        let row = sqlx::query(
            "INSERT INTO projects (id, user_id, name, description, visibility, tags, metadata, created_at, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) RETURNING *, 0 AS generation_count",
        )
        .bind(self.id.to_string())
        .bind(self.user_id.to_string())
        .bind(&self.name)
        .bind(&self.description)
        .bind(self.visibility.as_str())
        .bind(to_json(&self.tags)?)
        .bind(to_json(&self.metadata)?)
        .bind(self.now.0)
        .fetch_one(conn)
        .await?;
        rows::project(&row)
    }
}

/// The owner's, or anybody's public one.
pub(super) async fn by_id(conn: &mut SqliteConnection, viewer: UserId, id: ProjectId) -> Result<Option<Project>> {
    let row = sqlx::query(select_projects!(
        "WHERE p.id = ?1 AND (p.user_id = ?2 OR p.visibility = 'public')"
    ))
    .bind(id.to_string())
    .bind(viewer.to_string())
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(rows::project).transpose()
}

/// Newest change first.
pub(super) async fn list(conn: &mut SqliteConnection, viewer: UserId, filter: ProjectFilter) -> Result<Vec<Project>> {
    let query = match filter.visibility {
        Some(Visibility::Public) => sqlx::query(select_projects!(
            "WHERE p.visibility = 'public' ORDER BY p.updated_at DESC, p.id DESC LIMIT ?1 OFFSET ?2"
        )),
        _ => sqlx::query(select_projects!(
            "WHERE p.user_id = ?3 AND (?4 IS NULL OR p.visibility = ?4) \
             ORDER BY p.updated_at DESC, p.id DESC LIMIT ?1 OFFSET ?2"
        )),
    };
    let query = query.bind(filter.limit).bind(offset(filter.skip));
    let query = match filter.visibility {
        Some(Visibility::Public) => query,
        kind => query.bind(viewer.to_string()).bind(kind.map(Visibility::as_str)),
    };
    query.fetch_all(conn).await?.iter().map(rows::project).collect()
}

/// Changes what is `Some`, for the owner.
pub(super) struct UpdateProject {
    pub(super) owner: UserId,
    pub(super) id: ProjectId,
    pub(super) change: ProjectChange,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for UpdateProject {
    type Out = Option<Project>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<Project>> {
        let change = &self.change;
        let changed = sqlx::query(
            "UPDATE projects SET name = coalesce(?3, name), description = coalesce(?4, description), \
             visibility = coalesce(?5, visibility), tags = coalesce(?6, tags), metadata = coalesce(?7, metadata), \
             updated_at = ?8 WHERE id = ?1 AND user_id = ?2",
        )
        .bind(self.id.to_string())
        .bind(self.owner.to_string())
        .bind(&change.name)
        .bind(&change.description)
        .bind(change.visibility.map(Visibility::as_str))
        .bind(change.tags.as_ref().map(to_json).transpose()?)
        .bind(change.metadata.as_ref().map(to_json).transpose()?)
        .bind(self.now.0)
        .execute(&mut *conn)
        .await?;
        match changed.rows_affected() {
            0 => Ok(None),
            _ => by_id(conn, self.owner, self.id).await,
        }
    }
}

/// Removes the owner's project; its generations stay, without one.
pub(super) struct DeleteProject {
    pub(super) owner: UserId,
    pub(super) id: ProjectId,
}

#[async_trait]
impl Write for DeleteProject {
    type Out = bool;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<bool> {
        let done = sqlx::query("DELETE FROM projects WHERE id = ?1 AND user_id = ?2")
            .bind(self.id.to_string())
            .bind(self.owner.to_string())
            .execute(conn)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
