//! `velro audit`.

use anyhow::Result;

use super::table::{ago, short, table};
use super::{Desk, cursor, print_json, print_more, view};
use crate::cli::audit::AuditCommand;
use crate::clock;
use crate::store::AuditFilter;

impl Desk<'_> {
    pub(super) async fn audit(&self, command: AuditCommand) -> Result<()> {
        let AuditCommand::List {
            actor,
            subject,
            action,
            last,
            list,
        } = command;
        let now = clock::now();
        let filter = AuditFilter {
            actor,
            subject,
            action,
            since: last.map(|last| now.minus(last)),
            until: None,
            after: cursor(list.cursor.as_ref())?,
            limit: list.limit,
        };
        let found = self.store.audit(filter).await?;
        let next = found
            .items
            .last()
            .filter(|_| found.more)
            .map(|entry| entry.seq.to_string());
        if list.json {
            return print_json(&view::list(found.items.iter().map(view::entry).collect(), next));
        }
        let rows: Vec<_> = found
            .items
            .iter()
            .map(|entry| {
                vec![
                    ago(entry.created_at, now),
                    entry.actor.clone(),
                    entry.action.clone(),
                    entry.subject.clone(),
                    short(&entry.reason, 80),
                ]
            })
            .collect();
        println!("{}", table(&["when", "operator", "did", "to", "why"], &rows));
        print_more(next.as_ref());
        Ok(())
    }
}
