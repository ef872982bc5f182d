//! Between rows and domain values: ids and enums are text, JSON is text, times and credits are integers.

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::str::FromStr;

use super::error::Result;
use crate::clock::Micros;
use crate::generation::{Attempt, AttemptState, Event, EventKind, Generation, MediaType, PublicError, Status};
use crate::ledger::{Credits, LineType};
use crate::store::{Project, Role, StatementLine, User, Visibility};

/// A column as the driver gives it.
pub(super) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    Ok(row.try_get(column)?)
}

/// An id column.
pub(super) fn id<T: FromStr>(row: &SqliteRow, column: &str) -> Result<T> {
    parsed(row, column, |text| text.parse().ok())
}

/// An id column that may be null.
pub(super) fn optional_id<T: FromStr>(row: &SqliteRow, column: &str) -> Result<Option<T>> {
    match get::<Option<&str>>(row, column)? {
        None => Ok(None),
        Some(_) => id(row, column).map(Some),
    }
}

/// A text column with a fixed set of values.
pub(super) fn parsed<T>(row: &SqliteRow, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let text: &str = get(row, column)?;
    Ok(parse(text).ok_or_else(|| anyhow!("column {column} holds a value this program does not know: {text:?}"))?)
}

/// A JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T> {
    let text: &str = get(row, column)?;
    Ok(serde_json::from_str(text).with_context(|| format!("column {column} holds unexpected JSON"))?)
}

/// A time column.
pub(super) fn micros(row: &SqliteRow, column: &str) -> Result<Micros> {
    Ok(Micros(get(row, column)?))
}

/// A time column that may be null.
pub(super) fn optional_micros(row: &SqliteRow, column: &str) -> Result<Option<Micros>> {
    Ok(get::<Option<i64>>(row, column)?.map(Micros))
}

/// A credits column.
pub(super) fn credits(row: &SqliteRow, column: &str) -> Result<Credits> {
    Ok(Credits(get(row, column)?))
}

/// A count or another number that is never negative.
pub(super) fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<T> {
    let value: i64 = get(row, column)?;
    Ok(T::try_from(value).map_err(|_| anyhow!("column {column} is out of range: {value}"))?)
}

/// JSON text for a parameter or a column.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// `SELECT * FROM users`.
pub(super) fn user(row: &SqliteRow) -> Result<User> {
    Ok(User {
        id: id(row, "id")?,
        email: get(row, "email")?,
        password_hash: get(row, "password_hash")?,
        full_name: get(row, "full_name")?,
        display_name: get(row, "display_name")?,
        avatar_url: get(row, "avatar_url")?,
        role: parsed(row, "role", Role::parse)?,
        plan: get(row, "plan")?,
        created_at: micros(row, "created_at")?,
        updated_at: micros(row, "updated_at")?,
        last_sign_in_at: optional_micros(row, "last_sign_in_at")?,
    })
}

/// `SELECT * FROM projects` with `generation_count`.
pub(super) fn project(row: &SqliteRow) -> Result<Project> {
    Ok(Project {
        id: id(row, "id")?,
        user_id: id(row, "user_id")?,
        name: get(row, "name")?,
        description: get(row, "description")?,
        visibility: parsed(row, "visibility", Visibility::parse)?,
        tags: json(row, "tags")?,
        metadata: json(row, "metadata")?,
        generation_count: number(row, "generation_count")?,
        created_at: micros(row, "created_at")?,
        updated_at: micros(row, "updated_at")?,
    })
}

/// `SELECT * FROM statement_lines`.
pub(super) fn statement_line(row: &SqliteRow) -> Result<StatementLine> {
    Ok(StatementLine {
        id: id(row, "id")?,
        user_id: id(row, "user_id")?,
        line_type: parsed(row, "line_type", LineType::parse)?,
        amount: credits(row, "amount")?,
        balance_after: credits(row, "balance_after")?,
        description: get(row, "description")?,
        generation_id: optional_id(row, "generation_id")?,
        metadata: json(row, "metadata")?,
        created_at: micros(row, "created_at")?,
    })
}

/// `SELECT * FROM generations`.
pub(super) fn generation(row: &SqliteRow) -> Result<Generation> {
    let error = match (get(row, "error_code")?, get(row, "error_message")?) {
        (Some(code), Some(message)) => Some(PublicError { code, message }),
        _ => None,
    };
    Ok(Generation {
        id: id(row, "id")?,
        user_id: id(row, "user_id")?,
        project_id: optional_id(row, "project_id")?,
        model_id: get(row, "model_id")?,
        provider: get(row, "provider")?,
        media_type: parsed(row, "media_type", MediaType::parse)?,
        prompt: get(row, "prompt")?,
        negative_prompt: get(row, "negative_prompt")?,
        reference_image_url: get(row, "reference_image_url")?,
        parameters: json(row, "parameters")?,
        dropped_parameters: json(row, "dropped_parameters")?,
        provider_model: get(row, "provider_model")?,
        provider_input: get(row, "provider_input")?,
        price: credits(row, "price")?,
        price_basis: json(row, "price_basis")?,
        status: parsed(row, "status", Status::parse)?,
        cancel_requested: get(row, "cancel_requested")?,
        error,
        captured: get::<Option<i64>>(row, "captured")?.map(Credits),
        outputs: json(row, "outputs")?,
        progress_permille: match get::<Option<i64>>(row, "progress_permille")? {
            None => None,
            Some(_) => Some(number(row, "progress_permille")?),
        },
        is_favorite: get(row, "is_favorite")?,
        created_at: micros(row, "created_at")?,
        updated_at: micros(row, "updated_at")?,
        started_at: optional_micros(row, "started_at")?,
        completed_at: optional_micros(row, "completed_at")?,
    })
}

/// `SELECT * FROM attempts`.
pub(super) fn attempt(row: &SqliteRow) -> Result<Attempt> {
    Ok(Attempt {
        id: id(row, "id")?,
        generation_id: id(row, "generation_id")?,
        ordinal: number(row, "ordinal")?,
        provider: get(row, "provider")?,
        state: parsed(row, "state", AttemptState::parse)?,
        remote_id: get(row, "remote_id")?,
        plugin_state: get(row, "plugin_state")?,
        pending: json(row, "pending")?,
        steps: number(row, "steps")?,
        due_at: micros(row, "due_at")?,
        deadline_at: micros(row, "deadline_at")?,
        inbox: get(row, "inbox")?,
        created_at: micros(row, "created_at")?,
    })
}

/// `SELECT * FROM events`.
pub(super) fn event(row: &SqliteRow) -> Result<Event> {
    Ok(Event {
        seq: get(row, "seq")?,
        generation_id: id(row, "generation_id")?,
        kind: parsed(row, "kind", EventKind::parse)?,
        data: json(row, "data")?,
        created_at: micros(row, "created_at")?,
    })
}
