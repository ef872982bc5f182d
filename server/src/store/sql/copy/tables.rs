//! What is copied: every table with its columns, in an order in which each row finds what it refers to, and the statements
//! that follow from that.
//!
//! A column that a migration adds belongs here too; a test compares this with the schema. `leases` stay behind, and so do
//! the owners of attempts: whoever serves the copy takes the attempts over. So do the latest check of the books and the log
//! level: they are about the processes, and trying the copy must not count as using it.

use Kind::{Bytes, Flag, Id, Json, Number, Text, Time};

/// What a column holds: SQLite has text and integers for what has types of its own in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    Text,
    Number,
    Flag,
    Time,
    Json,
    Bytes,
}

/// What may have happened to the rows of a table since they were copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are as they were.
    Kept,
    /// They changed.
    Changed,
    /// They changed, or are gone. The key is a column `id`.
    ChangedOrGone,
}

/// A table.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The primary key.
    key: &'static [&'static str],
    /// Where no other order than that of the key is asked for by a constraint.
    order: Option<&'static str>,
    pub(super) fate: Fate,
    columns: &'static [(&'static str, Kind)],
}

const fn table(
    name: &'static str,
    key: &'static [&'static str],
    fate: Fate,
    columns: &'static [(&'static str, Kind)],
) -> Table {
    Table {
        name,
        key,
        order: None,
        fate,
        columns,
    }
}

