//! The event log: rows written with the change they tell of, in the contract's words (contract §4.3).

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use std::collections::HashMap;

use super::error::Result;
use super::rows::{self, to_json};
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

/// `data` of a `queued` event; the position is added when it is shown.
pub(super) fn queued() -> Value {
    json!({"status": "queued"})
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
pub(super) async fn store(conn: &mut SqliteConnection, events: Vec<NewEvent>) -> Result<HashMap<GenerationId, Event>> {
    if events.is_empty() {
        return Ok(HashMap::new());
    }
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
    let stored = sqlx::query(
        "INSERT INTO events (generation_id, kind, data, created_at) \
         SELECT value->>'generation_id', value->>'kind', value->>'data', value->>'at' FROM json_each(?1) ORDER BY key \
         RETURNING seq, generation_id",
    )
    .bind(to_json(&rows)?)
    .fetch_all(conn)
    .await?;
    let mut seqs: HashMap<GenerationId, i64> = HashMap::with_capacity(stored.len());
    for row in &stored {
        seqs.insert(rows::id(row, "generation_id")?, rows::get(row, "seq")?);
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
pub(super) async fn store_one(conn: &mut SqliteConnection, event: NewEvent) -> Result<Event> {
    let id = event.generation_id;
    let mut stored = store(conn, vec![event]).await?;
    Ok(stored
        .remove(&id)
        .ok_or_else(|| anyhow::anyhow!("the event of generation {id} was not stored"))?)
}

/// Events of the owner's visible generation after `after_seq`, oldest first.
pub(super) async fn list(
    conn: &mut SqliteConnection,
    owner: UserId,
    id: GenerationId,
    after_seq: i64,
) -> Result<Vec<Event>> {
    let rows = sqlx::query(
        "SELECT e.* FROM events AS e WHERE e.generation_id = ?2 AND e.seq > ?3 \
         AND EXISTS (SELECT 1 FROM generations AS g WHERE g.id = ?2 AND g.user_id = ?1 AND g.deleted_at IS NULL) \
         ORDER BY e.seq",
    )
    .bind(owner.to_string())
    .bind(id.to_string())
    .bind(after_seq)
    .fetch_all(conn)
    .await?;
    rows.iter().map(rows::event).collect()
}
