//! Redeem codes. A use is one transaction: the row of the code is locked first, then the account, so that a code is used as
//! often as it says and no more, however many people come at once.

use async_trait::async_trait;
use serde_json::json;
use std::collections::BTreeSet;

use super::books::{Books, Gift};
use super::conn::{Conn, Row, args, sql};
use super::error::Result;
use super::rows::columns;
use super::writer::Write;
use super::{audit, bulk};
use crate::id::{RedeemCodeId, UserId};
use crate::store::{By, Created, Listed, NewCode, Redeem, RedeemCode, Redeemed, Redemption};

/// `columns!(redeem_codes)`.
fn code(row: &Row) -> Result<RedeemCode> {
    Ok(RedeemCode {
        id: row.id("id")?,
        hint: row.get("hint")?,
        credits: row.credits("credits")?,
        max_uses: row.number("max_uses")?,
        uses: row.number("uses")?,
        per_user_limit: row.number("per_user_limit")?,
        note: row.get("note")?,
        created_by: row.get("created_by")?,
        created_at: row.micros("created_at")?,
        expires_at: row.optional_micros("expires_at")?,
        disabled_at: row.optional_micros("disabled_at")?,
    })
}

#[async_trait]
impl Write for NewCode {
    type Out = Created<RedeemCode>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Created<RedeemCode>> {
        let sql = sql!(concat!(
            "INSERT INTO redeem_codes (id, hash, hint, credits, max_uses, per_user_limit, note, created_by, created_at, \
             expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (hash) DO NOTHING RETURNING ",
            columns!(redeem_codes "")
        ));
        let args = args![
            self.id,
            &self.hash,
            &self.hint,
            self.credits,
            self.max_uses,
            self.per_user_limit,
            &self.note,
            &self.by.actor,
            self.by.now,
            self.expires_at,
        ];
        let Some(row) = conn.optional(sql, args).await? else {
            return Ok(Created::Taken);
        };
        let details = json!({
            "before": null,
            "after": {
                "hint": self.hint, "credits": self.credits, "max_uses": self.max_uses,
                "per_user_limit": self.per_user_limit, "note": self.note,
                "expires_at": self.expires_at.map(|t| t.rfc3339()),
            },
        });
        audit::write(conn, &self.by, "code.create", &self.id.to_string(), &details).await?;
        Ok(Created::New(code(&row)?))
    }
}

/// Newest first.
pub(super) async fn list(conn: &mut Conn<'_>, after: Option<RedeemCodeId>, limit: u32) -> Result<Listed<RedeemCode>> {
    let sql = sql!(
        sqlite: concat!("SELECT ", columns!(redeem_codes ""), " FROM redeem_codes WHERE ($1 IS NULL OR id < $1) \
            ORDER BY id DESC LIMIT $2"),
        postgres: concat!("SELECT ", columns!(redeem_codes ""), " FROM redeem_codes WHERE ($1::uuid IS NULL OR id < $1) \
            ORDER BY id DESC LIMIT $2"),
    );
    let rows = conn.all(sql, args![after, limit + 1]).await?;
    let codes = rows.iter().map(code).collect::<Result<_>>()?;
    Ok(Listed::of(codes, limit))
}

/// One with its newest uses. Runs in a transaction.
pub(super) async fn by_id(conn: &mut Conn<'_>, id: RedeemCodeId) -> Result<Option<(RedeemCode, Vec<Redemption>)>> {
    let sql = sql!(concat!(
        "SELECT ",
        columns!(redeem_codes ""),
        " FROM redeem_codes WHERE id = $1"
    ));
    let Some(row) = conn.optional(sql, args![id]).await? else {
        return Ok(None);
    };
    let sql = sql!(
        "SELECT r.user_id, u.email, r.ordinal, r.credits, r.created_at FROM redemptions AS r \
         JOIN users AS u ON u.id = r.user_id WHERE r.code_id = $1 ORDER BY r.created_at DESC, r.user_id, r.ordinal DESC \
         LIMIT 100"
    );
    let uses = conn.all(sql, args![id]).await?;
    let uses = uses.iter().map(|row| {
        Ok(Redemption {
            user_id: row.id("user_id")?,
            email: row.get("email")?,
            ordinal: row.number("ordinal")?,
            credits: row.credits("credits")?,
            created_at: row.micros("created_at")?,
        })
    });
    Ok(Some((code(&row)?, uses.collect::<Result<_>>()?)))
}

