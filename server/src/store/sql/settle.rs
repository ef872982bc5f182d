//! How a generation ends: status, settlement, transfers, statement, event and attempt, all or nothing, exactly once.
//!
//! [`end`] is the only way to a terminal status; the worker, the customer's cancel and the operator all come here. That
//! nobody ends a generation twice is checked by the callers, guarded by the status in the statement, and in the last
//! instance refused by the primary key of `settlements`.

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashSet};

use super::books::{Books, Purpose};
use super::bulk::Bulk;
use super::conn::{Conn, Sql, args, sql};
use super::error::Result;
use super::events::{self, NewEvent};
use super::generations;
use super::rows::{self, columns, to_json};
use super::writer::BulkWrite;
use crate::clock::Micros;
use crate::generation::{AttemptState, Event, EventKind, Generation, PublicError, Status, StoredOutput};
use crate::id::{AttemptId, GenerationId, UserId};
use crate::ledger::{Credits, Settlement};
use crate::store::{Settle, Settled, Verdict};

/// How it ends.
pub(super) enum How {
    Completed {
        outputs: Vec<StoredOutput>,
        worth: Credits,
        billed: Option<Value>,
        meta: Map<String, Value>,
    },
    Failed(PublicError),
    Cancelled,
}

/// The attempt that ends with it.
pub(super) struct EndOfAttempt {
    pub(super) id: AttemptId,
    pub(super) state: AttemptState,
    pub(super) detail: Option<String>,
}

/// An end to write.
pub(super) struct Ending {
    /// As read, and locked, in the same transaction.
    pub(super) subject: Generation,
    pub(super) how: How,
    pub(super) attempt: Option<EndOfAttempt>,
    /// Who decided it, for the books.
    pub(super) actor: String,
    pub(super) now: Micros,
}

/// What was written.
pub(super) struct Ended {
    pub(super) generation: Generation,
    pub(super) settlement: Settlement,
    pub(super) event: Event,
}

#[derive(Serialize)]
struct GenerationRow {
    id: GenerationId,
    status: &'static str,
    captured: Credits,
    outputs: String,
    error_code: Option<String>,
    error_message: Option<String>,
    billed: Option<String>,
    result_meta: Option<String>,
    at: Micros,
}

#[derive(Serialize)]
struct AttemptRow<'a> {
    id: AttemptId,
    state: &'static str,
    detail: Option<&'a str>,
    at: Micros,
}

/// Ends generations, each at most once in `endings`; the answers are in the same order.
pub(super) async fn end(conn: &mut Conn<'_>, endings: Vec<Ending>) -> Result<Vec<Ended>> {
    if endings.is_empty() {
        return Ok(Vec::new());
    }
    let users: BTreeSet<UserId> = endings.iter().map(|e| e.subject.user_id).collect();
    let mut books = Books::open(conn, &users).await?;
    let mut generation_rows = Vec::with_capacity(endings.len());
    let mut attempt_rows = Vec::with_capacity(endings.len());
    let mut news = Vec::with_capacity(endings.len());
    let mut settlements = Vec::with_capacity(endings.len());
    for ending in &endings {
        let settlement = book(&mut books, ending)?;
        let (row, event) = describe(ending, settlement)?;
        generation_rows.push(row);
        news.push(event);
        settlements.push(settlement);
        attempt_rows.extend(ending.attempt.as_ref().map(|a| AttemptRow {
            id: a.id,
            state: a.state.as_str(),
            detail: a.detail.as_deref(),
            at: ending.now,
        }));
    }

    let bulks = [
        Bulk::of(UPDATE_GENERATIONS, &generation_rows)?,
        Bulk::of(UPDATE_ATTEMPTS, &attempt_rows)?,
    ];
    let mut bulks: Vec<Bulk> = bulks.into_iter().flatten().collect();
    bulks.extend(books.into_bulks()?);
    let mut stored = events::store_with(conn, &bulks, news).await?;
    endings
        .into_iter()
        .zip(settlements)
        .map(|(ending, settlement)| {
            let id = ending.subject.id;
            let untold = || anyhow::anyhow!("the end of generation {id} has no event");
            Ok(Ended {
                settlement,
                event: stored.remove(&id).ok_or_else(untold)?,
                generation: as_stored(ending, settlement),
            })
        })
        .collect()
}

