//! The port to the queue: who is next, fairly, and how many may run at once.
//!
//! The database is the truth; a queue only makes it fast and can be rebuilt from [`Store::queued`] at any time. Jobs of
//! one provider form a *lane* with its own concurrency. Inside a lane the order is start-time fair queueing: a job's
//! score is `max(virtual time of the lane, finish of the user's previous job) + cost / weight`, so that a user with a
//! thousand jobs does not starve one with a single job. The next job is a pop-min, the position is a rank, a cancel
//! is a removal. A position may rise when a lighter user arrives.
//!
//! [`Store::queued`]: crate::store::Store::queued

pub mod elsewhere;
pub mod live;
pub mod memory;

use async_trait::async_trait;

use crate::id::{GenerationId, UserId};

/// A job as the queue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The generation.
    pub id: GenerationId,
    /// Whose turn it costs.
    pub user_id: UserId,
    /// The lane.
    pub provider: String,
    /// How much of the user's share it takes; 1 at least.
    pub cost: u64,
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

/// A fair queue with slots.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Adds a job; a job that waits or runs already is left as it is.
    async fn enqueue(&self, job: Job) -> Result<()>;
    /// Takes the next job of a lane whose user has a free slot, and occupies a slot. `None` when the lane is full or
    /// nothing may run.
    async fn claim(&self, provider: &str, limits: LaneLimits) -> Result<Option<Job>>;
    /// Occupies a slot for a job that runs already (resumed after a restart), whatever the limits.
    async fn occupy(&self, job: Job) -> Result<()>;
    /// Frees the slot of a job that ended, or removes a job that waits. Harmless when there is none.
    async fn remove(&self, id: GenerationId) -> Result<()>;
    /// How many jobs of its lane are before a waiting job: 0 is next. `None` when it does not wait.
    async fn position(&self, id: GenerationId) -> Result<Option<u64>>;
    /// Waiting and running jobs of a lane.
    async fn depth(&self, provider: &str) -> Result<Depth>;
    /// Resolves when something may be claimable that was not before: an enqueue, a removal.
    async fn changed(&self);
}

/// How full a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Jobs that wait.
    pub waiting: u64,
    /// Jobs that run.
    pub running: u64,
}
