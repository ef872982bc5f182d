//! People and their own account: its sessions, its password, and how it is left.
//!
//! Leaving is one transaction that makes the account nobody's: the e-mail is free again, sessions and keys are over. What is
//! left of a person in generations and projects is erased after it in steps ([`Erase`]), each a transaction of its own that
//! may be the last one before the process dies: whoever comes next goes on. The books stay, under the id.

use async_trait::async_trait;

use super::conn::{Conn, Row, args, sql};
use super::error::Result;
use super::generations;
use super::rows::to_json;
use super::writer::Write;
use crate::clock::Micros;
use crate::generation::StoredOutput;
use crate::id::{GenerationId, SessionId, UserId};
use crate::store::{DELETED_EMAIL_DOMAIN, Leftovers, OpenSession, Origin};

/// Sessions of `user` that go on and can be renewed, the one used last first.
pub(super) async fn sessions(conn: &mut Conn<'_>, user: UserId, now: Micros) -> Result<Vec<OpenSession>> {
    let sql = sql!(
        "SELECT s.id, s.created_at, s.user_agent, s.address, coalesce(s.last_used_at, s.created_at) AS last_used_at \
         FROM sessions AS s WHERE s.user_id = $1 AND s.revoked_at IS NULL AND EXISTS (SELECT 1 FROM refresh_tokens AS t \
         WHERE t.session_id = s.id AND t.used_at IS NULL AND t.expires_at > $2) \
         ORDER BY coalesce(s.last_used_at, s.created_at) DESC, s.id DESC"
    );
    let open = |row: &Row| {
        Ok(OpenSession {
            id: row.id("id")?,
            created_at: row.micros("created_at")?,
            last_used_at: row.micros("last_used_at")?,
            origin: Origin {
                user_agent: row.get("user_agent")?,
                address: row.get("address")?,
            },
        })
    };
    conn.all(sql, args![user, now]).await?.iter().map(open).collect()
}

