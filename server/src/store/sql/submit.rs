//! Submits: holds, generations, idempotency keys and `queued` events for a whole batch in a few statements.
//!
//! Requests are decided in the order of arrival. A request whose idempotency key was used, before or earlier in the same
//! batch, is answered with what that one made and changes nothing.

use async_trait::async_trait;
use serde::Serialize;
use std::collections::HashMap;

use super::books::{Books, Purpose};
use super::bulk::Bulk;
use super::conn::{Conn, Dialect, Row, Sql, args, sql};
use super::error::Result;
use super::events::{self, NewEvent};
use super::generations;
use super::rows::{self, fallbacks_to_json, to_json};
use super::writer::BulkWrite;
use crate::clock::Micros;
use crate::generation::{EventKind, Generation, Status};
use crate::id::{ApiKeyId, GenerationId, ProjectId, UserId};
use crate::ledger::{Balance, Credits};
use crate::store::{NewGeneration, Submitted};

/// What must be known of a request before it is decided.
#[derive(Serialize)]
struct Question<'a> {
    index: usize,
    user: UserId,
    project: Option<ProjectId>,
    key: Option<&'a str>,
    api_key: Option<ApiKeyId>,
}

/// What the database says to a question.
struct Known {
    account: Option<Balance>,
    /// Fingerprint and generation of the idempotency key.
    used: Option<(String, GenerationId)>,
    project_is_theirs: bool,
    suspended: bool,
    /// Of the API key: whether it is still good, and what it may still spend where it has a cap.
    api_key: Option<(bool, Option<Credits>)>,
}

/// How a request is decided.
enum Decision {
    New {
        available: Credits,
    },
    /// The same as an earlier request of this batch.
    SameAs(usize),
    Replay(GenerationId),
    KeyReused,
    Insufficient {
        available: Credits,
    },
    CapReached {
        remaining: Credits,
    },
    KeyEnded,
    Suspended,
    NoSuchProject,
    NoSuchUser,
}

#[derive(Serialize)]
struct GenerationRow<'a> {
    id: GenerationId,
    user_id: UserId,
    project_id: Option<ProjectId>,
    model_id: &'a str,
    provider: &'a str,
    media_type: &'static str,
    prompt: &'a str,
    negative_prompt: Option<&'a str>,
    reference_image_url: Option<&'a str>,
    parameters: String,
    dropped_parameters: String,
    provider_model: &'a str,
    provider_input: &'a str,
    fallbacks: Option<String>,
    price: Credits,
    price_basis: String,
    api_key_id: Option<ApiKeyId>,
    trace_context: Option<&'a str>,
    at: Micros,
}

#[derive(Serialize)]
struct KeyRow<'a> {
    user_id: UserId,
    key: &'a str,
    fingerprint: &'a str,
    generation_id: GenerationId,
    at: Micros,
}

#[async_trait]
impl BulkWrite for NewGeneration {
    type Out = Submitted;

    async fn apply_all(conn: &mut Conn<'_>, requests: &[&Self]) -> Result<Vec<Submitted>> {
        let known = ask(conn, requests).await?;
        let accounts = requests
            .iter()
            .zip(&known)
            .filter_map(|(r, k)| Some((r.user_id, k.account?)));
        let mut books = Books::with(accounts);
        for (request, known) in requests.iter().zip(&known) {
            if let (Some(id), Some((_, remaining))) = (request.api_key_id, known.api_key) {
                books.enter_key(id, remaining);
            }
        }
        let decisions = decide(requests, &known, &mut books)?;

        let new: Vec<&NewGeneration> = requests
            .iter()
            .zip(&decisions)
            .filter_map(|(&r, d)| matches!(d, Decision::New { .. }).then_some(r))
            .collect();
        let mut stored = HashMap::new();
        if !new.is_empty() {
            let mut bulks = bulks_of(&new)?;
            bulks.extend(books.into_bulks()?);
            let queued = new.iter().map(|r| NewEvent {
                generation_id: r.id,
                kind: EventKind::Queued,
                data: events::queued(),
                at: r.now,
            });
            stored = events::store_with(conn, &bulks, queued.collect()).await?;
        }
        let replayed = decisions.iter().filter_map(|d| match d {
            Decision::Replay(id) => Some(*id),
            _ => None,
        });
        let mut replayed = generations::by_ids(conn, replayed.collect()).await?;

        requests
            .iter()
            .zip(&decisions)
            .map(|(request, decision)| {
                Ok(match decision {
                    Decision::New { available } => Submitted::New {
                        generation: Box::new(as_stored(request)),
                        event: stored
                            .remove(&request.id)
                            .ok_or_else(|| anyhow::anyhow!("generation {} has no queued event", request.id))?,
                        available: *available,
                    },
                    Decision::SameAs(index) => Submitted::Replayed(Box::new(as_stored(requests[*index]))),
                    Decision::Replay(id) => Submitted::Replayed(Box::new(
                        replayed
                            .get_mut(id)
                            .cloned()
                            .ok_or_else(|| anyhow::anyhow!("generation {id} has a key but no row"))?,
                    )),
                    Decision::KeyReused => Submitted::KeyReused,
                    Decision::Insufficient { available } => Submitted::Insufficient {
                        required: request.price,
                        available: *available,
                    },
                    Decision::CapReached { remaining } => Submitted::CapReached {
                        required: request.price,
                        remaining: *remaining,
                    },
                    Decision::KeyEnded => Submitted::KeyEnded,
                    Decision::Suspended => Submitted::Suspended,
                    Decision::NoSuchProject => Submitted::NoSuchProject,
                    Decision::NoSuchUser => Submitted::NoSuchUser,
                })
            })
            .collect()
    }
}

