//! Between rows and domain values.

use serde::Serialize;

use super::conn::Row;
use super::error::Result;
use crate::generation::{Attempt, AttemptState, Event, EventKind, Generation, MediaType, PublicError, Route, Status};
use crate::ledger::{Balance, Credits, LineType};
use crate::purchase::{Currency, Money, Order, OrderStatus, Payment};
use crate::store::{ApiKey, Project, Role, StatementLine, User, Visibility};

/// JSON text for a parameter or a column, without NUL: see [`without_nul`].
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    Ok(json_without_nul(serde_json::to_string(value)?))
}

/// The column `fallbacks`: null when there are none.
pub(super) fn fallbacks_to_json(routes: &[Route]) -> Result<Option<String>> {
    (!routes.is_empty()).then(|| to_json(routes)).transpose()
}

/// PostgreSQL's text cannot hold a NUL. Clients are told so; what a provider says must not stop a settlement.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same in JSON text, where a NUL is written `\u0000`, and that text itself `\\u0000`. Twice encoded JSON, as in a bulk
/// row, has been cleaned when it was encoded the first time.
fn json_without_nul(json: String) -> String {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return json;
    }
    let mut clean = String::with_capacity(json.len());
    let mut rest = json.as_str();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        clean.push_str(before);
        let length = if escape.starts_with(NUL) { NUL.len() } else { 2 };
        let (escape, after) = escape.split_at(length);
        clean.push_str(if escape == NUL { "\\ufffd" } else { escape });
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// The columns that the functions below read, after `SELECT` or `RETURNING`, each with a prefix (`"g."` or none).
///
/// Never `*`: a newer version may add a column while this one runs, and PostgreSQL refuses a prepared statement whose
/// result has another shape than before.
macro_rules! columns {
    (users $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "email", "password_hash", "full_name", "display_name",
            "avatar_url", "role", "plan", "created_at", "updated_at", "last_sign_in_at",
            "suspended_at", "suspended_reason", "deleted_at")
    };
    (projects $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "user_id", "name", "description", "visibility", "tags",
            "metadata", "created_at", "updated_at")
    };
    (statement_lines $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "user_id", "line_type", "amount", "balance_after",
            "description", "generation_id", "metadata", "created_at")
    };
    (generations $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "user_id", "project_id", "model_id", "provider", "media_type",
            "prompt", "negative_prompt", "reference_image_url", "parameters", "dropped_parameters", "provider_model",
            "provider_input", "fallbacks", "price", "price_basis", "status", "cancel_requested", "error_code", "error_message",
            "captured", "outputs", "progress_permille", "is_favorite", "created_at", "updated_at", "started_at",
            "completed_at", "api_key_id", "trace_context")
    };
    (attempts $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "generation_id", "ordinal", "provider", "state", "remote_id",
            "plugin_state", "pending", "steps", "due_at", "deadline_at", "inbox", "created_at")
    };
    (api_keys $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "user_id", "name", "hint", "scopes", "models", "spending_cap",
            "spent", "created_at", "updated_at", "expires_at", "revoked_at", "last_used_at")
    };
    (orders $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "user_id", "package_id", "credits", "amount_minor", "currency",
            "payment", "livemode", "status", "session_id", "payment_intent", "checkout_url", "reversed", "trouble",
            "idempotency_key", "created_at", "updated_at", "expires_at", "paid_at")
    };
    (audit $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "seq", "actor", "action", "subject", "reason", "details", "created_at")
    };
    (redeem_codes $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "id", "hint", "credits", "max_uses", "uses", "per_user_limit", "note",
            "created_by", "created_at", "expires_at", "disabled_at")
    };
    (events $prefix:literal) => {
        $crate::store::sql::rows::prefixed!($prefix: "seq", "generation_id", "kind", "data", "created_at")
    };
}
pub(super) use columns;

/// A column `refunded` for a statement over `generations`: what was given back of the charge. One look into a small index,
/// and none for what was not charged.
macro_rules! refunded {
    () => {
        ", CASE WHEN generations.captured > 0 THEN coalesce((SELECT CAST(sum(t.amount) AS bigint) FROM transfers AS t \
         WHERE t.generation_id = generations.id AND t.kind = 'refund'), 0) ELSE 0 END AS refunded"
    };
}
pub(super) use refunded;

