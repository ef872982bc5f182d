//! People whose accounts are kept by another service: their rows here follow what they prove there.

use async_trait::async_trait;

use super::conn::{Conn, Dialect, args, sql};
use super::error::Result;
use super::people;
use super::rows::{self, columns};
use super::writer::Write;
use crate::clock::Micros;
use crate::id::{SessionId, UserId};
use crate::store::{Arrival, FORMER_EMAIL_DOMAIN, User};

#[async_trait]
impl Write for Arrival {
    type Out = User;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<User> {
        if let Some(user) = people::by_id(conn, self.id).await? {
            return self.follow(conn, user).await;
        }
        // Whoever comes first makes the row, whatever the others prove.
        lock(conn, &self.id.to_string()).await?;
        if let Some(user) = people::by_id(conn, self.id).await? {
            return self.follow(conn, user).await;
        }
        let email = self.stored_email();
        take_email(conn, &email, self.id, self.now).await?;
        let sql = sql!(concat!(
            "INSERT INTO users (id, email, full_name, role, created_at, updated_at, last_sign_in_at) \
             VALUES ($1, $2, $3, $4, $5, $5, $6) RETURNING ",
            columns!(users "")
        ));
        let signed_in_at = self.signed_in.then_some(self.now);
        let args = args![
            self.id,
            &email,
            &self.full_name,
            self.role.as_str(),
            self.now,
            signed_in_at,
        ];
        let user = rows::user(&conn.one(sql, args).await?)?;
        people::open_account(conn, self.id, self.start_credits, self.now).await?;
        Ok(user)
    }
}

impl Arrival {
    /// Brings the row of somebody who is known up to date, when what they prove is fresh.
    async fn follow(&self, conn: &mut Conn<'_>, user: User) -> Result<User> {
        // Whoever has left stays away, whatever the other service still says.
        if !self.fresh || user.deleted_at.is_some() {
            return Ok(user);
        }
        let email = self.stored_email();
        let full_name = self.full_name.clone().or(user.full_name.clone());
        let changes = self.differs_from(&user);
        if !changes && !self.signed_in {
            return Ok(user);
        }
        if email != user.email {
            take_email(conn, &email, self.id, self.now).await?;
        }
        let sql = sql!(concat!(
            "UPDATE users SET email = $2, full_name = $3, role = CASE WHEN $4 = 'operator' THEN 'operator' ELSE role END, \
             updated_at = CASE WHEN $5 THEN $6 ELSE updated_at END, \
             last_sign_in_at = CASE WHEN $7 THEN $6 ELSE last_sign_in_at END \
             WHERE id = $1 AND deleted_at IS NULL RETURNING ",
            columns!(users "")
        ));
        let args = args![
            self.id,
            &email,
            &full_name,
            self.role.as_str(),
            changes,
            self.now,
            self.signed_in,
        ];
        // Whoever has left in between is as they were read.
        let followed = conn.optional(sql, args).await?;
        followed.as_ref().map_or(Ok(user), rows::user)
    }
}

/// Makes an e-mail free for its new owner: whoever had it until now has none any more.
async fn take_email(conn: &mut Conn<'_>, email: &str, owner: UserId, now: Micros) -> Result<()> {
    lock(conn, email).await?;
    let sql = sql!(
        sqlite: "UPDATE users SET email = id || $3, updated_at = $4 WHERE email = $1 AND id <> $2",
        postgres: "UPDATE users SET email = id::text || $3, updated_at = $4 WHERE email = $1 AND id <> $2",
    );
    conn.execute(sql, args![email, owner, FORMER_EMAIL_DOMAIN, now]).await?;
    Ok(())
}

/// Keeps others who want the same out until the transaction ends; SQLite has one writer anyway.
async fn lock(conn: &mut Conn<'_>, what: &str) -> Result<()> {
    if conn.dialect() == Dialect::Postgres {
        let sql = sql!(sqlite: "", postgres: "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))");
        conn.execute(sql, args![what]).await?;
    }
    Ok(())
}

/// Notes the end of a session that another service opened.
pub(super) struct EndForeignSession {
    pub(super) session: SessionId,
    pub(super) user: UserId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for EndForeignSession {
    type Out = ();

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<()> {
        // Keeps the first moment when it is done twice.
        let sql = sql!(
            "INSERT INTO sessions (id, user_id, created_at, revoked_at) VALUES ($1, $2, $3, $3) \
             ON CONFLICT (id) DO UPDATE SET revoked_at = COALESCE(sessions.revoked_at, excluded.revoked_at)"
        );
        conn.execute(sql, args![self.session, self.user, self.now]).await?;
        Ok(())
    }
}
