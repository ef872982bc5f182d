//! Attempts as the worker sees them: begin, lease, step, replace, wake.
//!
//! Every write of a worker is guarded by its lease and by the step count it read, so that whoever lost an attempt changes
//! nothing. The time a lease runs out is kept per worker, not per attempt: a heartbeat is one row, however many attempts
//! a worker holds. An attempt that becomes `unknown` gives its lease back at once; only something in its inbox makes it
//! adoptable again.

use async_trait::async_trait;
use serde::Serialize;
use sqlx::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::error::Result;
use super::events::{self, NewEvent};
use super::generations;
use super::rows::{self, to_json};
use super::writer::{BulkWrite, Write};
use crate::clock::Micros;
use crate::generation::{Attempt, AttemptState, Event, EventKind, Generation, Pending};
use crate::id::{AttemptId, GenerationId};
use crate::store::{Adopted, BeginAttempt, Delivered, NextAttempt, ProgressNote, SaveStep, Saved, Work};

#[derive(Serialize)]
struct BeginRow<'a> {
    id: AttemptId,
    generation_id: GenerationId,
    pending: &'a str,
    worker: &'a str,
    deadline_at: Micros,
    at: Micros,
}

#[async_trait]
impl BulkWrite for BeginAttempt {
    type Out = Option<(Work, Vec<Event>)>;

    async fn apply_all(conn: &mut SqliteConnection, requests: &[&Self]) -> Result<Vec<Self::Out>> {
        let mut ends: BTreeMap<&str, Micros> = BTreeMap::new();
        for request in requests {
            let end = ends.entry(&request.worker).or_insert(request.lease_until);
            *end = (*end).max(request.lease_until);
        }
        for (worker, until) in ends {
            hold_lease(conn, worker, until).await?;
        }

        let pending = to_json(&Pending::Start)?;
        // Whoever comes first for a generation begins it.
        let mut seen = BTreeSet::new();
        let first: Vec<bool> = requests.iter().map(|r| seen.insert(r.generation_id)).collect();
        let rows: Vec<BeginRow<'_>> = requests
            .iter()
            .zip(&first)
            .filter(|(_, first)| **first)
            .map(|(r, _)| BeginRow {
                id: r.attempt_id,
                generation_id: r.generation_id,
                pending: &pending,
                worker: &r.worker,
                deadline_at: r.deadline_at,
                at: r.now,
            })
            .collect();
        let rows = to_json(&rows)?;
        let begun = sqlx::query(
            "UPDATE generations SET status = 'processing', started_at = coalesce(started_at, j.value->>'at'), \
             updated_at = j.value->>'at' FROM json_each(?1) AS j \
             WHERE generations.id = j.value->>'generation_id' AND generations.status = 'queued' \
             RETURNING *",
        )
        .bind(&rows)
        .fetch_all(&mut *conn)
        .await?;
        let mut begun: HashMap<GenerationId, Generation> = begun
            .iter()
            .map(|row| rows::generation(row).map(|g| (g.id, g)))
            .collect::<Result<_>>()?;
        let ids: Vec<GenerationId> = begun.keys().copied().collect();
        let attempts = sqlx::query(
            "INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, \
             lease_owner, created_at, updated_at) \
             SELECT j.value->>'id', g.id, \
             1 + coalesce((SELECT max(o.ordinal) FROM attempts AS o WHERE o.generation_id = g.id), 0), \
             g.provider, 'prepared', j.value->>'pending', j.value->>'at', j.value->>'deadline_at', \
             j.value->>'worker', j.value->>'at', j.value->>'at' \
             FROM json_each(?1) AS j JOIN generations AS g ON g.id = j.value->>'generation_id' \
             WHERE g.id IN (SELECT value FROM json_each(?2)) RETURNING *",
        )
        .bind(&rows)
        .bind(to_json(&ids)?)
        .fetch_all(&mut *conn)
        .await?;
        let mut attempts: HashMap<AttemptId, Attempt> = attempts
            .iter()
            .map(|row| rows::attempt(row).map(|a| (a.id, a)))
            .collect::<Result<_>>()?;
        let started = requests
            .iter()
            .zip(&first)
            .filter(|(r, first)| **first && begun.contains_key(&r.generation_id))
            .map(|(r, _)| NewEvent {
                generation_id: r.generation_id,
                kind: EventKind::Processing,
                data: events::processing(&ProgressNote::default()),
                at: r.now,
            });
        let mut stored = events::store(conn, started.collect()).await?;
        requests
            .iter()
            .zip(first)
            .map(|(r, first)| {
                if !first {
                    return Ok(None);
                }
                let Some(generation) = begun.remove(&r.generation_id) else {
                    return Ok(None);
                };
                let attempt = attempts
                    .remove(&r.attempt_id)
                    .ok_or_else(|| anyhow::anyhow!("attempt {} was not stored", r.attempt_id))?;
                let events = stored.remove(&r.generation_id).into_iter().collect();
                Ok(Some((Work { attempt, generation }, events)))
            })
            .collect()
    }
}

