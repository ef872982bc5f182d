//! `velro users`.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::table::{ago, short, table};
use super::{Desk, by, cursor, print_json, print_more, view};
use crate::cli::sign::{ListArgs, SignArgs};
use crate::cli::users::UsersCommand;
use crate::clock;
use crate::store::{AuditFilter, ChangeUser, Person, Role, UserChange, UserChanged, UserFilter};

impl Desk<'_> {
    pub(super) async fn users(&self, command: UsersCommand) -> Result<()> {
        match command {
            UsersCommand::List {
                text,
                operators,
                suspended,
                list,
            } => {
                let filter = UserFilter {
                    email: text.map(|text| text.to_lowercase()),
                    role: operators.then_some(Role::Operator),
                    suspended: suspended.then_some(true),
                    after: cursor(list.cursor.as_ref())?,
                    limit: list.limit,
                };
                self.list_users(filter, &list).await
            }
            UsersCommand::Show { user, json } => self.show_user(&user, json).await,
            UsersCommand::Promote { user, reason, sign } => {
                let said = "is an operator";
                self.change(&user, UserChange::Role(Role::Operator), &reason, &sign, said)
                    .await
            }
            UsersCommand::Demote { user, reason, sign } => {
                let said = "is no operator";
                self.change(&user, UserChange::Role(Role::User), &reason, &sign, said)
                    .await
            }
            UsersCommand::Suspend { user, reason, sign } => {
                let said = "is suspended";
                self.change(&user, UserChange::Suspend, &reason, &sign, said).await
            }
            UsersCommand::Unsuspend { user, reason, sign } => {
                let said = "is not suspended";
                self.change(&user, UserChange::Unsuspend, &reason, &sign, said).await
            }
        }
    }

    async fn list_users(&self, filter: UserFilter, list: &ListArgs) -> Result<()> {
        let found = self.store.people(filter).await?;
        let last = found.items.last().filter(|_| found.more);
        let next = last.map(|person| person.user.id.to_string());
        if list.json {
            return print_json(&view::list(found.items.iter().map(view::person).collect(), next));
        }
        let now = clock::now();
        let row = |person: &Person| {
            let user = &person.user;
            vec![
                user.id.to_string(),
                short(&user.email, 40),
                user.role.as_str().to_owned(),
                person.balance.available().to_string(),
                person.balance.held.to_string(),
                ago(user.created_at, now),
                user.suspended_reason
                    .as_ref()
                    .map_or_else(String::new, |reason| format!("suspended: {}", short(reason, 40))),
            ]
        };
        let rows: Vec<_> = found.items.iter().map(row).collect();
        let head = ["id", "e-mail", "role", ">available", ">held", "registered", "note"];
        println!("{}", table(&head, &rows));
        print_more(next.as_ref());
        Ok(())
    }

    async fn show_user(&self, user: &str, json: bool) -> Result<()> {
        let user = self.find(user).await?;
        let balance = self.store.balance(user.id).await?.unwrap_or_default();
        let person = Person { user, balance };
        let filter = AuditFilter {
            subject: Some(person.user.id.to_string()),
            limit: 20,
            ..AuditFilter::default()
        };
        let audit = self.store.audit(filter).await?.items;
        if json {
            let mut value = view::person(&person);
            value["audit"] = Value::Array(audit.iter().map(view::entry).collect());
            return print_json(&value);
        }
        let (user, now) = (&person.user, clock::now());
        let mut lines = vec![
            ("id", user.id.to_string()),
            ("e-mail", user.email.clone()),
            ("name", user.full_name.clone().unwrap_or_default()),
            ("role", user.role.as_str().to_owned()),
            ("available", person.balance.available().to_string()),
            ("held", person.balance.held.to_string()),
            ("debt", person.balance.debt.to_string()),
            (
                "registered",
                format!("{} ({})", user.created_at.rfc3339(), ago(user.created_at, now)),
            ),
        ];
        if let Some(at) = user.suspended_at {
            let reason = user.suspended_reason.as_deref().unwrap_or_default();
            lines.push(("suspended", format!("{} ({}): {reason}", at.rfc3339(), ago(at, now))));
        }
        if let Some(at) = user.deleted_at {
            lines.push(("deleted", at.rfc3339()));
        }
        for (name, value) in lines {
            println!("{name:<10}  {value}");
        }
        for entry in &audit {
            println!(
                "{:<10}  {}  {}  {}",
                entry.action,
                ago(entry.created_at, now),
                entry.actor,
                short(&entry.reason, 80)
            );
        }
        Ok(())
    }

    async fn change(&self, user: &str, change: UserChange, reason: &str, sign: &SignArgs, said: &str) -> Result<()> {
        let user = self.find(user).await?;
        let change = ChangeUser {
            user_id: user.id,
            change,
            by: by(sign, reason),
        };
        match self.store.change_user(change).await? {
            UserChanged::Done { user, changed } => {
                if sign.json {
                    let balance = self.store.balance(user.id).await?.unwrap_or_default();
                    let mut value = view::person(&Person { user: *user, balance });
                    value["changed"] = json!(changed);
                    return print_json(&value);
                }
                let when = if changed { "now" } else { "already; nothing was changed" };
                println!("{} {said} {when}", user.email);
                Ok(())
            }
            UserChanged::LastOperator => bail!(
                "{} is the last operator; promote somebody else first, with `velro users promote`",
                user.email
            ),
            UserChanged::Missing => bail!("{} has deleted the account", user.email),
        }
    }
}
