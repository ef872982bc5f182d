//! `velro credits`.

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Desk, by, print_json, view};
use crate::cli::credits::CreditsCommand;
use crate::cli::sign::SignArgs;
use crate::ledger::Credits;
use crate::store::{Correct, Corrected, CorrectionKind, StatementFilter};

/// Statement lines that `velro credits show` prints.
const SHOWN_LINES: u32 = 20;

impl Desk<'_> {
    pub(super) async fn credits(&self, command: CreditsCommand) -> Result<()> {
        match command {
            CreditsCommand::Grant {
                user,
                amount,
                reason,
                key,
                sign,
            } => {
                self.book(&user, CorrectionKind::Grant, amount, &reason, key, &sign)
                    .await
            }
            CreditsCommand::Correct {
                user,
                amount,
                reason,
                key,
                sign,
            } => {
                self.book(&user, CorrectionKind::Correction, amount, &reason, key, &sign)
                    .await
            }
            CreditsCommand::Show { user, json } => self.show_credits(&user, json).await,
        }
    }

    async fn book(
        &self,
        user: &str,
        kind: CorrectionKind,
        amount: i64,
        reason: &str,
        key: Option<String>,
        sign: &SignArgs,
    ) -> Result<()> {
        if amount == 0 {
            bail!("0 credits change nothing; say how many, or below zero how many fewer");
        }
        let reserved = ["start:", "purchase:", "redeem:", "refund:", "operator:"];
        if let Some(prefix) = key
            .as_ref()
            .and_then(|key| reserved.iter().find(|p| key.starts_with(**p)))
        {
            bail!("a key must not begin with `{prefix}`: Velro writes such keys itself");
        }
        let user = self.find(user).await?;
        let email = &user.email;
        let correct = Correct {
            user_id: user.id,
            kind,
            amount: Credits(amount),
            by: by(sign, reason),
            idempotency_key: key,
        };
        match self.store.correct(correct).await? {
            Corrected::Done { available, replayed } => {
                if sign.json {
                    return print_json(&json!({
                        "user_id": user.id, "email": email, "amount": if replayed { 0 } else { amount },
                        "available": available, "replayed": replayed,
                    }));
                }
                match (replayed, amount > 0) {
                    (true, _) => println!("this key has been used before; nothing was given. {email} has {available}"),
                    (false, true) => println!("gave {amount} to {email}, who has {available} now"),
                    (false, false) => println!("took {} from {email}, who has {available} now", -amount),
                }
                Ok(())
            }
            Corrected::TooMuch { available } => {
                bail!("{email} has {available} credits to spend; nothing was taken")
            }
            Corrected::KeyReused => {
                bail!("this key was used for another amount or another user; nothing was changed")
            }
            Corrected::Missing => bail!("{email} has no account"),
        }
    }

    async fn show_credits(&self, user: &str, json: bool) -> Result<()> {
        let user = self.find(user).await?;
        let email = &user.email;
        let balance = self
            .store
            .balance(user.id)
            .await?
            .with_context(|| format!("{email} has no account"))?;
        let filter = StatementFilter {
            line_type: None,
            skip: 0,
            limit: SHOWN_LINES,
        };
        let page = self.store.statement(user.id, filter).await?;
        if json {
            return print_json(&json!({
                "user_id": user.id, "email": email, "balance": view::balance(&balance),
                "transactions": page.items.iter().map(view::line).collect::<Vec<_>>(), "total": page.total,
            }));
        }
        println!("{email}: {} available, {} held", balance.available(), balance.held);
        for line in &page.items {
            println!(
                "{}  {:>8}  {:>8}  {:<8}  {}",
                line.created_at.rfc3339(),
                line.amount,
                line.balance_after,
                line.line_type.as_str(),
                line.description
            );
        }
        if page.total > page.items.len() as u64 {
            println!("... and {} older lines", page.total - page.items.len() as u64);
        }
        Ok(())
    }
}
