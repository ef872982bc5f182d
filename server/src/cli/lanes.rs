//! `velro queue` and `velro providers`: definition.

use clap::{Args, Subcommand};

use super::sign::SignArgs;

/// Why, and who says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct StopArgs {
    /// Kept in the audit log and shown to the other operators.
    #[arg(long)]
    pub reason: String,
    /// Who acts.
    #[command(flatten)]
    pub sign: SignArgs,
}

/// `velro queue`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum QueueCommand {
    /// Show whether the queue runs, how much waits, and since when.
    #[command(after_help = "\
Example:
  velro queue show

Exit codes: 0 when it was shown, 1 otherwise.")]
    Show {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Begin nothing: what comes is accepted and waits, what runs goes on.
    ///
    /// Every process hears of it within seconds, and it survives restarts.
    #[command(after_help = "\
Example:
  velro queue pause --reason \"maintenance of the storage\"

Exit codes: 0 when it is paused, 1 otherwise.")]
    Pause(StopArgs),
    /// Take nothing new: submits are refused with 503, what was accepted is worked off.
    #[command(after_help = "\
Example:
  velro queue drain --reason \"moving to another database\"

Exit codes: 0 when it drains, 1 otherwise.")]
    Drain(StopArgs),
    /// Let it run again.
    #[command(after_help = "\
Example:
  velro queue resume --reason \"maintenance is over\"

Exit codes: 0 when it runs, 1 otherwise.")]
    Resume(StopArgs),
}

/// `velro providers`; without a sub-command it lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  velro providers                            how all of them are doing
  velro providers pause fal --reason \"bills look odd\"

Exit codes: 0 when they were listed, 1 otherwise."
)]
pub struct ProvidersArgs {
    /// What to do; lists when it is left out.
    #[command(subcommand)]
    pub command: Option<ProvidersCommand>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `velro providers ...`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ProvidersCommand {
    /// List providers: ready, stopped by an operator, breaker.
    ///
    /// What operators have stopped is in the database. Breakers live in the processes: they are asked of the server on the
    /// configured port, when it answers, and then show what that one process has seen.
    #[command(after_help = "\
Example:
  velro providers list

Exit codes: 0 when they were listed, 1 otherwise.")]
    List {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Begin nothing at a provider: what comes goes to another provider of the model, or waits.
    #[command(after_help = "\
Example:
  velro providers pause fal --reason \"bills look odd\"

Exit codes: 0 when it is paused, 1 otherwise.")]
    Pause {
        /// Name of the provider entry.
        provider: String,
        /// Why, and who.
        #[command(flatten)]
        stop: StopArgs,
    },
    /// Take nothing new for a provider: submits go to another provider of the model, or are refused with 503; what was
    /// accepted is worked off.
    #[command(after_help = "\
Example:
  velro providers drain fal --reason \"contract ends\"

Exit codes: 0 when it drains, 1 otherwise.")]
    Drain {
        /// Name of the provider entry.
        provider: String,
        /// Why, and who.
        #[command(flatten)]
        stop: StopArgs,
    },
    /// Let a provider run again.
    #[command(after_help = "\
Example:
  velro providers resume fal --reason \"all is well\"

Exit codes: 0 when it runs, 1 otherwise.")]
    Resume {
        /// Name of the provider entry.
        provider: String,
        /// Why, and who.
        #[command(flatten)]
        stop: StopArgs,
    },
}
