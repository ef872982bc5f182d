//! Steps of attempts: stored before they are carried out, many in one statement.

use async_trait::async_trait;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

use super::bulk::Bulk;
use super::conn::{Conn, Sql, args, sql};
use super::error::Result;
use super::events::{self, NewEvent};
use super::rows::to_json;
use super::writer::BulkWrite;
use crate::clock::Micros;
use crate::generation::{AttemptState, EventKind};
use crate::id::{AttemptId, GenerationId};
use crate::store::{SaveStep, Saved};

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

/// In PostgreSQL the generations are locked first, in the order of their ids, and the wish to stop is read from the locked
/// row: a cancel that came before is seen, one that comes later finds this step stored.
const STORE: Sql = sql!(
    sqlite: "UPDATE attempts SET state = j.value->>'state', steps = steps + 1, pending = j.value->>'pending', \
        plugin_state = coalesce(unhex(j.value->>'plugin_state'), plugin_state), \
        remote_id = coalesce(j.value->>'remote_id', remote_id), due_at = j.value->>'due_at', \
        inbox = iif(j.value->>'clear_inbox', NULL, inbox), \
        lease_owner = iif(j.value->>'unknown', NULL, lease_owner), updated_at = j.value->>'at' \
        FROM json_each($1) AS j \
        WHERE attempts.id = j.value->>'id' AND attempts.lease_owner = j.value->>'worker' \
        AND attempts.steps = j.value->>'steps' AND attempts.state NOT IN ('finished', 'rejected') \
        RETURNING attempts.id, attempts.generation_id, \
        (SELECT g.cancel_requested FROM generations AS g WHERE g.id = attempts.generation_id) AS cancel_requested",
    postgres: "WITH j AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) AS j (id uuid, worker text, steps bigint, \
         state text, unknown boolean, plugin_state text, pending text, remote_id text, due_at bigint, \
         clear_inbox boolean, at bigint)), \
        locked AS MATERIALIZED (SELECT g.id, g.cancel_requested FROM generations AS g WHERE g.id IN \
         (SELECT a.generation_id FROM attempts AS a JOIN j ON j.id = a.id) ORDER BY g.id FOR NO KEY UPDATE) \
        UPDATE attempts AS a SET state = j.state, steps = a.steps + 1, pending = j.pending::jsonb, \
        plugin_state = coalesce(decode(j.plugin_state, 'hex'), a.plugin_state), \
        remote_id = coalesce(j.remote_id, a.remote_id), due_at = velro_time(j.due_at), \
        inbox = CASE WHEN j.clear_inbox THEN NULL ELSE a.inbox END, \
        lease_owner = CASE WHEN j.unknown THEN NULL ELSE a.lease_owner END, updated_at = velro_time(j.at) \
        FROM j, locked AS g WHERE a.id = j.id AND g.id = a.generation_id AND a.lease_owner = j.worker \
        AND a.steps = j.steps AND a.state NOT IN ('finished', 'rejected') \
        RETURNING a.id, a.generation_id, g.cancel_requested",
);

const UPDATE_PROGRESS: Sql = sql!(
    sqlite: "UPDATE generations SET progress_permille = coalesce(j.value->>'permille', progress_permille), \
        updated_at = j.value->>'at' FROM json_each($1) AS j WHERE generations.id = j.value->>'id'",
    postgres: "UPDATE generations AS g SET progress_permille = coalesce(j.permille, g.progress_permille), \
        updated_at = velro_time(j.at) FROM json_to_recordset($1::json) AS j (id uuid, permille bigint, at bigint) \
        WHERE g.id = j.id",
);

#[async_trait]
impl BulkWrite for SaveStep {
    type Out = Saved;

    async fn apply_all(conn: &mut Conn<'_>, requests: &[&Self]) -> Result<Vec<Saved>> {
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
        let stored = conn.all(STORE, args![&to_json(&steps)?]).await?;
        let mut found: HashMap<AttemptId, (GenerationId, bool)> = HashMap::with_capacity(stored.len());
        for row in &stored {
            let of = (row.id("generation_id")?, row.get("cancel_requested")?);
            found.insert(row.id("id")?, of);
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
        let progress = Bulk::of(UPDATE_PROGRESS, &progress)?;
        let mut stored = events::store_with(conn, progress.as_slice(), notes).await?;
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
