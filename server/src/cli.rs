//! The command line: definition, `check` and `healthcheck`. The other commands are carried out by [`crate::app`].
//!
//! Exit codes: 0 only on success, 1 when the command failed or found something wrong, 2 for a wrong command line.

pub mod audit;
pub mod breakers;
pub mod check;
pub mod codes;
pub mod credits;
pub mod generations;
pub mod healthcheck;
pub mod lanes;
pub mod log;
pub mod orders;
pub mod plugin;
pub mod sign;
pub mod smoke;
pub mod users;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

use crate::config::Overrides;

/// One binary that turns AI model providers into a paid, multi-tenant generation API.
///
/// Without a sub-command it serves. Settings come from built-in defaults, velro.toml, environment variables and these
/// flags, in that order; `velro check` shows what applies.
#[derive(Debug, Parser)]
#[command(
    name = "velro",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  velro                                   serve on 127.0.0.1:8000, everything under ./data
  velro serve --port 9000                 the same on another port
  velro check                             is the configuration valid, and what does it say?
  velro users promote ann@example.com     make a registered user an operator
  velro generations problems              does a generation need a hand? prints what to type next
  velro credits show ann@example.com      balance and transactions of a user

Exit codes: 0 success, 1 failure, 2 wrong command line."
)]
pub struct Cli {
    /// Flags that every sub-command takes.
    #[command(flatten)]
    pub flags: Flags,
    /// What to do; [`Command::Serve`] when it is left out.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every sub-command takes; they win over environment and file.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Configuration file [default: ./velro.toml if it exists; env: VELRO_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What this process does: all, api or worker [default: all; env: VELRO_ROLE]
    #[arg(long, global = true, value_name = "ROLE")]
    pub role: Option<String>,
    /// Address to listen on [default: 127.0.0.1 in development, else 0.0.0.0; env: HOST]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes any free one [default: 8000; env: PORT]
    #[arg(long, global = true)]
    pub port: Option<u16>,
    /// Folder of the database, the outputs and the generated secret [default: ./data; env: VELRO_DATA]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// The registry of providers and models [default: ./providers.toml; env: VELRO_PROVIDERS]
    #[arg(long, global = true, value_name = "FILE")]
    pub providers: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter [default: info; env: LOG_LEVEL]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl Flags {
    /// Those that say which installation is meant, as they would be typed again.
    pub fn repeated(&self) -> String {
        let given = [
            ("config", &self.config),
            ("data", &self.data),
            ("providers", &self.providers),
        ];
        let given = given.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given
            .map(|(name, value)| format!(" --{name} {}", sign::quoted(&value.display().to_string())))
            .collect()
    }

    /// As the configuration takes them.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            config_path: self.config.clone(),
            role: self.role.clone(),
            host: self.host.clone(),
            port: self.port,
            data_dir: self.data.clone(),
            providers_path: self.providers.clone(),
            log_level: self.log_level.clone(),
            read_only: false,
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve the API and work on generations (the default).
    ///
    /// Runs until Ctrl-C or SIGTERM, then lets requests and steps in flight finish for a while. Whatever is cut off is
    /// taken up again at the next start. With PostgreSQL the two halves can run apart, each as often as you like: --role
    /// api and --role worker.
    #[command(after_help = "\
Examples:
  velro serve
  velro serve --host 0.0.0.0 --port 8080 --data /var/lib/velro
  DATABASE_URL=postgres://velro@db/velro velro serve --role worker

Exit codes: 0 after a clean stop, 1 when it could not start or failed.")]
    Serve,

    /// Check configuration and registry without starting anything.
    ///
    /// Prints the settings that apply (secrets hidden), the providers and the models with their prices, and every fault
    /// with its file and line or its variable. Needs no network and writes nothing.
    #[command(after_help = "\
Examples:
  velro check
  velro check --providers new-providers.toml
  ENVIRONMENT=production velro check

Exit codes: 0 when everything is valid, 1 when anything is not.")]
    Check,

    /// The books.
    #[command(subcommand)]
    Ledger(LedgerCommand),

    /// Credits of users: give, correct, show.
    #[command(subcommand)]
    Credits(credits::CreditsCommand),

    /// Users: find, promote, suspend.
    #[command(subcommand)]
    Users(users::UsersCommand),

    /// Bring the database to this version's schema.
    ///
    /// `serve` does it by itself for SQLite; run this first where start-up must not change a database.
    #[command(after_help = "\
Example:
  velro migrate

Exit codes: 0 when the database is up to date, 1 when it could not be brought there.")]
    Migrate,

    /// The database.
    #[command(subcommand)]
    Db(DbCommand),

    /// Print the OpenAPI 3.1 document of the API.
    #[command(after_help = "\
Example:
  velro openapi > openapi.json

Exit codes: 0 when it was printed, 1 otherwise.")]
    Openapi,

    /// Ask the server on this machine whether it is ready.
    ///
    /// Gets /health/ready on the configured port and waits three seconds at most. For container health checks: the image
    /// needs no other tool.
    #[command(after_help = "\
Examples:
  velro healthcheck
  velro healthcheck --port 9000

Exit codes: 0 when it is ready, 1 when it is not or does not answer.")]
    Healthcheck,

    /// Generations: what went wrong, give credits back, settle open cases.
    #[command(subcommand, after_help = generations::WHERE_TO_BEGIN)]
    Generations(generations::GenerationsCommand),

    /// Codes that give credits: create, list, disable.
    #[command(subcommand)]
    Codes(codes::CodesCommand),

    /// What operators did.
    #[command(subcommand)]
    Audit(audit::AuditCommand),

    /// The queue of generations: pause, drain, resume.
    #[command(subcommand)]
    Queue(lanes::QueueCommand),

    /// Providers: how they are doing; pause, drain, resume one.
    Providers(lanes::ProvidersArgs),

    /// How much the running processes write into their logs.
    #[command(subcommand)]
    Log(log::LogCommand),

    /// Make a picture at a running server, as a user would, and compare the credits.
    ///
    /// Registers somebody new, submits a generation of the sandbox twice with one idempotency key, waits for it, fetches the
    /// picture, checks that it was charged once, and deletes the account. For `helm test`, after an upgrade, and for watchers:
    /// it costs nothing at any provider.
    Smoke(smoke::SmokeArgs),

    /// Purchases of credits.
    #[command(subcommand)]
    Orders(orders::OrdersCommand),

    /// Providers as dynamic libraries.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

/// `velro db`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DbCommand {
    /// Move up: copy an embedded installation to PostgreSQL.
    ///
    /// Copies everything: users, sessions, projects, generations, the books. The ledgers of both databases are recomputed
    /// and compared before anything counts; on any fault the target stays as it was. Stop the embedded server first; a
    /// generation under way goes on where the copy is served. The source is only read, and the copy can be run again when
    /// it has lived on, as long as nobody has used the target. Files are not copied: keep the folder `outputs`.
    #[command(after_help = "\
Examples:
  DATABASE_URL=postgres://velro@db/velro velro db copy
      from the data folder; the address, and a password in it, does not show in the list of processes
  velro db copy --data /var/lib/velro --to postgres://velro@db/velro
  velro db copy --from sqlite:/backup/velro.db --to postgres://velro@db/velro

Exit codes: 0 when both databases hold the same, 1 otherwise: then nothing was changed.")]
    Copy {
        /// The embedded database [default: that of the data folder]
        #[arg(long, value_name = "sqlite:PATH")]
        from: Option<String>,
        /// The PostgreSQL database [default: DATABASE_URL]
        #[arg(long, value_name = "postgres://...")]
        to: Option<String>,
    },
}

/// `velro ledger`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum LedgerCommand {
    /// Recompute every balance from the transfers and compare.
    ///
    /// Checks that all balances are the sums of their transfers and add up to zero, that held credits are the open holds,
    /// and that every finished generation was settled exactly once. Prints every difference. Only reads.
    #[command(after_help = "\
Example:
  velro ledger verify

Exit codes: 0 when the books are right, 1 on any difference.")]
    Verify,
}

/// Reads the command line; a wrong one is explained and ends the process with 2, `--help` and `--version` with 0.
pub fn parse() -> Cli {
    Cli::parse()
}

impl Cli {
    /// What to do, with the default filled in.
    pub fn chosen(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
