//! What ends or redirects a generation from outside the worker: the customer's cancel and the operator's word.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::conn::{Conn, args, sql};
use super::error::Result;
use super::events::{self, NewEvent};
use super::generations;
use super::rows::{self, columns};
use super::settle::{self, EndOfAttempt, Ended, Ending, How};
use super::writer::Write;
use super::{attempts, audit};
use crate::clock::Micros;
use crate::generation::{Attempt, AttemptState, Event, EventKind, Generation, PublicError, Status};
use crate::id::{GenerationId, UserId};
use crate::store::{By, Cancelled, Resolution, Resolve, Resolved};

/// The customer wants it stopped.
pub(super) struct Cancel {
    pub(super) owner: UserId,
    pub(super) id: GenerationId,
    pub(super) now: Micros,
}

#[async_trait]
impl Write for Cancel {
    type Out = Option<Cancelled>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<Cancelled>> {
        generations::lock(conn, &[self.id]).await?;
        let Some(generation) = generations::owned(conn, self.owner, self.id).await? else {
            return Ok(None);
        };
        let newest = match generation.status {
            status if status.is_terminal() => return Ok(Some(Cancelled::Already(Box::new(generation)))),
            // Attempts of an earlier life are over.
            Status::Queued => None,
            _ => attempts::newest(conn, self.id).await?,
        };
        if let Some(attempt) = newest.as_ref().filter(|a| a.state != AttemptState::Prepared) {
            return self.request(conn, attempt).await.map(Some);
        }
        let ended = end_one(
            conn,
            Ending {
                subject: generation,
                how: How::Cancelled,
                attempt: newest.map(|a| EndOfAttempt {
                    id: a.id,
                    state: AttemptState::Finished,
                    detail: Some("cancelled before anything was sent".into()),
                }),
                actor: format!("user {}", self.owner),
                now: self.now,
            },
        )
        .await?;
        Ok(Some(Cancelled::Now {
            generation: Box::new(ended.generation),
            events: vec![ended.event],
        }))
    }
}

impl Cancel {
    /// Notes the wish and makes the attempt due, for whoever holds it.
    async fn request(&self, conn: &mut Conn<'_>, attempt: &Attempt) -> Result<Cancelled> {
        let sql = sql!(
            sqlite: concat!("UPDATE generations SET cancel_requested = 1, updated_at = $2 WHERE id = $1 RETURNING ", columns!(generations "")),
            postgres: concat!("UPDATE generations SET cancel_requested = true, updated_at = $2 WHERE id = $1 RETURNING ", columns!(generations "")),
        );
        let row = conn.one(sql, args![self.id, self.now]).await?;
        let sql = sql!("UPDATE attempts SET due_at = $2, updated_at = $2 WHERE id = $1");
        conn.execute(sql, args![attempt.id, self.now]).await?;
        Ok(Cancelled::Requested {
            generation: Box::new(rows::generation(&row)?),
            attempt: attempt.id,
        })
    }
}

/// Ends one generation.
pub(super) async fn end_one(conn: &mut Conn<'_>, ending: Ending) -> Result<Ended> {
    let ended = settle::end(conn, vec![ending]).await?.pop();
    Ok(ended.ok_or_else(|| anyhow::anyhow!("an end was not written"))?)
}

#[async_trait]
impl Write for Resolve {
    type Out = Resolved;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Resolved> {
        generations::lock(conn, &[self.generation_id]).await?;
        let Some(generation) = generations::by_id(conn, self.generation_id).await? else {
            return Ok(Resolved::Missing);
        };
        let newest = attempts::newest(conn, self.generation_id).await?;
        let attempt = match (newest, generation.status) {
            (Some(attempt), Status::Processing)
                if attempt.state == AttemptState::Unknown || (self.ends_what_runs() && !attempt.state.is_over()) =>
            {
                Some(attempt)
            }
            // Attempts of an earlier life are over.
            (_, Status::Queued) if self.ends_what_runs() => None,
            (other, _) => return Ok(Resolved::NotUnknown(other.map(|a| a.state))),
        };
        let before = json!({
            "status": generation.status.as_str(),
            "attempt_state": attempt.as_ref().map(|a| a.state.as_str()),
        });
        let is_known = attempt.as_ref().is_none_or(|a| a.state != AttemptState::Unknown);
        let (generation, event) = match (self.how(&generation, is_known), &attempt) {
            (None, Some(attempt)) => self.requeue(conn, attempt).await?,
            (how, _) => {
                let (how, state) = how.unwrap_or((How::Cancelled, AttemptState::Finished));
                let ending = Ending {
                    subject: generation,
                    how,
                    attempt: attempt.as_ref().map(|attempt| EndOfAttempt {
                        id: attempt.id,
                        state,
                        detail: Some(self.note()),
                    }),
                    actor: self.actor.clone(),
                    now: self.now,
                };
                let ended = end_one(conn, ending).await?;
                (ended.generation, ended.event)
            }
        };
        self.audit(conn, attempt.as_ref(), before, &generation).await?;
        Ok(Resolved::Done {
            generation: Box::new(generation),
            events: vec![event],
        })
    }
}