/// Names with commas between, each behind a prefix.
macro_rules! prefixed {
    ($prefix:literal: $first:literal $(, $name:literal)*) => { concat!($prefix, $first $(, ", ", $prefix, $name)*) };
}
pub(super) use prefixed;

/// `columns!(users)`.
pub(super) fn user(row: &Row) -> Result<User> {
    Ok(User {
        id: row.id("id")?,
        email: row.get("email")?,
        password_hash: row.get("password_hash")?,
        full_name: row.get("full_name")?,
        display_name: row.get("display_name")?,
        avatar_url: row.get("avatar_url")?,
        role: row.parsed("role", Role::parse)?,
        plan: row.get("plan")?,
        created_at: row.micros("created_at")?,
        updated_at: row.micros("updated_at")?,
        last_sign_in_at: row.optional_micros("last_sign_in_at")?,
        suspended_at: row.optional_micros("suspended_at")?,
        suspended_reason: row.get("suspended_reason")?,
        deleted_at: row.optional_micros("deleted_at")?,
    })
}

/// `balance`, `held` and `debt` of an account.
pub(super) fn balance(row: &Row) -> Result<Balance> {
    Ok(Balance {
        balance: row.credits("balance")?,
        held: row.credits("held")?,
        debt: row.credits("debt")?,
    })
}

