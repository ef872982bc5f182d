//! The operator's hand on people and on the books. Every change has its audit entry in the same transaction.

use async_trait::async_trait;
use serde_json::json;
use std::collections::BTreeSet;

use super::books::{Books, Gift, Purpose};
use super::conn::{Conn, Row, args, sql};
use super::error::Result;
use super::rows::{self, columns};
use super::writer::Write;
use super::{audit, bulk, generations, people};
use crate::ledger::Credits;
use crate::store::{
    ChangeUser, Correct, Corrected, CorrectionKind, Listed, Person, Refund, Refunded, Role, User, UserChange,
    UserChanged, UserFilter,
};

/// People, newest first. A part of an address is looked for in all of them: nobody asks that often.
pub(super) async fn find_people(conn: &mut Conn<'_>, filter: UserFilter) -> Result<Listed<Person>> {
    let role = filter.role.map(Role::as_str);
    let suspended = filter.suspended.map(|yes| if yes { "yes" } else { "no" });
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(users "u."), ", a.balance, a.held, a.debt FROM users AS u \
            JOIN accounts AS a ON a.user_id = u.id WHERE ($1 IS NULL OR u.id < $1) \
            AND ($2 IS NULL OR instr(u.email, $2) > 0) AND ($3 IS NULL OR u.role = $3) \
            AND ($4 IS NULL OR (u.suspended_at IS NOT NULL) = ($4 = 'yes')) ORDER BY u.id DESC LIMIT $5"),
        postgres: concat!("SELECT ", columns!(users "u."), ", a.balance, a.held, a.debt FROM users AS u \
            JOIN accounts AS a ON a.user_id = u.id WHERE ($1::uuid IS NULL OR u.id < $1) \
            AND ($2::text IS NULL OR position($2 IN u.email) > 0) AND ($3::text IS NULL OR u.role = $3) \
            AND ($4::text IS NULL OR (u.suspended_at IS NOT NULL) = ($4 = 'yes')) ORDER BY u.id DESC LIMIT $5"),
    );
    let args = args![filter.after, &filter.email, role, suspended, filter.limit + 1];
    let rows = conn.all(sql, args).await?;
    let people = rows.iter().map(person).collect::<Result<_>>()?;
    Ok(Listed::of(people, filter.limit))
}

fn person(row: &Row) -> Result<Person> {
    Ok(Person {
        user: rows::user(row)?,
        balance: rows::balance(row)?,
    })
}

#[async_trait]
impl Write for ChangeUser {
    type Out = UserChanged;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<UserChanged> {
        // Of two who take each other's role at once, the second one must see what the first one did.
        let sql = sql!(
            sqlite: "SELECT id FROM users WHERE id = $1",
            postgres: "SELECT id FROM users WHERE role = 'operator' OR id = $1 ORDER BY id FOR NO KEY UPDATE",
        );
        conn.all(sql, args![self.user_id]).await?;
        let Some(before) = people::by_id(conn, self.user_id)
            .await?
            .filter(|u| u.deleted_at.is_none())
        else {
            return Ok(UserChanged::Missing);
        };
        let is_so = match self.change {
            UserChange::Role(role) => before.role == role,
            UserChange::Suspend => before.suspended_at.is_some(),
            UserChange::Unsuspend => before.suspended_at.is_none(),
        };
        if is_so {
            return Ok(UserChanged::Done {
                user: Box::new(before),
                changed: false,
            });
        }
        let takes_away = matches!(self.change, UserChange::Role(Role::User) | UserChange::Suspend);
        if takes_away && may_operate(&before) && !self.others_operate(conn).await? {
            return Ok(UserChanged::LastOperator);
        }
        let (action, row) = match self.change {
            UserChange::Role(role) => {
                let sql = sql!(concat!(
                    "UPDATE users SET role = $2, updated_at = $3 WHERE id = $1 RETURNING ",
                    columns!(users "")
                ));
                let args = args![self.user_id, role.as_str(), self.by.now];
                ("user.role", conn.one(sql, args).await?)
            }
            UserChange::Suspend => {
                let sql = sql!(concat!(
                    "UPDATE users SET suspended_at = $2, suspended_reason = $3, updated_at = $2 WHERE id = $1 RETURNING ",
                    columns!(users "")
                ));
                let args = args![self.user_id, self.by.now, &self.by.reason];
                ("user.suspend", conn.one(sql, args).await?)
            }
            UserChange::Unsuspend => {
                let sql = sql!(concat!(
                    "UPDATE users SET suspended_at = NULL, suspended_reason = NULL, updated_at = $2 WHERE id = $1 \
                     RETURNING ",
                    columns!(users "")
                ));
                ("user.unsuspend", conn.one(sql, args![self.user_id, self.by.now]).await?)
            }
        };
        let user = rows::user(&row)?;
        let shown = |user: &User| {
            json!({
                "role": user.role.as_str(),
                "suspended_at": user.suspended_at.map(|t| t.rfc3339()),
                "suspended_reason": user.suspended_reason,
            })
        };
        // No e-mail: what is written here stays when the person has left.
        let details = json!({"before": shown(&before), "after": shown(&user)});
        audit::write(conn, &self.by, action, &self.user_id.to_string(), &details).await?;
        Ok(UserChanged::Done {
            user: Box::new(user),
            changed: true,
        })
    }
}

/// Whether the person can act as an operator.
fn may_operate(user: &User) -> bool {
    user.role == Role::Operator && user.suspended_at.is_none()
}

impl ChangeUser {
    async fn others_operate(&self, conn: &mut Conn<'_>) -> Result<bool> {
        let sql = sql!(
            "SELECT count(*) AS n FROM users WHERE role = 'operator' AND suspended_at IS NULL AND deleted_at IS NULL \
             AND id <> $1"
        );
        Ok(conn.one(sql, args![self.user_id]).await?.number::<u64>("n")? > 0)
    }
}

