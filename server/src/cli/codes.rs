//! `velro codes`: definition.

use clap::Subcommand;
use std::time::Duration;

use super::generations::duration;
use super::sign::{ListArgs, SignArgs};

/// `velro codes`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum CodesCommand {
    /// Make a code that gives credits. It is printed once and stored as a hash only.
    #[command(after_help = "\
Examples:
  velro codes create 500 --note \"for Ann, outage of 3 May\"
      a random code, good for one use
  velro codes create 100 --uses 1000 --expires-in 30d --note \"launch\" --code WELCOME-2027
      a code of your own, once for each of a thousand users

Exit codes: 0 when it was made, 1 otherwise.")]
    Create {
        /// Credits that one use gives.
        #[arg(value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
        amount: i64,
        /// How often it can be used in all
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        uses: u32,
        /// How often one user may use it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        per_user: u32,
        /// How long it is good for: a number with s, m, h or d [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires_in: Option<Duration>,
        /// A code of your own: 8 to 64 letters and digits [default: a random one]
        #[arg(long)]
        code: Option<String>,
        /// What it is for; kept with it and in the audit log.
        #[arg(long)]
        note: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// List codes, newest first.
    #[command(after_help = "\
Example:
  velro codes list

Exit codes: 0 when they were listed, also when there is none; 1 otherwise.")]
    List {
        /// Which part of the list.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a code and who used it.
    #[command(after_help = "\
Example:
  velro codes show 0197c3d2-...

Exit codes: 0 when it exists, 1 otherwise.")]
    Show {
        /// Id of the code, as `velro codes list` shows it.
        id: String,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// End a code. What it has given stays.
    #[command(after_help = "\
Example:
  velro codes disable 0197c3d2-... --reason \"leaked\"

Exit codes: 0 when it is disabled (also when it was before), 1 otherwise.")]
    Disable {
        /// Id of the code, as `velro codes list` shows it.
        id: String,
        /// Kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
}
