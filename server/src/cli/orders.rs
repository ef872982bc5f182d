//! `velro orders`: purchases, for the operator. Carried out by [`crate::app`].

use clap::Subcommand;

use super::sign::SignArgs;

/// `velro orders`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum OrdersCommand {
    /// List orders, newest first.
    #[command(after_help = "\
Examples:
  velro orders list
  velro orders list --user ann@example.com --status paid
  velro orders list --trouble --json

Exit codes: 0 when they were listed, 1 otherwise.")]
    List {
        /// Only of this user: e-mail address or id.
        #[arg(long)]
        user: Option<String>,
        /// Only in this state.
        #[arg(long, value_parser = ["created", "open", "processing", "paid", "expired", "failed"])]
        status: Option<String>,
        /// Only what needs an operator.
        #[arg(long)]
        trouble: bool,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Only orders older than this one, the last of the page before.
        #[arg(long, value_name = "ORDER")]
        before: Option<String>,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Show an order, with what the payment provider has said about it.
    #[command(after_help = "\
Example:
  velro orders show 0197c3d2-...

Exit codes: 0 when there is such an order, 1 otherwise.")]
    Show {
        /// Id of the order.
        order: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take an order out of the list of those in trouble.
    ///
    /// Its credits stay as they are: look at the payment at Stripe first, then give or take with `velro credits grant` or
    /// `velro credits correct`, or send the money back at Stripe. This only says, in the audit log too, that it was done.
    #[command(after_help = "\
Examples:
  velro orders list --trouble
  velro orders show 0197c3d2-...
  velro credits grant ann@example.com 500 --reason \"paid in the wrong currency\" --key order-0197c3d2
  velro orders settle 0197c3d2-... --reason \"granted by hand\"

Exit codes: 0 when it is in trouble no more (also when it was not before), 1 otherwise.")]
    Settle {
        /// Id of the order.
        order: String,
        /// Kept in the audit log.
        #[arg(long)]
        reason: String,
        /// Who acts.
        #[command(flatten)]
        sign: SignArgs,
    },
    /// Ask Stripe what became of orders, and book what no webhook told.
    ///
    /// For webhooks that never came: the server was away for days, the signing secret was wrong, or there is no endpoint.
    /// Asks for the session of every order that is not paid, and for refunds and disputes of those that are. What is booked
    /// is booked as by a webhook, once. It may run beside the server, and as often as you like.
    #[command(after_help = "\
Examples:
  velro orders reconcile
  velro orders reconcile --since 90d --dry-run
  velro orders reconcile --since 12h --json

Exit codes: 0 when everything agrees or was booked, 1 when something is left for an operator (with --dry-run: when
anything differs).")]
    Reconcile {
        /// How far back: a number with h or d.
        #[arg(long, default_value = "30d", value_parser = hours)]
        since: u32,
        /// Book nothing, only say what differs.
        #[arg(long)]
        dry_run: bool,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

/// Longest look back, in hours: ten years.
const MAX_HOURS: u32 = 87_600;

/// `12h` or `30d`, in hours.
fn hours(text: &str) -> Result<u32, String> {
    let wrong = || "write a number of hours or days up to ten years, such as 12h or 30d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let factor = match unit {
        "h" => 1,
        "d" => 24,
        _ => return Err(wrong()),
    };
    let hours = number.parse::<u32>().ok().and_then(|n| n.checked_mul(factor));
    hours.filter(|h| (1..=MAX_HOURS).contains(h)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn the_commands_are_read() {
        let parsed = |line: &str| Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.chosen());
        let reconcile = OrdersCommand::Reconcile {
            since: 720,
            dry_run: true,
            json: false,
        };
        assert_eq!(
            parsed("velro orders reconcile --dry-run").ok(),
            Some(Command::Orders(reconcile))
        );
        for bad in [
            "velro orders",
            "velro orders show",
            "velro orders list --status lost",
            "velro orders list --limit 0",
            "velro orders reconcile --since soon",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_look_back_is_hours_or_days() {
        assert_eq!(hours("12h"), Ok(12));
        assert_eq!(hours("30d"), Ok(720));
        for bad in ["", "d", "0d", "-1h", "5", "1.5h", "99999999d", "3w", "3é"] {
            assert!(hours(bad).is_err(), "{bad}");
        }
    }
}
