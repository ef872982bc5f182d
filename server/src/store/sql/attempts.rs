//! Attempts from their beginning to their replacement, and how a webhook reaches them.
//!
//! Every write of a worker is guarded by its lease and by the step count it read, so that whoever lost an attempt changes
//! nothing. An attempt that becomes `unknown` gives its lease back at once; only something in its inbox makes it adoptable
//! again. Steps are in [`super::steps`], leases in [`super::leases`].

use async_trait::async_trait;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::conn::{Conn, Sql, args, sql};
use super::error::Result;
use super::events::{self, NewEvent};
use super::generations;
use super::leases::hold_lease;
use super::rows::{self, columns, to_json};
use super::writer::{BulkWrite, Write};
use crate::clock::Micros;
use crate::generation::{Attempt, AttemptState, Event, EventKind, Generation, Pending};
use crate::id::{AttemptId, GenerationId};
use crate::store::{BeginAttempt, Delivered, NextAttempt, ProgressNote, Redate, Work};

#[derive(Serialize)]
struct BeginRow<'a> {
    id: AttemptId,
    generation_id: GenerationId,
    pending: &'a str,
    worker: &'a str,
    deadline_at: Micros,
    at: Micros,
}

/// Rows are locked in the order of their ids; what somebody else has begun meanwhile is left out. The `+` keeps SQLite from
/// going through everything that is queued by the index of the status.
const BEGIN: Sql = sql!(
    sqlite: concat!("UPDATE generations SET status = 'processing', started_at = coalesce(started_at, j.value->>'at'), \
        updated_at = j.value->>'at' FROM json_each($1) AS j \
        WHERE generations.id = j.value->>'generation_id' AND +generations.status = 'queued' RETURNING ", columns!(generations "")),
    postgres: concat!("WITH j AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) AS j (generation_id uuid, at bigint)), \
        locked AS MATERIALIZED (SELECT g.id FROM generations AS g WHERE g.id IN (SELECT generation_id FROM j) \
         ORDER BY g.id FOR NO KEY UPDATE) \
        UPDATE generations AS g SET status = 'processing', started_at = coalesce(g.started_at, velro_time(j.at)), \
        updated_at = velro_time(j.at) FROM j JOIN locked ON locked.id = j.generation_id \
        WHERE g.id = j.generation_id AND g.status = 'queued' RETURNING ", columns!(generations "g.")),
);

const INSERT_FIRST: Sql = sql!(
    sqlite: concat!("INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, \
        lease_owner, created_at, updated_at) \
        SELECT j.value->>'id', g.id, \
        1 + coalesce((SELECT max(o.ordinal) FROM attempts AS o WHERE o.generation_id = g.id), 0), \
        g.provider, 'prepared', j.value->>'pending', j.value->>'at', j.value->>'deadline_at', \
        j.value->>'worker', j.value->>'at', j.value->>'at' \
        FROM json_each($1) AS j JOIN generations AS g ON g.id = j.value->>'generation_id' \
        WHERE g.id IN (SELECT value FROM json_each($2)) RETURNING ", columns!(attempts "")),
    postgres: concat!("INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, \
        lease_owner, created_at, updated_at) \
        SELECT j.id, g.id, 1 + coalesce((SELECT max(o.ordinal) FROM attempts AS o WHERE o.generation_id = g.id), 0), \
        g.provider, 'prepared', j.pending::jsonb, velro_time(j.at), velro_time(j.deadline_at), j.worker, \
        velro_time(j.at), velro_time(j.at) \
        FROM json_to_recordset($1::json) AS j (id uuid, generation_id uuid, pending text, worker text, \
        deadline_at bigint, at bigint) JOIN generations AS g ON g.id = j.generation_id \
        WHERE g.id IN (SELECT id::uuid FROM json_array_elements_text($2::json) AS k (id)) RETURNING ", columns!(attempts "")),
);

#[async_trait]
impl BulkWrite for BeginAttempt {
    type Out = Option<(Work, Vec<Event>)>;

