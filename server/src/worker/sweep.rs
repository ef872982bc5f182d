//! Finds what was lost: attempts without a living worker, attempts that this worker holds and does not know of,
//! generations without a place in the queue.
//!
//! A call of the store may fail after its commit, a client may go away between the commit of its submit and the queue,
//! another process may put a generation back: what is stored is compared with what is known here. Looking through
//! everything costs more the more there is, so it takes a hundredth of the time at most.

use std::time::Duration;
use tokio::time::Instant;

use super::{Worker, job_of};
use crate::clock;
use crate::queue::Job;
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
            self.find_held().await;
            self.requeue().await;
            self.next_comparison = Instant::now() + rest_after(began.elapsed(), self.settings.sweep_every);
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
            for attempt in adopted {
                self.take_over(attempt).await;
            }
            if last {
                return;
            }
        }
    }

    /// Attempts under this worker's lease that no step and no timer of it goes on with: the store had begun, replaced or
    /// adopted them and failed to say so. Nobody else may, so nobody else would.
    async fn find_held(&mut self) {
        let held = match self.tools.store.held(&self.settings.name).await {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(error = %error, "cannot compare the attempts held with those known");
                return;
            }
        };
        for id in held {
            if self.schedule.contains(id) || self.stepping.values().any(|(known, _)| *known == id) {
                continue;
            }
            let Ok(Some(work)) = self.tools.store.work(id, &self.settings.name).await else {
                continue;
            };
            // A step that has just replaced its attempt is not booked yet.
            if self.stepping.values().any(|(_, known)| *known == work.generation.id) {
                continue;
            }
            self.take_over(Adopted {
                attempt_id: id,
                generation_id: work.generation.id,
                user_id: work.generation.user_id,
                provider: work.attempt.provider,
                due_at: work.attempt.due_at,
            })
            .await;
        }
    }

    /// Gives every queued generation its place; those that have one keep it.
    async fn requeue(&self) {
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
            for generation in page {
                if self.tools.queue.enqueue(job_of(&generation)).await.is_err() {
                    return;
                }
            }
            if last {
                return;
            }
        }
    }

    async fn take_over(&mut self, attempt: Adopted) {
        if self.stepping.values().any(|(id, _)| *id == attempt.attempt_id) {
            return;
        }
        tracing::info!(attempt_id = %attempt.attempt_id, generation_id = %attempt.generation_id, "resuming");
        let job = Job {
            id: attempt.generation_id,
            user_id: attempt.user_id,
            provider: attempt.provider.clone(),
            cost: 1,
        };
        if self.tools.queue.occupy(job).await.is_err() {
            tracing::warn!(generation_id = %attempt.generation_id, "resumed without a slot");
        }
        self.schedule
            .put(attempt.attempt_id, attempt.generation_id, attempt.due_at);
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
