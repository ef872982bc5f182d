//! Generations as the customer and the operator see them; what ends them is in [`super::settle`].

use async_trait::async_trait;
use std::collections::{BTreeSet, HashMap};

use super::conn::{Conn, Dialect, args, sql};
use super::credits::offset;
use super::error::Result;
use super::rows::{self, columns, refunded, to_json};
use super::writer::Write;
use crate::clock::Micros;
use crate::generation::{Generation, Status};
use crate::id::{GenerationId, ProjectId, UserId};
use crate::store::{Deleted, GenerationFilter, GenerationStats, Page, QueuedGeneration};

/// Locks the rows, in the order of their ids: whatever changes a generation, its attempts or its money does this first, and
/// accounts last, so that nobody waits in a circle. SQLite has one writer and needs no locks.
pub(super) async fn lock(conn: &mut Conn<'_>, ids: &[GenerationId]) -> Result<()> {
    if conn.dialect() == Dialect::Postgres {
        let sql = sql!(
            "SELECT 1 FROM generations WHERE id IN (SELECT id::uuid FROM json_array_elements_text($1::json) AS j (id)) \
             ORDER BY id FOR NO KEY UPDATE"
        );
        conn.all(sql, args![&to_json(ids)?]).await?;
    }
    Ok(())
}

/// The owner's, unless hidden.
pub(super) async fn owned(conn: &mut Conn<'_>, owner: UserId, id: GenerationId) -> Result<Option<Generation>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(generations ""),
        refunded!(),
        " FROM generations WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL"
    ));
    let row = conn.optional(sql, args![id, owner]).await?;
    row.as_ref().map(rows::generation_with_refund).transpose()
}

/// Anybody's, hidden or not.
pub(super) async fn by_id(conn: &mut Conn<'_>, id: GenerationId) -> Result<Option<Generation>> {
    let row = conn
        .optional(
            sql!(concat!(
                "SELECT ",
                columns!(generations ""),
                refunded!(),
                " FROM generations WHERE id = $1"
            )),
            args![id],
        )
        .await?;
    row.as_ref().map(rows::generation_with_refund).transpose()
}

/// Anybody's, hidden or not.
pub(super) async fn by_ids(
    conn: &mut Conn<'_>,
    ids: BTreeSet<GenerationId>,
) -> Result<HashMap<GenerationId, Generation>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(generations "g."), " FROM json_each($1) AS j JOIN generations AS g ON g.id = j.value"),
        postgres: concat!("SELECT ", columns!(generations "g."), " FROM json_array_elements_text($1::json) AS j (id) JOIN generations AS g ON g.id = j.id::uuid"),
    );
    let rows = conn.all(sql, args![&to_json(&ids)?]).await?;
    rows.iter()
        .map(|row| rows::generation(row).map(|g| (g.id, g)))
        .collect()
}

/// Newest first. Runs in a transaction, so that the total fits the page.
pub(super) async fn list(conn: &mut Conn<'_>, owner: UserId, filter: GenerationFilter) -> Result<Page<Generation>> {
    let status = filter.status.map(Status::as_str);
    let sql = sql!(
        sqlite: "SELECT count(*) AS n FROM generations WHERE user_id = $1 AND deleted_at IS NULL \
            AND ($2 IS NULL OR project_id = $2) AND ($3 IS NULL OR status = $3)",
        postgres: "SELECT count(*) AS n FROM generations WHERE user_id = $1 AND deleted_at IS NULL \
            AND ($2::uuid IS NULL OR project_id = $2) AND ($3::text IS NULL OR status = $3)",
    );
    let total = conn.one(sql, args![owner, filter.project_id, status]).await?;
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(generations ""), refunded!(), " FROM generations WHERE user_id = $1 AND deleted_at IS NULL \
            AND ($2 IS NULL OR project_id = $2) AND ($3 IS NULL OR status = $3) \
            ORDER BY id DESC LIMIT $4 OFFSET $5"),
        postgres: concat!("SELECT ", columns!(generations ""), refunded!(), " FROM generations WHERE user_id = $1 AND deleted_at IS NULL \
            AND ($2::uuid IS NULL OR project_id = $2) AND ($3::text IS NULL OR status = $3) \
            ORDER BY id DESC LIMIT $4 OFFSET $5"),
    );
    let args = args![owner, filter.project_id, status, filter.limit, offset(filter.skip)];
    let items = conn.all(sql, args).await?;
    Ok(Page {
        items: items.iter().map(rows::generation_with_refund).collect::<Result<_>>()?,
        total: total.number("n")?,
    })
}