/// Finds nothing to do for a generation that is over, which undoes the whole write. The `+` keeps SQLite from going through
/// everything that is queued or runs by the index of the status.
const UPDATE_GENERATIONS: Sql = sql!(
    sqlite: "UPDATE generations SET status = j.value->>'status', captured = j.value->>'captured', \
        outputs = j.value->>'outputs', error_code = j.value->>'error_code', \
        error_message = j.value->>'error_message', billed = j.value->>'billed', \
        result_meta = j.value->>'result_meta', completed_at = j.value->>'at', updated_at = j.value->>'at' \
        FROM json_each($1) AS j \
        WHERE generations.id = j.value->>'id' AND +generations.status IN ('queued', 'processing')",
    postgres: "UPDATE generations AS g SET status = j.status, captured = j.captured, outputs = j.outputs::jsonb, \
        error_code = j.error_code, error_message = j.error_message, billed = j.billed::jsonb, \
        result_meta = j.result_meta::jsonb, completed_at = velro_time(j.at), updated_at = velro_time(j.at) \
        FROM json_to_recordset($1::json) AS j (id uuid, status text, captured bigint, outputs text, error_code text, \
        error_message text, billed text, result_meta text, at bigint) \
        WHERE g.id = j.id AND g.status IN ('queued', 'processing')",
);

const UPDATE_ATTEMPTS: Sql = sql!(
    sqlite: "UPDATE attempts SET state = j.value->>'state', detail = coalesce(j.value->>'detail', detail), \
        inbox = NULL, lease_owner = NULL, updated_at = j.value->>'at' FROM json_each($1) AS j \
        WHERE attempts.id = j.value->>'id' AND attempts.state NOT IN ('finished', 'rejected')",
    postgres: "UPDATE attempts AS a SET state = j.state, detail = coalesce(j.detail, a.detail), inbox = NULL, \
        lease_owner = NULL, updated_at = velro_time(j.at) \
        FROM json_to_recordset($1::json) AS j (id uuid, state text, detail text, at bigint) \
        WHERE a.id = j.id AND a.state NOT IN ('finished', 'rejected')",
);

/// The generation as the row just written says.
fn as_stored(ending: Ending, settlement: Settlement) -> Generation {
    let mut generation = Generation {
        captured: Some(settlement.captured),
        completed_at: Some(ending.now),
        updated_at: ending.now,
        ..ending.subject
    };
    match ending.how {
        How::Completed { outputs, .. } => {
            generation.status = Status::Completed;
            generation.outputs = outputs;
        }
        How::Failed(error) => {
            generation.status = Status::Failed;
            generation.error = Some(error);
        }
        How::Cancelled => generation.status = Status::Cancelled,
    }
    generation
}

/// Books where the hold goes.
fn book(books: &mut Books, ending: &Ending) -> Result<Settlement> {
    let Generation {
        id,
        user_id,
        model_id,
        price,
        api_key_id,
        ..
    } = &ending.subject;
    let worth = match &ending.how {
        How::Completed { worth, .. } => *worth,
        How::Failed(_) | How::Cancelled => Credits::ZERO,
    };
    let settlement = Settlement::of(*price, worth);
    let why = match &ending.how {
        How::Completed { .. } => format!("Refund: {model_id} delivered less than was ordered"),
        How::Failed(_) => format!("Refund: generation with {model_id} failed"),
        How::Cancelled => format!("Refund: generation with {model_id} was cancelled"),
    };
    let purpose = Purpose {
        generation_id: *id,
        model_id,
        api_key_id: *api_key_id,
    };
    books.settle(*user_id, purpose, settlement, why, &ending.actor, ending.now)?;
    Ok(settlement)
}

/// The generation's row and its event.
fn describe(ending: &Ending, settlement: Settlement) -> Result<(GenerationRow, NewEvent)> {
    let id = ending.subject.id;
    let mut row = GenerationRow {
        id,
        status: Status::Cancelled.as_str(),
        captured: settlement.captured,
        outputs: "[]".into(),
        error_code: None,
        error_message: None,
        billed: None,
        result_meta: None,
        at: ending.now,
    };
    let (kind, data) = match &ending.how {
        How::Completed {
            outputs, billed, meta, ..
        } => {
            row.status = Status::Completed.as_str();
            row.outputs = to_json(outputs)?;
            row.billed = billed.as_ref().map(to_json).transpose()?;
            row.result_meta = Some(to_json(meta)?);
            (EventKind::Completed, events::completed())
        }
        How::Failed(error) => {
            row.status = Status::Failed.as_str();
            row.error_code = Some(error.code.clone());
            row.error_message = Some(error.message.clone());
            (EventKind::Error, events::failed(error))
        }
        How::Cancelled => (EventKind::Cancelled, events::cancelled()),
    };
    let event = NewEvent {
        generation_id: id,
        kind,
        data,
        at: ending.now,
    };
    Ok((row, event))
}