/// In PostgreSQL the accounts are locked in the order of their ids, so that parallel batches spend one after the other. Keys
/// and projects are read as of the beginning of the statement: what another transaction wrote while this one waited for a
/// lock is refused by the constraints, and the request is tried again. Keys are looked up one by one (the limit keeps the
/// planner from joining): the plan of this statement is kept, and one that was made while the table was small would read
/// all of it for every batch until the next ANALYZE.
const ASK: Sql = sql!(
    sqlite: "SELECT a.user_id AS account, a.balance, a.held, a.debt, k.fingerprint, k.generation_id, \
        (j.value->>'project' IS NULL OR EXISTS (SELECT 1 FROM projects AS p \
         WHERE p.id = j.value->>'project' AND p.user_id = j.value->>'user')) AS project_is_theirs, \
        (SELECT u.suspended_at IS NOT NULL OR u.deleted_at IS NOT NULL FROM users AS u \
         WHERE u.id = j.value->>'user') AS suspended, \
        i.id AS api_key, i.spending_cap, i.spent, i.revoked_at, i.expires_at \
        FROM json_each($1) AS j \
        LEFT JOIN api_keys AS i ON i.id = j.value->>'api_key' AND i.user_id = j.value->>'user' \
        LEFT JOIN accounts AS a ON a.id = j.value->>'user' \
        LEFT JOIN idempotency_keys AS k ON k.user_id = j.value->>'user' AND k.key = j.value->>'key' \
        ORDER BY j.key",
    postgres: "WITH j AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) \
         AS j (index bigint, \"user\" uuid, project uuid, key text, api_key uuid)), \
        a AS MATERIALIZED (SELECT user_id, balance, held, debt FROM accounts \
         WHERE id IN (SELECT \"user\"::text FROM j) ORDER BY id FOR NO KEY UPDATE) \
        SELECT a.user_id AS account, a.balance, a.held, a.debt, k.fingerprint, k.generation_id, \
        (j.project IS NULL OR (SELECT p.user_id = j.\"user\" FROM projects AS p WHERE p.id = j.project) IS TRUE) \
         AS project_is_theirs, \
        (SELECT u.suspended_at IS NOT NULL OR u.deleted_at IS NOT NULL FROM users AS u WHERE u.id = j.\"user\") AS suspended, \
        p.id AS api_key, p.spending_cap, p.spent, p.revoked_at, p.expires_at \
        FROM j LEFT JOIN a ON a.user_id = j.\"user\" \
        LEFT JOIN LATERAL (SELECT i.fingerprint, i.generation_id FROM idempotency_keys AS i \
         WHERE i.user_id = j.\"user\" AND i.key = j.key LIMIT 1) AS k ON true \
        LEFT JOIN LATERAL (SELECT i.id, i.spending_cap, i.spent, i.revoked_at, i.expires_at FROM api_keys AS i \
         WHERE i.id = j.api_key AND i.user_id = j.\"user\" LIMIT 1) AS p ON true ORDER BY j.index",
);

const LOCK_ACCOUNTS: Sql = sql!(
    sqlite: "",
    postgres: "SELECT 1 FROM accounts WHERE id IN (SELECT \"user\" FROM json_to_recordset($1::json) AS j (\"user\" text)) \
        ORDER BY id FOR NO KEY UPDATE",
);

