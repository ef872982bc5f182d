//! Projects: folders of generations.

use async_trait::async_trait;

use super::conn::{Conn, args, sql};
use super::credits::offset;
use super::error::Result;
use super::rows::{self, columns, to_json};
use super::writer::Write;
use crate::clock::Micros;
use crate::id::{ProjectId, UserId};
use crate::store::{NewProject, Project, ProjectChange, ProjectFilter, Visibility};

/// The columns of [`rows::project`]; hidden generations are not counted.
macro_rules! select_projects {
    ($rest:literal) => {
        concat!(
            concat!("SELECT ", columns!(projects "p."), ", (SELECT count(*) FROM generations AS g WHERE g.project_id = p.id AND g.deleted_at IS NULL) \
             AS generation_count FROM projects AS p "),
            $rest
        )
    };
}

#[async_trait]
impl Write for NewProject {
    type Out = Project;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Project> {
        let sql = sql!(
            sqlite: concat!("INSERT INTO projects (id, user_id, name, description, visibility, tags, metadata, created_at, \
                updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) RETURNING ", columns!(projects ""), ", 0 AS generation_count"),
            postgres: concat!("INSERT INTO projects (id, user_id, name, description, visibility, tags, metadata, created_at, \
                updated_at) VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8, $8) \
                RETURNING ", columns!(projects ""), ", 0::bigint AS generation_count"),
        );
        let (tags, metadata) = (to_json(&self.tags)?, to_json(&self.metadata)?);
        let args = args![
            self.id,
            self.user_id,
            &self.name,
            &self.description,
            self.visibility.as_str(),
            &tags,
            &metadata,
            self.now,
        ];
        let row = conn.one(sql, args).await?;
        rows::project(&row)
    }
}

/// The owner's, or anybody's public one.
pub(super) async fn by_id(conn: &mut Conn<'_>, viewer: UserId, id: ProjectId) -> Result<Option<Project>> {
    let sql = sql!(select_projects!(
        "WHERE p.id = $1 AND (p.user_id = $2 OR p.visibility = 'public')"
    ));
    let row = conn.optional(sql, args![id, viewer]).await?;
    row.as_ref().map(rows::project).transpose()
}

/// Newest change first.
pub(super) async fn list(conn: &mut Conn<'_>, viewer: UserId, filter: ProjectFilter) -> Result<Vec<Project>> {
    let (limit, skip) = (filter.limit, offset(filter.skip));
    let rows = match filter.visibility {
        Some(Visibility::Public) => {
            let sql = sql!(select_projects!(
                "WHERE p.visibility = 'public' ORDER BY p.updated_at DESC, p.id DESC LIMIT $1 OFFSET $2"
            ));
            conn.all(sql, args![limit, skip]).await?
        }
        kind => {
            let sql = sql!(
                sqlite: select_projects!(
                    "WHERE p.user_id = $3 AND ($4 IS NULL OR p.visibility = $4) \
                     ORDER BY p.updated_at DESC, p.id DESC LIMIT $1 OFFSET $2"
                ),
                postgres: select_projects!(
                    "WHERE p.user_id = $3 AND ($4::text IS NULL OR p.visibility = $4) \
                     ORDER BY p.updated_at DESC, p.id DESC LIMIT $1 OFFSET $2"
                ),
            );
            let kind = kind.map(Visibility::as_str);
            conn.all(sql, args![limit, skip, viewer, kind]).await?
        }
    };
    rows.iter().map(rows::project).collect()
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

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<Project>> {
        let change = &self.change;
        let sql = sql!(
            sqlite: "UPDATE projects SET name = coalesce($3, name), description = coalesce($4, description), \
                visibility = coalesce($5, visibility), tags = coalesce($6, tags), metadata = coalesce($7, metadata), \
                updated_at = $8 WHERE id = $1 AND user_id = $2",
            postgres: "UPDATE projects SET name = coalesce($3, name), description = coalesce($4, description), \
                visibility = coalesce($5, visibility), tags = coalesce($6::jsonb, tags), \
                metadata = coalesce($7::jsonb, metadata), updated_at = $8 WHERE id = $1 AND user_id = $2",
        );
        let tags = change.tags.as_ref().map(to_json).transpose()?;
        let metadata = change.metadata.as_ref().map(to_json).transpose()?;
        let args = args![
            self.id,
            self.owner,
            &change.name,
            &change.description,
            change.visibility.map(Visibility::as_str),
            &tags,
            &metadata,
            self.now,
        ];
        match conn.execute(sql, args).await? {
            0 => Ok(None),
            _ => by_id(conn, self.owner, self.id).await,
        }
    }
}

/// Generations that are taken out of a project in one transaction.
const AT_A_TIME: u32 = 1000;

/// Takes some generations out of the owner's project; true when there may be more.
pub(super) struct EmptyProject {
    pub(super) owner: UserId,
    pub(super) id: ProjectId,
}

#[async_trait]
impl Write for EmptyProject {
    type Out = bool;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<bool> {
        let sql = sql!(
            sqlite: "UPDATE generations SET project_id = NULL WHERE id IN (SELECT g.id FROM generations AS g \
                JOIN projects AS p ON p.id = g.project_id AND p.user_id = $2 WHERE g.project_id = $1 LIMIT $3)",
            postgres: "UPDATE generations SET project_id = NULL WHERE id IN (SELECT g.id FROM generations AS g \
                JOIN projects AS p ON p.id = g.project_id AND p.user_id = $2 WHERE g.project_id = $1 \
                ORDER BY g.id LIMIT $3 FOR NO KEY UPDATE OF g)",
        );
        let taken_out = conn.execute(sql, args![self.id, self.owner, AT_A_TIME]).await?;
        Ok(taken_out >= u64::from(AT_A_TIME))
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

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<bool> {
        let sql = sql!("DELETE FROM projects WHERE id = $1 AND user_id = $2");
        Ok(conn.execute(sql, args![self.id, self.owner]).await? > 0)
    }
}