#[derive(Serialize)]
struct Question<'a> {
    index: usize,
    generation: GenerationId,
    attempt: AttemptId,
    worker: &'a str,
    steps: u32,
}

/// Only whoever holds the attempt at the step it thinks, and while the generation is not over.
const ALLOWED: Sql = sql!(
    sqlite: concat!("SELECT j.key AS \"index\", ", columns!(generations "g."), " FROM json_each($1) AS j \
        JOIN attempts AS a ON a.id = j.value->>'attempt' AND a.generation_id = j.value->>'generation' \
        AND a.lease_owner = j.value->>'worker' AND a.steps = j.value->>'steps' \
        AND a.state NOT IN ('finished', 'rejected') \
        JOIN generations AS g ON g.id = a.generation_id AND g.status = 'processing' ORDER BY j.key"),
    postgres: concat!("SELECT j.index, ", columns!(generations "g."), " FROM json_to_recordset($1::json) \
        AS j (index bigint, generation uuid, attempt uuid, worker text, steps bigint) \
        JOIN attempts AS a ON a.id = j.attempt AND a.generation_id = j.generation \
        AND a.lease_owner = j.worker AND a.steps = j.steps AND a.state NOT IN ('finished', 'rejected') \
        JOIN generations AS g ON g.id = a.generation_id AND g.status = 'processing' \
        ORDER BY j.index FOR NO KEY UPDATE OF a"),
);

#[async_trait]
impl BulkWrite for Settle {
    type Out = Settled;

    async fn apply_all(conn: &mut Conn<'_>, requests: &[&Self]) -> Result<Vec<Settled>> {
        let questions: Vec<Question<'_>> = requests
            .iter()
            .enumerate()
            .map(|(index, r)| Question {
                index,
                generation: r.generation_id,
                attempt: r.attempt_id,
                worker: &r.worker,
                steps: r.steps,
            })
            .collect();
        let ids: Vec<GenerationId> = requests.iter().map(|r| r.generation_id).collect();
        generations::lock(conn, &ids).await?;
        let allowed = conn.all(ALLOWED, args![&to_json(&questions)?]).await?;
        let mut won: HashSet<GenerationId> = HashSet::with_capacity(allowed.len());
        let mut places = Vec::with_capacity(allowed.len());
        let mut endings = Vec::with_capacity(allowed.len());
        for row in &allowed {
            let subject = rows::generation(row)?;
            let place: usize = row.number("index")?;
            if let Some(request) = requests.get(place)
                && won.insert(subject.id)
            {
                places.push(place);
                endings.push(ending_of(request, subject));
            }
        }
        let mut answers: Vec<Settled> = requests.iter().map(|_| Settled::Lost).collect();
        for (place, ended) in places.into_iter().zip(end(conn, endings).await?) {
            answers[place] = Settled::Won {
                generation: Box::new(ended.generation),
                settlement: ended.settlement,
                events: vec![ended.event],
            };
        }
        Ok(answers)
    }
}

/// The worker's verdict as an end.
fn ending_of(request: &Settle, subject: Generation) -> Ending {
    let mut attempt = EndOfAttempt {
        id: request.attempt_id,
        state: AttemptState::Finished,
        detail: None,
    };
    let how = match &request.verdict {
        Verdict::Completed {
            outputs,
            worth,
            billed,
            meta,
        } => How::Completed {
            outputs: outputs.clone(),
            worth: *worth,
            billed: billed.clone(),
            meta: meta.clone(),
        },
        Verdict::Failed {
            error,
            detail,
            attempt_state,
        } => {
            // Anything else would leave an attempt alive whose generation is over.
            if *attempt_state == AttemptState::Rejected {
                attempt.state = AttemptState::Rejected;
            }
            attempt.detail = Some(detail.clone());
            How::Failed(error.clone())
        }
        Verdict::Cancelled => How::Cancelled,
    };
    Ending {
        subject,
        how,
        attempt: Some(attempt),
        actor: format!("worker {}", request.worker),
        now: request.now,
    }
}