/// One look at everything the decisions need.
async fn ask(conn: &mut Conn<'_>, requests: &[&NewGeneration]) -> Result<Vec<Known>> {
    let questions: Vec<Question<'_>> = requests
        .iter()
        .enumerate()
        .map(|(index, r)| Question {
            index,
            user: r.user_id,
            project: r.project_id,
            key: r.idempotency.as_ref().map(|k| k.key.as_str()),
            api_key: r.api_key_id,
        })
        .collect();
    let questions = to_json(&questions)?;
    let looks_back = |r: &&NewGeneration| r.idempotency.is_some() || r.api_key_id.is_some();
    if conn.dialect() == Dialect::Postgres && requests.iter().any(looks_back) {
        // Locked by a statement of its own, so that the next one sees the keys of whoever was faster, and what an API key has
        // spent: that is only written under this lock. A client that repeats itself at two processes at once would undo a
        // whole batch.
        conn.all(LOCK_ACCOUNTS, args![&questions]).await?;
    }
    let rows = conn.all(ASK, args![&questions]).await?;
    if rows.len() != requests.len() {
        return Err(anyhow::anyhow!("{} questions got {} answers", requests.len(), rows.len()).into());
    }
    rows.iter()
        .zip(requests)
        .map(|(row, request)| {
            let account = match row.optional_id::<UserId>("account")? {
                None => None,
                Some(_) => Some(rows::balance(row)?),
            };
            let used = match row.get::<Option<String>>("fingerprint")? {
                None => None,
                Some(fingerprint) => Some((fingerprint, row.id("generation_id")?)),
            };
            Ok(Known {
                account,
                used,
                project_is_theirs: row.get("project_is_theirs")?,
                suspended: row.get::<Option<bool>>("suspended")?.unwrap_or(false),
                api_key: api_key(row, request.now)?,
            })
        })
        .collect()
}

/// Whether the API key is good at `now`, and what it may still spend; `None` without one.
fn api_key(row: &Row, now: Micros) -> Result<Option<(bool, Option<Credits>)>> {
    if row.optional_id::<ApiKeyId>("api_key")?.is_none() {
        return Ok(None);
    }
    let ended = row.optional_micros("revoked_at")?.is_some()
        || row
            .optional_micros("expires_at")?
            .is_some_and(|expires_at| expires_at <= now);
    let cap = row.get::<Option<i64>>("spending_cap")?;
    let spent = row.credits("spent")?;
    Ok(Some((!ended, cap.map(|cap| Credits(cap) - spent))))
}

/// Decides in order of arrival and books the holds of what is accepted.
fn decide(requests: &[&NewGeneration], known: &[Known], books: &mut Books) -> Result<Vec<Decision>> {
    let mut keys: HashMap<(UserId, &str), usize> = HashMap::new();
    let mut decisions = Vec::with_capacity(requests.len());
    for (index, (&request, known)) in requests.iter().zip(known).enumerate() {
        decisions.push(decide_one(requests, index, known, &keys, books)?);
        if let (Some(Decision::New { .. }), Some(key)) = (decisions.last(), &request.idempotency) {
            keys.insert((request.user_id, &key.key), index);
        }
    }
    Ok(decisions)
}

fn decide_one(
    requests: &[&NewGeneration],
    index: usize,
    known: &Known,
    keys: &HashMap<(UserId, &str), usize>,
    books: &mut Books,
) -> Result<Decision> {
    let request = requests[index];
    let Some(available) = books.available(request.user_id) else {
        return Ok(Decision::NoSuchUser);
    };
    if let Some(key) = &request.idempotency {
        if let Some((fingerprint, id)) = &known.used {
            let same = *fingerprint == key.fingerprint;
            return Ok(if same {
                Decision::Replay(*id)
            } else {
                Decision::KeyReused
            });
        }
        if let Some(&earlier) = keys.get(&(request.user_id, key.key.as_str())) {
            let same = requests[earlier].idempotency.as_ref() == Some(key);
            return Ok(if same {
                Decision::SameAs(earlier)
            } else {
                Decision::KeyReused
            });
        }
    }
    if known.suspended {
        return Ok(Decision::Suspended);
    }
    if let Some(key) = request.api_key_id {
        if !matches!(known.api_key, Some((true, _))) {
            return Ok(Decision::KeyEnded);
        }
        if let Some(remaining) = books.remaining(key).filter(|&left| left < request.price) {
            return Ok(Decision::CapReached { remaining });
        }
    }
    if !known.project_is_theirs {
        return Ok(Decision::NoSuchProject);
    }
    let purpose = Purpose {
        generation_id: request.id,
        model_id: &request.model_id,
        api_key_id: request.api_key_id,
    };
    if !books.hold(request.user_id, purpose, request.price, request.now)? {
        return Ok(Decision::Insufficient { available });
    }
    Ok(Decision::New {
        available: available - request.price,
    })
}

