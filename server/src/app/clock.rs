//! Keeps the process on the database's clock: a look before anything else uses a time, and one every few seconds after.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Look};
use crate::store::{Result, Store};
use crate::telemetry::Metrics;

/// How often the process looks at the database's clock.
const EVERY: Duration = Duration::from_secs(10);

/// Questions per look; the quickest answer says most.
const QUESTIONS: usize = 3;

/// A slower answer says too little about the present.
const SLOWEST: Duration = Duration::from_millis(250);

/// Looks before the start goes on without a quick answer.
const LOOKS_AT_START: usize = 10;

/// From here on an operator should know, in microseconds.
const NOTEWORTHY_US: u64 = 1_000_000;

/// Follows the database's clock.
pub(super) struct Follower {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    /// The operator has been told.
    told: bool,
}

impl Follower {
    pub(super) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Follower {
        Follower {
            store,
            metrics,
            told: false,
        }
    }

    /// Follows it before anything uses a time. A database that answers, but never quickly, is no reason not to start:
    /// then this machine's clock stands until it can be read.
    pub(super) async fn begin(&mut self) -> Result<()> {
        for _ in 0..LOOKS_AT_START {
            if let Some(look) = look(self.store.as_ref()).await? {
                self.apply(look);
                return Ok(());
            }
        }
        tracing::warn!("the database answers too slowly to read its clock; this machine's counts until it can be read");
        Ok(())
    }

    /// Follows it until `stop`.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(EVERY) => {}
            }
            // A database that is away is reported by whoever needs it, and the clocks do not drift apart quickly.
            if let Ok(Some(look)) = look(self.store.as_ref()).await {
                self.apply(look);
            }
        }
    }

    fn apply(&mut self, look: Look) {
        clock::follow(look);
        let offset_us = look.ahead_of_machine_us;
        self.metrics.clock_offset(offset_us);
        let is_off = offset_us.unsigned_abs() > NOTEWORTHY_US;
        if is_off && !self.told {
            let seconds = offset_us as f64 / 1e6;
            tracing::warn!(
                seconds,
                "the clock of this machine is not the database's, which is followed; set both by NTP"
            );
        }
        self.told = is_off;
    }
}

/// The best of a few questions; `None` when no answer was quick enough.
async fn look(store: &dyn Store) -> Result<Option<Look>> {
    let mut best: Option<Look> = None;
    for _ in 0..QUESTIONS {
        let asked_at = Instant::now();
        let Ok(answer) = timeout(SLOWEST, store.now()).await else {
            continue;
        };
        let look = Look::taken(answer?, asked_at);
        if look.round_trip <= SLOWEST && best.is_none_or(|best| look.round_trip < best.round_trip) {
            best = Some(look);
        }
    }
    Ok(best)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::clock::Micros;
    use crate::store::sql::{OpenOptions, SqlStore};
    use crate::store::wrapped::{Manner, Wrapped};
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Delays before each answer; more than are listed come at once.
    struct Slow(Mutex<VecDeque<Duration>>);

    impl Manner for Slow {
        async fn make<T: Send>(&self, _: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
            let delay = self.0.lock().unwrap().pop_front().unwrap_or_default();
            sleep(delay).await;
            call.await
        }
    }

    async fn slow(folder: &std::path::Path, delays_ms: &[u64]) -> Wrapped<Slow> {
        let options = OpenOptions {
            create: true,
            migrate: true,
        };
        let path = folder.join("velro.db").display().to_string();
        let delays = delays_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        let store = SqlStore::open(&path, options).await.unwrap();
        Wrapped::new(Arc::new(store), Arc::new(Slow(Mutex::new(delays))))
    }

    #[tokio::test]
    async fn slow_answers_do_not_count_and_the_quickest_does() {
        let folder = tempfile::tempdir().unwrap();
        let store = slow(folder.path(), &[300, 40, 0]).await;
        let best = look(&store).await.unwrap().unwrap();
        assert!(best.round_trip < Duration::from_millis(40), "{best:?}");
        let store = slow(folder.path(), &[300, 300, 300]).await;
        assert_eq!(look(&store).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_embedded_database_has_this_machine_s_clock() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut follower = Follower::new(Arc::new(slow(folder.path(), &[]).await), Arc::clone(&metrics));
        follower.begin().await.unwrap();
        assert!(metrics.render().unwrap().contains("velro_clock_offset_seconds 0\n"));
        assert!(clock::now().0.abs_diff(clock::system().0) < 1_000_000);
        assert!(clock::now() > Micros(0));
    }
}
