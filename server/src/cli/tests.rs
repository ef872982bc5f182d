//! The command line is what its help says.

use clap::CommandFactory;

use super::credits::CreditsCommand;
use super::generations::{GenerationsCommand, KindArg, ResolveOutcome};
use super::lanes::{ProvidersArgs, ProvidersCommand, QueueCommand, StopArgs};
use super::sign::SignArgs;
use super::users::UsersCommand;
use super::*;

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
            Command::Users(UsersCommand::Promote {
                user: "a@b.c".into(),
                reason: "promoted by the operator".into(),
                sign: SignArgs::default(),
            }),
        ),
        (
            "velro credits show a@b.c",
            Command::Credits(CreditsCommand::Show {
                user: "a@b.c".into(),
                json: false,
            }),
        ),
        (
            "velro credits grant a@b.c 5 --reason r --key k",
            Command::Credits(CreditsCommand::Grant {
                user: "a@b.c".into(),
                amount: 5,
                reason: "r".into(),
                key: Some("k".into()),
                sign: SignArgs::default(),
            }),
        ),
        (
            "velro credits correct a@b.c -5 --reason r --as ann --json",
            Command::Credits(CreditsCommand::Correct {
                user: "a@b.c".into(),
                amount: -5,
                reason: "r".into(),
                key: None,
                sign: SignArgs {
                    name: Some("ann".into()),
                    json: true,
                },
            }),
        ),
        (
            "velro queue pause --reason r",
            Command::Queue(QueueCommand::Pause(StopArgs {
                reason: "r".into(),
                sign: SignArgs::default(),
            })),
        ),
        ("velro providers", Command::Providers(ProvidersArgs::default())),
        (
            "velro providers drain fal --reason r",
            Command::Providers(ProvidersArgs {
                command: Some(ProvidersCommand::Drain {
                    provider: "fal".into(),
                    stop: StopArgs {
                        reason: "r".into(),
                        sign: SignArgs::default(),
                    },
                }),
                json: false,
            }),
        ),
        (
            "velro generations problems --kind charged_without_output --older-than 30m",
            Command::Generations(GenerationsCommand::Problems {
                kind: Some(KindArg::ChargedWithoutOutput),
                older_than: Some(std::time::Duration::from_secs(1800)),
                limit: 100,
                cursor: None,
                json: false,
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
                force: false,
                reason: "r".into(),
                sign: SignArgs::default(),
            }),
        ),
        (
            "velro generations resolve",
            Command::Generations(GenerationsCommand::Resolve {
                generation: None,
                outcome: ResolveOutcome::default(),
                force: false,
                reason: "resolved by the operator".into(),
                sign: SignArgs::default(),
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
        "velro generations resolve g1 --retry --force",
        "velro generations refund g1",
        "velro generations refund g1 --amount 5 --reason r",
        "velro generations problems --kind missing",
        "velro generations problems --older-than soon",
        "velro users suspend a@b.c",
        "velro queue pause",
        "velro codes create 0 --note n",
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
