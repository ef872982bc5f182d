//! What several commands take: who acts and why, which part of a list, how to print.

use clap::Args;

/// Who acts, and how to print what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct SignArgs {
    /// Who you are, for the audit log [default: your user name on this machine]
    #[arg(long = "as", value_name = "NAME")]
    pub name: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Which part of a list, and how to print it.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Go on behind this one: the `next_cursor` of the list before
    #[arg(long)]
    pub cursor: Option<String>,
    /// Print one JSON document: `items` and `next_cursor`
    #[arg(long)]
    pub json: bool,
}

/// A text for the shell.
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
