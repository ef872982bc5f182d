//! What the metrics cannot know by themselves: counts out of the database, and whether the books are in order.

use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::http::Services;
use crate::store::{LedgerCheck, Store, StoreError};

/// How often gauges that need the database are refreshed.
const GAUGES_EVERY: Duration = Duration::from_secs(10);

/// How often a process asks whether it is its turn to recompute the books.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// Faults that are written to the log one by one; `velro ledger verify` has them all.
const MOST_LINES: usize = 20;

/// Refreshes gauges that the database and the queue know.
pub(super) async fn refresh_gauges(services: Arc<Services>, stop: CancellationToken) {
    let mut tick = interval(GAUGES_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let metrics = &services.metrics;
        match services.counts().await {
            Ok(counts) => metrics.system(&counts, clock::now()),
            Err(error) => {
                // Counting may be slow where the database is not away.
                metrics.database_answers(services.store.ping().await.is_ok());
                tracing::warn!(error = %error, "cannot refresh the gauges");
            }
        }
        for name in services.shelf.get().providers.keys() {
            if let Ok(depth) = services.queue.depth(name).await {
                metrics.queue(name, depth);
            }
        }
    }
}

/// Recomputes the books every now and then, one process of the installation at a time. `store` is one without the patience
/// of requests: it looks at everything, however long that takes.
pub(super) async fn keep_checking(services: Arc<Services>, store: Arc<dyn Store>, stop: CancellationToken) {
    let Some(every) = services.config.ledger_check_every else {
        return;
    };
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let checked = tokio::select! {
            () = stop.cancelled() => return,
            checked = check(store.as_ref(), every) => checked,
        };
        if let Err(error) = checked {
            tracing::warn!(error = %error, "the books could not be checked; the next check is due later");
        }
    }
}

/// One check, when it is due and nobody else does it.
async fn check(store: &dyn Store, every: Duration) -> Result<(), StoreError> {
    if !store.claim_ledger_check(every, clock::now()).await? {
        return Ok(());
    }
    let began = Instant::now();
    let report = store.verify_ledger().await?;
    let check = LedgerCheck {
        finished_at: clock::now(),
        took: began.elapsed(),
        faults: report.faults.len() as u64,
        charged_without_output: report.charged_without_output,
    };
    for fault in report.faults.iter().take(MOST_LINES) {
        tracing::error!(fault, "the books are not in order");
    }
    if check.faults > MOST_LINES as u64 {
        tracing::error!(faults = check.faults, "there are more; `velro ledger verify` shows all");
    }
    store.finish_ledger_check(check).await
}
