//! What may begin: the next job of every lane from the queue, or from the store while the queue does not answer.
//!
//! Without the queue nobody is kept waiting: jobs begin oldest first, and this worker stays within its share of the
//! limits, which is a part of them for every worker that lives. Of several workers that begin the same job the store
//! lets one win. When the queue answers again it is told what runs here, and what it missed is enqueued; before that it
//! is not asked, because it does not know how full its lanes are. A queue that each process has for itself never knows
//! how much the others run, so with it a worker stays within its share always.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::{Running, Worker, job_of};
use crate::catalog::{ProviderEntry, Registry};
use crate::clock;
use crate::id::{AttemptId, GenerationId, UserId};
use crate::pause::Pauses;
use crate::queue::{Job, Kept, LaneLimits};

/// How often the store is searched for jobs to begin while the queue does not answer.
const SEARCH_EVERY: Duration = Duration::from_millis(500);

/// How often the workers that live are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Rows read at once, and how often in one search; the next search goes on behind them.
const PAGE: u32 = 500;
const PAGES: u32 = 4;

/// How far the worker has come with what may begin.
pub(super) struct Claims {
    /// Something may be claimable: a wake-up, a free slot. Asking the queue without it would cost a round trip a step.
    pub(super) is_hungry: bool,
    /// The queue does not answer, or has not been told yet what runs here.
    pub(super) is_without_queue: bool,
    next_search: Instant,
    /// Where the last search in the store ended.
    searched: Option<GenerationId>,
    /// How many workers live, when that was asked last.
    living: u32,
    next_count: Instant,
    /// This worker is among those that are counted.
    is_counted: bool,
}

impl Default for Claims {
    fn default() -> Self {
        Claims {
            is_hungry: true,
            is_without_queue: false,
            next_search: Instant::now(),
            searched: None,
            living: 1,
            next_count: Instant::now(),
            is_counted: false,
        }
    }
}

impl Claims {
    /// When to search the store again, if it has to be. Never at once: a busy worker cannot begin anything.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let earliest = Instant::now() + SEARCH_EVERY / 10;
        self.is_without_queue.then(|| self.next_search.max(earliest))
    }
}

impl Worker {
    /// Takes jobs of every lane while there are free slots.
    pub(super) async fn claim(&mut self) {
        if !self.claims.is_hungry && !self.claims.is_without_queue {
            return;
        }
        let registry = self.tools.shelf.get();
        let pauses = Arc::clone(&self.tools.pauses);
        if self.claims.is_without_queue {
            return self.claim_from_store(&registry).await;
        }
        let sharers = match self.tools.queue.is_shared() {
            true => 1,
            false => self.sharers().await,
        };
        for provider in registry.providers.values().filter(|p| may_begin(&pauses, p)) {
            let limits = share_of(limits_of(provider), sharers);
            loop {
                if self.is_busy() {
                    // Still hungry: the next step that ends asks again.
                    return;
                }
                match self.tools.queue.claim(&provider.name, limits).await {
                    Ok(Some(job)) => self.begin(&job),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(error = %error, "cannot claim; beginning what is stored, oldest first");
                        self.claims.is_without_queue = true;
                        return self.claim_from_store(&registry).await;
                    }
                }
            }
        }
        self.claims.is_hungry = false;
    }

    /// How many workers share the limits: those that live, this one among them.
    async fn sharers(&mut self) -> u32 {
        let now = Instant::now();
        if now < self.claims.next_count {
            return self.claims.living;
        }
        self.claims.next_count = now + COUNT_EVERY;
        let (store, name) = (&self.tools.store, &self.settings.name);
        if !self.claims.is_counted {
            // Before its first heartbeat nobody would count it.
            let until = clock::now().plus(self.settings.lease);
            self.claims.is_counted = store.extend_leases(name, until).await.is_ok();
        }
        match store.living_workers(clock::now()).await {
            Ok(living) => self.claims.living = living.max(1),
            Err(error) => tracing::warn!(error = %error, "cannot count the living workers"),
        }
        self.claims.living
    }

    /// Begins what waits in the store, as far as this worker's share of the limits allows.
    async fn claim_from_store(&mut self, registry: &Registry) {
        if Instant::now() < self.claims.next_search {
            return;
        }
        self.claims.next_search = Instant::now() + SEARCH_EVERY;
        let pauses = Arc::clone(&self.tools.pauses);
        let sharers = self.sharers().await;
        let mut load = Load::default();
        self.running()
            .for_each(|running| load.add(&running.provider, running.user_id));
        let share = |provider: &ProviderEntry| share_of(limits_of(provider), sharers);
        for _ in 0..PAGES {
            let mut lanes = registry.providers.values().filter(|p| may_begin(&pauses, p));
            if !lanes.any(|p| load.has_room(&p.name, share(p))) {
                return;
            }
            let page = match self.tools.store.queued(self.claims.searched, PAGE).await {
                Ok(page) => page,
                Err(error) => return tracing::warn!(error = %error, "cannot look for queued generations"),
            };
            for generation in &page {
                if self.is_busy() {
                    return;
                }
                self.claims.searched = Some(generation.id);
                let provider = registry
                    .providers
                    .get(&generation.provider)
                    .filter(|p| may_begin(&pauses, p));
                let Some(provider) = provider else { continue };
                let (name, user) = (&generation.provider, generation.user_id);
                if load.has_room_for(name, user, share(provider)) && !self.is_begun(generation.id) {
                    load.add(name, user);
                    self.begin(&job_of(generation));
                }
            }
            if page.len() < PAGE as usize {
                self.claims.searched = None;
                return;
            }
        }
    }

    /// Shows the queue that this worker lives. When it has forgotten that, or did not answer for a while, it is told
    /// anew what runs here, and true says that what waits has to be compared too.
    pub(super) async fn keep(&mut self) -> bool {
        match self.tools.queue.keep().await {
            Ok(Kept::Kept) if !self.claims.is_without_queue => return false,
            Ok(kept) => tracing::info!(?kept, "telling the queue what runs here"),
            Err(_) => {
                self.claims.is_without_queue = true;
                return false;
            }
        }
        self.claims.is_without_queue = match self.tools.store.held(&self.settings.name).await {
            Ok(held) => !self.tell(held.into_iter().collect()).await,
            Err(error) => {
                tracing::warn!(error = %error, "cannot look which attempts are held; the queue is told later");
                true
            }
        };
        self.claims.is_hungry = true;
        !self.claims.is_without_queue
    }

    /// Tells the queue all that runs here: also what an answer that was lost has occupied, or not freed, is right then.
    /// Attempts that are not `held` any more are forgotten first: whoever took them over, while this process was
    /// stopped for example, has their slots. Those in a step stay; the step will find out. False when it was not told.
    pub(super) async fn tell(&mut self, held: HashSet<AttemptId>) -> bool {
        for lost in self.schedule.forget_all_but(&held) {
            tracing::info!(attempt_id = %lost, "no longer held here");
            self.tools.notes.forget(lost);
        }
        let jobs: Vec<Job> = self.running().map(Running::job).collect();
        self.tools.queue.hold_only(&jobs).await.is_ok()
    }

    /// Frees the slot of a job that this worker is done with.
    pub(super) async fn free(&mut self, running: &Running) {
        if self
            .tools
            .queue
            .free(&running.provider, running.generation_id)
            .await
            .is_err()
        {
            // What the queue was not told now it is told when it answers again.
            self.claims.is_without_queue = true;
        }
        self.claims.is_hungry = true;
    }

    /// All that this worker holds, waiting or being stepped.
    fn running(&self) -> impl Iterator<Item = &Running> {
        let stepping = self.stepping.values().map(|(_, running)| running);
        stepping.chain(self.schedule.running())
    }

    fn is_begun(&self, id: GenerationId) -> bool {
        self.stepping.values().any(|(_, running)| running.generation_id == id)
    }
}

