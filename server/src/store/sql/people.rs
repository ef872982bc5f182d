//! People and their sessions.

use async_trait::async_trait;

use super::books::{Books, Gift};
use super::bulk;
use super::conn::{Conn, args, sql};
use super::error::Result;
use super::rows::{self, columns};
use super::writer::Write;
use crate::clock::Micros;
use crate::id::{SessionId, UserId};
use crate::ledger::{Balance, Credits};
use crate::store::{Created, NewSession, NewUser, Origin, ProfileChange, Rotated, Rotation, User};

#[async_trait]
impl Write for NewUser {
    type Out = Created<User>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Created<User>> {
        let sql = sql!(concat!(
            "INSERT INTO users (id, email, password_hash, full_name, role, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (email) DO NOTHING RETURNING ",
            columns!(users "")
        ));
        let args = args![
            self.id,
            &self.email,
            &self.password_hash,
            &self.full_name,
            self.role.as_str(),
            self.now,
        ];
        let Some(row) = conn.optional(sql, args).await? else {
            return Ok(Created::Taken);
        };
        let user = rows::user(&row)?;
        open_account(conn, self.id, self.start_credits, self.now).await?;
        Ok(Created::New(user))
    }
}

/// The account of a person who was just stored, with the one bonus transfer of the start credits.
pub(super) async fn open_account(conn: &mut Conn<'_>, id: UserId, start_credits: Credits, now: Micros) -> Result<()> {
    let account = id.to_string();
    conn.execute(
        sql!("INSERT INTO accounts (id, user_id) VALUES ($1, $2)"),
        args![&account, id],
    )
    .await?;
    if start_credits != Credits::ZERO {
        let mut books = Books::with([(id, Balance::default())]);
        let gift = Gift {
            amount: start_credits,
            reason: "Welcome credits",
            actor: "registration",
            idempotency_key: Some(&format!("start:{id}")),
            now,
        };
        books.give(id, &gift)?;
        bulk::write(conn, &books.into_bulks()?).await?;
    }
    Ok(())
}

/// By id.
pub(super) async fn by_id(conn: &mut Conn<'_>, id: UserId) -> Result<Option<User>> {
    let row = conn
        .optional(
            sql!(concat!("SELECT ", columns!(users ""), " FROM users WHERE id = $1")),
            args![id],
        )
        .await?;
    row.as_ref().map(rows::user).transpose()
}

/// By lower-case e-mail.
pub(super) async fn by_email(conn: &mut Conn<'_>, email: &str) -> Result<Option<User>> {
    let row = conn
        .optional(
            sql!(concat!("SELECT ", columns!(users ""), " FROM users WHERE email = $1")),
            args![email],
        )
        .await?;
    row.as_ref().map(rows::user).transpose()
}

