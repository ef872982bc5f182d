//! A store that dies at the n-th call of the worker: before it is carried out, or after, when nobody hears the answer.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tokio::sync::Notify;

use velro::store::Result;
use velro::store::wrapped::Manner;

/// The calls of the worker that pass the points; the others go straight through.
const POINTS: &[&str] = &[
    "begin_attempt",
    "work",
    "save_step",
    "next_attempt",
    "reroute",
    "settle",
];

/// Where in a call the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// See the module.
pub(crate) struct Dying {
    pub(crate) die_at: u32,
    pub(crate) when: When,
    pub(crate) calls: AtomicU32,
    /// Told once, when the process is dead.
    pub(crate) died: Notify,
}

impl Dying {
    /// Counts a call; the one it dies at, and all later ones, never return.
    async fn point(&self, when: When) {
        let call = match when {
            When::Before => self.calls.fetch_add(1, SeqCst) + 1,
            When::After => self.calls.load(SeqCst),
        };
        if call > self.die_at || (call == self.die_at && self.when == when) {
            self.died.notify_one();
            pending::<()>().await;
        }
    }
}

impl Manner for Dying {
    async fn make<T: Send>(&self, method: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if !POINTS.contains(&method) {
            return call.await;
        }
        self.point(When::Before).await;
        let answer = call.await;
        self.point(When::After).await;
        answer
    }
}