/// Notes that `worker` lives until then; never shortens.
async fn hold_lease(conn: &mut SqliteConnection, worker: &str, until: Micros) -> Result<()> {
    sqlx::query(
        "INSERT INTO leases (worker, lease_until) VALUES (?1, ?2) \
         ON CONFLICT (worker) DO UPDATE SET lease_until = max(lease_until, excluded.lease_until)",
    )
    .bind(worker)
    .bind(until.0)
    .execute(conn)
    .await?;
    Ok(())
}

/// The attempt with its generation, if `worker` holds it and it is not over. Runs in a transaction.
pub(super) async fn work(conn: &mut SqliteConnection, attempt: AttemptId, worker: &str) -> Result<Option<Work>> {
    let row = sqlx::query(
        "SELECT * FROM attempts WHERE id = ?1 AND lease_owner = ?2 AND state NOT IN ('finished', 'rejected')",
    )
    .bind(attempt.to_string())
    .bind(worker)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let attempt = rows::attempt(&row)?;
    let generation = generations::by_id(conn, attempt.generation_id).await?;
    Ok(generation.map(|generation| Work { attempt, generation }))
}

/// Unfinished attempts under a worker's lease.
pub(super) async fn held(conn: &mut SqliteConnection, worker: &str) -> Result<Vec<AttemptId>> {
    let rows = sqlx::query(
        "SELECT id FROM attempts WHERE lease_owner = ?1 \
         AND state IN ('prepared', 'sending', 'accepted', 'unknown')",
    )
    .bind(worker)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| rows::id(row, "id")).collect()
}

/// Workers whose lease has not run out.
pub(super) async fn living_workers(conn: &mut SqliteConnection, now: Micros) -> Result<u32> {
    let living: i64 = sqlx::query_scalar("SELECT count(*) FROM leases WHERE lease_until > ?1")
        .bind(now.0)
        .fetch_one(conn)
        .await?;
    Ok(living.unsigned_abs().try_into().unwrap_or(u32::MAX))
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

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Vec<Adopted>> {
        // Looked up before this worker's own lease is extended: what it lost itself is among it.
        let free: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM attempts WHERE lease_owner IS NULL \
             AND state IN ('prepared', 'sending', 'accepted', 'unknown') AND (state <> 'unknown' OR inbox IS NOT NULL) \
             UNION ALL \
             SELECT a.id FROM leases AS l CROSS JOIN attempts AS a ON a.lease_owner = l.worker \
             WHERE l.lease_until <= ?1 \
             AND a.state IN ('prepared', 'sending', 'accepted', 'unknown') \
             AND (a.state <> 'unknown' OR a.inbox IS NOT NULL) LIMIT ?2",
        )
        .bind(self.now.0)
        .bind(self.limit)
        .fetch_all(&mut *conn)
        .await?;
        if free.is_empty() {
            return Ok(Vec::new());
        }
        hold_lease(conn, &self.worker, self.lease_until).await?;
        let rows = sqlx::query(
            "UPDATE attempts SET lease_owner = ?1, updated_at = ?3 WHERE id IN (SELECT value FROM json_each(?2)) \
             RETURNING id, generation_id, provider, due_at, \
             (SELECT g.user_id FROM generations AS g WHERE g.id = attempts.generation_id) AS user_id",
        )
        .bind(&self.worker)
        .bind(to_json(&free)?)
        .bind(self.now.0)
        .fetch_all(&mut *conn)
        .await?;
        forget_dead_workers(conn, self.now).await?;
        rows.iter()
            .map(|row| {
                Ok(Adopted {
                    attempt_id: rows::id(row, "id")?,
                    generation_id: rows::id(row, "generation_id")?,
                    user_id: rows::id(row, "user_id")?,
                    provider: rows::get(row, "provider")?,
                    due_at: rows::micros(row, "due_at")?,
                })
            })
            .collect()
    }
}

