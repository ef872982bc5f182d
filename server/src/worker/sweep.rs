//! Finds what was lost: attempts without a living worker, attempts that this worker holds and does not know of,
//! generations without a place in the queue.
//!
//! A call of the store may fail after its commit, a client may go away between the commit of its submit and the queue,
//! another process may put a generation back: what is stored is compared with what is known here. Looking through
//! everything costs more the more there is, so it takes a hundredth of the time at most.

use std::time::Duration;
use tokio::time::Instant;

use super::{Running, Worker, job_of};
use crate::clock;
use crate::store::Adopted;

/// Rows read at once.
const PAGE: u32 = 500;

/// A full comparison rests this many times as long as it took.
const REST: u32 = 100;

/// But not longer than this.
const LONGEST_REST: Duration = Duration::from_secs(60);

impl Worker {
    /// Takes over what nobody holds, all of it before anything new is claimed; compares the rest now and then.
    pub(super) async fn sweep(&mut self) {
        self.adopt().await;
        let began = Instant::now();
        if began >= self.next_comparison {
            self.compare_held().await;
            // What waits is the same for all: one of them compares it, all of them after the queue was away.
            let is_my_turn = match self.rest {
                Duration::ZERO => Ok(true),
                rest => self.tools.queue.is_my_turn(rest).await,
            };
            if is_my_turn.unwrap_or(false) {
                self.requeue().await;
            }
            self.rest = rest_after(began.elapsed(), self.settings.sweep_every);
            self.next_comparison = Instant::now() + self.rest;
        }
    }

    async fn adopt(&mut self) {
        loop {
            let now = clock::now();
            let until = now.plus(self.settings.lease);
            let adopted = match self.tools.store.adopt(&self.settings.name, now, until, PAGE).await {
                Ok(adopted) => adopted,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot look for attempts to resume");
                    return;
                }
            };
            let last = adopted.len() < PAGE as usize;
            self.tools.metrics.leases("adopted", adopted.len() as u64);
            self.take_over(adopted).await;
            if last {
                return;
            }
        }
    }

    /// Attempts under this worker's lease that no step and no timer of it goes on with: the store had begun, replaced or
    /// adopted them and failed to say so. Nobody else may, so nobody else would. Then the queue is told all that runs,
    /// so that a slot whose claim or free was not answered does not stay occupied.
    async fn compare_held(&mut self) {
        let held = match self.tools.store.held(&self.settings.name).await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(error = %error, "cannot compare the attempts held with those known");
                return;
            }
        };
        let mut found = Vec::new();
        for &id in &held {
            if self.schedule.contains(id) || self.stepping.values().any(|(known, _)| *known == id) {
                continue;
            }
            let Ok(Some(work)) = self.tools.store.work(id, &self.settings.name).await else {
                continue;
            };
            // A step that has just replaced its attempt is not booked yet.
            if self
                .stepping
                .values()
                .any(|(_, known)| known.generation_id == work.generation.id)
            {
                continue;
            }
            found.push(Adopted {
                attempt_id: id,
                generation_id: work.generation.id,
                user_id: work.generation.user_id,
                provider: work.attempt.provider,
                due_at: work.attempt.due_at,
            });
        }
        self.take_over(found).await;
        if !self.claims.is_without_queue && !self.tell(held.into_iter().collect()).await {
            self.claims.is_without_queue = true;
        }
    }

    /// Gives every queued generation its place; those that have one keep it. A lane that is not in the registry any more
    /// is claimed by nobody, so what waits there is begun here: it runs if its provider is still loaded, else it fails.
    async fn requeue(&mut self) {
        let registry = self.tools.shelf.get();
        let mut after = None;
        loop {
            let page = match self.tools.store.queued(after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot look for queued generations");
                    return;
                }
            };
            after = page.last().map(|g| g.id);
            let last = page.len() < PAGE as usize;
            let (known, unknown): (Vec<_>, Vec<_>) = page
                .iter()
                .map(job_of)
                .partition(|job| registry.providers.contains_key(&*job.provider));
            for job in unknown {
                if !self.is_busy() && self.tools.pauses.may_begin(&job.provider) {
                    self.begin(&job);
                }
            }
            if self.tools.queue.enqueue(&known).await.is_err() {
                return;
            }
            if last {
                return;
            }
        }
    }

    /// Goes on with attempts under this worker's lease, whose slots are its own from now on.
    async fn take_over(&mut self, attempts: Vec<Adopted>) {
        let mut jobs = Vec::new();
        for attempt in attempts {
            if self.stepping.values().any(|(id, _)| *id == attempt.attempt_id) {
                continue;
            }
            tracing::info!(attempt_id = %attempt.attempt_id, generation_id = %attempt.generation_id, "resuming");
            let running = Running {
                generation_id: attempt.generation_id,
                user_id: attempt.user_id,
                provider: self.lane(&attempt.provider),
            };
            jobs.push(running.job());
            self.schedule.put(attempt.attempt_id, running, attempt.due_at);
        }
        if !jobs.is_empty() && self.tools.queue.occupy(&jobs).await.is_err() {
            tracing::warn!(
                attempts = jobs.len(),
                "resumed without slots; the queue is told when it answers"
            );
            self.claims.is_without_queue = true;
        }
    }
}

/// How long a comparison that took `took` may rest.
fn rest_after(took: Duration, sweep_every: Duration) -> Duration {
    took.saturating_mul(REST).min(LONGEST_REST).max(sweep_every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_takes_a_hundredth_of_the_time_and_never_stops() {
        let every = Duration::from_secs(5);
        let rest = |ms| rest_after(Duration::from_millis(ms), every);
        assert_eq!(rest(0), every);
        assert_eq!(rest(200), Duration::from_secs(20));
        assert_eq!(rest(10_000), LONGEST_REST);
        assert_eq!(rest_after(Duration::ZERO, Duration::from_secs(90)).as_secs(), 90);
    }
}
