//! The only place that writes money: accounts, transfers, holds, settlements, statement lines.
//!
//! [`Books`] are opened over the accounts a batch touches, take bookings in order, and are written with one statement
//! per table, all inside the caller's transaction. Every booking keeps the invariants of [`crate::ledger`] by itself, so
//! that no caller can write half of one.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use super::bulk::Bulk;
use super::conn::{Conn, Sql, args, sql};
use super::error::Result;
use super::rows::{self, to_json};
use crate::clock::Micros;
use crate::id::{ApiKeyId, GenerationId, OrderId, StatementLineId, TransferId, UserId};
use crate::ledger::{self, Balance, Credits, LineType, Platform, Settlement};

/// What a generation's money movements say about it.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub(super) generation_id: GenerationId,
    pub(super) model_id: &'a str,
    /// The key it was asked with, whose spending is counted.
    pub(super) api_key_id: Option<ApiKeyId>,
}

impl Purpose<'_> {
    fn metadata(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("generation_id".into(), json!(self.generation_id));
        map.insert("model_id".into(), json!(self.model_id));
        map
    }
}

/// A gift to a user from the platform's grants.
pub(super) struct Gift<'a> {
    pub(super) amount: Credits,
    pub(super) reason: &'a str,
    pub(super) actor: &'a str,
    pub(super) idempotency_key: Option<&'a str>,
    pub(super) now: Micros,
}

/// A purchase of credits, or what takes one back.
pub(super) struct Deal<'a> {
    pub(super) order_id: OrderId,
    pub(super) reason: &'a str,
    pub(super) actor: &'a str,
    pub(super) now: Micros,
}

#[derive(Default)]
struct Account {
    /// As it will be.
    now: Balance,
    /// Difference to what is stored.
    balance_delta: Credits,
    held_delta: Credits,
    debt_delta: Credits,
}

/// A key whose spending is bounded.
struct Key {
    /// What it may still spend; `None` without a cap.
    remaining: Option<Credits>,
    spent_delta: Credits,
}

/// A movement of `amount` credits to the account of a user (below zero: from it), seen from both sides.
struct Movement<'a> {
    kind: &'static str,
    platform: Platform,
    amount: Credits,
    line: LineType,
    reason: &'a str,
    actor: &'a str,
    idempotency_key: Option<String>,
    order_id: Option<OrderId>,
    purpose: Option<Purpose<'a>>,
    now: Micros,
}

#[derive(Serialize)]
struct TransferRow {
    id: TransferId,
    kind: &'static str,
    from: String,
    to: String,
    amount: Credits,
    generation_id: Option<GenerationId>,
    order_id: Option<OrderId>,
    reason: String,
    actor: String,
    idempotency_key: Option<String>,
    at: Micros,
}

#[derive(Serialize)]
struct HoldRow {
    generation_id: GenerationId,
    account_id: UserId,
    amount: Credits,
    at: Micros,
}

#[derive(Serialize)]
struct SettlementRow {
    generation_id: GenerationId,
    account_id: UserId,
    captured: Credits,
    released: Credits,
    actor: String,
    at: Micros,
}

#[derive(Serialize)]
struct LineRow {
    id: StatementLineId,
    user_id: UserId,
    line_type: &'static str,
    amount: Credits,
    balance_after: Credits,
    description: String,
    generation_id: Option<GenerationId>,
    metadata: String,
    at: Micros,
}

#[derive(Serialize)]
struct DeltaRow<'a> {
    id: &'a str,
    balance: Credits,
    held: Credits,
    debt: Credits,
}

#[derive(Serialize)]
struct KeyRow {
    id: ApiKeyId,
    spent: Credits,
}

/// Bookings of one transaction.
pub(super) struct Books {
    users: BTreeMap<UserId, Account>,
    keys: BTreeMap<ApiKeyId, Key>,
    platform: BTreeMap<&'static str, Credits>,
    transfers: Vec<TransferRow>,
    holds: Vec<HoldRow>,
    settlements: Vec<SettlementRow>,
    lines: Vec<LineRow>,
}

