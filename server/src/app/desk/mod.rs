//! The operator's desk: what the sub-commands do to a store, beside a running server or without one.
//!
//! Every command prints what it did, for a person or as one JSON document, and answers whether all is well; the caller
//! turns that into the exit code.

mod audit;
mod codes;
mod credits;
mod generations;
mod lanes;
mod logs;
mod problems;
mod table;
mod users;
mod view;

use anyhow::{Context, Result};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::Arc;

use crate::cli::Command;
use crate::cli::sign::SignArgs;
use crate::clock;
use crate::config::Config;
use crate::id::UserId;
use crate::store::{By, Store, User};

/// What a command works with.
pub struct Desk<'a> {
    /// As it applies.
    pub config: &'a Config,
    /// Open.
    pub store: &'a Arc<dyn Store>,
    /// Flags that say which installation is meant, to be repeated in commands that are printed.
    pub flags: &'a str,
}

impl Desk<'_> {
    /// Carries out a command that is the desk's; `None` for all others. False when it found something wrong and said so.
    pub async fn carry_out(&self, command: Command) -> Option<Result<bool>> {
        let done = |result: Result<()>| result.map(|()| true);
        Some(match command {
            Command::Users(command) => done(self.users(command).await),
            Command::Credits(command) => done(self.credits(command).await),
            Command::Generations(command) => self.generations(command).await,
            Command::Codes(command) => done(self.codes(command).await),
            Command::Audit(command) => done(self.audit(command).await),
            Command::Queue(command) => done(self.queue(command).await),
            Command::Log(command) => done(self.log(command).await),
            Command::Providers(args) => done(self.providers(args).await),
            _ => return None,
        })
    }

    async fn find(&self, user: &str) -> Result<User> {
        find(self.store.as_ref(), user).await
    }
}

/// A user by e-mail address or id.
pub(super) async fn find(store: &dyn Store, user: &str) -> Result<User> {
    let found = match user.parse::<UserId>() {
        Ok(id) => store.user(id).await?,
        Err(_) => store.user_by_email(&user.to_lowercase()).await?,
    };
    found.with_context(|| format!("nobody is registered as {user}; `velro users list PART` searches"))
}

/// `velro ledger verify`: recomputes every balance; false when anything is off.
pub async fn verify_ledger(store: &dyn Store) -> Result<bool> {
    let report = store.verify_ledger().await?;
    println!(
        "{} accounts, {} transfers, {} open holds over {} credits",
        report.accounts, report.transfers, report.open_holds, report.held
    );
    for fault in &report.faults {
        println!("DRIFT  {fault}");
    }
    if report.charged_without_output > 0 {
        println!(
            "{} generations were charged without a file on record; `velro generations problems` has them",
            report.charged_without_output
        );
    }
    match report.faults.len() {
        0 => println!("ok     the books are in order"),
        n => println!("{n} faults"),
    }
    Ok(report.faults.is_empty())
}

/// Who acts and why, for the audit.
pub(super) fn by(sign: &SignArgs, reason: &str) -> By {
    let name = sign.name.clone().or_else(system_user);
    By {
        actor: name.map_or_else(|| "cli".to_owned(), |name| format!("cli:{name}")),
        reason: reason.to_owned(),
        now: clock::now(),
    }
}

/// The name of the user this process runs as: by what the system says, because an environment variable can say anything.
fn system_user() -> Option<String> {
    let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&id.as_str()));
    found.and_then(|fields| Some((*fields.first()?).to_owned()))
}

/// An id that was typed.
fn id<T: FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse()
        .ok()
        .with_context(|| format!("{text} is not the id of a {what}"))
}

/// A cursor that was typed.
fn cursor<T: FromStr>(text: Option<&String>) -> Result<Option<T>> {
    let parse = |text: &String| {
        let read = text.parse().ok();
        read.with_context(|| format!("--cursor {text}: take it from `next_cursor` of the list before"))
    };
    text.map(parse).transpose()
}

/// Prints one JSON document.
fn print_json(value: &Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Below a table: how to go on.
fn print_more(next: Option<&String>) {
    if let Some(next) = next {
        println!("... more with --cursor {next}");
    }
}
