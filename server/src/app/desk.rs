//! The operator's desk: what the sub-commands do to a store, beside a running server or without one.
//!
//! Every command prints what it did and answers whether all is well; the caller turns that into the exit code.

use anyhow::{Context, Result, bail};
use std::sync::Arc;
use velro_plugin::Output;

use crate::catalog::Registry;
use crate::clock;
use crate::config::Config;
use crate::generation::{AttemptState, Generation, StoredOutput};
use crate::id::{GenerationId, UserId};
use crate::ledger::Credits;
use crate::outputs::Outputs;
use crate::provider::ProviderShelf;
use crate::store::{Grant, Resolution, Resolve, Resolved, Role, StatementFilter, Store, User};
use crate::upstream::Upstream;

/// Who acts, in the audit log.
const ACTOR: &str = "cli";

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
    match report.faults.len() {
        0 => println!("ok     the books are in order"),
        n => println!("{n} faults"),
    }
    Ok(report.faults.is_empty())
}

/// `velro credits grant`: gives credits from the platform's grants.
pub async fn grant(store: &dyn Store, user: &str, credits: i64, reason: &str, key: Option<String>) -> Result<()> {
    let user = find(store, user).await?;
    let email = &user.email;
    let grant = Grant {
        user_id: user.id,
        amount: Credits(credits),
        reason: reason.to_owned(),
        actor: ACTOR.to_owned(),
        idempotency_key: key,
        now: clock::now(),
    };
    let granted = store
        .grant(grant)
        .await?
        .with_context(|| format!("{email} has no account"))?;
    match granted.replayed {
        true => println!(
            "this key has been used before; nothing was given. {email} has {}",
            granted.available
        ),
        false => println!("gave {credits} to {email}, who has {} now", granted.available),
    }
    Ok(())
}

/// `velro credits show`: balance and the newest lines of the statement.
pub async fn show_credits(store: &dyn Store, user: &str, lines: u32) -> Result<()> {
    let user = find(store, user).await?;
    let email = &user.email;
    let balance = store
        .balance(user.id)
        .await?
        .with_context(|| format!("{email} has no account"))?;
    println!("{email}: {} available, {} held", balance.available(), balance.held);
    let filter = StatementFilter {
        line_type: None,
        skip: 0,
        limit: lines,
    };
    let page = store.statement(user.id, filter).await?;
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

/// `velro users promote`: makes somebody an operator.
pub async fn promote(store: &dyn Store, user: &str) -> Result<()> {
    let email = find(store, user).await?.email;
    store.set_role(&email, Role::Operator, clock::now()).await?;
    println!("{email} is an operator now");
    Ok(())
}

/// What the operator says of an `unknown` attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It was not bought or is worth nothing: fail and release the hold.
    Refund,
    /// It was not bought: try again.
    Retry,
    /// It was delivered: fetch these files, capture the hold.
    Deliver(Vec<String>),
}

/// `velro generations resolve` without an id: what waits for an operator.
pub async fn list_unknown(store: &dyn Store) -> Result<()> {
    let unknown = store.attempts_in(AttemptState::Unknown, 1000).await?;
    if unknown.is_empty() {
        println!("nothing is unknown");
    }
    for (attempt, generation) in unknown {
        println!(
            "{}  {:>6} credits  {}  since {}  provider id {}",
            generation.id,
            generation.price,
            generation.model_id,
            attempt.created_at.rfc3339(),
            attempt.remote_id.as_deref().unwrap_or("not known")
        );
    }
    Ok(())
}

/// `velro generations resolve ID`: carries out the operator's word, once, with an audit row.
pub async fn resolve(config: &Config, store: Arc<dyn Store>, id: GenerationId, word: Word, reason: &str) -> Result<()> {
    let Some((attempt, generation)) = store.newest_attempt(id).await? else {
        bail!("there is no attempt of generation {id}; `velro generations resolve` lists what is unknown");
    };
    if attempt.state != AttemptState::Unknown {
        bail!(
            "generation {id} is {}, its attempt {}: nothing to resolve",
            generation.status.as_str(),
            attempt.state.as_str()
        );
    }
    let resolution = match word {
        Word::Refund => Resolution::Refund,
        Word::Retry => Resolution::Retry,
        Word::Deliver(urls) => Resolution::Deliver(fetch(config, &generation, &urls).await?),
    };
    let resolve = Resolve {
        generation_id: id,
        resolution,
        actor: ACTOR.to_owned(),
        reason: reason.to_owned(),
        now: clock::now(),
    };
    match store.resolve_unknown(resolve).await? {
        Resolved::Done { generation, .. } => {
            println!(
                "generation {id} is {} now, {} of {} credits captured",
                generation.status.as_str(),
                generation.captured.unwrap_or_default(),
                generation.price
            );
            Ok(())
        }
        Resolved::NotUnknown(state) => bail!(
            "somebody was faster: the attempt is {}",
            state.map_or("gone", AttemptState::as_str)
        ),
        Resolved::Missing => bail!("there is no generation {id}"),
    }
}

/// Copies what the provider delivered into our storage, as the worker would have.
async fn fetch(config: &Config, generation: &Generation, urls: &[String]) -> Result<Vec<StoredOutput>> {
    let upstream = Upstream::new(config)?;
    let outputs = Outputs::new(config)?;
    let providers = ProviderShelf::load(config, &Registry::from_file(&config.providers_path, clock::now())?)?;
    let provider = providers.get(&generation.provider).with_context(|| {
        format!(
            "the registry has no provider `{}`; add it again for as long as this takes",
            generation.provider
        )
    })?;
    let mut stored = Vec::new();
    for (index, url) in (0u32..).zip(urls) {
        println!("fetching {url}");
        let output = Output::url(generation.media_type.as_str(), url.as_str());
        let copied = outputs
            .collect(&upstream, &provider, generation.id, index, &output, None)
            .await;
        stored.push(copied.map_err(|error| anyhow::anyhow!("cannot copy {url}: {error}"))?);
    }
    Ok(stored)
}

/// A user by e-mail address or id.
pub(super) async fn find(store: &dyn Store, user: &str) -> Result<User> {
    let found = match user.parse::<UserId>() {
        Ok(id) => store.user(id).await?,
        Err(_) => store.user_by_email(&user.to_lowercase()).await?,
    };
    found.with_context(|| format!("nobody is registered as {user}"))
}