const INSERT_GENERATIONS: Sql = sql!(
    sqlite: "INSERT INTO generations (id, user_id, project_id, model_id, provider, media_type, prompt, negative_prompt, \
        reference_image_url, parameters, dropped_parameters, provider_model, provider_input, fallbacks, price, \
        price_basis, status, api_key_id, trace_context, created_at, updated_at) \
        SELECT value->>'id', value->>'user_id', value->>'project_id', value->>'model_id', value->>'provider', \
        value->>'media_type', value->>'prompt', value->>'negative_prompt', value->>'reference_image_url', \
        value->>'parameters', value->>'dropped_parameters', value->>'provider_model', value->>'provider_input', \
        value->>'fallbacks', value->>'price', value->>'price_basis', 'queued', value->>'api_key_id', \
        value->>'trace_context', value->>'at', value->>'at' FROM json_each($1)",
    postgres: "INSERT INTO generations (id, user_id, project_id, model_id, provider, media_type, prompt, negative_prompt, \
        reference_image_url, parameters, dropped_parameters, provider_model, provider_input, fallbacks, price, \
        price_basis, status, api_key_id, trace_context, created_at, updated_at) \
        SELECT id, user_id, project_id, model_id, provider, media_type, prompt, negative_prompt, reference_image_url, \
        parameters::jsonb, dropped_parameters::jsonb, provider_model, provider_input, fallbacks::jsonb, price, \
        price_basis::jsonb, 'queued', api_key_id, trace_context, velro_time(at), velro_time(at) FROM json_to_recordset($1::json) AS j (id uuid, user_id uuid, \
        project_id uuid, model_id text, provider text, media_type text, prompt text, negative_prompt text, \
        reference_image_url text, parameters text, dropped_parameters text, provider_model text, provider_input text, \
        fallbacks text, price bigint, price_basis text, api_key_id uuid, trace_context text, at bigint)",
);

const INSERT_KEYS: Sql = sql!(
    sqlite: "INSERT INTO idempotency_keys (user_id, key, fingerprint, generation_id, created_at) \
        SELECT value->>'user_id', value->>'key', value->>'fingerprint', value->>'generation_id', value->>'at' \
        FROM json_each($1)",
    postgres: "INSERT INTO idempotency_keys (user_id, key, fingerprint, generation_id, created_at) \
        SELECT user_id, key, fingerprint, generation_id, velro_time(at) FROM json_to_recordset($1::json) \
        AS j (user_id uuid, key text, fingerprint text, generation_id uuid, at bigint)",
);

/// Rows of accepted requests and their keys.
fn bulks_of(new: &[&NewGeneration]) -> Result<Vec<Bulk>> {
    let rows = new
        .iter()
        .map(|r| {
            Ok(GenerationRow {
                id: r.id,
                user_id: r.user_id,
                project_id: r.project_id,
                model_id: &r.model_id,
                provider: &r.provider,
                media_type: r.media_type.as_str(),
                prompt: &r.prompt,
                negative_prompt: r.negative_prompt.as_deref(),
                reference_image_url: r.reference_image_url.as_deref(),
                parameters: to_json(&r.parameters)?,
                dropped_parameters: to_json(&r.dropped_parameters)?,
                provider_model: &r.provider_model,
                provider_input: &r.provider_input,
                fallbacks: fallbacks_to_json(&r.fallbacks)?,
                price: r.price,
                price_basis: to_json(&r.price_basis)?,
                api_key_id: r.api_key_id,
                trace_context: r.trace_context.as_deref(),
                at: r.now,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let keys: Vec<KeyRow<'_>> = new
        .iter()
        .filter_map(|r| {
            let key = r.idempotency.as_ref()?;
            Some(KeyRow {
                user_id: r.user_id,
                key: &key.key,
                fingerprint: &key.fingerprint,
                generation_id: r.id,
                at: r.now,
            })
        })
        .collect();
    let bulks = [Bulk::of(INSERT_GENERATIONS, &rows)?, Bulk::of(INSERT_KEYS, &keys)?];
    Ok(bulks.into_iter().flatten().collect())
}

/// The generation as the row just written says.
fn as_stored(r: &NewGeneration) -> Generation {
    Generation {
        id: r.id,
        user_id: r.user_id,
        project_id: r.project_id,
        model_id: r.model_id.clone(),
        provider: r.provider.clone(),
        media_type: r.media_type,
        prompt: r.prompt.clone(),
        negative_prompt: r.negative_prompt.clone(),
        reference_image_url: r.reference_image_url.clone(),
        parameters: r.parameters.clone(),
        dropped_parameters: r.dropped_parameters.clone(),
        provider_model: r.provider_model.clone(),
        provider_input: r.provider_input.clone(),
        fallbacks: r.fallbacks.clone(),
        price: r.price,
        price_basis: r.price_basis.clone(),
        status: Status::Queued,
        cancel_requested: false,
        error: None,
        captured: None,
        refunded: Credits::ZERO,
        outputs: Vec::new(),
        progress_permille: None,
        is_favorite: false,
        created_at: r.now,
        updated_at: r.now,
        started_at: None,
        completed_at: None,
        api_key_id: r.api_key_id,
        trace_context: r.trace_context.clone(),
    }
}