/// `columns!(projects)` with `generation_count`.
pub(super) fn project(row: &Row) -> Result<Project> {
    Ok(Project {
        id: row.id("id")?,
        user_id: row.id("user_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        visibility: row.parsed("visibility", Visibility::parse)?,
        tags: row.json("tags")?,
        metadata: row.json("metadata")?,
        generation_count: row.number("generation_count")?,
        created_at: row.micros("created_at")?,
        updated_at: row.micros("updated_at")?,
    })
}

/// `columns!(statement_lines)`.
pub(super) fn statement_line(row: &Row) -> Result<StatementLine> {
    Ok(StatementLine {
        id: row.id("id")?,
        user_id: row.id("user_id")?,
        line_type: row.parsed("line_type", LineType::parse)?,
        amount: row.credits("amount")?,
        balance_after: row.credits("balance_after")?,
        description: row.get("description")?,
        generation_id: row.optional_id("generation_id")?,
        metadata: row.json("metadata")?,
        created_at: row.micros("created_at")?,
    })
}

/// `columns!(generations)`.
pub(super) fn generation(row: &Row) -> Result<Generation> {
    let error = match (row.get("error_code")?, row.get("error_message")?) {
        (Some(code), Some(message)) => Some(PublicError { code, message }),
        _ => None,
    };
    Ok(Generation {
        id: row.id("id")?,
        user_id: row.id("user_id")?,
        project_id: row.optional_id("project_id")?,
        model_id: row.get("model_id")?,
        provider: row.get("provider")?,
        media_type: row.parsed("media_type", MediaType::parse)?,
        prompt: row.get("prompt")?,
        negative_prompt: row.get("negative_prompt")?,
        reference_image_url: row.get("reference_image_url")?,
        parameters: row.json("parameters")?,
        dropped_parameters: row.json("dropped_parameters")?,
        provider_model: row.get("provider_model")?,
        provider_input: row.get("provider_input")?,
        fallbacks: row.optional_json("fallbacks")?.unwrap_or_default(),
        price: row.credits("price")?,
        price_basis: row.json("price_basis")?,
        status: row.parsed("status", Status::parse)?,
        cancel_requested: row.get("cancel_requested")?,
        error,
        captured: row.get::<Option<i64>>("captured")?.map(Credits),
        refunded: Credits::ZERO,
        outputs: row.json("outputs")?,
        progress_permille: match row.get::<Option<i64>>("progress_permille")? {
            None => None,
            Some(_) => Some(row.number("progress_permille")?),
        },
        is_favorite: row.get("is_favorite")?,
        created_at: row.micros("created_at")?,
        updated_at: row.micros("updated_at")?,
        started_at: row.optional_micros("started_at")?,
        completed_at: row.optional_micros("completed_at")?,
        api_key_id: row.optional_id("api_key_id")?,
        trace_context: row.get("trace_context")?,
    })
}

/// `columns!(generations)` with [`refunded!`].
pub(super) fn generation_with_refund(row: &Row) -> Result<Generation> {
    Ok(Generation {
        refunded: row.credits("refunded")?,
        ..generation(row)?
    })
}

/// `columns!(attempts)`.
pub(super) fn attempt(row: &Row) -> Result<Attempt> {
    Ok(Attempt {
        id: row.id("id")?,
        generation_id: row.id("generation_id")?,
        ordinal: row.number("ordinal")?,
        provider: row.get("provider")?,
        state: row.parsed("state", AttemptState::parse)?,
        remote_id: row.get("remote_id")?,
        plugin_state: row.get("plugin_state")?,
        pending: row.json("pending")?,
        steps: row.number("steps")?,
        due_at: row.micros("due_at")?,
        deadline_at: row.micros("deadline_at")?,
        inbox: row.get("inbox")?,
        created_at: row.micros("created_at")?,
    })
}

/// `columns!(api_keys)`.
pub(super) fn api_key(row: &Row) -> Result<ApiKey> {
    Ok(ApiKey {
        id: row.id("id")?,
        user_id: row.id("user_id")?,
        name: row.get("name")?,
        hint: row.get("hint")?,
        scopes: row.json("scopes")?,
        models: row.optional_json("models")?,
        spending_cap: row.get::<Option<i64>>("spending_cap")?.map(Credits),
        spent: row.credits("spent")?,
        created_at: row.micros("created_at")?,
        updated_at: row.micros("updated_at")?,
        expires_at: row.optional_micros("expires_at")?,
        revoked_at: row.optional_micros("revoked_at")?,
        last_used_at: row.optional_micros("last_used_at")?,
    })
}

/// `columns!(orders)`.
pub(super) fn order(row: &Row) -> Result<Order> {
    Ok(Order {
        id: row.id("id")?,
        user_id: row.id("user_id")?,
        package_id: row.get("package_id")?,
        credits: row.credits("credits")?,
        price: Money {
            amount_minor: row.get("amount_minor")?,
            currency: row.parsed("currency", Currency::parse)?,
        },
        payment: row.parsed("payment", Payment::parse)?,
        livemode: row.get("livemode")?,
        status: row.parsed("status", OrderStatus::parse)?,
        session_id: row.get("session_id")?,
        payment_intent: row.get("payment_intent")?,
        checkout_url: row.get("checkout_url")?,
        reversed: row.credits("reversed")?,
        trouble: row.get("trouble")?,
        idempotency_key: row.get("idempotency_key")?,
        created_at: row.micros("created_at")?,
        updated_at: row.micros("updated_at")?,
        expires_at: row.optional_micros("expires_at")?,
        paid_at: row.optional_micros("paid_at")?,
    })
}

/// `columns!(events)`.
pub(super) fn event(row: &Row) -> Result<Event> {
    Ok(Event {
        seq: row.get("seq")?,
        generation_id: row.id("generation_id")?,
        kind: row.parsed("kind", EventKind::parse)?,
        data: row.json("data")?,
        created_at: row.micros("created_at")?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What another version of the schema may add must not change what a statement answers.
    #[test]
    fn no_statement_asks_for_whatever_columns_there_are() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut found = Vec::new();
        for file in files.filter(|file| file.extension().is_some_and(|e| e == "rs")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            // An array of rows has the columns that the statement itself names.
            let lines = lines.map(|line| line.replace("(SELECT * FROM json_to_recordset", ""));
            let asks = |line: &String| {
                [" *", ".*"].iter().any(|star| line.contains(&format!("SELECT{star}")))
                    || line.contains(&format!("RETURNING{}", " *"))
                    || ["g", "p", "e", "a"]
                        .iter()
                        .any(|alias| line.contains(&format!(" {alias}.{}", "*")))
            };
            found.extend(lines.filter(asks));
        }
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_nul_is_replaced_and_nothing_else() {
        let value = json!({"a\0": ["x\0y", "\\u0000", "\\\0", "\"\n\u{1}", "é"], "plain": "\\"});
        let back: Value = serde_json::from_str(&to_json(&value).unwrap()).unwrap();
        let expected = json!({
            "a\u{fffd}": ["x\u{fffd}y", "\\u0000", "\\\u{fffd}", "\"\n\u{1}", "é"], "plain": "\\",
        });
        assert_eq!(back, expected);
    }
}
