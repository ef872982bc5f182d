//! Leases: which worker may step which attempts, and until when.
//!
//! The time a lease runs out is kept per worker, not per attempt: a heartbeat is one row, however many attempts a worker
//! holds. What is released or adopted is changed in the attempts themselves.

use async_trait::async_trait;

use super::conn::{Conn, args, sql};
use super::error::Result;
use super::generations;
use super::rows::{self, columns, to_json};
use super::writer::Write;
use crate::clock::Micros;
use crate::id::AttemptId;
use crate::store::{Adopted, Work};

/// Notes that `worker` lives until then; never shortens.
pub(super) async fn hold_lease(conn: &mut Conn<'_>, worker: &str, until: Micros) -> Result<()> {
    let sql = sql!(
        sqlite: "INSERT INTO leases (worker, lease_until) VALUES ($1, $2) \
            ON CONFLICT (worker) DO UPDATE SET lease_until = max(lease_until, excluded.lease_until)",
        postgres: "INSERT INTO leases AS l (worker, lease_until) VALUES ($1, $2) \
            ON CONFLICT (worker) DO UPDATE SET lease_until = greatest(l.lease_until, excluded.lease_until)",
    );
    conn.execute(sql, args![worker, until]).await?;
    Ok(())
}

/// The attempt with its generation, if `worker` holds it and it is not over. Runs in a transaction.
pub(super) async fn work(conn: &mut Conn<'_>, attempt: AttemptId, worker: &str) -> Result<Option<Work>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(attempts ""),
        " FROM attempts WHERE id = $1 AND lease_owner = $2 AND state NOT IN ('finished', 'rejected')"
    ));
    let row = conn.optional(sql, args![attempt, worker]).await?;
    let Some(row) = row else { return Ok(None) };
    let attempt = rows::attempt(&row)?;
    let generation = generations::by_id(conn, attempt.generation_id).await?;
    Ok(generation.map(|generation| Work { attempt, generation }))
}

/// Unfinished attempts under a worker's lease.
pub(super) async fn held(conn: &mut Conn<'_>, worker: &str) -> Result<Vec<AttemptId>> {
    let sql = sql!(
        "SELECT id FROM attempts WHERE lease_owner = $1 AND state IN ('prepared', 'sending', 'accepted', 'unknown')"
    );
    let rows = conn.all(sql, args![worker]).await?;
    rows.iter().map(|row| row.id("id")).collect()
}

/// Workers whose lease has not run out.
pub(super) async fn living_workers(conn: &mut Conn<'_>, now: Micros) -> Result<u32> {
    let sql = sql!("SELECT count(*) AS n FROM leases WHERE lease_until > $1");
    conn.one(sql, args![now]).await?.number("n")
}

/// Takes over what nobody holds any more.
pub(super) struct Adopt {
    pub(super) worker: String,
    pub(super) now: Micros,
    pub(super) lease_until: Micros,
    pub(super) limit: u32,
}

#[async_trait]
impl Write for Adopt {
    type Out = Vec<Adopted>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Vec<Adopted>> {
        // Looked up before this worker's own lease is extended: what it lost itself is among it. In PostgreSQL several
        // workers look at once: each skips what another one is taking. By due time, because no index has that order: by id,
        // the planner would walk the primary key through everything that is over to find the few that are not.
        let sql = sql!(
            sqlite: "SELECT id FROM attempts WHERE lease_owner IS NULL \
                AND state IN ('prepared', 'sending', 'accepted', 'unknown') AND (state <> 'unknown' OR inbox IS NOT NULL) \
                UNION ALL \
                SELECT a.id FROM leases AS l CROSS JOIN attempts AS a ON a.lease_owner = l.worker \
                WHERE l.lease_until <= $1 \
                AND a.state IN ('prepared', 'sending', 'accepted', 'unknown') \
                AND (a.state <> 'unknown' OR a.inbox IS NOT NULL) LIMIT $2",
            postgres: "SELECT id FROM attempts WHERE state IN ('prepared', 'sending', 'accepted', 'unknown') \
                AND (state <> 'unknown' OR inbox IS NOT NULL) AND (lease_owner IS NULL \
                 OR lease_owner = ANY (ARRAY (SELECT worker FROM leases WHERE lease_until <= $1))) \
                ORDER BY due_at, id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
        );
        let free = conn.all(sql, args![self.now, self.limit]).await?;
        let free = free
            .iter()
            .map(|row| row.id("id"))
            .collect::<Result<Vec<AttemptId>>>()?;
        if free.is_empty() {
            return Ok(Vec::new());
        }
        hold_lease(conn, &self.worker, self.lease_until).await?;
        let sql = sql!(
            sqlite: "UPDATE attempts SET lease_owner = $1, updated_at = $3 WHERE id IN (SELECT value FROM json_each($2)) \
                RETURNING id, generation_id, provider, due_at, \
                (SELECT g.user_id FROM generations AS g WHERE g.id = attempts.generation_id) AS user_id",
            postgres: "UPDATE attempts SET lease_owner = $1, updated_at = $3 \
                WHERE id IN (SELECT id::uuid FROM json_array_elements_text($2::json) AS j (id)) \
                RETURNING id, generation_id, provider, due_at, \
                (SELECT g.user_id FROM generations AS g WHERE g.id = attempts.generation_id) AS user_id",
        );
        let rows = conn.all(sql, args![&self.worker, &to_json(&free)?, self.now]).await?;
        forget_dead_workers(conn, self.now).await?;
        rows.iter()
            .map(|row| {
                Ok(Adopted {
                    attempt_id: row.id("id")?,
                    generation_id: row.id("generation_id")?,
                    user_id: row.id("user_id")?,
                    provider: row.get("provider")?,
                    due_at: row.micros("due_at")?,
                })
            })
            .collect()
    }
}

