//! `velro audit`: definition.

use clap::Subcommand;
use std::time::Duration;

use super::generations::duration;
use super::sign::ListArgs;

/// `velro audit`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum AuditCommand {
    /// List what operators did, newest first.
    ///
    /// Every action of an operator, on the command line or through the API, has an entry that nothing can change: who, what,
    /// why, before and after.
    #[command(after_help = "\
Examples:
  velro audit list
  velro audit list --actor cli:ann --last 7d
  velro audit list --subject 0197c3d2-...      a user, a generation, a code, queue or provider:NAME
  velro audit list --action generation.refund --json

Exit codes: 0 when they were listed, also when there is none; 1 otherwise.")]
    List {
        /// Who: `cli:NAME` or `operator USER_ID`
        #[arg(long)]
        actor: Option<String>,
        /// Of what: an id, `queue` or `provider:NAME`
        #[arg(long)]
        subject: Option<String>,
        /// What: user.role, user.suspend, user.unsuspend, credits.grant, credits.correct, generation.refund,
        /// generation.resolve, code.create, code.disable, pause.set
        #[arg(long)]
        action: Option<String>,
        /// How far back: a number with s, m, h or d [default: all of it]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        last: Option<Duration>,
        /// Which part of the list.
        #[command(flatten)]
        list: ListArgs,
    },
}