/// A worker that is dead and holds nothing needs no row.
async fn forget_dead_workers(conn: &mut SqliteConnection, now: Micros) -> Result<()> {
    sqlx::query(
        "DELETE FROM leases WHERE lease_until <= ?1 AND NOT EXISTS \
         (SELECT 1 FROM attempts AS a WHERE a.lease_owner = leases.worker \
          AND a.state IN ('prepared', 'sending', 'accepted', 'unknown'))",
    )
    .bind(now.0)
    .execute(conn)
    .await?;
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

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<u64> {
        sqlx::query("UPDATE leases SET lease_until = ?2 WHERE worker = ?1")
            .bind(&self.worker)
            .bind(self.lease_until.0)
            .execute(&mut *conn)
            .await?;
        let held: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM attempts WHERE lease_owner = ?1 \
             AND state IN ('prepared', 'sending', 'accepted', 'unknown')",
        )
        .bind(&self.worker)
        .fetch_one(conn)
        .await?;
        Ok(held.unsigned_abs())
    }
}

/// A worker goes and leaves what it holds to others.
pub(super) struct ReleaseLeases {
    pub(super) worker: String,
}

#[async_trait]
impl Write for ReleaseLeases {
    type Out = u64;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<u64> {
        let done = sqlx::query(
            "UPDATE attempts SET lease_owner = NULL WHERE lease_owner = ?1 \
             AND state IN ('prepared', 'sending', 'accepted', 'unknown')",
        )
        .bind(&self.worker)
        .execute(&mut *conn)
        .await?;
        sqlx::query("DELETE FROM leases WHERE worker = ?1")
            .bind(&self.worker)
            .execute(conn)
            .await?;
        Ok(done.rows_affected())
    }
}

/// Everybody who held a lease is dead.
pub(super) struct FreeAllLeases;

#[async_trait]
impl Write for FreeAllLeases {
    type Out = u64;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<u64> {
        let freed = sqlx::query(
            "UPDATE attempts SET lease_owner = NULL \
             WHERE lease_owner IS NOT NULL AND state IN ('prepared', 'sending', 'accepted', 'unknown')",
        )
        .execute(&mut *conn)
        .await?;
        sqlx::query("DELETE FROM leases").execute(conn).await?;
        Ok(freed.rows_affected())
    }
}

#[derive(Serialize)]
struct StepRow<'a> {
    index: usize,
    id: AttemptId,
    worker: &'a str,
    steps: u32,
    state: &'static str,
    unknown: bool,
    /// Hex, because JSON has no bytes.
    plugin_state: Option<String>,
    pending: String,
    remote_id: Option<&'a str>,
    due_at: Micros,
    clear_inbox: bool,
    at: Micros,
}

#[derive(Serialize)]
struct ProgressRow {
    id: GenerationId,
    permille: Option<u16>,
    at: Micros,
}

#[async_trait]
impl BulkWrite for SaveStep {
    type Out = Saved;