/// A worker that is dead and holds nothing needs no row.
async fn forget_dead_workers(conn: &mut Conn<'_>, now: Micros) -> Result<()> {
    let sql = sql!(
        sqlite: "DELETE FROM leases WHERE lease_until <= $1 AND NOT EXISTS \
            (SELECT 1 FROM attempts AS a WHERE a.lease_owner = leases.worker \
             AND a.state IN ('prepared', 'sending', 'accepted', 'unknown'))",
        // Several workers tidy up at once, and none waits for another one's row.
        postgres: "DELETE FROM leases WHERE worker IN \
            (SELECT worker FROM leases WHERE lease_until <= $1 FOR UPDATE SKIP LOCKED) AND NOT EXISTS \
            (SELECT 1 FROM attempts AS a WHERE a.lease_owner = leases.worker \
             AND a.state IN ('prepared', 'sending', 'accepted', 'unknown'))",
    );
    conn.execute(sql, args![now]).await?;
    Ok(())
}

/// A worker's heartbeat.
pub(super) struct ExtendLeases {
    pub(super) worker: String,
    pub(super) lease_until: Micros,
}

#[async_trait]
impl Write for ExtendLeases {
    type Out = u64;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<u64> {
        hold_lease(conn, &self.worker, self.lease_until).await?;
        let sql = sql!(
            "SELECT count(*) AS n FROM attempts WHERE lease_owner = $1 \
             AND state IN ('prepared', 'sending', 'accepted', 'unknown')"
        );
        conn.one(sql, args![&self.worker]).await?.number("n")
    }
}

/// A worker goes and leaves what it holds to others, but for what it still steps.
pub(super) struct ReleaseLeases {
    pub(super) worker: String,
    pub(super) keep: Vec<AttemptId>,
}

#[async_trait]
impl Write for ReleaseLeases {
    type Out = u64;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<u64> {
        let sql = sql!(
            sqlite: "UPDATE attempts SET lease_owner = NULL WHERE lease_owner = $1 \
                AND state IN ('prepared', 'sending', 'accepted', 'unknown') \
                AND id NOT IN (SELECT value FROM json_each($2))",
            postgres: "UPDATE attempts SET lease_owner = NULL WHERE lease_owner = $1 \
                AND state IN ('prepared', 'sending', 'accepted', 'unknown') \
                AND id NOT IN (SELECT id::uuid FROM json_array_elements_text($2::json) AS j (id))",
        );
        let released = conn.execute(sql, args![&self.worker, &to_json(&self.keep)?]).await?;
        if self.keep.is_empty() {
            // Run out, not removed: a begin of this worker may be in flight, and an attempt whose owner has no row would
            // be adopted by nobody.
            let sql = sql!(
                sqlite: "UPDATE leases SET lease_until = 0 WHERE worker = $1",
                postgres: "UPDATE leases SET lease_until = 'epoch' WHERE worker = $1",
            );
            conn.execute(sql, args![&self.worker]).await?;
        }
        Ok(released)
    }
}

/// Everybody who held a lease is dead.
pub(super) struct FreeAllLeases;

#[async_trait]
impl Write for FreeAllLeases {
    type Out = u64;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<u64> {
        let sql = sql!(
            "UPDATE attempts SET lease_owner = NULL \
             WHERE lease_owner IS NOT NULL AND state IN ('prepared', 'sending', 'accepted', 'unknown')"
        );
        let freed = conn.execute(sql, args![]).await?;
        conn.execute(sql!("DELETE FROM leases"), args![]).await?;
        Ok(freed)
    }
}
