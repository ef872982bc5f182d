//! Generations as the operator sees them: of all users, with their attempts, and those that need a hand.

use std::collections::HashMap;

use super::audit;
use super::conn::{Conn, Row, args, sql};
use super::error::Result;
use super::rows::{self, columns, refunded, to_json};
use crate::generation::{Attempt, Status};
use crate::id::GenerationId;
use crate::store::{AttemptNote, Case, CaseFile, CaseFilter, Listed, Search};

/// A generation, what was given back of it, and whose it is.
macro_rules! case {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            columns!(generations "generations."),
            refunded!(),
            ", u.email FROM generations JOIN users AS u ON u.id = generations.user_id ",
            $rest
        )
    };
}

/// Newest first. Runs in a transaction.
pub(super) async fn list(conn: &mut Conn<'_>, filter: CaseFilter) -> Result<Listed<Case>> {
    let status = filter.status.map(Status::as_str);
    let sql = sql!(
        sqlite: case!("WHERE ($1 IS NULL OR generations.id < $1) AND ($2 IS NULL OR generations.user_id = $2) \
            AND ($3 IS NULL OR generations.status = $3) AND ($4 IS NULL OR generations.provider = $4) \
            AND ($5 IS NULL OR generations.model_id = $5) ORDER BY generations.id DESC LIMIT $6"),
        postgres: case!("WHERE ($1::uuid IS NULL OR generations.id < $1) AND ($2::uuid IS NULL OR generations.user_id = $2) \
            AND ($3::text IS NULL OR generations.status = $3) AND ($4::text IS NULL OR generations.provider = $4) \
            AND ($5::text IS NULL OR generations.model_id = $5) ORDER BY generations.id DESC LIMIT $6"),
    );
    let args = args![
        filter.after,
        filter.user_id,
        status,
        &filter.provider,
        &filter.model_id,
        filter.limit + 1,
    ];
    let rows = conn.all(sql, args).await?;
    cases(conn, rows, filter.limit).await
}

/// What may need a hand, oldest first. Runs in a transaction.
pub(super) async fn search(
    conn: &mut Conn<'_>,
    search: Search,
    after: Option<GenerationId>,
    limit: u32,
) -> Result<Listed<Case>> {
    let (sql, since) = match search {
        Search::Unknown => (
            sql!(
                sqlite: case!("JOIN attempts AS a ON a.generation_id = generations.id AND a.state = 'unknown' \
                    WHERE ($1 IS NULL OR generations.id > $1) AND $2 IS NULL ORDER BY generations.id LIMIT $3"),
                postgres: case!("JOIN attempts AS a ON a.generation_id = generations.id AND a.state = 'unknown' \
                    WHERE ($1::uuid IS NULL OR generations.id > $1) AND $2::timestamptz IS NULL \
                    ORDER BY generations.id LIMIT $3"),
            ),
            None,
        ),
        // What its owner has deleted, or erased by leaving, has no files any more, and nobody misses them.
        Search::Charged => (
            sql!(
                sqlite: case!("WHERE generations.status = 'completed' AND ($1 IS NULL OR generations.id > $1) \
                    AND $2 IS NULL AND generations.captured > 0 AND generations.deleted_at IS NULL \
                    AND generations.provider_input <> '' \
                    AND generations.captured > coalesce((SELECT sum(t.amount) FROM transfers AS t \
                     WHERE t.generation_id = generations.id AND t.kind = 'refund'), 0) ORDER BY generations.id LIMIT $3"),
                postgres: case!("WHERE generations.status = 'completed' AND ($1::uuid IS NULL OR generations.id > $1) \
                    AND $2::timestamptz IS NULL AND generations.captured > 0 AND generations.deleted_at IS NULL \
                    AND generations.provider_input <> '' \
                    AND generations.captured > coalesce((SELECT sum(t.amount) FROM transfers AS t \
                     WHERE t.generation_id = generations.id AND t.kind = 'refund'), 0) ORDER BY generations.id LIMIT $3"),
            ),
            None,
        ),
        Search::ChargedWithoutRecord => (
            sql!(
                sqlite: case!("WHERE generations.status = 'completed' AND ($1 IS NULL OR generations.id > $1) \
                    AND $2 IS NULL AND generations.captured > 0 AND generations.deleted_at IS NULL \
                    AND generations.provider_input <> '' \
                    AND generations.outputs = '[]' AND generations.captured > coalesce((SELECT sum(t.amount) \
                     FROM transfers AS t WHERE t.generation_id = generations.id AND t.kind = 'refund'), 0) \
                    ORDER BY generations.id LIMIT $3"),
                postgres: case!("WHERE generations.status = 'completed' AND ($1::uuid IS NULL OR generations.id > $1) \
                    AND $2::timestamptz IS NULL AND generations.captured > 0 AND generations.deleted_at IS NULL \
                    AND generations.provider_input <> '' \
                    AND generations.outputs = '[]'::jsonb AND generations.captured > coalesce((SELECT sum(t.amount) \
                     FROM transfers AS t WHERE t.generation_id = generations.id AND t.kind = 'refund'), 0) \
                    ORDER BY generations.id LIMIT $3"),
            ),
            None,
        ),
        Search::OpenSince(since) => (
            sql!(
                sqlite: case!("WHERE generations.status IN ('queued', 'processing') \
                    AND ($1 IS NULL OR generations.id > $1) AND generations.created_at < $2 \
                    AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.generation_id = generations.id \
                     AND a.state = 'unknown') ORDER BY generations.id LIMIT $3"),
                postgres: case!("WHERE generations.status IN ('queued', 'processing') \
                    AND ($1::uuid IS NULL OR generations.id > $1) AND generations.created_at < $2 \
                    AND NOT EXISTS (SELECT 1 FROM attempts AS a WHERE a.generation_id = generations.id \
                     AND a.state = 'unknown') ORDER BY generations.id LIMIT $3"),
            ),
            Some(since),
        ),
    };
    let rows = conn.all(sql, args![after, since, limit + 1]).await?;
    cases(conn, rows, limit).await
}

