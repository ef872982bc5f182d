//! The event log: rows written with the change they tell of, in the contract's words (contract §4.3).

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;

use super::bulk::{self, Bulk};
use super::conn::{Conn, Sql, args, sql};
use super::error::Result;
use super::rows::{self, columns, to_json};
use crate::clock::Micros;
use crate::generation::{Event, EventKind, PublicError};
use crate::id::{GenerationId, UserId};
use crate::store::ProgressNote;

/// An event to store.
pub(super) struct NewEvent {
    pub(super) generation_id: GenerationId,
    pub(super) kind: EventKind,
    pub(super) data: Value,
    pub(super) at: Micros,
}

#[derive(Serialize)]
struct EventRow {
    generation_id: GenerationId,
    kind: &'static str,
    data: String,
    at: Micros,
}

/// `seq` follows the order of the array. Events of one generation are written under the lock of its row, so that they are
/// committed in the order of their numbers.
const INSERT: Sql = sql!(
    sqlite: "INSERT INTO events (generation_id, kind, data, created_at) \
        SELECT value->>'generation_id', value->>'kind', value->>'data', value->>'at' FROM json_each($1) ORDER BY key \
        RETURNING seq, generation_id",
    postgres: "INSERT INTO events (generation_id, kind, data, created_at) \
        SELECT generation_id, kind, data::jsonb, velro_time(at) \
        FROM ROWS FROM (json_to_recordset($1::json) AS (generation_id uuid, kind text, data text, at bigint)) \
        WITH ORDINALITY AS j (generation_id, kind, data, at, ord) ORDER BY ord \
        RETURNING seq, generation_id",
);

/// `data` of a `queued` event; the position is added when it is shown.
pub(super) fn queued() -> Value {
    json!({"status": "queued"})
}

/// `data` of a `queued` event of a generation that changes its lane; watchers look for its position there.
pub(super) fn queued_again(provider: &str) -> Value {
    json!({"status": "queued", "provider": provider})
}

/// `data` of a `processing` event.
pub(super) fn processing(note: &ProgressNote) -> Value {
    let mut data = json!({"status": "processing"});
    if let Some(permille) = note.permille {
        data["progress"] = json!(f64::from(permille) / 1000.0);
    }
    if let Some(message) = &note.message {
        data["message"] = json!(message);
    }
    if let Some(position) = note.queue_position {
        data["queue_position"] = json!(position);
    }
    data
}

/// `data` of a `completed` event; the URLs are signed and added when it is shown.
pub(super) fn completed() -> Value {
    json!({"status": "completed"})
}

/// `data` of an `error` event.
pub(super) fn failed(error: &PublicError) -> Value {
    json!({"status": "failed", "error": error.message, "code": error.code})
}

/// `data` of a `cancelled` event.
pub(super) fn cancelled() -> Value {
    json!({"status": "cancelled"})
}

/// Stores events, at most one per generation, and answers them by generation.
pub(super) async fn store(conn: &mut Conn<'_>, events: Vec<NewEvent>) -> Result<HashMap<GenerationId, Event>> {
    store_with(conn, &[], events).await
}

/// Runs the statements, then stores the events, in one round trip where that counts.
pub(super) async fn store_with(
    conn: &mut Conn<'_>,
    before: &[Bulk],
    events: Vec<NewEvent>,
) -> Result<HashMap<GenerationId, Event>> {
    let rows = events
        .iter()
        .map(|e| {
            Ok(EventRow {
                generation_id: e.generation_id,
                kind: e.kind.as_str(),
                data: to_json(&e.data)?,
                at: e.at,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let insert = Bulk::of(INSERT, &rows)?;
    let last = insert.as_ref().map(|insert| (insert, "seq, generation_id"));
    let stored = bulk::write_returning(conn, before, last).await?;
    if events.is_empty() {
        return Ok(HashMap::new());
    }
    let mut seqs: HashMap<GenerationId, i64> = HashMap::with_capacity(stored.len());
    for row in &stored {
        seqs.insert(row.id("generation_id")?, row.get("seq")?);
    }
    events
        .into_iter()
        .map(|e| {
            let id = e.generation_id;
            let seq = seqs
                .remove(&id)
                .ok_or_else(|| anyhow::anyhow!("two events of generation {id} in one write"))?;
            let event = Event {
                seq,
                generation_id: id,
                kind: e.kind,
                data: e.data,
                created_at: e.at,
            };
            Ok((id, event))
        })
        .collect()
}

/// One event.
pub(super) async fn store_one(conn: &mut Conn<'_>, event: NewEvent) -> Result<Event> {
    let id = event.generation_id;
    let mut stored = store(conn, vec![event]).await?;
    Ok(stored
        .remove(&id)
        .ok_or_else(|| anyhow::anyhow!("the event of generation {id} was not stored"))?)
}

/// Events of the owner's visible generation after `after_seq`, oldest first.
pub(super) async fn list(conn: &mut Conn<'_>, owner: UserId, id: GenerationId, after_seq: i64) -> Result<Vec<Event>> {
    let rows = conn
        .all(
            sql!(
                concat!("SELECT ", columns!(events "e."), " FROM events AS e WHERE e.generation_id = $2 AND e.seq > $3 \
                 AND EXISTS (SELECT 1 FROM generations AS g WHERE g.id = $2 AND g.user_id = $1 AND g.deleted_at IS NULL) \
                 ORDER BY e.seq")
            ),
            args![owner, id, after_seq],
        )
        .await?;
    rows.iter().map(rows::event).collect()
}