impl Resolve {
    /// How the generation ends by this word; `None` puts it back into the queue. A retry of what its owner wants stopped
    /// is the cancel they asked for.
    fn how(&self, generation: &Generation, is_known: bool) -> Option<(How, AttemptState)> {
        match &self.resolution {
            Resolution::Refund => {
                let (code, message) = match is_known {
                    true => (
                        "ended_by_operator",
                        "The operator ended this generation; its credits were returned.",
                    ),
                    false => (
                        "outcome_unknown",
                        "The provider did not confirm this generation; its credits were returned.",
                    ),
                };
                let error = PublicError {
                    code: code.into(),
                    message: message.into(),
                };
                Some((How::Failed(error), AttemptState::Finished))
            }
            Resolution::Retry if generation.cancel_requested => Some((How::Cancelled, AttemptState::Rejected)),
            Resolution::Retry => None,
            Resolution::Deliver(outputs) => {
                let how = How::Completed {
                    outputs: outputs.clone(),
                    worth: generation.price,
                    billed: None,
                    meta: serde_json::Map::new(),
                };
                Some((how, AttemptState::Finished))
            }
        }
    }

    fn note(&self) -> String {
        format!("resolved by {}: {}", self.actor, self.reason)
    }

    /// Only a refund may end what is queued or in work: whoever steps it then finds it over and drops it.
    fn ends_what_runs(&self) -> bool {
        self.even_running && matches!(self.resolution, Resolution::Refund)
    }

    async fn audit(
        &self,
        conn: &mut Conn<'_>,
        attempt: Option<&Attempt>,
        before: Value,
        after: &Generation,
    ) -> Result<()> {
        let resolution = match &self.resolution {
            Resolution::Refund => json!("refund"),
            Resolution::Retry => json!("retry"),
            Resolution::Deliver(_) => json!("deliver"),
        };
        let mut details = json!({
            "resolution": resolution, "attempt_id": attempt.map(|a| a.id), "before": before,
            "after": {"status": after.status.as_str(), "captured": after.captured},
        });
        if let Resolution::Deliver(outputs) = &self.resolution {
            details["outputs"] = json!(outputs);
        }
        let by = By {
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            now: self.now,
        };
        audit::write(
            conn,
            &by,
            "generation.resolve",
            &self.generation_id.to_string(),
            &details,
        )
        .await
    }

    /// Back into the queue with the same hold; the attempt bought nothing.
    async fn requeue(&self, conn: &mut Conn<'_>, attempt: &Attempt) -> Result<(Generation, Event)> {
        let sql = sql!(
            "UPDATE attempts SET state = 'rejected', lease_owner = NULL, inbox = NULL, detail = $2, updated_at = $3 \
             WHERE id = $1"
        );
        let note = self.note();
        conn.execute(sql, args![attempt.id, &note, self.now]).await?;
        let sql = sql!(concat!(
            "UPDATE generations SET status = 'queued', progress_permille = NULL, updated_at = $2 WHERE id = $1 \
             RETURNING ",
            columns!(generations "")
        ));
        let row = conn.one(sql, args![self.generation_id, self.now]).await?;
        let event = events::store_one(
            conn,
            NewEvent {
                generation_id: self.generation_id,
                kind: EventKind::Queued,
                data: events::queued(),
                at: self.now,
            },
        )
        .await?;
        Ok((rows::generation(&row)?, event))
    }
}