impl Books {
    /// Reads and locks the accounts of `users`; somebody without an account is simply not in the books. Accounts are
    /// locked in the order of their ids, and after every generation and attempt of the transaction.
    pub(super) async fn open(conn: &mut Conn<'_>, users: &BTreeSet<UserId>) -> Result<Books> {
        let mut books = Books::with([]);
        let rows = conn
            .all(
                sql!(
                    sqlite: "SELECT a.user_id, a.balance, a.held, a.debt FROM json_each($1) AS j \
                        JOIN accounts AS a ON a.id = j.value",
                    postgres: "SELECT user_id, balance, held, debt FROM accounts \
                        WHERE id IN (SELECT json_array_elements_text($1::json)) ORDER BY id FOR NO KEY UPDATE",
                ),
                args![&to_json(users)?],
            )
            .await?;
        for row in &rows {
            books.enter(row.id("user_id")?, rows::balance(row)?);
        }
        Ok(books)
    }

    /// Books over accounts that were read by the caller in the same transaction.
    pub(super) fn with(accounts: impl IntoIterator<Item = (UserId, Balance)>) -> Books {
        let mut books = Books {
            users: BTreeMap::new(),
            keys: BTreeMap::new(),
            platform: BTreeMap::new(),
            transfers: Vec::new(),
            holds: Vec::new(),
            settlements: Vec::new(),
            lines: Vec::new(),
        };
        for (user, balance) in accounts {
            books.enter(user, balance);
        }
        books
    }

    fn enter(&mut self, user: UserId, now: Balance) {
        self.users.entry(user).or_insert(Account {
            now,
            ..Account::default()
        });
    }

    /// What `user` can spend after the bookings so far; `None` without an account.
    pub(super) fn available(&self, user: UserId) -> Option<Credits> {
        self.users.get(&user).map(|a| a.now.available())
    }

    /// Notes what a key may still spend, as read under the lock of its owner's account.
    pub(super) fn enter_key(&mut self, key: ApiKeyId, remaining: Option<Credits>) {
        self.keys.entry(key).or_insert(Key {
            remaining,
            spent_delta: Credits::ZERO,
        });
    }

    /// What `key` may still spend after the bookings so far; `None` without a cap.
    pub(super) fn remaining(&self, key: ApiKeyId) -> Option<Credits> {
        self.keys.get(&key)?.remaining
    }

    /// Credits from the platform's grants, with the `bonus` line.
    pub(super) fn give(&mut self, user: UserId, gift: &Gift<'_>) -> Result<()> {
        self.grant("grant", user, gift).map(drop)
    }

    /// Sets a grant right, in either direction, with the `bonus` line. False when the user has not that much to take.
    pub(super) fn correct(&mut self, user: UserId, gift: &Gift<'_>) -> Result<bool> {
        self.grant("correction", user, gift)
    }

    fn grant(&mut self, kind: &'static str, user: UserId, gift: &Gift<'_>) -> Result<bool> {
        let available = self.account(user)?.now.available();
        if gift.amount < Credits::ZERO && available + gift.amount < Credits::ZERO {
            return Ok(false);
        }
        self.transfer(
            user,
            &Movement {
                kind,
                platform: Platform::Grants,
                amount: gift.amount,
                line: LineType::Bonus,
                reason: gift.reason,
                actor: gift.actor,
                idempotency_key: gift.idempotency_key.map(str::to_owned),
                order_id: None,
                purpose: None,
                now: gift.now,
            },
        )?;
        Ok(true)
    }

    /// Credits that were bought, with the `purchase` line; once per order, as the key says.
    pub(super) fn sell(&mut self, user: UserId, credits: Credits, deal: &Deal<'_>) -> Result<()> {
        let key = Some(format!("purchase:{}", deal.order_id));
        self.deal("purchase", user, credits, key, deal)
    }

    /// Takes credits of a purchase back (`credits` above zero), or gives them back after all (below zero). What has been
    /// spent already becomes a debt. The caller holds the lock of the order, and writes there how much is reversed.
    pub(super) fn reverse(&mut self, user: UserId, credits: Credits, deal: &Deal<'_>) -> Result<()> {
        self.deal("reversal", user, -credits, None, deal)?;
        let account = self.account(user)?;
        account.debt_delta += account.now.missing() - account.now.debt;
        account.now.debt = account.now.missing();
        Ok(())
    }

