//! API keys: made, listed, changed and revoked by their owner, found by their hash.
//!
//! What a key has spent is not written here: `books.rs` counts it together with the holds.

use async_trait::async_trait;
use serde::Serialize;

use super::conn::{Conn, Row, Sql, args, sql};
use super::error::Result;
use super::rows::{self, columns, to_json};
use super::writer::Write;
use crate::clock::Micros;
use crate::id::{ApiKeyId, UserId};
use crate::ledger::Credits;
use crate::store::{ApiKey, ApiKeyChange, Created, KeyHolder, NewApiKey};

#[async_trait]
impl Write for NewApiKey {
    type Out = Created<ApiKey>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Created<ApiKey>> {
        let sql = sql!(
            sqlite: concat!("INSERT INTO api_keys (id, user_id, name, hash, hint, scopes, models, spending_cap, expires_at, \
                created_at, updated_at) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10 WHERE (SELECT count(*) \
                FROM api_keys WHERE user_id = $2 AND revoked_at IS NULL) < $11 RETURNING ", columns!(api_keys "")),
            postgres: concat!("INSERT INTO api_keys (id, user_id, name, hash, hint, scopes, models, spending_cap, \
                expires_at, created_at, updated_at) SELECT $1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8, $9, $10, $10 \
                WHERE (SELECT count(*) FROM api_keys WHERE user_id = $2 AND revoked_at IS NULL) < $11 RETURNING ",
                columns!(api_keys "")),
        );
        let scopes = to_json(&self.scopes)?;
        let models = self.models.as_ref().map(to_json).transpose()?;
        let args = args![
            self.id,
            self.user_id,
            &self.name,
            &self.hash,
            &self.hint,
            &scopes,
            &models,
            self.spending_cap.map(|cap| cap.0),
            self.expires_at,
            self.now,
            self.most,
        ];
        match conn.optional(sql, args).await? {
            Some(row) => Ok(Created::New(rows::api_key(&row)?)),
            None => Ok(Created::Taken),
        }
    }
}

/// The owner's, newest first.
pub(super) async fn list(conn: &mut Conn<'_>, owner: UserId) -> Result<Vec<ApiKey>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(api_keys ""),
        " FROM api_keys WHERE user_id = $1 ORDER BY id DESC"
    ));
    let rows = conn.all(sql, args![owner]).await?;
    rows.iter().map(rows::api_key).collect()
}

/// The owner's.
pub(super) async fn owned(conn: &mut Conn<'_>, owner: UserId, id: ApiKeyId) -> Result<Option<ApiKey>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(api_keys ""),
        " FROM api_keys WHERE user_id = $1 AND id = $2"
    ));
    let row = conn.optional(sql, args![owner, id]).await?;
    row.as_ref().map(rows::api_key).transpose()
}

/// By the hash of the key, with its owner; nobody's when the owner has left.
pub(super) async fn by_hash(conn: &mut Conn<'_>, hash: &str) -> Result<Option<KeyHolder>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(api_keys "k."),
        ", u.email FROM api_keys AS k JOIN users AS u ON u.id = k.user_id WHERE k.hash = $1 AND u.deleted_at IS NULL"
    ));
    let holder = |row: &Row| {
        Ok(KeyHolder {
            key: rows::api_key(row)?,
            email: row.get("email")?,
        })
    };
    let row = conn.optional(sql, args![hash]).await?;
    row.as_ref().map(holder).transpose()
}

/// Changes what is `Some`, of a key that is not revoked.
pub(super) struct ChangeKey {
    pub(super) owner: UserId,
    pub(super) id: ApiKeyId,
    pub(super) change: ApiKeyChange,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for ChangeKey {
    type Out = Option<ApiKey>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<ApiKey>> {
        let ApiKeyChange {
            name,
            scopes,
            models,
            spending_cap,
            expires_at,
        } = &self.change;
        let sql = sql!(
            sqlite: concat!("UPDATE api_keys SET name = coalesce($3, name), scopes = coalesce($4, scopes), \
                models = CASE WHEN $5 THEN $6 ELSE models END, \
                spending_cap = CASE WHEN $7 THEN $8 ELSE spending_cap END, \
                expires_at = CASE WHEN $9 THEN $10 ELSE expires_at END, updated_at = $11 \
                WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING ", columns!(api_keys "")),
            postgres: concat!("UPDATE api_keys SET name = coalesce($3, name), scopes = coalesce($4::jsonb, scopes), \
                models = CASE WHEN $5 THEN $6::jsonb ELSE models END, \
                spending_cap = CASE WHEN $7 THEN $8 ELSE spending_cap END, \
                expires_at = CASE WHEN $9 THEN $10 ELSE expires_at END, updated_at = $11 \
                WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING ", columns!(api_keys "")),
        );
        let scopes = scopes.as_ref().map(to_json).transpose()?;
        let new_models = models.as_ref().and_then(Option::as_ref).map(to_json).transpose()?;
        let args = args![
            self.owner,
            self.id,
            name,
            &scopes,
            models.is_some(),
            &new_models,
            spending_cap.is_some(),
            spending_cap.flatten().map(|cap: Credits| cap.0),
            expires_at.is_some(),
            expires_at.flatten(),
            self.now,
        ];
        let row = conn.optional(sql, args).await?;
        row.as_ref().map(rows::api_key).transpose()
    }
}

/// Ends a key for good; keeps the first moment when it is done twice.
pub(super) struct RevokeKey {
    pub(super) owner: UserId,
    pub(super) id: ApiKeyId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for RevokeKey {
    type Out = Option<ApiKey>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<ApiKey>> {
        let sql = sql!(concat!(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $3) WHERE user_id = $1 AND id = $2 RETURNING ",
            columns!(api_keys "")
        ));
        let row = conn.optional(sql, args![self.owner, self.id, self.now]).await?;
        row.as_ref().map(rows::api_key).transpose()
    }
}

#[derive(Serialize)]
struct UseRow {
    id: ApiKeyId,
    at: Micros,
}

/// Notes when keys were used.
pub(super) struct TouchKeys(pub(super) Vec<(ApiKeyId, Micros)>);

const TOUCH: Sql = sql!(
    sqlite: "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), j.value->>'at') FROM json_each($1) AS j \
        WHERE api_keys.id = j.value->>'id'",
    // In the order of their ids, and not those that a submit or another process has in hand: the next use notes them.
    postgres: "WITH free AS MATERIALIZED (SELECT k.id FROM api_keys AS k WHERE k.id IN \
        (SELECT j.id FROM json_to_recordset($1::json) AS j (id uuid)) ORDER BY k.id FOR NO KEY UPDATE SKIP LOCKED) \
        UPDATE api_keys AS k SET last_used_at = greatest(k.last_used_at, velro_time(j.at)) \
        FROM json_to_recordset($1::json) AS j (id uuid, at bigint) JOIN free ON free.id = j.id WHERE k.id = j.id",
);

#[async_trait]
impl Write for TouchKeys {
    type Out = ();

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<()> {
        let uses: Vec<UseRow> = self.0.iter().map(|&(id, at)| UseRow { id, at }).collect();
        conn.execute(TOUCH, args![&to_json(&uses)?]).await?;
        Ok(())
    }
}
