//! What all watchers of streams share: one ticker that asks the queue for the positions of watched, waiting generations
//! and re-reads their events now and then, once per generation however many people watch it.
//!
//! The ticker runs only while somebody watches. Losing it costs freshness, never correctness: events come from
//! [`Live`], this is the net beneath.

use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::generation::EventKind;
use crate::id::{GenerationId, UserId};
use crate::queue::Queue;
use crate::queue::live::Live;
use crate::store::Store;

/// How often positions are asked for.
const TICK: Duration = Duration::from_secs(1);
/// Every how many ticks a generation's events are read again, in case a publication was lost; every tick while the
/// replicas do not hear each other.
const REREAD_TICKS: u64 = 5;
/// Streams of one user that are open at once at one process.
pub const MOST_STREAMS: usize = 50;
/// Generations that are looked at together.
const AT_ONCE: usize = 16;

/// Where the ticker looks.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Ports {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub live: Arc<Live>,
}

/// The watched generations and their ticker; one for the router.
#[derive(Default)]
pub struct Tower {
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    by_id: HashMap<GenerationId, Arc<Spot>>,
    /// Open streams of each owner who has any.
    by_owner: HashMap<UserId, usize>,
    ticking: bool,
}

/// A watched generation.
struct Spot {
    owner: UserId,
    /// Its lane, which changes when it goes to another provider.
    lane: Mutex<Arc<str>>,
    /// The newest event any watcher has seen.
    seen: AtomicI64,
    /// Whether that event said that it waits.
    queued: AtomicBool,
    position: watch::Sender<Option<u64>>,
}

/// One watcher; the generation is forgotten with its last one.
pub struct Presence {
    id: GenerationId,
    tower: Arc<Tower>,
    spot: Arc<Spot>,
    position: Option<watch::Receiver<Option<u64>>>,
}

impl Tower {
    /// Counts a watcher of the owner's generation in and keeps the ticker going; `None` when its owner has as many streams
    /// open as one may.
    pub fn enter(
        self: &Arc<Self>,
        ports: &Ports,
        owner: UserId,
        id: GenerationId,
        provider: Arc<str>,
    ) -> Option<Presence> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let open = watched.by_owner.entry(owner).or_default();
        if *open >= MOST_STREAMS {
            return None;
        }
        *open += 1;
        let spot = Arc::clone(watched.by_id.entry(id).or_insert_with(|| {
            Arc::new(Spot {
                owner,
                lane: Mutex::new(provider),
                seen: AtomicI64::new(0),
                queued: AtomicBool::new(false),
                position: watch::Sender::new(None),
            })
        }));
        if !watched.ticking {
            watched.ticking = true;
            tokio::spawn(Ticking(Arc::clone(self)).run(ports.clone()));
        }
        Some(Presence {
            id,
            tower: Arc::clone(self),
            position: Some(spot.position.subscribe()),
            spot,
        })
    }
}

impl Presence {
    /// Tells what this watcher has seen, so that nobody reads it again.
    pub fn saw(&self, seq: i64, kind: EventKind) {
        if self.spot.seen.fetch_max(seq, Ordering::Relaxed) <= seq {
            self.spot.queued.store(kind == EventKind::Queued, Ordering::Relaxed);
        }
    }

    /// It waits in this lane from now on.
    pub fn is_in(&self, provider: Arc<str>) {
        *self.spot.lane.lock().unwrap_or_else(PoisonError::into_inner) = provider;
    }

    /// Waits until the ticker has found another position.
    pub async fn position_changed(&mut self) -> Option<u64> {
        let Some(position) = self.position.as_mut() else {
            return std::future::pending().await;
        };
        match position.changed().await {
            Ok(()) => *position.borrow_and_update(),
            // The sender lives in the spot, which this presence holds.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut watched = self.tower.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = self.spot.owner;
        if let Some(open) = watched.by_owner.get_mut(&owner) {
            *open -= 1;
            if *open == 0 {
                watched.by_owner.remove(&owner);
            }
        }
        self.position = None;
        if self.spot.position.receiver_count() == 0 {
            watched.by_id.remove(&self.id);
        }
    }
}

/// The running ticker; should it panic, the next watcher starts another one.
struct Ticking(Arc<Tower>);

impl Ticking {
    async fn run(self, ports: Ports) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gaps = ports.live.gaps();
        for round in 0_u64.. {
            interval.tick().await;
            // What other replicas publish does not arrive, or did not for a while: then everything is read again.
            let gaps_before = std::mem::replace(&mut gaps, ports.live.gaps());
            let everything = gaps != gaps_before || !ports.live.hears_all();
            let spots: Vec<_> = {
                let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
                if watched.by_id.is_empty() {
                    // Under the lock: whoever enters next starts the next ticker.
                    watched.ticking = false;
                    return;
                }
                watched.by_id.iter().map(|(id, spot)| (*id, Arc::clone(spot))).collect()
            };
            futures_util::stream::iter(spots)
                .for_each_concurrent(AT_ONCE, |(id, spot)| {
                    // Spread over the ticks by the random part of the id.
                    let is_turn = round % REREAD_TICKS == id.uuid().as_u128() as u64 % REREAD_TICKS;
                    look(&ports, is_turn || everything, id, spot)
                })
                .await;
        }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut watched = self.0.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.ticking = false;
        }
    }
}

async fn look(ports: &Ports, reread: bool, id: GenerationId, spot: Arc<Spot>) {
    let lane = Arc::clone(&spot.lane.lock().unwrap_or_else(PoisonError::into_inner));
    if spot.queued.load(Ordering::Relaxed)
        && let Ok(Some(position)) = ports.queue.position(&lane, id).await
    {
        spot.position.send_if_modified(|known| {
            let changed = *known != Some(position);
            *known = Some(position);
            changed
        });
    }
    if reread {
        match ports
            .store
            .events(spot.owner, id, spot.seen.load(Ordering::Relaxed))
            .await
        {
            Ok(events) => ports.live.show(&events),
            Err(error) => tracing::warn!(generation_id = %id, error = %error, "events not read again; next time"),
        }
    }
}
