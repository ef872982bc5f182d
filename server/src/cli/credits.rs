//! `velro credits`: definition.

use clap::Subcommand;

use super::sign::SignArgs;

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
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Set a grant right, in either direction.
    ///
    /// Takes credits away when the amount is below zero, and never more than the user can spend. What was bought is taken
    /// back through the payment provider, and what was charged for a generation is given back with
    /// `velro generations refund`.
    #[command(after_help = "\
Examples:
  velro credits correct ann@example.com -500 --reason \"granted twice by mistake\"
  velro credits correct ann@example.com 20 --reason \"20 too few on 3 May\" --key fix-0503-ann

Exit codes: 0 when it was booked (also when it was booked before with this key), 1 otherwise: then nothing was changed.")]
    Correct {
        /// E-mail address or id of the user.
        user: String,
        /// How many more, or below zero: how many fewer.
        #[arg(value_parser = clap::value_parser!(i64).range(-1_000_000_000..=1_000_000_000), allow_hyphen_values = true)]
        amount: i64,
        /// Shown to the user in the list of transactions, and kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Makes it repeatable: the same key moves the credits once, however often the command runs.
        #[arg(long)]
        key: Option<String>,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Show a user's balance, held credits and last transactions.
    #[command(after_help = "\
Examples:
  velro credits show ann@example.com
  velro credits show ann@example.com --json

Exit codes: 0 when the user exists, 1 otherwise.")]
    Show {
        /// E-mail address or id of the user.
        user: String,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
}
