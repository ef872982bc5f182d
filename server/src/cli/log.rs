//! `velro log`: definition.

use clap::Subcommand;

use super::sign::SignArgs;

/// `velro log`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum LogCommand {
    /// Show the level that applies.
    #[command(after_help = "\
Example:
  velro log show

Exit codes: 0 when it was shown, 1 otherwise.")]
    Show {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Set another level in every running process, for a while.
    ///
    /// They follow within seconds, and by themselves go back to LOG_LEVEL when the time is over. Only Velro's own modules can
    /// be made to say more than warnings: what libraries say may hold secrets.
    #[command(after_help = "\
Examples:
  velro log level debug --reason \"jobs of fal hang\"
  velro log level info,velro::worker=debug,velro::upstream=debug --minutes 5 --reason \"jobs of fal hang\"

Exit codes: 0 when it was set, 1 otherwise.")]
    Level {
        /// off, error, warn, info, debug, trace; or a filter over velro's modules.
        filter: String,
        /// How long it holds, a day at most.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: u64,
        /// Kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Bring the configured level back at once.
    #[command(after_help = "\
Example:
  velro log reset --reason \"found it\"

Exit codes: 0 when it is back, 1 otherwise.")]
    Reset {
        /// Kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
}
