//! The port to the queue: who is next, fairly, and how many may run at once.
//!
//! The database is the truth; a queue only makes it fast and can be rebuilt from [`Store::queued`] at any time. Jobs of
//! one provider form a *lane* with its own concurrency. Inside a lane the order is start-time fair queueing: a job
//! starts at `max(virtual time of the lane, end of the user's previous job)` and ends `cost` later, so that a user with
//! a thousand jobs does not starve one with a single job. Equal starts go by id, which is by age. The next job is the
//! first whose user has a free slot, the position is a rank, a cancel is a removal. A position may rise when a lighter
//! user arrives.
//!
//! Slots belong to the process that claimed them. Over several processes ([`redis`]) a process shows with
//! [`Queue::keep`] that it is alive; the slots of a dead one are freed. Every call names its lane, because the keys of
//! a lane live together in one slot of a Redis Cluster.
//!
//! [`Store::queued`]: crate::store::Store::queued

pub mod elsewhere;
pub mod live;
pub mod memory;
mod ranked;
pub mod redis;

use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{GenerationId, UserId};

/// Most that one job can cost its user, in credits. Virtual time stays an exact number in a double that way.
pub const MOST_COST: u64 = 1_000_000_000;

/// A job as the queue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The generation.
    pub id: GenerationId,
    /// Whose turn it costs.
    pub user_id: UserId,
    /// The lane; shared, because a worker remembers very many jobs of few providers.
    pub provider: Arc<str>,
    /// How much of the user's share it takes, in credits; counted as 1 at least and [`MOST_COST`] at most.
    pub cost: u64,
}

impl Job {
    /// The cost that counts.
    fn share(&self) -> u64 {
        self.cost.clamp(1, MOST_COST)
    }
}

/// How much of a lane may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    /// Jobs of the provider.
    pub concurrency: u32,
    /// Jobs of one user at the provider.
    pub per_user: u32,
}

/// Why the queue could not answer; the caller goes on without it and the sweeper heals.
#[derive(Debug, thiserror::Error)]
#[error("the queue is not available")]
pub struct QueueError(#[source] pub anyhow::Error);

/// What every queue method returns.
pub type Result<T> = std::result::Result<T, QueueError>;

/// Whether the queue still knows this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its slots are held for another while.
    Kept,
    /// The queue has lost its data, taken this process for dead, or was away. Say again what runs ([`Queue::hold_only`])
    /// and enqueue again what waits.
    Lost,
}

/// A fair queue with slots.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// True when all processes claim from it, so that its limits hold over all of them.
    fn is_shared(&self) -> bool;
    /// Adds jobs; one that waits or runs already is left as it is.
    async fn enqueue(&self, jobs: &[Job]) -> Result<()>;
    /// Takes the next job of a lane whose user has a free slot, and occupies a slot of this process. `None` when the
    /// lane is full or nothing may run.
    async fn claim(&self, provider: &str, limits: LaneLimits) -> Result<Option<Job>>;
    /// Occupies slots of this process for jobs that run already, whatever the limits and whoever held them before.
    async fn occupy(&self, jobs: &[Job]) -> Result<()>;
    /// Occupies slots for these jobs and for no others: every other slot of this process is free afterwards. Says all
    /// that runs here, so that a claim or a free whose answer was lost is made good.
    async fn hold_only(&self, jobs: &[Job]) -> Result<()>;
    /// Frees the slot that this process holds for a job. Harmless when it holds none.
    async fn free(&self, provider: &str, id: GenerationId) -> Result<()>;
    /// Takes out a job that is over: it waits no more, and its slot is free whoever held it. Harmless when there is none.
    async fn remove(&self, provider: &str, id: GenerationId) -> Result<()>;
    /// How many jobs of its lane are before a waiting job: 0 is next. `None` when it does not wait.
    async fn position(&self, provider: &str, id: GenerationId) -> Result<Option<u64>>;
    /// Waiting and running jobs of a lane.
    async fn depth(&self, provider: &str) -> Result<Depth>;
    /// Resolves when something may be claimable that was not before: an enqueue, a slot that became free.
    async fn changed(&self);
    /// Holds this process' slots for another while and frees those of dead processes. To be called every few seconds.
    async fn keep(&self) -> Result<Kept>;
    /// Hands every slot of this process back.
    async fn leave(&self) -> Result<()>;
    /// True for one process in every period of this length: it does what need not be done by all.
    async fn is_my_turn(&self, every: Duration) -> Result<bool>;
}

/// How full a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Jobs that wait.
    pub waiting: u64,
    /// Jobs that run.
    pub running: u64,
}