    async fn apply_all(conn: &mut Conn<'_>, requests: &[&Self]) -> Result<Vec<Self::Out>> {
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
        let begun = conn.all(BEGIN, args![&rows]).await?;
        let mut begun: HashMap<GenerationId, Generation> = begun
            .iter()
            .map(|row| rows::generation(row).map(|g| (g.id, g)))
            .collect::<Result<_>>()?;
        let ids: Vec<GenerationId> = begun.keys().copied().collect();
        let attempts = conn.all(INSERT_FIRST, args![&rows, &to_json(&ids)?]).await?;
        // After the generations, as everywhere.
        let mut ends: BTreeMap<&str, Micros> = BTreeMap::new();
        for request in requests {
            let end = ends.entry(&request.worker).or_insert(request.lease_until);
            *end = (*end).max(request.lease_until);
        }
        for (worker, until) in ends {
            hold_lease(conn, worker, until).await?;
        }
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

#[async_trait]
impl Write for NextAttempt {
    type Out = Option<Work>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<Work>> {
        // First the generation, then its attempts, as everywhere.
        let sql = sql!("SELECT generation_id FROM attempts WHERE id = $1");
        let Some(row) = conn.optional(sql, args![self.rejected]).await? else {
            return Ok(None);
        };
        generations::lock(conn, &[row.id("generation_id")?]).await?;
        let sql = sql!(concat!(
            "UPDATE attempts SET state = 'rejected', lease_owner = NULL, inbox = NULL, detail = $4, updated_at = $5 \
             WHERE id = $1 AND lease_owner = $2 AND steps = $3 AND state NOT IN ('finished', 'rejected') RETURNING ",
            columns!(attempts "")
        ));
        let args = args![self.rejected, &self.worker, self.steps, &self.reason, self.now];
        let Some(row) = conn.optional(sql, args).await? else {
            return Ok(None);
        };
        let rejected = rows::attempt(&row)?;
        let sql = sql!(
            sqlite: concat!("INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, \
                lease_owner, created_at, updated_at) VALUES ($1, $2, $3, $4, 'prepared', $5, $6, $7, $8, $9, $9) RETURNING ", columns!(attempts "")),
            postgres: concat!("INSERT INTO attempts (id, generation_id, ordinal, provider, state, pending, due_at, deadline_at, \
                lease_owner, created_at, updated_at) \
                VALUES ($1, $2, $3, $4, 'prepared', $5::jsonb, $6, $7, $8, $9, $9) RETURNING ", columns!(attempts "")),
        );
        let pending = to_json(&Pending::Start)?;
        let args = args![
            self.attempt_id,
            rejected.generation_id,
            rejected.ordinal + 1,
            &rejected.provider,
            &pending,
            self.due_at,
            self.deadline_at,
            &self.worker,
            self.now,
        ];
        let row = conn.one(sql, args).await?;
        let attempt = rows::attempt(&row)?;
        let generation = generations::by_id(conn, attempt.generation_id)
            .await?
            .ok_or_else(|| anyhow::anyhow!("attempt {} has no generation", attempt.id))?;
        Ok(Some(Work { attempt, generation }))
    }
}

#[async_trait]
impl Write for Redate {
    type Out = bool;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<bool> {
        let sql = sql!(
            "UPDATE attempts SET created_at = $4, deadline_at = $5, updated_at = $4 \
             WHERE id = $1 AND lease_owner = $2 AND steps = $3 AND state = 'prepared'"
        );
        let args = args![self.attempt_id, &self.worker, self.steps, self.now, self.deadline_at];
        Ok(conn.execute(sql, args).await? > 0)
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

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Delivered> {
        // A webhook is a hint: the first one that was not stepped yet stays, the later ones would say the same.
        let sql = sql!(
            "UPDATE attempts SET inbox = coalesce(inbox, $3), due_at = $4, updated_at = $4 \
             WHERE id = $1 AND provider = $2 AND state IN ('sending', 'accepted', 'unknown')"
        );
        let args = args![self.attempt, &self.provider, &self.body, self.now];
        if conn.execute(sql, args).await? > 0 {
            return Ok(Delivered::Stored);
        }
        let sql = sql!("SELECT 1 FROM attempts WHERE id = $1 AND provider = $2");
        let known = conn.optional(sql, args![self.attempt, &self.provider]).await?;
        // A `prepared` attempt has sent nothing, so nothing about it can be news either.
        Ok(known.map_or(Delivered::Missing, |_| Delivered::Over))
    }
}

/// Attempts in a state with their generations, oldest first. Runs in a transaction.
pub(super) async fn in_state(
    conn: &mut Conn<'_>,
    state: AttemptState,
    limit: u32,
) -> Result<Vec<(Attempt, Generation)>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(attempts ""),
        " FROM attempts WHERE state = $1 ORDER BY id LIMIT $2"
    ));
    let rows = conn.all(sql, args![state.as_str(), limit]).await?;
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
pub(super) async fn newest(conn: &mut Conn<'_>, id: GenerationId) -> Result<Option<Attempt>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(attempts ""),
        " FROM attempts WHERE generation_id = $1 ORDER BY ordinal DESC LIMIT 1"
    ));
    let row = conn.optional(sql, args![id]).await?;
    row.as_ref().map(rows::attempt).transpose()
}