/// Whether jobs may begin at a provider: it is switched on, and no operator has paused it or the queue.
fn may_begin(pauses: &Pauses, provider: &ProviderEntry) -> bool {
    provider.enabled && pauses.may_begin(&provider.name)
}

fn limits_of(provider: &ProviderEntry) -> LaneLimits {
    LaneLimits {
        concurrency: provider.concurrency,
        per_user: provider.concurrency_per_user,
    }
}

/// What one of several workers may run; at least one job, or small lanes would stand still.
fn share_of(limits: LaneLimits, workers: u32) -> LaneLimits {
    let part = |limit: u32| (limit / workers.max(1)).max(limit.min(1));
    LaneLimits {
        concurrency: part(limits.concurrency),
        per_user: part(limits.per_user),
    }
}

/// How much this worker runs.
#[derive(Default)]
struct Load {
    by_lane: HashMap<Arc<str>, (u32, HashMap<UserId, u32>)>,
}

impl Load {
    fn add(&mut self, lane: &str, user: UserId) {
        if !self.by_lane.contains_key(lane) {
            self.by_lane.insert(lane.into(), Default::default());
        }
        if let Some((jobs, of_user)) = self.by_lane.get_mut(lane) {
            *jobs += 1;
            *of_user.entry(user).or_default() += 1;
        }
    }

    fn has_room(&self, lane: &str, limits: LaneLimits) -> bool {
        self.by_lane.get(lane).map_or(0, |(jobs, _)| *jobs) < limits.concurrency
    }

    fn has_room_for(&self, lane: &str, user: UserId, limits: LaneLimits) -> bool {
        let of_user = self.by_lane.get(lane).and_then(|(_, of_user)| of_user.get(&user));
        self.has_room(lane, limits) && of_user.copied().unwrap_or(0) < limits.per_user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shared_and_no_lane_stands_still() {
        let limits = |concurrency, per_user| LaneLimits { concurrency, per_user };
        assert_eq!(share_of(limits(100, 10), 4), limits(25, 2));
        assert_eq!(share_of(limits(100, 10), 0), limits(100, 10));
        assert_eq!(share_of(limits(2, 1), 4), limits(1, 1));
        assert_eq!(share_of(limits(0, 0), 4), limits(0, 0), "switched off stays off");
    }

    #[test]
    fn a_load_is_counted_by_lane_and_user() {
        let (mut load, ann, bob) = (Load::default(), UserId::new(), UserId::new());
        let limits = LaneLimits {
            concurrency: 2,
            per_user: 1,
        };
        load.add("a", ann);
        assert!(!load.has_room_for("a", ann, limits));
        assert!(load.has_room_for("a", bob, limits) && load.has_room_for("b", ann, limits));
        load.add("a", bob);
        assert!(!load.has_room("a", limits));
    }
}