    fn deal(
        &mut self,
        kind: &'static str,
        user: UserId,
        credits: Credits,
        idempotency_key: Option<String>,
        deal: &Deal<'_>,
    ) -> Result<()> {
        self.transfer(
            user,
            &Movement {
                kind,
                platform: Platform::Purchases,
                amount: credits,
                line: LineType::Purchase,
                reason: deal.reason,
                actor: deal.actor,
                idempotency_key,
                order_id: Some(deal.order_id),
                purpose: None,
                now: deal.now,
            },
        )
    }

    /// Gives back what was captured for a generation, with the `refund` line. The caller has checked, under the lock of the
    /// generation, that not more goes back than was captured.
    pub(super) fn refund(&mut self, user: UserId, purpose: Purpose<'_>, gift: &Gift<'_>) -> Result<()> {
        self.transfer(
            user,
            &Movement {
                kind: "refund",
                platform: Platform::Refunds,
                amount: gift.amount,
                line: LineType::Refund,
                reason: gift.reason,
                actor: gift.actor,
                idempotency_key: gift.idempotency_key.map(str::to_owned),
                order_id: None,
                purpose: Some(purpose),
                now: gift.now,
            },
        )
    }

    /// Both sides of a movement and its line.
    fn transfer(&mut self, user: UserId, movement: &Movement<'_>) -> Result<()> {
        let amount = movement.amount;
        if amount == Credits::ZERO {
            return Ok(());
        }
        let account = self.account(user)?;
        let balance = account.now.balance.0.checked_add(amount.0);
        let overflow = || anyhow::anyhow!("{amount} credits more are more than an account can hold");
        account.now.balance = Credits(balance.ok_or_else(overflow)?);
        account.balance_delta += amount;
        account.pay_debt();
        let platform = movement.platform.account();
        *self.platform.entry(platform).or_default() -= amount;
        let (from, to) = match amount > Credits::ZERO {
            true => (platform.to_owned(), user.to_string()),
            false => (user.to_string(), platform.to_owned()),
        };
        self.transfers.push(TransferRow {
            id: TransferId::new(),
            kind: movement.kind,
            from,
            to,
            amount: Credits(amount.0.abs()),
            generation_id: movement.purpose.map(|p| p.generation_id),
            order_id: movement.order_id,
            reason: movement.reason.into(),
            actor: movement.actor.into(),
            idempotency_key: movement.idempotency_key.clone(),
            at: movement.now,
        });
        let (line, reason) = (movement.line, movement.reason.to_owned());
        self.line(user, line, amount, reason, movement.purpose, movement.now)
    }

    /// Places a hold with its `usage` line, if the account can afford it after the bookings before.
    pub(super) fn hold(&mut self, user: UserId, purpose: Purpose<'_>, price: Credits, now: Micros) -> Result<bool> {
        let account = self.account(user)?;
        let affordable = ledger::spend_in_order(&mut [account.now.available()], &[(0, price)]);
        if affordable != [true] {
            return Ok(false);
        }
        account.now.held += price;
        account.held_delta += price;
        self.count(purpose.api_key_id, price);
        self.holds.push(HoldRow {
            generation_id: purpose.generation_id,
            account_id: user,
            amount: price,
            at: now,
        });
        let text = format!("Generation with {}", purpose.model_id);
        self.line(user, LineType::Usage, -price, text, Some(purpose), now)?;
        Ok(true)
    }

    /// Ends a hold: captures and releases, with the `refund` line for what is released. `why` is the refund's sentence.
    pub(super) fn settle(
        &mut self,
        user: UserId,
        purpose: Purpose<'_>,
        settlement: Settlement,
        why: String,
        actor: &str,
        now: Micros,
    ) -> Result<()> {
        let Settlement { captured, released } = settlement;
        let account = self.account(user)?;
        account.now.held -= captured + released;
        account.held_delta -= captured + released;
        account.now.balance -= captured;
        account.balance_delta -= captured;
        account.pay_debt();
        self.count(purpose.api_key_id, -released);
        self.settlements.push(SettlementRow {
            generation_id: purpose.generation_id,
            account_id: user,
            captured,
            released,
            actor: actor.into(),
            at: now,
        });
        if captured > Credits::ZERO {
            *self.platform.entry(Platform::Revenue.account()).or_default() += captured;
            self.transfers.push(TransferRow {
                id: TransferId::new(),
                kind: "capture",
                from: user.to_string(),
                to: Platform::Revenue.account().into(),
                amount: captured,
                generation_id: Some(purpose.generation_id),
                order_id: None,
                reason: format!("Delivered by {}", purpose.model_id),
                actor: actor.into(),
                idempotency_key: None,
                at: now,
            });
        }
        self.line(user, LineType::Refund, released, why, Some(purpose), now)
    }