/// Ends sessions of a person: one, or all but one.
pub(super) struct EndSessions {
    pub(super) user: UserId,
    pub(super) only: Option<SessionId>,
    pub(super) except: Option<SessionId>,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for EndSessions {
    type Out = Vec<SessionId>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Vec<SessionId>> {
        let sql = sql!(
            sqlite: "UPDATE sessions SET revoked_at = $4 WHERE user_id = $1 AND revoked_at IS NULL \
                AND ($2 IS NULL OR id = $2) AND ($3 IS NULL OR id <> $3) RETURNING id",
            postgres: "UPDATE sessions SET revoked_at = $4 WHERE user_id = $1 AND revoked_at IS NULL \
                AND ($2::uuid IS NULL OR id = $2) AND ($3::uuid IS NULL OR id <> $3) RETURNING id",
        );
        let rows = conn
            .all(sql, args![self.user, self.only, self.except, self.now])
            .await?;
        rows.iter().map(|row| row.id("id")).collect()
    }
}

/// Sets another password and ends every session but the one it was set in.
pub(super) struct ChangePassword {
    pub(super) user: UserId,
    pub(super) old_hash: Option<String>,
    pub(super) new_hash: String,
    pub(super) keep: SessionId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for ChangePassword {
    type Out = Option<Vec<SessionId>>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<Vec<SessionId>>> {
        let sql = sql!(
            "UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1 AND deleted_at IS NULL AND password_hash = $4"
        );
        let args = args![self.user, &self.new_hash, self.now, &self.old_hash];
        if conn.execute(sql, args).await? == 0 {
            return Ok(None);
        }
        let others = EndSessions {
            user: self.user,
            only: None,
            except: Some(self.keep),
            now: self.now,
        };
        others.apply(conn).await.map(Some)
    }
}

/// Makes an account nobody's.
pub(super) struct DeleteUser {
    pub(super) user: UserId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for DeleteUser {
    type Out = bool;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<bool> {
        // Keys before the person, as a submit has them that counts with a key.
        let sql = sql!(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2), name = 'of a deleted account' WHERE user_id = $1 \
             AND EXISTS (SELECT 1 FROM users WHERE id = $1 AND deleted_at IS NULL)"
        );
        conn.execute(sql, args![self.user, self.now]).await?;
        let email = format!("{}{DELETED_EMAIL_DOMAIN}", self.user);
        let sql = sql!(
            "UPDATE users SET email = $2, password_hash = NULL, full_name = NULL, display_name = NULL, avatar_url = NULL, \
             suspended_reason = NULL, role = 'user', deleted_at = $3, updated_at = $3 WHERE id = $1 AND deleted_at IS NULL"
        );
        if conn.execute(sql, args![self.user, &email, self.now]).await? == 0 {
            return Ok(false);
        }
        let sql = sql!(
            "UPDATE sessions SET revoked_at = coalesce(revoked_at, $2), user_agent = NULL, address = NULL WHERE user_id = $1"
        );
        conn.execute(sql, args![self.user, self.now]).await?;
        Ok(true)
    }
}

/// People who have left and of whom something may be left, in the order of their ids, so that one who cannot be erased yet
/// keeps nobody behind.
pub(super) async fn to_erase(conn: &mut Conn<'_>, after: Option<UserId>, limit: u32) -> Result<Vec<UserId>> {
    let sql = sql!(
        sqlite: "SELECT id FROM users WHERE deleted_at IS NOT NULL AND erased_at IS NULL AND ($1 IS NULL OR id > $1) \
            ORDER BY id LIMIT $2",
        postgres: "SELECT id FROM users WHERE deleted_at IS NOT NULL AND erased_at IS NULL \
            AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2",
    );
    let rows = conn.all(sql, args![after, limit]).await?;
    rows.iter().map(|row| row.id("id")).collect()
}

/// What is left of somebody who has left. Runs in a transaction.
pub(super) async fn leftovers(conn: &mut Conn<'_>, user: UserId, limit: u32) -> Result<Leftovers> {
    let mut left = Leftovers::default();
    let sql = sql!("SELECT 1 AS gone FROM users WHERE id = $1 AND deleted_at IS NOT NULL");
    if conn.optional(sql, args![user]).await?.is_none() {
        return Ok(left);
    }
    // An input is never empty, so an empty one is erased. Two halves, because each has an index of its own.
    let sql = sql!(
        "SELECT id, outputs FROM (SELECT id, outputs, provider_input, status FROM generations WHERE user_id = $1 AND \
         deleted_at IS NULL UNION ALL SELECT id, outputs, provider_input, status FROM generations WHERE user_id = $1 AND \
         deleted_at IS NOT NULL) AS g WHERE provider_input <> '' AND status IN ('completed', 'failed', 'cancelled') \
         ORDER BY id LIMIT $2"
    );
    for row in conn.all(sql, args![user, limit]).await? {
        let outputs: Vec<StoredOutput> = row.json("outputs")?;
        left.ended.push(row.id("id")?);
        left.files.extend(outputs.into_iter().map(|output| output.key));
    }
    let sql = sql!(
        "SELECT id FROM generations WHERE user_id = $1 AND deleted_at IS NULL AND status IN ('queued', 'processing') \
         ORDER BY id LIMIT $2"
    );
    for row in conn.all(sql, args![user, limit]).await? {
        left.unfinished.push(row.id("id")?);
    }
    Ok(left)
}

/// Erases what generations were about, what came of them and what was said about them; what they cost stays.
pub(super) struct Erase {
    pub(super) user: UserId,
    pub(super) ended: Vec<GenerationId>,
}

#[async_trait]
impl Write for Erase {
    type Out = ();

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<()> {
        generations::lock(conn, &self.ended).await?;
        let ended = to_json(&self.ended)?;
        // Only of somebody who has left, and only what is over: whoever calls.
        let sql = sql!(
            sqlite: "UPDATE generations SET prompt = '', negative_prompt = NULL, reference_image_url = NULL, \
                parameters = '{}', dropped_parameters = '[]', provider_input = '', fallbacks = NULL, outputs = '[]', \
                billed = NULL, result_meta = NULL, project_id = NULL, is_favorite = 0, \
                error_message = iif(error_message IS NULL, NULL, '') \
                WHERE id IN (SELECT value FROM json_each($1)) AND user_id = $2 AND captured IS NOT NULL AND EXISTS \
                (SELECT 1 FROM users WHERE id = $2 AND deleted_at IS NOT NULL)",
            postgres: "UPDATE generations SET prompt = '', negative_prompt = NULL, reference_image_url = NULL, \
                parameters = '{}', dropped_parameters = '[]', provider_input = '', fallbacks = NULL, outputs = '[]', \
                billed = NULL, result_meta = NULL, project_id = NULL, is_favorite = false, \
                error_message = CASE WHEN error_message IS NOT NULL THEN '' END \
                WHERE id IN (SELECT json_array_elements_text($1::json)::uuid) AND user_id = $2 AND captured IS NOT NULL \
                AND EXISTS (SELECT 1 FROM users WHERE id = $2 AND deleted_at IS NOT NULL)",
        );
        conn.execute(sql, args![&ended, self.user]).await?;
        let sql = sql!(
            sqlite: "UPDATE attempts SET plugin_state = x'', pending = '{\"kind\":\"nothing\"}', inbox = NULL, \
                detail = NULL WHERE generation_id IN (SELECT g.id FROM generations AS g JOIN json_each($1) AS j \
                ON g.id = j.value WHERE g.user_id = $2 AND g.provider_input = '')",
            postgres: "UPDATE attempts SET plugin_state = '', pending = '{\"kind\":\"nothing\"}', inbox = NULL, \
                detail = NULL WHERE generation_id IN (SELECT g.id FROM generations AS g WHERE g.id IN \
                (SELECT json_array_elements_text($1::json)::uuid) AND g.user_id = $2 AND g.provider_input = '')",
        );
        conn.execute(sql, args![&ended, self.user]).await?;
        let sql = sql!(
            sqlite: "UPDATE events SET data = '{}' WHERE generation_id IN (SELECT g.id FROM generations AS g JOIN \
                json_each($1) AS j ON g.id = j.value WHERE g.user_id = $2 AND g.provider_input = '')",
            postgres: "UPDATE events SET data = '{}' WHERE generation_id IN (SELECT g.id FROM generations AS g WHERE g.id IN \
                (SELECT json_array_elements_text($1::json)::uuid) AND g.user_id = $2 AND g.provider_input = '')",
        );
        conn.execute(sql, args![&ended, self.user]).await?;
        Ok(())
    }
}

/// Notes that nothing personal is left. Not at once: another process may have taken a last request, and what it wrote goes
/// too.
pub(super) struct FinishErasing {
    pub(super) user: UserId,
    pub(super) left_before: Micros,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for FinishErasing {
    type Out = bool;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<bool> {
        let sql = sql!(
            "SELECT 1 AS ready FROM users WHERE id = $1 AND deleted_at < $2 AND NOT EXISTS \
             (SELECT 1 FROM generations WHERE user_id = $1 AND provider_input <> '')"
        );
        if conn.optional(sql, args![self.user, self.left_before]).await?.is_none() {
            return Ok(false);
        }
        let sql = sql!("DELETE FROM projects WHERE user_id = $1");
        conn.execute(sql, args![self.user]).await?;
        let sql = sql!("UPDATE users SET erased_at = coalesce(erased_at, $2) WHERE id = $1");
        conn.execute(sql, args![self.user, self.now]).await?;
        Ok(true)
    }
}