/// All that is known of one. Runs in a transaction.
pub(super) async fn file(conn: &mut Conn<'_>, id: GenerationId) -> Result<Option<CaseFile>> {
    let rows = conn.all(sql!(case!("WHERE generations.id = $1")), args![id]).await?;
    let Some(mut case) = cases(conn, rows, 1).await?.items.pop() else {
        return Ok(None);
    };
    let sql = sql!(concat!(
        "SELECT ",
        columns!(attempts ""),
        ", lease_owner, detail, updated_at FROM attempts WHERE generation_id = $1 ORDER BY ordinal"
    ));
    let rows = conn.all(sql, args![id]).await?;
    let attempts = rows.iter().map(note).collect::<Result<Vec<_>>>()?;
    case.attempt = attempts.last().map(|note| note.attempt.clone());
    let sql = sql!(concat!(
        "SELECT ",
        columns!(events ""),
        " FROM events WHERE generation_id = $1 ORDER BY seq LIMIT 500"
    ));
    let events = conn.all(sql, args![id]).await?;
    Ok(Some(CaseFile {
        case,
        attempts,
        audit: audit::of_subject(conn, &id.to_string()).await?,
        events: events.iter().map(rows::event).collect::<Result<_>>()?,
    }))
}

fn note(row: &Row) -> Result<AttemptNote> {
    Ok(AttemptNote {
        attempt: rows::attempt(row)?,
        lease_owner: row.get("lease_owner")?,
        detail: row.get("detail")?,
        updated_at: row.micros("updated_at")?,
    })
}

/// Rows of [`case!`] with the newest attempts, one statement for all of them.
async fn cases(conn: &mut Conn<'_>, rows: Vec<Row>, limit: u32) -> Result<Listed<Case>> {
    let cases = rows.iter().map(|row| {
        Ok(Case {
            generation: rows::generation_with_refund(row)?,
            email: row.get("email")?,
            attempt: None,
        })
    });
    let mut listed = Listed::of(cases.collect::<Result<Vec<_>>>()?, limit);
    let ids: Vec<GenerationId> = listed.items.iter().map(|case| case.generation.id).collect();
    if ids.is_empty() {
        return Ok(listed);
    }
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(attempts "a."), " FROM json_each($1) AS j \
            JOIN attempts AS a ON a.generation_id = j.value WHERE a.ordinal = \
            (SELECT max(o.ordinal) FROM attempts AS o WHERE o.generation_id = a.generation_id)"),
        postgres: concat!("SELECT ", columns!(attempts "a."), " FROM json_array_elements_text($1::json) AS j (id) \
            JOIN attempts AS a ON a.generation_id = j.id::uuid WHERE a.ordinal = \
            (SELECT max(o.ordinal) FROM attempts AS o WHERE o.generation_id = a.generation_id)"),
    );
    let rows = conn.all(sql, args![&to_json(&ids)?]).await?;
    let mut newest: HashMap<GenerationId, Attempt> = rows
        .iter()
        .map(|row| rows::attempt(row).map(|a| (a.generation_id, a)))
        .collect::<Result<_>>()?;
    for case in &mut listed.items {
        case.attempt = newest.remove(&case.generation.id);
    }
    Ok(listed)
}