/// Counts and sums over what the owner can see.
pub(super) async fn stats(conn: &mut Conn<'_>, owner: UserId, project: Option<ProjectId>) -> Result<GenerationStats> {
    let sql = sql!(
        sqlite: "SELECT status, media_type, model_id, count(*) AS n, \
            count(*) FILTER (WHERE is_favorite) AS favorites, \
            coalesce(sum(captured), 0) AS captured FROM generations \
            WHERE user_id = $1 AND deleted_at IS NULL AND ($2 IS NULL OR project_id = $2) \
            GROUP BY status, media_type, model_id",
        postgres: "SELECT status, media_type, model_id, count(*) AS n, \
            count(*) FILTER (WHERE is_favorite) AS favorites, \
            coalesce(sum(captured), 0)::bigint AS captured FROM generations \
            WHERE user_id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR project_id = $2) \
            GROUP BY status, media_type, model_id",
    );
    let rows = conn.all(sql, args![owner, project]).await?;
    let mut stats = GenerationStats::default();
    for row in &rows {
        let n: u64 = row.number("n")?;
        stats.total += n;
        match row.parsed("status", Status::parse)? {
            Status::Completed => stats.completed += n,
            Status::Failed => stats.failed += n,
            Status::Cancelled => stats.cancelled += n,
            Status::Queued | Status::Processing => stats.unfinished += n,
        }
        stats.favorites += row.number::<u64>("favorites")?;
        stats.captured += row.credits("captured")?;
        *stats.by_media_type.entry(row.get("media_type")?).or_default() += n;
        *stats.by_model.entry(row.get("model_id")?).or_default() += n;
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

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<Generation>> {
        let sql = sql!(
            sqlite: concat!("UPDATE generations SET is_favorite = 1 - is_favorite, updated_at = $3 \
                WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL RETURNING ", columns!(generations "")),
            postgres: concat!("UPDATE generations SET is_favorite = NOT is_favorite, updated_at = $3 \
                WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL RETURNING ", columns!(generations "")),
        );
        let row = conn.optional(sql, args![self.id, self.owner, self.now]).await?;
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

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Deleted> {
        lock(conn, &[self.id]).await?;
        let Some(generation) = owned(conn, self.owner, self.id).await? else {
            return Ok(Deleted::Missing);
        };
        if !generation.status.is_terminal() {
            return Ok(Deleted::Unfinished(generation.status));
        }
        let sql = sql!("UPDATE generations SET deleted_at = $2 WHERE id = $1");
        conn.execute(sql, args![self.id, self.now]).await?;
        Ok(Deleted::Done(generation.outputs))
    }
}

/// What waits in the queue, oldest first.
pub(super) async fn queued(
    conn: &mut Conn<'_>,
    after: Option<GenerationId>,
    limit: u32,
) -> Result<Vec<QueuedGeneration>> {
    let sql = sql!(
        sqlite: "SELECT id, user_id, provider, price, created_at FROM generations \
            WHERE status = 'queued' AND id > coalesce($1, '') ORDER BY id LIMIT $2",
        postgres: "SELECT id, user_id, provider, price, created_at FROM generations WHERE status = 'queued' \
            AND id > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid) ORDER BY id LIMIT $2",
    );
    let rows = conn.all(sql, args![after, limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(QueuedGeneration {
                id: row.id("id")?,
                user_id: row.id("user_id")?,
                provider: row.get("provider")?,
                price: row.credits("price")?,
                created_at: row.micros("created_at")?,
            })
        })
        .collect()
}