/// All tables.
pub(super) const TABLES: &[Table] = &[
    table(
        "users",
        &["id"],
        Fate::Changed,
        &[
            ("id", Id),
            ("email", Text),
            ("password_hash", Text),
            ("full_name", Text),
            ("display_name", Text),
            ("avatar_url", Text),
            ("role", Text),
            ("plan", Text),
            ("created_at", Time),
            ("updated_at", Time),
            ("last_sign_in_at", Time),
            ("suspended_at", Time),
            ("suspended_reason", Text),
            ("deleted_at", Time),
            ("erased_at", Time),
        ],
    ),
    table(
        "sessions",
        &["id"],
        Fate::Changed,
        &[
            ("id", Id),
            ("user_id", Id),
            ("created_at", Time),
            ("revoked_at", Time),
            ("user_agent", Text),
            ("address", Text),
            ("last_used_at", Time),
        ],
    ),
    table(
        "refresh_tokens",
        &["hash"],
        Fate::Changed,
        &[
            ("hash", Text),
            ("session_id", Id),
            ("created_at", Time),
            ("expires_at", Time),
            ("used_at", Time),
        ],
    ),
    table(
        "projects",
        &["id"],
        Fate::ChangedOrGone,
        &[
            ("id", Id),
            ("user_id", Id),
            ("name", Text),
            ("description", Text),
            ("visibility", Text),
            ("tags", Json),
            ("metadata", Json),
            ("created_at", Time),
            ("updated_at", Time),
        ],
    ),
    table(
        "api_keys",
        &["id"],
        Fate::Changed,
        &[
            ("id", Id),
            ("user_id", Id),
            ("name", Text),
            ("hash", Text),
            ("hint", Text),
            ("scopes", Json),
            ("models", Json),
            ("spending_cap", Number),
            ("spent", Number),
            ("created_at", Time),
            ("updated_at", Time),
            ("expires_at", Time),
            ("revoked_at", Time),
            ("last_used_at", Time),
        ],
    ),
    table(
        "generations",
        &["id"],
        Fate::Changed,
        &[
            ("id", Id),
            ("user_id", Id),
            ("project_id", Id),
            ("model_id", Text),
            ("provider", Text),
            ("media_type", Text),
            ("prompt", Text),
            ("negative_prompt", Text),
            ("reference_image_url", Text),
            ("parameters", Json),
            ("dropped_parameters", Json),
            ("provider_model", Text),
            ("provider_input", Text),
            ("fallbacks", Json),
            ("price", Number),
            ("price_basis", Json),
            ("status", Text),
            ("cancel_requested", Flag),
            ("error_code", Text),
            ("error_message", Text),
            ("captured", Number),
            ("outputs", Json),
            ("progress_permille", Number),
            ("billed", Json),
            ("result_meta", Json),
            ("is_favorite", Flag),
            ("created_at", Time),
            ("updated_at", Time),
            ("started_at", Time),
            ("completed_at", Time),
            ("deleted_at", Time),
            ("api_key_id", Id),
            ("trace_context", Text),
        ],
    ),
    table(
        "idempotency_keys",
        &["user_id", "key"],
        Fate::Changed,
        &[
            ("user_id", Id),
            ("key", Text),
            ("fingerprint", Text),
            ("generation_id", Id),
            ("created_at", Time),
        ],
    ),
    table(
        "events",
        &["seq"],
        Fate::Changed,
        &[
            ("seq", Number),
            ("generation_id", Id),
            ("kind", Text),
            ("data", Json),
            ("created_at", Time),
        ],
    ),
    Table {
        name: "attempts",
        key: &["id"],
        // One of a generation goes on: the one before must have ended when the next one arrives.
        order: Some("generation_id, ordinal"),
        fate: Fate::Changed,
        columns: &[
            ("id", Id),
            ("generation_id", Id),
            ("ordinal", Number),
            ("provider", Text),
            ("state", Text),
            ("remote_id", Text),
            ("plugin_state", Bytes),
            ("pending", Json),
            ("steps", Number),
            ("due_at", Time),
            ("deadline_at", Time),
            ("inbox", Bytes),
            ("detail", Text),
            ("created_at", Time),
            ("updated_at", Time),
        ],
    },
    table(
        "accounts",
        &["id"],
        Fate::Changed,
        &[
            ("id", Text),
            ("user_id", Id),
            ("balance", Number),
            ("held", Number),
            ("debt", Number),
        ],
    ),
    table(
        "orders",
        &["id"],
        Fate::Changed,
        &[
            ("id", Id),
            ("user_id", Id),
            ("package_id", Text),
            ("credits", Number),
            ("amount_minor", Number),
            ("currency", Text),
            ("payment", Text),
            ("livemode", Flag),
            ("status", Text),
            ("session_id", Text),
            ("payment_intent", Text),
            ("checkout_url", Text),
            ("reversed", Number),
            ("trouble", Text),
            ("idempotency_key", Text),
            ("fingerprint", Text),
            ("created_at", Time),
            ("updated_at", Time),
            ("expires_at", Time),
            ("paid_at", Time),
        ],
    ),
    table(
        "payment_events",
        &["id"],
        Fate::Changed,
        &[
            ("id", Text),
            ("kind", Text),
            ("order_id", Id),
            ("outcome", Text),
            ("created_at", Time),
            ("received_at", Time),
        ],
    ),
    table(
        "payment_reversals",
        &["id"],
        Fate::Changed,
        &[
            ("id", Text),
            ("payment_intent", Text),
            ("kind", Text),
            ("amount_minor", Number),
            ("currency", Text),
            ("state", Text),
            ("created_at", Time),
            ("updated_at", Time),
        ],
    ),
    table(
        "transfers",
        &["id"],
        Fate::Kept,
        &[
            ("id", Id),
            ("kind", Text),
            ("from_account", Text),
            ("to_account", Text),
            ("amount", Number),
            ("generation_id", Id),
            ("order_id", Id),
            ("reason", Text),
            ("actor", Text),
            ("idempotency_key", Text),
            ("created_at", Time),
        ],
    ),
    table(
        "holds",
        &["generation_id"],
        Fate::Kept,
        &[
            ("generation_id", Id),
            ("account_id", Text),
            ("amount", Number),
            ("created_at", Time),
        ],
    ),
    table(
        "settlements",
        &["generation_id"],
        Fate::Kept,
        &[
            ("generation_id", Id),
            ("account_id", Text),
            ("captured", Number),
            ("released", Number),
            ("actor", Text),
            ("created_at", Time),
        ],
    ),
    table(
        "statement_lines",
        &["seq"],
        Fate::Kept,
        &[
            ("seq", Number),
            ("id", Id),
            ("user_id", Id),
            ("line_type", Text),
            ("amount", Number),
            ("balance_after", Number),
            ("description", Text),
            ("generation_id", Id),
            ("metadata", Json),
            ("created_at", Time),
        ],
    ),
    table(
        "redeem_codes",
        &["id"],
        Fate::Changed,
        &[
            ("id", Id),
            ("hash", Text),
            ("hint", Text),
            ("credits", Number),
            ("max_uses", Number),
            ("uses", Number),
            ("per_user_limit", Number),
            ("note", Text),
            ("created_by", Text),
            ("created_at", Time),
            ("expires_at", Time),
            ("disabled_at", Time),
        ],
    ),
    table(
        "redemptions",
        &["code_id", "user_id", "ordinal"],
        Fate::Kept,
        &[
            ("code_id", Id),
            ("user_id", Id),
            ("ordinal", Number),
            ("credits", Number),
            ("created_at", Time),
        ],
    ),
    table(
        "pauses",
        &["scope"],
        Fate::Changed,
        &[
            ("scope", Text),
            ("mode", Text),
            ("reason", Text),
            ("actor", Text),
            ("created_at", Time),
        ],
    ),
    table(
        "audit",
        &["seq"],
        Fate::Kept,
        &[
            ("seq", Number),
            ("actor", Text),
            ("action", Text),
            ("subject", Text),
            ("reason", Text),
            ("details", Json),
            ("created_at", Time),
        ],
    ),
];

impl Table {
    /// True when its rows are numbered by a counter of the database.
    pub(super) fn is_counted(&self) -> bool {
        self.key == ["seq"]
    }

    /// SQLite: every row as a JSON object, in order.
    pub(super) fn read(&self) -> String {
        let members: Vec<String> = self.columns.iter().map(|(name, kind)| member(name, *kind)).collect();
        let order = self.order.map_or_else(|| quoted(self.key), str::to_owned);
        let (members, name) = (members.join(", "), self.name);
        format!("SELECT json_object({members}) FROM {name} ORDER BY {order}")
    }

