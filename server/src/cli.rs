//! The command line: definition, `check` and `healthcheck`. The other commands are carried out by [`crate::app`].
//!
//! Exit codes: 0 only on success, 1 when the command failed or found something wrong, 2 for a wrong command line.

pub mod check;
pub mod healthcheck;
pub mod orders;
pub mod plugin;

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

    /// Credits of users.
    #[command(subcommand)]
    Credits(CreditsCommand),

    /// Users.
    #[command(subcommand)]
    Users(UsersCommand),

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

    /// Generations.
    #[command(subcommand)]
    Generations(GenerationsCommand),

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

/// `velro credits`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum CreditsCommand {
    /// Give credits to a user, as a bonus transfer.
    #[command(after_help = "\
Examples:
  velro credits grant ann@example.com 500
  velro credits grant ann@example.com 500 --reason \"outage of 3 May\" --key outage-0503-ann

Exit codes: 0 when the user has them, 1 otherwise.")]
    Grant {
        /// E-mail address or id of the user.
        user: String,
        /// How many; a whole number above zero.
        #[arg(value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
        amount: i64,
        /// Shown to the user in the list of transactions.
        #[arg(long, default_value = "Granted by the operator")]
        reason: String,
        /// Makes the grant repeatable: the same key gives the credits once, however often the command runs.
        #[arg(long)]
        key: Option<String>,
    },
    /// Show a user's balance, held credits and last transactions.
    #[command(after_help = "\
Example:
  velro credits show ann@example.com

Exit codes: 0 when the user exists, 1 otherwise.")]
    Show {
        /// E-mail address or id of the user.
        user: String,
    },
}

/// `velro users`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum UsersCommand {
    /// Make a registered user an operator.
    ///
    /// Operators see system metrics and may settle disputes. It holds from the next request on.
    #[command(after_help = "\
Example:
  velro users promote ann@example.com

Exit codes: 0 when the user is an operator (also when it was one before), 1 otherwise.")]
    Promote {
        /// E-mail address or id of the user.
        user: String,
    },
}

/// `velro generations`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum GenerationsCommand {
    /// Settle a generation of which nobody knows whether the provider took it.
    ///
    /// When the process or the line broke in the middle of a paid request, Velro neither sends it again nor gives the
    /// credits back: they stay held. Look the request up at the provider, then say what happened. Without an id the open
    /// cases are listed.
    #[command(after_help = "\
Examples:
  velro generations resolve
      lists the open cases
  velro generations resolve 0197c3d2-... --refund --reason \"not in FAL's dashboard\"
      nothing usable came of it: fail it and release the credits
  velro generations resolve 0197c3d2-... --retry
      the provider never took it: put it back into the queue
  velro generations resolve 0197c3d2-... --deliver https://v3.fal.media/files/x.png
      the provider made it: fetch the file, complete the generation and charge the held credits

Exit codes: 0 when it was settled or listed, 1 otherwise.")]
    Resolve {
        /// Id of the generation.
        #[arg(requires = "outcome")]
        generation: Option<String>,
        /// What happened at the provider.
        #[command(flatten)]
        outcome: ResolveOutcome,
        /// Kept in the audit log.
        #[arg(long, default_value = "resolved by the operator")]
        reason: String,
    },
}

/// What happened at the provider; at most one is given, and exactly one together with a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[group(id = "outcome", multiple = false, requires = "generation")]
pub struct ResolveOutcome {
    /// Nothing usable came of it: the generation fails and its credits are released.
    #[arg(long)]
    pub refund: bool,
    /// The provider never took the request: it is sent again when its turn comes.
    #[arg(long)]
    pub retry: bool,
    /// The provider delivered these files, in order: the generation completes and its credits are charged.
    #[arg(long, value_name = "URL", num_args = 1..)]
    pub deliver: Vec<String>,
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
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_sub_command_serves_and_flags_stand_anywhere() {
        assert_eq!(parsed("velro").unwrap().chosen(), Command::Serve);
        for line in [
            "velro --port 9 --data d",
            "velro serve --port 9 --data d",
            "velro --port 9 serve --data d",
        ] {
            let cli = parsed(line).unwrap();
            assert_eq!(cli.chosen(), Command::Serve);
            let overrides = cli.flags.overrides();
            assert_eq!(
                (overrides.port, overrides.data_dir),
                (Some(9), Some(PathBuf::from("d")))
            );
        }
    }

    #[test]
    fn every_command_of_the_contract_is_there() {
        for (line, command) in [
            ("velro check", Command::Check),
            ("velro ledger verify", Command::Ledger(LedgerCommand::Verify)),
            ("velro migrate", Command::Migrate),
            (
                "velro db copy --to postgres://h/d",
                Command::Db(DbCommand::Copy {
                    from: None,
                    to: Some("postgres://h/d".into()),
                }),
            ),
            ("velro openapi", Command::Openapi),
            ("velro healthcheck", Command::Healthcheck),
            (
                "velro users promote a@b.c",
                Command::Users(UsersCommand::Promote { user: "a@b.c".into() }),
            ),
            (
                "velro credits show a@b.c",
                Command::Credits(CreditsCommand::Show { user: "a@b.c".into() }),
            ),
            (
                "velro credits grant a@b.c 5 --reason r --key k",
                Command::Credits(CreditsCommand::Grant {
                    user: "a@b.c".into(),
                    amount: 5,
                    reason: "r".into(),
                    key: Some("k".into()),
                }),
            ),
            (
                "velro generations resolve g1 --deliver u1 u2 --reason r",
                Command::Generations(GenerationsCommand::Resolve {
                    generation: Some("g1".into()),
                    outcome: ResolveOutcome {
                        deliver: vec!["u1".into(), "u2".into()],
                        ..ResolveOutcome::default()
                    },
                    reason: "r".into(),
                }),
            ),
            (
                "velro generations resolve",
                Command::Generations(GenerationsCommand::Resolve {
                    generation: None,
                    outcome: ResolveOutcome::default(),
                    reason: "resolved by the operator".into(),
                }),
            ),
        ] {
            assert_eq!(
                parsed(line).unwrap_or_else(|e| panic!("{line}: {e}")).chosen(),
                command,
                "{line}"
            );
        }
    }

    #[test]
    fn a_wrong_command_line_ends_with_2_and_help_with_0() {
        for line in [
            "velro sreve",
            "velro --port http",
            "velro --colour",
            "velro credits grant a@b.c 0",
            "velro credits grant a@b.c -5",
            "velro credits grant a@b.c",
            "velro generations resolve g1",
            "velro generations resolve --refund",
            "velro generations resolve g1 --refund --retry",
            "velro ledger",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parsed("velro --help").unwrap_err().exit_code(), 0);
        assert_eq!(parsed("velro --version").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn every_command_shows_an_example_and_its_exit_codes() {
        fn visit(command: &mut clap::Command) {
            // clap's own.
            if command.get_name() == "help" {
                return;
            }
            if command.has_subcommands() {
                command.get_subcommands_mut().for_each(visit);
                return;
            }
            let help = command.render_long_help().to_string();
            for expected in ["Example", "Exit codes: 0", "velro "] {
                assert!(
                    help.contains(expected),
                    "{} lacks {expected}:\n{help}",
                    command.get_name()
                );
            }
        }
        let mut command = Cli::command();
        command.build();
        visit(&mut command);
    }
}
