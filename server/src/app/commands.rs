//! From the command line to what it asks for, and to the exit code.

use anyhow::{Context, Result, bail};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use super::{copy, desk, open_store, orders, serve};
use crate::cli::{
    Cli, Command, CreditsCommand, DbCommand, GenerationsCommand, LedgerCommand, ResolveOutcome, UsersCommand, check,
    healthcheck, plugin,
};
use crate::config::{Config, Database, process_env};
use crate::http::openapi;
use crate::store::Store;
use crate::store::sql::OpenOptions;
use crate::telemetry;

/// Statement lines that `velro credits show` prints.
const SHOWN_LINES: u32 = 20;

/// Carries out a command: 0 only on success. Faults go to standard error.
#[allow(clippy::print_stderr, reason = "the command line talks to a person")]
pub async fn run(cli: Cli) -> ExitCode {
    match carry_out(cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("velro: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Carries out a command; `false` when it found something wrong and has said so.
async fn carry_out(cli: Cli) -> Result<bool> {
    let overrides = cli.flags.overrides();
    let env = process_env();
    match cli.chosen() {
        Command::Check => return Ok(check::run(&overrides, &env, &mut io::stdout())?),
        Command::Healthcheck => return Ok(healthcheck::run(&overrides, &env, &mut io::stdout()).await?),
        Command::Plugin(command) => return plugin::run(&command, &overrides, &env, &mut io::stdout()),
        Command::Openapi => {
            println!("{}", serde_json::to_string_pretty(&openapi::document())?);
            return Ok(true);
        }
        _ => {}
    }
    let (config, notices) = Config::load(&overrides, &env)?;
    if cli.chosen() == Command::Serve {
        telemetry::init(&config)?;
        for notice in notices {
            tracing::warn!(place = %notice.place, "{}", notice.text);
        }
        serve(config).await?;
        return Ok(true);
    }
    if let Command::Db(DbCommand::Copy { from, to }) = cli.chosen() {
        return copy::run(&config, from.as_deref(), to.as_deref()).await;
    }
    let migrating = cli.chosen() == Command::Migrate;
    let options = OpenOptions {
        create: migrating || config.database() == Database::Sqlite,
        migrate: migrating,
    };
    let store = open_store(&config, options).await?;
    let outcome = at_the_desk(cli.chosen(), &config, &store).await;
    store.close().await;
    outcome
}

/// Commands that work on the store.
async fn at_the_desk(command: Command, config: &Config, store: &Arc<dyn Store>) -> Result<bool> {
    match command {
        Command::Migrate => println!("the database has this version's schema"),
        Command::Ledger(LedgerCommand::Verify) => return desk::verify_ledger(store.as_ref()).await,
        Command::Credits(CreditsCommand::Grant {
            user,
            amount,
            reason,
            key,
        }) => {
            desk::grant(store.as_ref(), &user, amount, &reason, key).await?;
        }
        Command::Credits(CreditsCommand::Show { user }) => {
            desk::show_credits(store.as_ref(), &user, SHOWN_LINES).await?;
        }
        Command::Users(UsersCommand::Promote { user }) => desk::promote(store.as_ref(), &user).await?,
        Command::Generations(GenerationsCommand::Resolve { generation: None, .. }) => {
            desk::list_unknown(store.as_ref()).await?;
        }
        Command::Generations(GenerationsCommand::Resolve {
            generation: Some(id),
            outcome,
            reason,
        }) => {
            let id = id
                .parse()
                .with_context(|| format!("{id} is not the id of a generation"))?;
            desk::resolve(config, Arc::clone(store), id, word(outcome)?, &reason).await?;
        }
        Command::Orders(command) => return orders::run(command, config, Arc::clone(store)).await,
        Command::Serve
        | Command::Check
        | Command::Healthcheck
        | Command::Openapi
        | Command::Db(_)
        | Command::Plugin(_) => {
            bail!("this command does not work on the database")
        }
    }
    Ok(true)
}

fn word(outcome: ResolveOutcome) -> Result<desk::Word> {
    match outcome {
        ResolveOutcome { refund: true, .. } => Ok(desk::Word::Refund),
        ResolveOutcome { retry: true, .. } => Ok(desk::Word::Retry),
        ResolveOutcome { deliver, .. } if !deliver.is_empty() => Ok(desk::Word::Deliver(deliver)),
        _ => bail!("say what happened: --refund, --retry or --deliver URL"),
    }
}