    /// Either database: how many rows.
    pub(super) fn count(&self) -> String {
        format!("SELECT count(*) AS n FROM {}", self.name)
    }

    /// PostgreSQL: writes a JSON array of rows, what is new and, where rows may change, what is other. Answers how many.
    pub(super) fn write(&self) -> String {
        let (name, columns, key) = (self.name, self.list(), quoted(self.key));
        let conflict = match self.fate {
            Fate::Kept => "NOTHING".to_owned(),
            Fate::Changed | Fate::ChangedOrGone => {
                let (new, old) = (self.list_of("excluded"), self.list_of("t"));
                format!("UPDATE SET ({columns}) = ROW ({new}) WHERE ({old}) IS DISTINCT FROM ({new})")
            }
        };
        format!(
            "WITH r AS ({rows}), w AS (INSERT INTO {name} AS t ({columns}) SELECT {columns} FROM r \
             ON CONFLICT ({key}) DO {conflict} RETURNING t.xmax = 0 AS is_new) \
             SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS changed FROM w",
            rows = self.rows()
        )
    }

    /// PostgreSQL: how many rows of a JSON array are there just so.
    pub(super) fn compare(&self) -> String {
        let (name, key) = (self.name, quoted(self.key));
        let (here, there) = (self.list_of("t"), self.list_of("r"));
        format!(
            "WITH r AS ({rows}) SELECT count(*) AS same FROM r JOIN {name} AS t USING ({key}) \
             WHERE ({here}) IS NOT DISTINCT FROM ({there})",
            rows = self.rows()
        )
    }

    /// PostgreSQL: how many rows, and a number that follows from all that is in them, whatever their order.
    pub(super) fn digest(&self) -> String {
        let (name, columns) = (self.name, self.list());
        format!(
            "SELECT count(*) AS n, CAST(coalesce(sum(CAST(hashtextextended(CAST(ROW ({columns}) AS text), 0) AS numeric)), \
             0) AS text) AS digest FROM {name}"
        )
    }

    /// The rows of a JSON array in PostgreSQL's own types.
    fn rows(&self) -> String {
        let typed: Vec<String> = self.columns.iter().map(|(name, kind)| typed(name, *kind)).collect();
        let sent: Vec<String> = self.columns.iter().map(|(name, kind)| sent(name, *kind)).collect();
        let (typed, sent) = (typed.join(", "), sent.join(", "));
        format!("SELECT {typed} FROM json_to_recordset($1::json) AS j ({sent})")
    }

    fn list(&self) -> String {
        quoted(self.columns.iter().map(|(name, _)| name))
    }

    fn list_of(&self, alias: &str) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| format!("{alias}.\"{name}\""))
            .collect();
        columns.join(", ")
    }
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a &'static str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("\"{name}\"")).collect();
    names.join(", ")
}

/// A column as SQLite says it in JSON.
fn member(name: &str, kind: Kind) -> String {
    match kind {
        // `hex` of nothing is an empty text.
        Bytes => format!("'{name}', iif(\"{name}\" IS NULL, NULL, hex(\"{name}\"))"),
        Id | Text | Number | Flag | Time | Json => format!("'{name}', \"{name}\""),
    }
}

/// A column as it arrives.
fn sent(name: &str, kind: Kind) -> String {
    let kind = match kind {
        Id => "uuid",
        Number | Flag | Time => "bigint",
        Text | Json | Bytes => "text",
    };
    format!("\"{name}\" {kind}")
}

/// A column that arrived, as PostgreSQL keeps it.
fn typed(name: &str, kind: Kind) -> String {
    match kind {
        Id | Text | Number => format!("\"{name}\""),
        Flag => format!("\"{name}\" <> 0 AS \"{name}\""),
        Time => format!("velro_time(\"{name}\") AS \"{name}\""),
        Json => format!("\"{name}\"::jsonb AS \"{name}\""),
        Bytes => format!("decode(\"{name}\", 'hex') AS \"{name}\""),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::{OpenOptions, sqlite};
    use super::*;
    use std::collections::BTreeSet;

    /// What is not copied, and why: the migrations' own, what belongs to running processes, what a copy leaves.
    const LEFT: [&str; 7] = [
        "_sqlx_migrations",
        "schema_floor",
        "copied_tables",
        "leases",
        "ledger_checks",
        "log_levels",
        "sqlite_sequence",
    ];

    #[tokio::test]
    async fn every_column_of_the_schema_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            create: true,
            migrate: true,
        };
        let file = folder.path().join("velro.db");
        let opened = sqlite::open(&file.to_string_lossy(), options).await.unwrap();
        let sql =
            "SELECT t.name, c.name FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c WHERE t.type = 'table'";
        let there: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&opened.readers).await.unwrap();
        let there: BTreeSet<(String, String)> = there
            .into_iter()
            .filter(|(table, column)| !LEFT.contains(&table.as_str()) && column != "lease_owner")
            .collect();
        let copied = TABLES.iter().flat_map(|table| {
            table
                .columns
                .iter()
                .map(|(column, _)| (table.name.into(), (*column).into()))
        });
        assert_eq!(copied.collect::<BTreeSet<_>>(), there);
    }
}