/// Ends a code.
pub(super) struct Disable {
    pub(super) id: RedeemCodeId,
    pub(super) by: By,
}

#[async_trait]
impl Write for Disable {
    type Out = Option<(RedeemCode, bool)>;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Option<(RedeemCode, bool)>> {
        let sql = sql!(concat!(
            "UPDATE redeem_codes SET disabled_at = $2 WHERE id = $1 AND disabled_at IS NULL RETURNING ",
            columns!(redeem_codes "")
        ));
        let Some(row) = conn.optional(sql, args![self.id, self.by.now]).await? else {
            return Ok(by_id(conn, self.id).await?.map(|(code, _)| (code, false)));
        };
        let code = code(&row)?;
        let at = code.disabled_at.map(|t| t.rfc3339());
        let details = json!({"before": {"disabled_at": null}, "after": {"disabled_at": at}, "uses": code.uses});
        audit::write(conn, &self.by, "code.disable", &self.id.to_string(), &details).await?;
        Ok(Some((code, true)))
    }
}

/// Whether a person is there, and may spend.
async fn is_suspended(conn: &mut Conn<'_>, user: UserId) -> Result<Option<bool>> {
    let sql = sql!(
        sqlite: "SELECT suspended_at IS NOT NULL OR deleted_at IS NOT NULL AS suspended FROM users WHERE id = $1",
        postgres: "SELECT (suspended_at IS NOT NULL OR deleted_at IS NOT NULL) AS suspended FROM users WHERE id = $1",
    );
    let row = conn.optional(sql, args![user]).await?;
    row.map(|row| row.get("suspended")).transpose()
}

#[async_trait]
impl Write for Redeem {
    type Out = Redeemed;

    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Redeemed> {
        match is_suspended(conn, self.user_id).await? {
            None => return Ok(Redeemed::NoSuchUser),
            Some(true) => return Ok(Redeemed::Suspended),
            Some(false) => {}
        }
        let sql = sql!(
            sqlite: concat!("SELECT ", columns!(redeem_codes ""), " FROM redeem_codes WHERE hash = $1"),
            postgres: concat!("SELECT ", columns!(redeem_codes ""), " FROM redeem_codes WHERE hash = $1 FOR NO KEY UPDATE"),
        );
        let row = conn.optional(sql, args![&self.hash]).await?;
        let Some(code) = row.as_ref().map(code).transpose()?.filter(|c| c.disabled_at.is_none()) else {
            return Ok(Redeemed::Unknown);
        };
        let sql = sql!("SELECT count(*) AS n FROM redemptions WHERE code_id = $1 AND user_id = $2");
        let times: u32 = conn.one(sql, args![code.id, self.user_id]).await?.number("n")?;
        if times >= code.per_user_limit {
            return Ok(Redeemed::AlreadyRedeemed);
        }
        if code.expires_at.is_some_and(|at| at <= self.now) {
            return Ok(Redeemed::Expired);
        }
        if code.uses >= code.max_uses {
            return Ok(Redeemed::UsedUp);
        }
        let mut books = Books::open(conn, &BTreeSet::from([self.user_id])).await?;
        let Some(before) = books.available(self.user_id) else {
            return Ok(Redeemed::NoSuchUser);
        };
        let ordinal = times + 1;
        let key = format!("redeem:{}:{}:{ordinal}", code.id, self.user_id);
        let gift = Gift {
            amount: code.credits,
            reason: &format!("Redeemed the code {}", code.hint),
            actor: &format!("user {}", self.user_id),
            idempotency_key: Some(&key),
            now: self.now,
        };
        books.give(self.user_id, &gift)?;
        let sql = sql!("UPDATE redeem_codes SET uses = uses + 1 WHERE id = $1");
        conn.execute(sql, args![code.id]).await?;
        let sql = sql!(
            "INSERT INTO redemptions (code_id, user_id, ordinal, credits, created_at) VALUES ($1, $2, $3, $4, $5)"
        );
        let args = args![code.id, self.user_id, ordinal, code.credits, self.now];
        conn.execute(sql, args).await?;
        bulk::write(conn, &books.into_bulks()?).await?;
        Ok(Redeemed::Done {
            credits: code.credits,
            available: before + code.credits,
        })
    }
}