/// Changes what is `Some`.
pub(super) struct UpdateProfile {
    pub(super) id: UserId,
    pub(super) change: ProfileChange,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for UpdateProfile {
    type Out = Option<User>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<User>> {
        let ProfileChange {
            full_name,
            display_name,
            avatar_url,
        } = &self.change;
        let sql = sql!(concat!(
            "UPDATE users SET full_name = CASE WHEN $2 THEN $3 ELSE full_name END, \
             display_name = CASE WHEN $4 THEN $5 ELSE display_name END, \
             avatar_url = CASE WHEN $6 THEN $7 ELSE avatar_url END, updated_at = $8 \
             WHERE id = $1 AND deleted_at IS NULL RETURNING ",
            columns!(users "")
        ));
        let args = args![
            self.id,
            full_name.is_some(),
            full_name.as_ref().and_then(Option::as_deref),
            display_name.is_some(),
            display_name.as_ref().and_then(Option::as_deref),
            avatar_url.is_some(),
            avatar_url.as_ref().and_then(Option::as_deref),
            self.now,
        ];
        let row = conn.optional(sql, args).await?;
        row.as_ref().map(rows::user).transpose()
    }
}

#[async_trait]
impl Write for NewSession {
    type Out = bool;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<bool> {
        // Locked against a change of the password: whoever proved the old one must not slip in behind it. As strongly as the
        // note of the sign-in below asks for: two with a share of the lock would each wait for the other to let go of it.
        let sql = sql!(
            sqlite: "SELECT 1 AS fits FROM users WHERE id = $1 AND deleted_at IS NULL \
                AND ($2 IS NULL OR password_hash = $2)",
            postgres: "SELECT 1 AS fits FROM users WHERE id = $1 AND deleted_at IS NULL \
                AND ($2::text IS NULL OR password_hash = $2) FOR NO KEY UPDATE",
        );
        if conn
            .optional(sql, args![self.user_id, &self.password_hash])
            .await?
            .is_none()
        {
            return Ok(false);
        }
        let sql = sql!(
            "INSERT INTO sessions (id, user_id, created_at, last_used_at, user_agent, address) \
             VALUES ($1, $2, $3, $3, $4, $5)"
        );
        let Origin { user_agent, address } = &self.origin;
        let args = args![self.id, self.user_id, self.now, user_agent, address];
        conn.execute(sql, args).await?;
        add_token(conn, self.id, &self.refresh_hash, self.refresh_expires_at, self.now).await?;
        let sql = sql!("UPDATE users SET last_sign_in_at = $2 WHERE id = $1");
        conn.execute(sql, args![self.user_id, self.now]).await?;
        Ok(true)
    }
}

async fn add_token(conn: &mut Conn<'_>, session: SessionId, hash: &str, expires_at: Micros, now: Micros) -> Result<()> {
    let sql = sql!("INSERT INTO refresh_tokens (hash, session_id, created_at, expires_at) VALUES ($1, $2, $3, $4)");
    conn.execute(sql, args![hash, session, now, expires_at]).await?;
    Ok(())
}

#[async_trait]
impl Write for Rotation {
    type Out = Rotated;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Rotated> {
        // Locked: of two who bring the same token, the second one must see that it was used.
        let sql = sql!(
            sqlite: "SELECT t.session_id, t.expires_at, t.used_at, s.user_id, s.revoked_at \
                FROM refresh_tokens AS t JOIN sessions AS s ON s.id = t.session_id WHERE t.hash = $1",
            postgres: "SELECT t.session_id, t.expires_at, t.used_at, s.user_id, s.revoked_at \
                FROM refresh_tokens AS t JOIN sessions AS s ON s.id = t.session_id WHERE t.hash = $1 \
                FOR NO KEY UPDATE",
        );
        let token = conn.optional(sql, args![&self.old_hash]).await?;
        let Some(token) = token else {
            return Ok(Rotated::Invalid);
        };
        if token.optional_micros("revoked_at")?.is_some() {
            return Ok(Rotated::Invalid);
        }
        let session: SessionId = token.id("session_id")?;
        // A token that comes back was copied: whoever holds the other copy must lose it too, expired or not.
        if token.optional_micros("used_at")?.is_some() {
            revoke(conn, session, self.now).await?;
            return Ok(Rotated::Reused { session });
        }
        if token.micros("expires_at")? <= self.now {
            return Ok(Rotated::Invalid);
        }
        let user_id: UserId = token.id("user_id")?;
        let user = by_id(conn, user_id)
            .await?
            .ok_or_else(|| anyhow::anyhow!("session {session} belongs to nobody"))?;
        if user.deleted_at.is_some() {
            return Ok(Rotated::Invalid);
        }
        let sql = sql!("UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1");
        conn.execute(sql, args![&self.old_hash, self.now]).await?;
        add_token(conn, session, &self.new_hash, self.new_expires_at, self.now).await?;
        let sql = sql!(
            "UPDATE sessions SET last_used_at = $2, user_agent = coalesce($3, user_agent), \
             address = coalesce($4, address) WHERE id = $1"
        );
        let Origin { user_agent, address } = &self.origin;
        conn.execute(sql, args![session, self.now, user_agent, address]).await?;
        Ok(Rotated::Ok { user, session })
    }
}

/// Ends a session.
pub(super) struct RevokeSession {
    pub(super) session: SessionId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for RevokeSession {
    type Out = ();

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<()> {
        revoke(conn, self.session, self.now).await
    }
}

/// Keeps the first moment when it is done twice.
async fn revoke(conn: &mut Conn<'_>, session: SessionId, now: Micros) -> Result<()> {
    let sql = sql!("UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL");
    conn.execute(sql, args![session, now]).await?;
    Ok(())
}

/// Sessions, keys and people that ended at or after `since`, oldest first.
pub(super) async fn revoked_since(conn: &mut Conn<'_>, since: Micros) -> Result<Vec<(SessionId, Micros)>> {
    let sql = sql!(
        "SELECT id, revoked_at FROM sessions WHERE revoked_at >= $1 UNION ALL \
         SELECT id, revoked_at FROM api_keys WHERE revoked_at >= $1 UNION ALL \
         SELECT id, deleted_at AS revoked_at FROM users WHERE deleted_at >= $1 ORDER BY revoked_at, id"
    );
    let rows = conn.all(sql, args![since]).await?;
    rows.iter()
        .map(|row| Ok((row.id("id")?, row.micros("revoked_at")?)))
        .collect()
}
