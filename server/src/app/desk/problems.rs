//! `velro generations problems`: what needs a hand, each with the command to type next.

use anyhow::Result;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use super::table::ago;
use super::{Desk, print_json, view};
use crate::catalog::Registry;
use crate::clock;
use crate::desk::{Finding, Kind, Seeker};
use crate::id::GenerationId;
use crate::outputs::Outputs;

/// Charged generations without files, and none with them: more likely the storage is not there.
const SUSPICIOUS: u64 = 5;

impl Desk<'_> {
    /// False when something needs a hand.
    pub(super) async fn problems(
        &self,
        kind: Option<Kind>,
        older_than: Option<Duration>,
        limit: usize,
        after: Option<GenerationId>,
        json: bool,
    ) -> Result<bool> {
        let outputs = Outputs::new(self.config)?;
        let registry = Registry::from_file(&self.config.providers_path, clock::now()).unwrap_or_default();
        let seeker = Seeker {
            store: self.store.as_ref(),
            outputs: &outputs,
            registry: registry.into(),
            older_than,
            now: clock::now(),
        };
        let mut document = Map::new();
        let mut all = 0;
        for kind in Kind::ALL.into_iter().filter(|k| kind.is_none_or(|only| only == *k)) {
            let found = seeker.look(kind, after, limit, u64::MAX, progress(kind)).await?;
            clear_progress();
            all += found.findings.len();
            let next = found.next.map(|id| id.to_string());
            if json {
                let items = found.findings.iter().map(|finding| self.shown(finding)).collect();
                document.insert(kind.as_str().into(), view::list(items, next));
                continue;
            }
            for finding in &found.findings {
                self.print(finding);
            }
            if let Some(next) = next {
                println!("... more with --kind {} --cursor {next}", kind.as_str());
            }
            let missing = found.findings.len() as u64;
            if kind == Kind::ChargedWithoutOutput && missing >= SUSPICIOUS && missing == found.looked_at {
                println!(
                    "Every file that was looked for is gone: is the right folder mounted at {}?\n",
                    self.config.outputs_dir().display()
                );
            }
        }
        if json {
            print_json(&Value::Object(document))?;
        } else if all == 0 {
            println!("nothing needs a hand");
        }
        Ok(all == 0)
    }

    fn print(&self, finding: &Finding) {
        let g = &finding.case.generation;
        let paid = match g.captured {
            Some(captured) => format!("{} of {captured} charged credits", (captured - g.refunded).0),
            None => format!("{} credits held", g.price),
        };
        println!(
            "{}  {}  {paid}  {}  {}  submitted {}  {}",
            finding.kind.as_str(),
            g.id,
            finding.case.email,
            g.model_id,
            ago(g.created_at, clock::now()),
            finding.note
        );
        for command in self.next(finding) {
            println!("  {command}");
        }
        println!();
    }

    /// What to type next; the first is the usual one.
    fn next(&self, finding: &Finding) -> Vec<String> {
        let (id, velro) = (finding.case.generation.id, format!("velro{}", self.flags));
        match finding.kind {
            Kind::Unknown => vec![
                format!("{velro} generations resolve {id} --refund --reason \"not at the provider\""),
                format!("{velro} generations resolve {id} --retry --reason \"the provider never took it\""),
                format!("{velro} generations resolve {id} --deliver URL --reason \"the provider made it\""),
            ],
            Kind::ChargedWithoutOutput => vec![format!(
                "{velro} generations refund {id} --reason \"charged without output\""
            )],
            Kind::HeldTooLong => vec![
                format!("{velro} generations show {id}"),
                format!("{velro} generations resolve {id} --refund --force --reason \"held too long\""),
            ],
        }
    }

    fn shown(&self, finding: &Finding) -> Value {
        let mut value = view::case(&finding.case);
        value["problem"] = json!(finding.kind.as_str());
        value["note"] = json!(finding.note);
        value["next"] = json!(self.next(finding));
        value
    }
}

/// Says on a terminal how far the search is.
#[allow(clippy::print_stderr, reason = "progress is for a person")]
fn progress(kind: Kind) -> impl FnMut(u64) + Send {
    let shown = std::io::stderr().is_terminal();
    move |looked_at| {
        if shown {
            eprint!("\r{}: {looked_at} looked at", kind.as_str());
            // Nothing is lost when it is not shown.
            let _ = std::io::stderr().flush();
        }
    }
}

#[allow(clippy::print_stderr, reason = "progress is for a person")]
fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
