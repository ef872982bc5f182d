//! From the command line to what it asks for, and to the exit code.

use anyhow::{Result, bail};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use super::{copy, desk, open_store, orders, serve};
use crate::cli::{Cli, Command, DbCommand, LedgerCommand, check, healthcheck, plugin, smoke};
use crate::config::{Config, Database, process_env};
use crate::http::openapi;
use crate::store::Store;
use crate::store::sql::OpenOptions;
use crate::telemetry;

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
        Command::Smoke(args) => return smoke::run(&args, &mut io::stdout()).await,
        Command::Openapi => {
            println!("{}", serde_json::to_string_pretty(&openapi::document())?);
            return Ok(true);
        }
        _ => {}
    }
    let (config, notices) = Config::load(&overrides, &env)?;
    if cli.chosen() == Command::Serve {
        let (levels, traces) = telemetry::init(&config)?;
        for notice in notices {
            tracing::warn!(place = %notice.place, "{}", notice.text);
        }
        let served = serve(config, levels).await;
        if let Some(traces) = traces {
            traces.close().await;
        }
        return served.map(|()| true);
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
    let flags = cli.flags.repeated();
    let outcome = at_the_desk(cli.chosen(), &flags, &config, &store).await;
    store.close().await;
    outcome
}

/// Commands that work on the store.
async fn at_the_desk(command: Command, flags: &str, config: &Config, store: &Arc<dyn Store>) -> Result<bool> {
    match command {
        Command::Migrate => {
            println!("the database has this version's schema");
            Ok(true)
        }
        Command::Orders(command) => orders::run(command, config, Arc::clone(store)).await,
        Command::Ledger(LedgerCommand::Verify) => desk::verify_ledger(store.as_ref()).await,
        command => {
            let desk = desk::Desk { config, store, flags };
            match desk.carry_out(command).await {
                Some(outcome) => outcome,
                None => bail!("this command does not work on the database"),
            }
        }
    }
}
