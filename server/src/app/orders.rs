//! `velro orders`: what the operator sees of purchases, and the comparison with Stripe.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::Duration;

use super::desk::{by, find};
use crate::cli::orders::OrdersCommand;
use crate::clock;
use crate::config::Config;
use crate::id::OrderId;
use crate::payments::Payments;
use crate::payments::reconcile::{self, Finding};
use crate::purchase::{Order, OrderStatus};
use crate::store::{OrderFilter, OrderRecord, Store};
use crate::telemetry::Metrics;

/// Carries out a sub-command; false when something is left for an operator.
pub(super) async fn run(command: OrdersCommand, config: &Config, store: Arc<dyn Store>) -> Result<bool> {
    match command {
        OrdersCommand::List {
            user,
            status,
            trouble,
            limit,
            before,
            json,
        } => {
            let user_id = match &user {
                Some(user) => Some(find(store.as_ref(), user).await?.id),
                None => None,
            };
            let filter = OrderFilter {
                user_id,
                status: status.as_deref().and_then(OrderStatus::parse),
                trouble,
                since: None,
                before: before.as_deref().map(parsed).transpose()?,
                limit,
            };
            list(store.as_ref(), filter, json).await?;
            Ok(true)
        }
        OrdersCommand::Show { order, json } => {
            let id = parsed(&order)?;
            let record = store.order(id).await?;
            show(&record.with_context(|| format!("there is no order {id}"))?, json);
            Ok(true)
        }
        OrdersCommand::Settle { order, reason, sign } => {
            let id = parsed(&order)?;
            let done = store.settle_order(id, by(&sign, &reason)).await?;
            let (order, changed) = done.with_context(|| format!("there is no order {id}"))?;
            if sign.json {
                println!("{}", as_json(&order));
                return Ok(true);
            }
            match changed {
                true => println!("order {id} is in trouble no more; its credits are as they were"),
                false => println!("order {id} was in no trouble; nothing was changed"),
            }
            Ok(true)
        }
        OrdersCommand::Reconcile { since, dry_run, json } => reconcile(config, store, since, dry_run, json).await,
    }
}

fn parsed(text: &str) -> Result<OrderId> {
    text.parse()
        .with_context(|| format!("{text} is not the id of an order"))
}

fn as_json(order: &Order) -> Value {
    json!({
        "order_id": order.id,
        "user_id": order.user_id,
        "package_id": order.package_id,
        "credits": order.credits,
        "amount_minor": order.price.amount_minor,
        "currency": order.price.currency.as_str(),
        "payment": order.payment.as_str(),
        "livemode": order.livemode,
        "status": order.status.as_str(),
        "session_id": order.session_id,
        "payment_intent": order.payment_intent,
        "reversed": order.reversed,
        "trouble": order.trouble,
        "created_at": order.created_at.rfc3339(),
        "updated_at": order.updated_at.rfc3339(),
        "expires_at": order.expires_at.map(|at| at.rfc3339()),
        "paid_at": order.paid_at.map(|at| at.rfc3339()),
    })
}

async fn list(store: &dyn Store, filter: OrderFilter, json: bool) -> Result<()> {
    let orders = store.orders(filter).await?;
    if orders.is_empty() && !json {
        println!("no orders");
    }
    for order in &orders {
        if json {
            println!("{}", as_json(order));
            continue;
        }
        let trouble = order.trouble.as_ref().map(|t| format!("  TROUBLE {t}"));
        println!(
            "{}  {}  {:<10}  {:>8} credits  {:>12}  {}{}",
            order.id,
            order.created_at.rfc3339(),
            order.status.as_str(),
            order.credits.0,
            order.price.to_string(),
            order.user_id,
            trouble.unwrap_or_default()
        );
    }
    Ok(())
}

fn show(record: &OrderRecord, json: bool) {
    let OrderRecord {
        order,
        events,
        reversals,
    } = record;
    if json {
        let mut value = as_json(order);
        value["events"] = events
            .iter()
            .map(|e| {
                json!({"id": e.id, "type": e.kind, "outcome": e.outcome, "created_at": e.created_at.rfc3339(),
                    "received_at": e.received_at.rfc3339()})
            })
            .collect();
        value["reversals"] = reversals
            .iter()
            .map(|r| {
                json!({"id": r.id, "kind": r.kind.as_str(), "amount_minor": r.amount_minor, "currency": r.currency,
                    "void": r.void})
            })
            .collect();
        println!("{value}");
        return;
    }
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known".to_owned());
    let mode = if order.livemode { "live" } else { "test" };
    println!("order      {}", order.id);
    println!("user       {}", order.user_id);
    println!(
        "package    {}: {} credits for {}",
        order.package_id, order.credits, order.price
    );
    println!(
        "status     {}, {} ({mode})",
        order.status.as_str(),
        order.payment.as_str()
    );
    println!("reversed   {} credits", order.reversed);
    println!("session    {}", known(&order.session_id));
    println!("payment    {}", known(&order.payment_intent));
    println!("made       {}", order.created_at.rfc3339());
    if let Some(paid_at) = order.paid_at {
        println!("paid       {}", paid_at.rfc3339());
    }
    if let Some(trouble) = &order.trouble {
        println!("TROUBLE    {trouble}");
    }
    for event in events {
        let at = event.received_at.rfc3339();
        println!("event      {at}  {}  {}: {}", event.id, event.kind, event.outcome);
    }
    for reversal in reversals {
        let state = if reversal.void { "void" } else { "valid" };
        println!(
            "reversal   {}  {} of {} {} (smallest unit), {state}",
            reversal.id,
            reversal.kind.as_str(),
            reversal.amount_minor,
            reversal.currency
        );
    }
}

async fn reconcile(config: &Config, store: Arc<dyn Store>, hours: u32, dry_run: bool, json: bool) -> Result<bool> {
    let payments = Payments::new(config, store, Arc::new(Metrics::new()?))?;
    if payments.stripe().is_none() {
        bail!("Stripe is not configured: set STRIPE_SECRET_KEY");
    }
    let since = clock::now().minus(Duration::from_secs(u64::from(hours) * 3600));
    let terminal = stderr().is_terminal() && !json;
    let mut progress = |seen: usize, found: &[Finding]| {
        if terminal {
            // The progress is for a person who watches; a terminal that is gone is no reason to stop.
            let _ = write!(stderr(), "\r\x1b[K");
        }
        for finding in found {
            print(finding, json);
        }
        if terminal {
            let _ = write!(stderr(), "\r{seen} orders compared");
        }
    };
    let findings = reconcile::run(&payments, since, dry_run, &mut progress).await?;
    if terminal {
        let _ = writeln!(stderr());
    }
    let open = findings.iter().filter(|f| f.open).count();
    if !json {
        match (findings.len(), open) {
            (0, _) => println!("everything agrees with Stripe"),
            (all, 0) => println!("{all} differences, all of them booked"),
            (_, open) if dry_run => println!("{open} differences; nothing was booked"),
            (all, open) => println!("{all} findings, {open} of them are left for an operator"),
        }
    }
    Ok(open == 0)
}

fn print(finding: &Finding, json: bool) {
    let Finding { order_id, text, open } = finding;
    match (json, open) {
        (true, _) => println!("{}", json!({"order_id": order_id, "finding": text, "open": open})),
        (false, true) => println!("OPEN    {order_id}  {text}"),
        (false, false) => println!("booked  {order_id}  {text}"),
    }
}
