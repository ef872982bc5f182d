//! The store alone: the library's submit from many tasks, without HTTP, tokens or a registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;
use velro::store::{Store, Submitted};

use crate::phase::{Phase, Tally};
use crate::{people, requests};

/// Submits from `tasks` tasks until the phase is over.
///
/// # Errors
/// If a submit is not accepted.
pub async fn submits(store: Arc<dyn Store>, tasks: usize, phase: Arc<Phase>) -> Result<Tally> {
    let next = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        running.spawn(submitter(Arc::clone(&store), Arc::clone(&next), Arc::clone(&phase)));
    }
    let mut tally = Tally::default();
    while let Some(done) = running.join_next().await {
        tally.add(done.context("a task panicked")??);
    }
    Ok(tally)
}

async fn submitter(store: Arc<dyn Store>, next: Arc<AtomicU64>, phase: Arc<Phase>) -> Result<Tally> {
    let mut tally = Tally::default();
    while !phase.is_over() {
        let person = people::id(next.fetch_add(1, Ordering::Relaxed) % people::PEOPLE)?;
        let new = requests::stored(person);
        let began = Instant::now();
        match store.submit(new).await? {
            Submitted::New { .. } => tally.note(&phase, began.elapsed()),
            other => bail!("a submit was not accepted: {other:?}"),
        }
    }
    Ok(tally)
}
