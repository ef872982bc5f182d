//! What an operator has stopped, as stored: one row for each scope that was ever touched.

use async_trait::async_trait;
use serde_json::json;

use super::audit;
use super::conn::{Conn, args, sql};
use super::error::Result;
use super::writer::Write;
use crate::pause::{Mode, Pause, Scope};
use crate::store::SetPause;

/// All of them, running ones too.
pub(super) async fn all(conn: &mut Conn<'_>) -> Result<Vec<Pause>> {
    let sql = sql!("SELECT scope, mode, reason, actor, created_at FROM pauses ORDER BY scope");
    let rows = conn.all(sql, args![]).await?;
    rows.iter()
        .map(|row| {
            Ok(Pause {
                scope: row.parsed("scope", Scope::parse)?,
                mode: row.parsed("mode", Mode::parse)?,
                reason: row.get("reason")?,
                actor: row.get("actor")?,
                created_at: row.micros("created_at")?,
            })
        })
        .collect()
}

#[async_trait]
impl Write for SetPause {
    type Out = Mode;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Mode> {
        let scope = self.scope.to_string();
        let sql = sql!("SELECT mode FROM pauses WHERE scope = $1");
        let row = conn.optional(sql, args![&scope]).await?;
        let before = row.map(|row| row.parsed("mode", Mode::parse)).transpose()?;
        let before = before.unwrap_or(Mode::Running);
        let sql = sql!(
            "INSERT INTO pauses (scope, mode, reason, actor, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (scope) DO UPDATE SET mode = excluded.mode, reason = excluded.reason, actor = excluded.actor, \
             created_at = excluded.created_at"
        );
        let by = &self.by;
        let args = args![&scope, self.mode.as_str(), &by.reason, &by.actor, by.now];
        conn.execute(sql, args).await?;
        let details = json!({"before": {"mode": before.as_str()}, "after": {"mode": self.mode.as_str()}});
        audit::write(conn, by, "pause.set", &scope, &details).await?;
        Ok(before)
    }
}