    /// Adds to what a key has spent.
    fn count(&mut self, key: Option<ApiKeyId>, spent: Credits) {
        let Some(key) = key.filter(|_| spent != Credits::ZERO) else {
            return;
        };
        let key = self.keys.entry(key).or_insert(Key {
            remaining: None,
            spent_delta: Credits::ZERO,
        });
        key.spent_delta += spent;
        key.remaining = key.remaining.map(|left| left - spent);
    }

    fn account(&mut self, user: UserId) -> Result<&mut Account> {
        let missing = || anyhow::anyhow!("user {user} has no account");
        Ok(self.users.get_mut(&user).ok_or_else(missing)?)
    }

    /// Nothing moved, nothing is stated: a line of zero is left out.
    fn line(
        &mut self,
        user: UserId,
        line_type: LineType,
        amount: Credits,
        description: String,
        purpose: Option<Purpose<'_>>,
        at: Micros,
    ) -> Result<()> {
        if amount == Credits::ZERO {
            return Ok(());
        }
        let balance_after = self.account(user)?.now.available();
        self.lines.push(LineRow {
            id: StatementLineId::new(),
            user_id: user,
            line_type: line_type.as_str(),
            amount,
            balance_after,
            description,
            generation_id: purpose.map(|p| p.generation_id),
            metadata: to_json(&purpose.map(|p| p.metadata()).unwrap_or_default())?,
            at,
        });
        Ok(())
    }

    /// Everything as statements, one per table that has something new. The generations must be there already, or come in
    /// a statement before.
    pub(super) fn into_bulks(self) -> Result<Vec<Bulk>> {
        let names: Vec<String> = self.users.keys().map(UserId::to_string).collect();
        let users = names.iter().zip(self.users.values()).map(|(id, account)| DeltaRow {
            id,
            balance: account.balance_delta,
            held: account.held_delta,
            debt: account.debt_delta,
        });
        let platform = self.platform.iter().map(|(&id, &balance)| DeltaRow {
            id,
            balance,
            held: Credits::ZERO,
            debt: Credits::ZERO,
        });
        let deltas: Vec<DeltaRow<'_>> = users
            .chain(platform)
            .filter(|d| [d.balance, d.held, d.debt] != [Credits::ZERO; 3])
            .collect();
        let keys = self.keys.iter().map(|(&id, key)| KeyRow {
            id,
            spent: key.spent_delta,
        });
        let keys: Vec<KeyRow> = keys.filter(|k| k.spent != Credits::ZERO).collect();
        let bulks = [
            Bulk::of(UPDATE_ACCOUNTS, &deltas)?,
            Bulk::of(UPDATE_KEYS, &keys)?,
            Bulk::of(INSERT_TRANSFERS, &self.transfers)?,
            Bulk::of(INSERT_HOLDS, &self.holds)?,
            Bulk::of(INSERT_SETTLEMENTS, &self.settlements)?,
            Bulk::of(INSERT_LINES, &self.lines)?,
        ];
        Ok(bulks.into_iter().flatten().collect())
    }
}

impl Account {
    /// What comes in pays the debt first. Only a reversal makes one.
    fn pay_debt(&mut self) {
        let left = self.now.debt.min(self.now.missing());
        self.debt_delta += left - self.now.debt;
        self.now.debt = left;
    }
}