    async fn apply_all(conn: &mut SqliteConnection, requests: &[&Self]) -> Result<Vec<Saved>> {
        // Two writes with one step count exclude each other; the first is as good as any.
        let mut seen = BTreeSet::new();
        let steps = requests
            .iter()
            .enumerate()
            .filter(|(_, r)| seen.insert(r.attempt_id))
            .map(|(index, r)| {
                Ok(StepRow {
                    index,
                    id: r.attempt_id,
                    worker: &r.worker,
                    steps: r.steps,
                    state: r.state.as_str(),
                    unknown: r.state == AttemptState::Unknown,
                    plugin_state: r.plugin_state.as_ref().map(hex::encode),
                    pending: to_json(&r.pending)?,
                    remote_id: r.remote_id.as_deref(),
                    due_at: r.due_at,
                    clear_inbox: r.clear_inbox,
                    at: r.now,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let stored = sqlx::query(
            "UPDATE attempts SET state = j.value->>'state', steps = steps + 1, pending = j.value->>'pending', \
             plugin_state = coalesce(unhex(j.value->>'plugin_state'), plugin_state), \
             remote_id = coalesce(j.value->>'remote_id', remote_id), due_at = j.value->>'due_at', \
             inbox = iif(j.value->>'clear_inbox', NULL, inbox), \
             lease_owner = iif(j.value->>'unknown', NULL, lease_owner), updated_at = j.value->>'at' \
             FROM json_each(?1) AS j \
             WHERE attempts.id = j.value->>'id' AND attempts.lease_owner = j.value->>'worker' \
             AND attempts.steps = j.value->>'steps' AND attempts.state NOT IN ('finished', 'rejected') \
             RETURNING attempts.id, attempts.generation_id, \
             (SELECT g.cancel_requested FROM generations AS g WHERE g.id = attempts.generation_id) AS cancel_requested",
        )
        .bind(to_json(&steps)?)
        .fetch_all(&mut *conn)
        .await?;
        let mut found: HashMap<AttemptId, (GenerationId, bool)> = HashMap::with_capacity(stored.len());
        for row in &stored {
            let of = (rows::id(row, "generation_id")?, rows::get(row, "cancel_requested")?);
            found.insert(rows::id(row, "id")?, of);
        }
        let mut progress = Vec::new();
        let mut notes = Vec::new();
        let mut answers: Vec<Option<(GenerationId, bool)>> = vec![None; requests.len()];
        for step in &steps {
            let Some(&(generation_id, cancel_requested)) = found.get(&step.id) else {
                continue;
            };
            answers[step.index] = Some((generation_id, cancel_requested));
            if let Some(note) = &requests[step.index].progress {
                progress.push(ProgressRow {
                    id: generation_id,
                    permille: note.permille,
                    at: step.at,
                });
                notes.push(NewEvent {
                    generation_id,
                    kind: EventKind::Processing,
                    data: events::processing(note),
                    at: step.at,
                });
            }
        }
        if !progress.is_empty() {
            sqlx::query(
                "UPDATE generations SET progress_permille = coalesce(j.value->>'permille', progress_permille), \
                 updated_at = j.value->>'at' FROM json_each(?1) AS j WHERE generations.id = j.value->>'id'",
            )
            .bind(to_json(&progress)?)
            .execute(&mut *conn)
            .await?;
        }
        let mut stored = events::store(conn, notes).await?;
        Ok(answers
            .into_iter()
            .map(|answer| match answer {
                None => Saved::Lost,
                Some((generation_id, cancel_requested)) => Saved::Ok {
                    cancel_requested,
                    events: stored.remove(&generation_id).into_iter().collect(),
                },
            })
            .collect())
    }
}

#[async_trait]
impl Write for NextAttempt {
    type Out = Option<Work>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<Work>> {
        let row = sqlx::query(
            "UPDATE attempts SET state = 'rejected', lease_owner = NULL, inbox = NULL, detail = ?4, updated_at = ?5 \
             WHERE id = ?1 AND lease_owner = ?2 AND steps = ?3 AND state NOT IN ('finished', 'rejected') RETURNING *",
        )
        .bind(self.rejected.to_string())
        .bind(&self.worker)
        .bind(self.steps)
        .bind(&self.reason)
        .bind(self.now.0)
        .fetch_optional(&mut *conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let rejected = rows::attempt(&row)?;
        let row = sqlx::query(
            "INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, \
             lease_owner, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, 'prepared', ?5, ?6, ?7, ?8, ?9, ?9) RETURNING *",
        )
        .bind(self.attempt_id.to_string())
        .bind(rejected.generation_id.to_string())
        .bind(rejected.ordinal + 1)
        .bind(&rejected.provider)
        .bind(to_json(&Pending::Start)?)
        .bind(self.due_at.0)
        .bind(self.deadline_at.0)
        .bind(&self.worker)
        .bind(self.now.0)
        .fetch_one(&mut *conn)
        .await?;
        let attempt = rows::attempt(&row)?;
        let generation = generations::by_id(conn, attempt.generation_id)
            .await?
            .ok_or_else(|| anyhow::anyhow!("attempt {} has no generation", attempt.id))?;
        Ok(Some(Work { attempt, generation }))
    }
}

/// A verified webhook for an attempt.
pub(super) struct DeliverWebhook {
    pub(super) provider: String,
    pub(super) attempt: AttemptId,
    pub(super) body: Vec<u8>,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for DeliverWebhook {
    type Out = Delivered;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Delivered> {
        // A webhook is a hint: the first one that was not stepped yet stays, the later ones would say the same.
        let stored = sqlx::query(
            "UPDATE attempts SET inbox = coalesce(inbox, ?3), due_at = ?4, updated_at = ?4 \
             WHERE id = ?1 AND provider = ?2 AND state IN ('sending', 'accepted', 'unknown')",
        )
        .bind(self.attempt.to_string())
        .bind(&self.provider)
        .bind(&self.body)
        .bind(self.now.0)
        .execute(&mut *conn)
        .await?;
        if stored.rows_affected() > 0 {
            return Ok(Delivered::Stored);
        }
        let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM attempts WHERE id = ?1 AND provider = ?2")
            .bind(self.attempt.to_string())
            .bind(&self.provider)
            .fetch_optional(conn)
            .await?;
        // A `prepared` attempt has sent nothing, so nothing about it can be news either.
        Ok(known.map_or(Delivered::Missing, |_| Delivered::Over))
    }
}

/// Attempts in a state with their generations, oldest first. Runs in a transaction.
pub(super) async fn in_state(
    conn: &mut SqliteConnection,
    state: AttemptState,
    limit: u32,
) -> Result<Vec<(Attempt, Generation)>> {
    let rows = sqlx::query("SELECT * FROM attempts WHERE state = ?1 ORDER BY id LIMIT ?2")
        .bind(state.as_str())
        .bind(limit)
        .fetch_all(&mut *conn)
        .await?;
    let attempts = rows.iter().map(rows::attempt).collect::<Result<Vec<_>>>()?;
    let generations = generations::by_ids(conn, attempts.iter().map(|a| a.generation_id).collect()).await?;
    attempts
        .into_iter()
        .map(|attempt| {
            let generation = generations.get(&attempt.generation_id).cloned();
            let missing = || anyhow::anyhow!("attempt {} has no generation", attempt.id);
            let generation = generation.ok_or_else(missing)?;
            Ok((attempt, generation))
        })
        .collect()
}

/// The newest attempt of a generation.
pub(super) async fn newest(conn: &mut SqliteConnection, id: GenerationId) -> Result<Option<Attempt>> {
    let row = sqlx::query("SELECT * FROM attempts WHERE generation_id = ?1 ORDER BY ordinal DESC LIMIT 1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(rows::attempt).transpose()
}
