//! `velro codes`.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::table::{ago, short, table};
use super::{Desk, by, cursor, id, print_json, print_more, view};
use crate::cli::codes::CodesCommand;
use crate::cli::sign::ListArgs;
use crate::clock::{self, Micros};
use crate::desk::code;
use crate::id::RedeemCodeId;
use crate::ledger::Credits;
use crate::store::{Created, NewCode, RedeemCode};

impl Desk<'_> {
    pub(super) async fn codes(&self, command: CodesCommand) -> Result<()> {
        match command {
            CodesCommand::Create {
                amount,
                uses,
                per_user,
                expires_in,
                code: wanted,
                note,
                sign,
            } => {
                let fresh = match &wanted {
                    Some(text) => code::chosen(text).with_context(|| format!("--code {}", code::CHOSEN_RULE))?,
                    None => code::generated()?,
                };
                let by = by(&sign, &note);
                let new = NewCode {
                    id: RedeemCodeId::new(),
                    hash: fresh.hash,
                    hint: fresh.hint,
                    credits: Credits(amount),
                    max_uses: uses,
                    per_user_limit: per_user,
                    expires_at: expires_in.map(|life| by.now.plus(life)),
                    note,
                    by,
                };
                let Created::New(stored) = self.store.create_code(new).await? else {
                    bail!("there is such a code already; nothing was made");
                };
                if sign.json {
                    let mut value = view::code(&stored);
                    value["code"] = json!(fresh.text);
                    return print_json(&value);
                }
                println!("{}", fresh.text);
                println!(
                    "gives {} credits, {} time(s) in all and {} time(s) to one user, {}; id {}",
                    stored.credits,
                    stored.max_uses,
                    stored.per_user_limit,
                    until(&stored),
                    stored.id
                );
                println!("It is not shown again: only its hash is stored.");
                Ok(())
            }
            CodesCommand::List { list } => self.list_codes(&list).await,
            CodesCommand::Show { id: code, json } => self.show_code(id(&code, "code")?, json).await,
            CodesCommand::Disable { id: code, reason, sign } => {
                let done = self.store.disable_code(id(&code, "code")?, by(&sign, &reason)).await?;
                let (stored, changed) = done.with_context(|| format!("there is no code {code}"))?;
                if sign.json {
                    let mut value = view::code(&stored);
                    value["changed"] = json!(changed);
                    return print_json(&value);
                }
                let when = if changed { "now" } else { "already; nothing was changed" };
                println!(
                    "code {} ({}) is disabled {when}; it was used {} times",
                    stored.id, stored.hint, stored.uses
                );
                Ok(())
            }
        }
    }

    async fn list_codes(&self, list: &ListArgs) -> Result<()> {
        let found = self.store.codes(cursor(list.cursor.as_ref())?, list.limit).await?;
        let last = found.items.last().filter(|_| found.more);
        let next = last.map(|code| code.id.to_string());
        if list.json {
            return print_json(&view::list(found.items.iter().map(view::code).collect(), next));
        }
        let now = clock::now();
        let row = |code: &RedeemCode| {
            vec![
                code.id.to_string(),
                code.hint.clone(),
                code.credits.to_string(),
                format!("{}/{}", code.uses, code.max_uses),
                state(code, now),
                ago(code.created_at, now),
                code.created_by.clone(),
                short(&code.note, 60),
            ]
        };
        let rows: Vec<_> = found.items.iter().map(row).collect();
        let head = ["id", "code", ">credits", ">used", "state", "made", "by", "note"];
        println!("{}", table(&head, &rows));
        print_more(next.as_ref());
        Ok(())
    }

    async fn show_code(&self, id: RedeemCodeId, json: bool) -> Result<()> {
        let found = self.store.code(id).await?;
        let (code, uses) = found.with_context(|| format!("there is no code {id}"))?;
        if json {
            let mut value = view::code(&code);
            value["redemptions"] = Value::Array(uses.iter().map(view::redemption).collect());
            return print_json(&value);
        }
        let now = clock::now();
        for (name, value) in [
            ("id", code.id.to_string()),
            ("code", code.hint.clone()),
            ("credits", code.credits.to_string()),
            ("used", format!("{} of {}", code.uses, code.max_uses)),
            ("per user", code.per_user_limit.to_string()),
            ("state", format!("{}, {}", state(&code, now), until(&code))),
            ("made", format!("{} by {}", code.created_at.rfc3339(), code.created_by)),
            ("note", code.note.clone()),
        ] {
            println!("{name:<8}  {value}");
        }
        if !uses.is_empty() {
            let rows: Vec<_> = uses
                .iter()
                .map(|u| vec![ago(u.created_at, now), u.email.clone(), u.credits.to_string()])
                .collect();
            println!("\n{}", table(&["used", "by", ">credits"], &rows));
        }
        Ok(())
    }
}

fn state(code: &RedeemCode, now: Micros) -> String {
    match code {
        RedeemCode {
            disabled_at: Some(_), ..
        } => "disabled",
        RedeemCode {
            expires_at: Some(at), ..
        } if *at <= now => "expired",
        code if code.uses >= code.max_uses => "used up",
        _ => "good",
    }
    .to_owned()
}

fn until(code: &RedeemCode) -> String {
    let never = || "without an end".to_owned();
    code.expires_at
        .map_or_else(never, |at| format!("until {}", at.rfc3339()))
}
