//! `velro users`: definition.

use clap::Subcommand;

use super::sign::{ListArgs, SignArgs};

/// `velro users`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum UsersCommand {
    /// List users, newest first.
    #[command(after_help = "\
Examples:
  velro users list
  velro users list ann             whose e-mail address contains `ann`
  velro users list --operators
  velro users list --suspended --json

Exit codes: 0 when they were listed, also when there is none; 1 otherwise.")]
    List {
        /// A part of the e-mail address.
        text: Option<String>,
        /// Operators only.
        #[arg(long)]
        operators: bool,
        /// Suspended users only.
        #[arg(long)]
        suspended: bool,
        /// Which part of the list.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a user: account, credits, role, and what operators did.
    #[command(after_help = "\
Example:
  velro users show ann@example.com

Exit codes: 0 when the user exists, 1 otherwise.")]
    Show {
        /// E-mail address or id of the user.
        user: String,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
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
        /// Kept in the audit log.
        #[arg(long, default_value = "promoted by the operator")]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Make an operator a plain user again.
    ///
    /// The last operator stays one: promote somebody else first.
    #[command(after_help = "\
Example:
  velro users demote ann@example.com --reason \"left the team\"

Exit codes: 0 when the user is no operator (also when it was none before), 1 otherwise.")]
    Demote {
        /// E-mail address or id of the user.
        user: String,
        /// Kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Let a user look and spend nothing.
    ///
    /// A suspended user can sign in and see everything of their own. Submits, purchases and codes are refused, and so are
    /// the rights of an operator. What runs goes on and is charged as usual.
    #[command(after_help = "\
Examples:
  velro users suspend ann@example.com --reason \"chargeback of order 0197...\"
  velro users unsuspend ann@example.com --reason \"paid\"

Exit codes: 0 when the user is suspended (also when it was before), 1 otherwise.")]
    Suspend {
        /// E-mail address or id of the user.
        user: String,
        /// Kept in the audit log and with the account.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Let a suspended user spend again.
    #[command(after_help = "\
Example:
  velro users unsuspend ann@example.com --reason \"paid\"

Exit codes: 0 when the user is not suspended (also when it was not before), 1 otherwise.")]
    Unsuspend {
        /// E-mail address or id of the user.
        user: String,
        /// Kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
}