#[async_trait]
impl Write for Correct {
    type Out = Corrected;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Corrected> {
        let is_grant = self.kind == CorrectionKind::Grant;
        if self.amount == Credits::ZERO || (is_grant && self.amount < Credits::ZERO) {
            return Err(anyhow::anyhow!("{} credits cannot be given", self.amount).into());
        }
        let mut books = Books::open(conn, &BTreeSet::from([self.user_id])).await?;
        let Some(before) = books.available(self.user_id) else {
            return Ok(Corrected::Missing);
        };
        // Whoever comes second waits for the account, and finds the key taken.
        if let Some(key) = &self.idempotency_key {
            let sql = sql!("SELECT kind, from_account, to_account, amount FROM transfers WHERE idempotency_key = $1");
            if let Some(row) = conn.optional(sql, args![key]).await? {
                return Ok(match self.is_booked_as(&row)? {
                    true => Corrected::Done {
                        available: before,
                        replayed: true,
                    },
                    false => Corrected::KeyReused,
                });
            }
        }
        let gift = Gift {
            amount: self.amount,
            reason: &self.by.reason,
            actor: &self.by.actor,
            idempotency_key: self.idempotency_key.as_deref(),
            now: self.by.now,
        };
        match self.kind {
            CorrectionKind::Grant => books.give(self.user_id, &gift)?,
            CorrectionKind::Correction => {
                if !books.correct(self.user_id, &gift)? {
                    return Ok(Corrected::TooMuch { available: before });
                }
            }
        }
        let after = before + self.amount;
        bulk::write(conn, &books.into_bulks()?).await?;
        let action = if is_grant { "credits.grant" } else { "credits.correct" };
        let details = json!({
            "before": {"available": before}, "after": {"available": after},
            "amount": self.amount, "idempotency_key": self.idempotency_key,
        });
        audit::write(conn, &self.by, action, &self.user_id.to_string(), &details).await?;
        Ok(Corrected::Done {
            available: after,
            replayed: false,
        })
    }
}

impl Correct {
    fn is_booked_as(&self, row: &Row) -> Result<bool> {
        let kind = match self.kind {
            CorrectionKind::Grant => "grant",
            CorrectionKind::Correction => "correction",
        };
        let side = match self.amount > Credits::ZERO {
            true => "to_account",
            false => "from_account",
        };
        Ok(row.get::<String>("kind")? == kind
            && row.get::<String>(side)? == self.user_id.to_string()
            && row.credits("amount")?.0 == self.amount.0.abs())
    }
}

#[async_trait]
impl Write for Refund {
    type Out = Refunded;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Refunded> {
        if self.amount.is_some_and(|amount| amount <= Credits::ZERO) {
            return Err(anyhow::anyhow!("a refund must be more than zero").into());
        }
        let id = self.generation_id;
        // Every refund of a generation passes here, so what is left cannot change under our hands.
        generations::lock(conn, &[id]).await?;
        let Some(generation) = generations::by_id(conn, id).await? else {
            return Ok(Refunded::Missing);
        };
        let captured = generation.captured.unwrap_or_default();
        if captured <= Credits::ZERO {
            return Ok(Refunded::NotCharged(generation.status));
        }
        let owner = generation.user_id;
        let mut books = Books::open(conn, &BTreeSet::from([owner])).await?;
        let Some(before) = books.available(owner) else {
            return Err(anyhow::anyhow!("user {owner} has no account").into());
        };
        let key = self.idempotency_key.as_ref().map(|key| format!("refund:{id}:{key}"));
        if let Some(key) = &key {
            let sql = sql!("SELECT amount FROM transfers WHERE idempotency_key = $1");
            if let Some(row) = conn.optional(sql, args![key]).await? {
                let amount = row.credits("amount")?;
                return Ok(match self.amount.is_none_or(|asked| asked == amount) {
                    true => Refunded::Done {
                        generation: Box::new(generation),
                        amount,
                        available: before,
                        replayed: true,
                    },
                    false => Refunded::KeyReused,
                });
            }
        }
        let left = captured - generation.refunded;
        if left <= Credits::ZERO {
            return Ok(Refunded::NothingLeft(Box::new(generation)));
        }
        let amount = self.amount.unwrap_or(left);
        if amount > left {
            return Ok(Refunded::TooMuch { left });
        }
        let purpose = Purpose {
            generation_id: id,
            model_id: &generation.model_id,
            api_key_id: generation.api_key_id,
        };
        let reason = format!("Refund: {}", self.by.reason);
        let gift = Gift {
            amount,
            reason: &reason,
            actor: &self.by.actor,
            idempotency_key: key.as_deref(),
            now: self.by.now,
        };
        books.refund(owner, purpose, &gift)?;
        bulk::write(conn, &books.into_bulks()?).await?;
        let sql = sql!("UPDATE generations SET updated_at = $2 WHERE id = $1");
        conn.execute(sql, args![id, self.by.now]).await?;
        let refunded = generation.refunded + amount;
        let details = json!({
            "before": {"captured": captured, "refunded": generation.refunded},
            "after": {"captured": captured, "refunded": refunded},
            "amount": amount, "user_id": owner, "idempotency_key": self.idempotency_key,
        });
        audit::write(conn, &self.by, "generation.refund", &id.to_string(), &details).await?;
        Ok(Refunded::Done {
            generation: Box::new(crate::generation::Generation {
                refunded,
                updated_at: self.by.now,
                ..generation
            }),
            amount,
            available: before + amount,
            replayed: false,
        })
    }
}
