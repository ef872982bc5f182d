//! `velro generations`: definition.

use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

use super::sign::{ListArgs, SignArgs};
use crate::desk::Kind;

/// Below the list of the sub-commands.
pub const WHERE_TO_BEGIN: &str = "\
Where to begin:
  velro generations problems        what needs a hand, and what to type next
      unknown                 nobody knows whether the provider took it: resolve
      charged_without_output  paid, but the files are not there: refund
      held_too_long           queued or in work for too long: look, then resolve
  velro generations show ID         all that is known of one
  velro generations refund ID --reason TEXT
      gives back what was charged for it; the user sees a refund";

/// `velro generations`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum GenerationsCommand {
    /// List generations of all users, newest first.
    #[command(after_help = "\
Examples:
  velro generations list
  velro generations list --user ann@example.com --status failed
  velro generations list --provider fal --model fal-ai/flux-pro/v1.1-ultra --limit 10 --json

Exit codes: 0 when they were listed, also when there is none; 1 otherwise.")]
    List {
        /// E-mail address or id of the user.
        #[arg(long)]
        user: Option<String>,
        /// queued, processing, completed, failed or cancelled
        #[arg(long)]
        status: Option<String>,
        /// Name of the provider entry.
        #[arg(long)]
        provider: Option<String>,
        /// Id of the model.
        #[arg(long)]
        model: Option<String>,
        /// Which part of the list.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show all that is known of a generation: attempts, money, events, what operators did.
    #[command(after_help = "\
Example:
  velro generations show 0197c3d2-...

Exit codes: 0 when it exists, 1 otherwise.")]
    Show {
        /// Id of the generation.
        generation: String,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// List generations that need a hand, each with the command to type next.
    ///
    /// unknown: the answer to a paid request was lost; the credits stay held until you say what happened.
    /// charged_without_output: completed and charged, but no file is recorded, or one that is recorded is not in the output
    /// storage any more: `velro generations refund` gives the credits back.
    /// held_too_long: queued or processing for longer than the deadline of its model, or than --older-than.
    ///
    /// Looks for the files of every charged generation, with progress on a terminal. Changes nothing.
    #[command(after_help = "\
Examples:
  velro generations problems
  velro generations problems --kind charged_without_output
  velro generations problems --kind held_too_long --older-than 30m
  velro generations problems --json

Then type the command that is printed below a problem, for example:
  velro generations refund 0197c3d2-... --reason \"the files are gone\"

Exit codes: 0 when nothing needs a hand, 1 when something does or it could not be looked for.")]
    Problems {
        /// Only this kind.
        #[arg(long, value_enum)]
        kind: Option<KindArg>,
        /// What is too long: a number with s, m, h or d [default: the model's deadline]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        older_than: Option<Duration>,
        /// How many of each kind at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Go on behind this one; only with --kind
        #[arg(long, requires = "kind")]
        cursor: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Give back what was charged for a generation, in whole or in part.
    ///
    /// The user gets the credits at once and sees a refund with your reason. Never more goes back than was charged: running
    /// it again changes nothing. A part needs a key, so that running it again gives it once.
    #[command(after_help = "\
Examples:
  velro generations refund 0197c3d2-... --reason \"the files are gone\"
      all that was charged
  velro generations refund 0197c3d2-... --amount 20 --key ticket-4711 --reason \"half of the pictures are black\"
      a part of it, once per key

Exit codes: 0 when the credits are back (also when they were before), 1 otherwise: then nothing was changed.")]
    Refund {
        /// Id of the generation.
        generation: String,
        /// How many credits [default: all that was charged and has not been given back]
        #[arg(long, requires = "key", value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
        amount: Option<i64>,
        /// Makes it repeatable: the same key gives back once for this generation.
        #[arg(long)]
        key: Option<String>,
        /// Shown to the user in the list of transactions, and kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Settle a generation of which nobody knows whether the provider took it.
    ///
    /// When the process or the line broke in the middle of a paid request, Velro neither sends it again nor gives the
    /// credits back: they stay held. Look the request up at the provider, then say what happened. Without an id the open
    /// cases are listed. With --force, --refund also ends what is queued or in work: whatever the provider makes of it is
    /// lost, and the user pays nothing.
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
  velro generations resolve 0197c3d2-... --refund --force --reason \"hangs since yesterday\"
      held too long: end it, although it is queued or in work

Exit codes: 0 when it was settled or listed, 1 otherwise.")]
    Resolve {
        /// Id of the generation.
        #[arg(requires = "outcome")]
        generation: Option<String>,
        /// What happened at the provider.
        #[command(flatten)]
        outcome: ResolveOutcome,
        /// With --refund: also when it is queued or in work.
        #[arg(long, requires = "refund", conflicts_with_all = ["retry", "deliver"])]
        force: bool,
        /// Kept in the audit log.
        #[arg(long, default_value = "resolved by the operator")]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
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

/// A kind of problem, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum KindArg {
    Unknown,
    ChargedWithoutOutput,
    HeldTooLong,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Kind {
        match kind {
            KindArg::Unknown => Kind::Unknown,
            KindArg::ChargedWithoutOutput => Kind::ChargedWithoutOutput,
            KindArg::HeldTooLong => Kind::HeldTooLong,
        }
    }
}

/// `90s`, `30m`, `2h` or `7d`.
///
/// # Errors
/// A sentence with the rule.
pub fn duration(text: &str) -> Result<Duration, String> {
    let rule = || "write a whole number with s, m, h or d, such as 30m".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(rule()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| rule())?;
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= 3650 * 86_400);
    seconds.map(Duration::from_secs).ok_or_else(rule)
}
