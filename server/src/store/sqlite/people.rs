//! People and their sessions.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::books::{Books, Gift};
use super::error::{Constraint, Fault, Result};
use super::rows;
use super::writer::Write;
use crate::clock::Micros;
use crate::id::{SessionId, UserId};
use crate::ledger::{Balance, Credits};
use crate::store::{Created, NewSession, NewUser, ProfileChange, Role, Rotated, Rotation, User};

#[async_trait]
impl Write for NewUser {
    type Out = Created<User>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Created<User>> {
        let inserted = sqlx::query(
            "INSERT INTO users (id, email, password_hash, full_name, role, created_at, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) RETURNING *",
        )
        .bind(self.id.to_string())
        .bind(&self.email)
        .bind(&self.password_hash)
        .bind(&self.full_name)
        .bind(self.role.as_str())
        .bind(self.now.0)
        .fetch_one(&mut *conn)
        .await
        .map_err(Fault::from);
        let user = match inserted {
            Ok(row) => rows::user(&row)?,
            Err(fault) if fault.violates(Constraint::Email) => return Ok(Created::Taken),
            Err(fault) => return Err(fault),
        };
        sqlx::query("INSERT INTO accounts (id, user_id) VALUES (?1, ?1)")
            .bind(self.id.to_string())
            .execute(&mut *conn)
            .await?;
        if self.start_credits != Credits::ZERO {
            let mut books = Books::with([(self.id, Balance::default())]);
            let gift = Gift {
                amount: self.start_credits,
                reason: "Welcome credits",
                actor: "registration",
                idempotency_key: Some(&format!("start:{}", self.id)),
                now: self.now,
            };
            books.give(self.id, &gift)?;
            books.write(conn).await?;
        }
        Ok(Created::New(user))
    }
}

/// By id.
pub(super) async fn by_id(conn: &mut SqliteConnection, id: UserId) -> Result<Option<User>> {
    let row = sqlx::query("SELECT * FROM users WHERE id = ?1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(rows::user).transpose()
}

/// By lower-case e-mail.
pub(super) async fn by_email(conn: &mut SqliteConnection, email: &str) -> Result<Option<User>> {
    let row = sqlx::query("SELECT * FROM users WHERE email = ?1")
        .bind(email)
        .fetch_optional(conn)
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

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<User>> {
        let ProfileChange {
            full_name,
            display_name,
            avatar_url,
        } = &self.change;
        let row = sqlx::query(
            "UPDATE users SET full_name = iif(?2, ?3, full_name), display_name = iif(?4, ?5, display_name), \
             avatar_url = iif(?6, ?7, avatar_url), updated_at = ?8 WHERE id = ?1 RETURNING *",
        )
        .bind(self.id.to_string())
        .bind(full_name.is_some())
        .bind(full_name.as_ref().and_then(Option::as_deref))
        .bind(display_name.is_some())
        .bind(display_name.as_ref().and_then(Option::as_deref))
        .bind(avatar_url.is_some())
        .bind(avatar_url.as_ref().and_then(Option::as_deref))
        .bind(self.now.0)
        .fetch_optional(conn)
        .await?;
        row.as_ref().map(rows::user).transpose()
    }
}

/// Gives a role to whoever has this e-mail.
pub(super) struct SetRole {
    pub(super) email: String,
    pub(super) role: Role,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for SetRole {
    type Out = Option<User>;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Option<User>> {
        let row = sqlx::query("UPDATE users SET role = ?2, updated_at = ?3 WHERE email = ?1 RETURNING *")
            .bind(&self.email)
            .bind(self.role.as_str())
            .bind(self.now.0)
            .fetch_optional(conn)
            .await?;
        row.as_ref().map(rows::user).transpose()
    }
}

#[async_trait]
impl Write for NewSession {
    type Out = ();

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<()> {
        sqlx::query("INSERT INTO sessions (id, user_id, created_at) VALUES (?1, ?2, ?3)")
            .bind(self.id.to_string())
            .bind(self.user_id.to_string())
            .bind(self.now.0)
            .execute(&mut *conn)
            .await?;
        add_token(conn, self.id, &self.refresh_hash, self.refresh_expires_at, self.now).await?;
        sqlx::query("UPDATE users SET last_sign_in_at = ?2 WHERE id = ?1")
            .bind(self.user_id.to_string())
            .bind(self.now.0)
            .execute(conn)
            .await?;
        Ok(())
    }
}

async fn add_token(
    conn: &mut SqliteConnection,
    session: SessionId,
    hash: &str,
    expires_at: Micros,
    now: Micros,
) -> Result<()> {
    sqlx::query("INSERT INTO refresh_tokens (hash, session_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)")
        .bind(hash)
        .bind(session.to_string())
        .bind(now.0)
        .bind(expires_at.0)
        .execute(conn)
        .await?;
    Ok(())
}

#[async_trait]
impl Write for Rotation {
    type Out = Rotated;

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<Rotated> {
        let token = sqlx::query(
            "SELECT t.session_id, t.expires_at, t.used_at, s.user_id, s.revoked_at \
             FROM refresh_tokens AS t JOIN sessions AS s ON s.id = t.session_id WHERE t.hash = ?1",
        )
        .bind(&self.old_hash)
        .fetch_optional(&mut *conn)
        .await?;
        let Some(token) = token else {
            return Ok(Rotated::Invalid);
        };
        if rows::optional_micros(&token, "revoked_at")?.is_some() {
            return Ok(Rotated::Invalid);
        }
        let session: SessionId = rows::id(&token, "session_id")?;
        // A token that comes back was copied: whoever holds the other copy must lose it too, expired or not.
        if rows::optional_micros(&token, "used_at")?.is_some() {
            revoke(conn, session, self.now).await?;
            return Ok(Rotated::Reused { session });
        }
        if rows::micros(&token, "expires_at")? <= self.now {
            return Ok(Rotated::Invalid);
        }
        sqlx::query("UPDATE refresh_tokens SET used_at = ?2 WHERE hash = ?1")
            .bind(&self.old_hash)
            .bind(self.now.0)
            .execute(&mut *conn)
            .await?;
        add_token(conn, session, &self.new_hash, self.new_expires_at, self.now).await?;
        let user_id: UserId = rows::id(&token, "user_id")?;
        let user = by_id(conn, user_id)
            .await?
            .ok_or_else(|| anyhow::anyhow!("session {session} belongs to nobody"))?;
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

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<()> {
        revoke(conn, self.session, self.now).await
    }
}

/// Keeps the first moment when it is done twice.
async fn revoke(conn: &mut SqliteConnection, session: SessionId, now: Micros) -> Result<()> {
    sqlx::query("UPDATE sessions SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")
        .bind(session.to_string())
        .bind(now.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Sessions revoked at or after `since`, oldest first.
pub(super) async fn revoked_since(conn: &mut SqliteConnection, since: Micros) -> Result<Vec<(SessionId, Micros)>> {
    let rows = sqlx::query("SELECT id, revoked_at FROM sessions WHERE revoked_at >= ?1 ORDER BY revoked_at, id")
        .bind(since.0)
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| Ok((rows::id(row, "id")?, rows::micros(row, "revoked_at")?)))
        .collect()
}
