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
use super::rows::to_json;
use crate::clock::Micros;
use crate::id::{GenerationId, StatementLineId, TransferId, UserId};
use crate::ledger::{self, Balance, Credits, LineType, Platform, Settlement};

/// What a generation's money movements say about it.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub(super) generation_id: GenerationId,
    pub(super) model_id: &'a str,
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

#[derive(Default)]
struct Account {
    /// As it will be.
    now: Balance,
    /// Difference to what is stored.
    balance_delta: Credits,
    held_delta: Credits,
}

#[derive(Serialize)]
struct TransferRow {
    id: TransferId,
    kind: &'static str,
    from: String,
    to: String,
    amount: Credits,
    generation_id: Option<GenerationId>,
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
}

/// Bookings of one transaction.
pub(super) struct Books {
    users: BTreeMap<UserId, Account>,
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
                    sqlite: "SELECT a.user_id, a.balance, a.held FROM json_each($1) AS j \
                        JOIN accounts AS a ON a.id = j.value",
                    postgres: "SELECT user_id, balance, held FROM accounts \
                        WHERE id IN (SELECT json_array_elements_text($1::json)) ORDER BY id FOR NO KEY UPDATE",
                ),
                args![&to_json(users)?],
            )
            .await?;
        for row in &rows {
            let balance = Balance {
                balance: row.credits("balance")?,
                held: row.credits("held")?,
            };
            books.enter(row.id("user_id")?, balance);
        }
        Ok(books)
    }

    /// Books over accounts that were read by the caller in the same transaction.
    pub(super) fn with(accounts: impl IntoIterator<Item = (UserId, Balance)>) -> Books {
        let mut books = Books {
            users: BTreeMap::new(),
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

    /// Credits from the platform's grants, with the `bonus` line.
    pub(super) fn give(&mut self, user: UserId, gift: &Gift<'_>) -> Result<()> {
        let account = self.account(user)?;
        let balance = account.now.balance.0.checked_add(gift.amount.0);
        let overflow = || anyhow::anyhow!("{} credits more are more than an account can hold", gift.amount);
        account.now.balance = Credits(balance.ok_or_else(overflow)?);
        account.balance_delta += gift.amount;
        *self.platform.entry(Platform::Grants.account()).or_default() -= gift.amount;
        self.transfers.push(TransferRow {
            id: TransferId::new(),
            kind: "grant",
            from: Platform::Grants.account().into(),
            to: user.to_string(),
            amount: gift.amount,
            generation_id: None,
            reason: gift.reason.into(),
            actor: gift.actor.into(),
            idempotency_key: gift.idempotency_key.map(str::to_owned),
            at: gift.now,
        });
        self.line(user, LineType::Bonus, gift.amount, gift.reason.into(), None, gift.now)
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
                reason: format!("Delivered by {}", purpose.model_id),
                actor: actor.into(),
                idempotency_key: None,
                at: now,
            });
        }
        self.line(user, LineType::Refund, released, why, Some(purpose), now)
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
        });
        let platform = self.platform.iter().map(|(&id, &balance)| DeltaRow {
            id,
            balance,
            held: Credits::ZERO,
        });
        let deltas: Vec<DeltaRow<'_>> = users
            .chain(platform)
            .filter(|d| d.balance != Credits::ZERO || d.held != Credits::ZERO)
            .collect();
        let bulks = [
            Bulk::of(UPDATE_ACCOUNTS, &deltas)?,
            Bulk::of(INSERT_TRANSFERS, &self.transfers)?,
            Bulk::of(INSERT_HOLDS, &self.holds)?,
            Bulk::of(INSERT_SETTLEMENTS, &self.settlements)?,
            Bulk::of(INSERT_LINES, &self.lines)?,
        ];
        Ok(bulks.into_iter().flatten().collect())
    }
}

const UPDATE_ACCOUNTS: Sql = sql!(
    sqlite: "UPDATE accounts SET balance = balance + (j.value->>'balance'), held = held + (j.value->>'held') \
        FROM json_each($1) AS j WHERE accounts.id = j.value->>'id'",
    postgres: "UPDATE accounts AS a SET balance = a.balance + j.balance, held = a.held + j.held \
        FROM json_to_recordset($1::json) AS j (id text, balance bigint, held bigint) WHERE a.id = j.id",
);

const INSERT_TRANSFERS: Sql = sql!(
    sqlite: "INSERT INTO transfers (id, kind, from_account, to_account, amount, generation_id, reason, actor, \
        idempotency_key, created_at) \
        SELECT value->>'id', value->>'kind', value->>'from', value->>'to', value->>'amount', \
        value->>'generation_id', value->>'reason', value->>'actor', value->>'idempotency_key', value->>'at' \
        FROM json_each($1) ORDER BY key",
    postgres: "INSERT INTO transfers (id, kind, from_account, to_account, amount, generation_id, reason, actor, \
        idempotency_key, created_at) \
        SELECT id, kind, \"from\", \"to\", amount, generation_id, reason, actor, idempotency_key, velro_time(at) \
        FROM json_to_recordset($1::json) AS j (id uuid, kind text, \"from\" text, \"to\" text, amount bigint, \
        generation_id uuid, reason text, actor text, idempotency_key text, at bigint)",
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