const UPDATE_ACCOUNTS: Sql = sql!(
    sqlite: "UPDATE accounts SET balance = balance + (j.value->>'balance'), held = held + (j.value->>'held'), \
        debt = debt + (j.value->>'debt') FROM json_each($1) AS j WHERE accounts.id = j.value->>'id'",
    postgres: "UPDATE accounts AS a SET balance = a.balance + j.balance, held = a.held + j.held, debt = a.debt + j.debt \
        FROM json_to_recordset($1::json) AS j (id text, balance bigint, held bigint, debt bigint) WHERE a.id = j.id",
);

const UPDATE_KEYS: Sql = sql!(
    sqlite: "UPDATE api_keys SET spent = spent + (j.value->>'spent') FROM json_each($1) AS j \
        WHERE api_keys.id = j.value->>'id'",
    postgres: "UPDATE api_keys AS k SET spent = k.spent + j.spent \
        FROM json_to_recordset($1::json) AS j (id uuid, spent bigint) WHERE k.id = j.id",
);

const INSERT_TRANSFERS: Sql = sql!(
    sqlite: "INSERT INTO transfers (id, kind, from_account, to_account, amount, generation_id, order_id, reason, actor, \
        idempotency_key, created_at) \
        SELECT value->>'id', value->>'kind', value->>'from', value->>'to', value->>'amount', \
        value->>'generation_id', value->>'order_id', value->>'reason', value->>'actor', value->>'idempotency_key', value->>'at' \
        FROM json_each($1) ORDER BY key",
    postgres: "INSERT INTO transfers (id, kind, from_account, to_account, amount, generation_id, order_id, reason, actor, \
        idempotency_key, created_at) \
        SELECT id, kind, \"from\", \"to\", amount, generation_id, order_id, reason, actor, idempotency_key, velro_time(at) \
        FROM json_to_recordset($1::json) AS j (id uuid, kind text, \"from\" text, \"to\" text, amount bigint, \
        generation_id uuid, order_id uuid, reason text, actor text, idempotency_key text, at bigint)",
);

const INSERT_HOLDS: Sql = sql!(
    sqlite: "INSERT INTO holds (generation_id, account_id, amount, created_at) \
        SELECT value->>'generation_id', value->>'account_id', value->>'amount', value->>'at' \
        FROM json_each($1) ORDER BY key",
    postgres: "INSERT INTO holds (generation_id, account_id, amount, created_at) \
        SELECT generation_id, account_id, amount, velro_time(at) FROM json_to_recordset($1::json) \
        AS j (generation_id uuid, account_id text, amount bigint, at bigint)",
);

const INSERT_SETTLEMENTS: Sql = sql!(
    sqlite: "INSERT INTO settlements (generation_id, account_id, captured, released, actor, created_at) \
        SELECT value->>'generation_id', value->>'account_id', value->>'captured', value->>'released', \
        value->>'actor', value->>'at' FROM json_each($1) ORDER BY key",
    postgres: "INSERT INTO settlements (generation_id, account_id, captured, released, actor, created_at) \
        SELECT generation_id, account_id, captured, released, actor, velro_time(at) FROM json_to_recordset($1::json) \
        AS j (generation_id uuid, account_id text, captured bigint, released bigint, actor text, at bigint)",
);

/// The order of the lines is the order of the books: `balance_after` depends on it.
const INSERT_LINES: Sql = sql!(
    sqlite: "INSERT INTO statement_lines (id, user_id, line_type, amount, balance_after, description, generation_id, \
        metadata, created_at) \
        SELECT value->>'id', value->>'user_id', value->>'line_type', value->>'amount', value->>'balance_after', \
        value->>'description', value->>'generation_id', value->>'metadata', value->>'at' \
        FROM json_each($1) ORDER BY key",
    postgres: "INSERT INTO statement_lines (id, user_id, line_type, amount, balance_after, description, generation_id, \
        metadata, created_at) \
        SELECT id, user_id, line_type, amount, balance_after, description, generation_id, metadata::jsonb, velro_time(at) \
        FROM ROWS FROM (json_to_recordset($1::json) AS (id uuid, user_id uuid, line_type text, amount bigint, \
        balance_after bigint, description text, generation_id uuid, metadata text, at bigint)) WITH ORDINALITY \
        AS j (id, user_id, line_type, amount, balance_after, description, generation_id, metadata, at, ord) ORDER BY ord",
);
