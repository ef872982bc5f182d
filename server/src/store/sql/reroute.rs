//! From one provider to the next: the attempt ends, the generation waits again, the hold stays. One transaction, one winner.

use async_trait::async_trait;

use super::conn::{Conn, args, sql};
use super::error::Result;
use super::events::{self, NewEvent};
use super::generations;
use super::resolve::end_one;
use super::rows::{self, columns, fallbacks_to_json};
use super::settle::{EndOfAttempt, Ending, How};
use super::writer::Write;
use crate::generation::{AttemptState, EventKind, Generation, Route};
use crate::store::{Reroute, Rerouted};

#[async_trait]
impl Write for Reroute {
    type Out = Rerouted;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Rerouted> {
        generations::lock(conn, &[self.generation_id]).await?;
        let Some(generation) = self.subject(conn).await? else {
            return Ok(Rerouted::Lost);
        };
        if generation.cancel_requested {
            return self.cancelled(conn, generation).await;
        }
        let mut left = generation.fallbacks;
        if self.fallback >= left.len() {
            return Ok(Rerouted::Lost);
        }
        let route = left.remove(self.fallback);
        self.end_attempt(conn).await?;
        self.requeue(conn, &route, &left).await
    }
}

impl Reroute {
    /// The generation, if the caller holds its attempt at the step it thinks, and the stored state of the attempt says that
    /// nothing is at the provider any more: it was never accepted, or accepted and then failed.
    async fn subject(&self, conn: &mut Conn<'_>) -> Result<Option<Generation>> {
        let states = match self.attempt_state {
            AttemptState::Rejected => ["prepared", "sending"],
            AttemptState::Finished => ["accepted", "accepted"],
            _ => return Ok(None),
        };
        let sql = sql!(
            sqlite: concat!("SELECT ", columns!(generations "g."), " FROM attempts AS a \
                JOIN generations AS g ON g.id = a.generation_id AND g.status = 'processing' \
                WHERE a.id = $1 AND a.generation_id = $2 AND a.lease_owner = $3 AND a.steps = $4 AND a.state IN ($5, $6)"),
            postgres: concat!("SELECT ", columns!(generations "g."), " FROM attempts AS a \
                JOIN generations AS g ON g.id = a.generation_id AND g.status = 'processing' \
                WHERE a.id = $1 AND a.generation_id = $2 AND a.lease_owner = $3 AND a.steps = $4 AND a.state IN ($5, $6) \
                FOR NO KEY UPDATE OF a"),
        );
        let args = args![
            self.attempt_id,
            self.generation_id,
            &self.worker,
            self.steps,
            states[0],
            states[1],
        ];
        let row = conn.optional(sql, args).await?;
        row.as_ref().map(rows::generation).transpose()
    }

    /// Nobody wants it any more, and nothing is at a provider.
    async fn cancelled(&self, conn: &mut Conn<'_>, subject: Generation) -> Result<Rerouted> {
        let ending = Ending {
            subject,
            how: How::Cancelled,
            attempt: Some(EndOfAttempt {
                id: self.attempt_id,
                state: self.attempt_state,
                detail: Some(self.reason.clone()),
            }),
            actor: format!("worker {}", self.worker),
            now: self.now,
        };
        let ended = end_one(conn, ending).await?;
        Ok(Rerouted::Cancelled {
            generation: Box::new(ended.generation),
            settlement: ended.settlement,
            events: vec![ended.event],
        })
    }

    async fn end_attempt(&self, conn: &mut Conn<'_>) -> Result<()> {
        let sql = sql!(
            "UPDATE attempts SET state = $2, lease_owner = NULL, inbox = NULL, detail = $3, updated_at = $4 WHERE id = $1"
        );
        let args = args![self.attempt_id, self.attempt_state.as_str(), &self.reason, self.now];
        conn.execute(sql, args).await?;
        Ok(())
    }

    async fn requeue(&self, conn: &mut Conn<'_>, route: &Route, left: &[Route]) -> Result<Rerouted> {
        let sql = sql!(
            sqlite: concat!("UPDATE generations SET status = 'queued', provider = $2, provider_model = $3, \
                provider_input = $4, fallbacks = $5, progress_permille = NULL, updated_at = $6 WHERE id = $1 RETURNING ",
                columns!(generations "")),
            postgres: concat!("UPDATE generations SET status = 'queued', provider = $2, provider_model = $3, \
                provider_input = $4, fallbacks = $5::jsonb, progress_permille = NULL, updated_at = $6 WHERE id = $1 RETURNING ",
                columns!(generations "")),
        );
        let left = fallbacks_to_json(left)?;
        let args = args![
            self.generation_id,
            &route.provider,
            &route.provider_model,
            &route.provider_input,
            &left,
            self.now,
        ];
        let row = conn.one(sql, args).await?;
        let event = NewEvent {
            generation_id: self.generation_id,
            kind: EventKind::Queued,
            data: events::queued_again(&route.provider),
            at: self.now,
        };
        let event = events::store_one(conn, event).await?;
        Ok(Rerouted::Queued {
            generation: Box::new(rows::generation(&row)?),
            events: vec![event],
        })
    }
}
