//! Generations as the customer and the operator see them; what ends them is in [`super::settle`].

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};
use std::collections::{BTreeSet, HashMap};

use super::credits::offset;
use super::error::Result;
use super::rows::{self, to_json};
use super::writer::Write;
use crate::clock::Micros;
use crate::generation::{Generation, Status};
use crate::id::{GenerationId, ProjectId, UserId};
use crate::store::{Deleted, GenerationFilter, GenerationStats, Page, QueuedGeneration, SystemCounts};

/// The owner's, unless hidden.
pub(super) async fn owned(conn: &mut SqliteConnection, owner: UserId, id: GenerationId) -> Result<Option<Generation>> {
    let row = sqlx::query("SELECT * FROM generations WHERE id = ?1 AND user_id = ?2 AND deleted_at IS NULL")
        .bind(id.to_string())
        .bind(owner.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(rows::generation).transpose()
}

/// Anybody's, hidden or not.
pub(super) async fn by_id(conn: &mut SqliteConnection, id: GenerationId) -> Result<Option<Generation>> {
    Ok(by_ids(conn, BTreeSet::from([id])).await?.remove(&id))
}

/// Anybody's, hidden or not.
pub(super) async fn by_ids(
    conn: &mut SqliteConnection,
    ids: BTreeSet<GenerationId>,
) -> Result<HashMap<GenerationId, Generation>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query("SELECT g.* FROM json_each(?1) AS j JOIN generations AS g ON g.id = j.value")
        .bind(to_json(&ids)?)
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| rows::generation(row).map(|g| (g.id, g)))
        .collect()
}

/// Newest first. Runs in a transaction, so that the total fits the page.
pub(super) async fn list(
    conn: &mut SqliteConnection,
    owner: UserId,
    filter: GenerationFilter,
) -> Result<Page<Generation>> {
    let project = filter.project_id.map(|p| p.to_string());
    let status = filter.status.map(Status::as_str);
    let total: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM generations WHERE user_id = ?1 AND deleted_at IS NULL \
         AND (?2 IS NULL OR project_id = ?2) AND (?3 IS NULL OR status = ?3)",
    )
    .bind(owner.to_string())
    .bind(&project)
    .bind(status)
    .fetch_one(&mut *conn)
    .await?;
    let items = sqlx::query(
        "SELECT * FROM generations WHERE user_id = ?1 AND deleted_at IS NULL \
         AND (?2 IS NULL OR project_id = ?2) AND (?3 IS NULL OR status = ?3) \
         ORDER BY id DESC LIMIT ?4 OFFSET ?5",
    )
    .bind(owner.to_string())
    .bind(&project)
    .bind(status)
    .bind(filter.limit)
    .bind(offset(filter.skip))
    .fetch_all(conn)
    .await?;
    Ok(Page {
        items: items.iter().map(rows::generation).collect::<Result<_>>()?,
        total: total.unsigned_abs(),
    })
}

/// Counts and sums over what the owner can see.
pub(super) async fn stats(
    conn: &mut SqliteConnection,
    owner: UserId,
    project: Option<ProjectId>,
) -> Result<GenerationStats> {
    let rows = sqlx::query(
        "SELECT status, media_type, model_id, count(*) AS n, sum(is_favorite) AS favorites, \
         coalesce(sum(captured), 0) AS captured FROM generations \
         WHERE user_id = ?1 AND deleted_at IS NULL AND (?2 IS NULL OR project_id = ?2) \
         GROUP BY status, media_type, model_id",
    )
    .bind(owner.to_string())
    .bind(project.map(|p| p.to_string()))
    .fetch_all(conn)
    .await?;
    let mut stats = GenerationStats::default();
    for row in &rows {
        let n: u64 = rows::number(row, "n")?;
        stats.total += n;
        match rows::parsed(row, "status", Status::parse)? {
            Status::Completed => stats.completed += n,
            Status::Failed => stats.failed += n,
            Status::Cancelled => stats.cancelled += n,
            Status::Queued | Status::Processing => stats.unfinished += n,
        }
        stats.favorites += rows::number::<u64>(row, "favorites")?;
        stats.captured += rows::credits(row, "captured")?;
        *stats.by_media_type.entry(rows::get(row, "media_type")?).or_default() += n;
        *stats.by_model.entry(rows::get(row, "model_id")?).or_default() += n;
    }
    Ok(stats)
}

/// Flips the owner's mark.
pub(super) struct ToggleFavorite {
    pub(super) owner: UserId,
    pub(super) id: GenerationId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for ToggleFavorite {
    type Out = Option<Generation>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<Generation>> {
        let row = sqlx::query(
            "UPDATE generations SET is_favorite = 1 - is_favorite, updated_at = ?3 \
             WHERE id = ?1 AND user_id = ?2 AND deleted_at IS NULL RETURNING *",
        )
        .bind(self.id.to_string())
        .bind(self.owner.to_string())
        .bind(self.now.0)
        .fetch_optional(conn)
        .await?;
        row.as_ref().map(rows::generation).transpose()
    }
}

/// Hides a terminal generation from its owner.
pub(super) struct DeleteGeneration {
    pub(super) owner: UserId,
    pub(super) id: GenerationId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for DeleteGeneration {
    type Out = Deleted;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Deleted> {
        let Some(generation) = owned(conn, self.owner, self.id).await? else {
            return Ok(Deleted::Missing);
        };
        if !generation.status.is_terminal() {
            return Ok(Deleted::Unfinished(generation.status));
        }
        sqlx::query("UPDATE generations SET deleted_at = ?2 WHERE id = ?1")
            .bind(self.id.to_string())
            .bind(self.now.0)
            .execute(conn)
            .await?;
        Ok(Deleted::Done(generation.outputs))
    }
}

/// What waits in the queue, oldest first.
pub(super) async fn queued(
    conn: &mut SqliteConnection,
    after: Option<GenerationId>,
    limit: u32,
) -> Result<Vec<QueuedGeneration>> {
    let rows = sqlx::query(
        "SELECT id, user_id, provider, price, created_at FROM generations \
         WHERE status = 'queued' AND id > ?1 ORDER BY id LIMIT ?2",
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(QueuedGeneration {
                id: rows::id(row, "id")?,
                user_id: rows::id(row, "user_id")?,
                provider: rows::get(row, "provider")?,
                price: rows::credits(row, "price")?,
                created_at: rows::micros(row, "created_at")?,
            })
        })
        .collect()
}

/// Counts for the operator. Runs in a transaction.
pub(super) async fn system_counts(conn: &mut SqliteConnection) -> Result<SystemCounts> {
    let mut counts = SystemCounts::default();
    for row in sqlx::query("SELECT status, count(*) AS n FROM generations GROUP BY status")
        .fetch_all(&mut *conn)
        .await?
    {
        counts
            .by_status
            .insert(rows::get(&row, "status")?, rows::number(&row, "n")?);
    }
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM attempts WHERE state = 'unknown') AS unknown, \
         (SELECT coalesce(sum(held), 0) FROM accounts WHERE held > 0) AS held, \
         (SELECT created_at FROM generations WHERE status = 'queued' ORDER BY id LIMIT 1) AS oldest",
    )
    .fetch_one(conn)
    .await?;
    counts.unknown_attempts = rows::number(&row, "unknown")?;
    counts.held = rows::credits(&row, "held")?;
    counts.oldest_queued_at = row.try_get::<Option<i64>, _>("oldest").map(|t| t.map(Micros))?;
    Ok(counts)
}
