//! The queue of a process that only takes jobs in and shares no queue with those that work: it keeps nothing. The workers
//! find what is stored, and nobody here can say a position.

use async_trait::async_trait;
use std::time::Duration;

use super::{Depth, Job, Kept, LaneLimits, Queue, Result};
use crate::id::GenerationId;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Elsewhere;

#[async_trait]
impl Queue for Elsewhere {
    fn is_shared(&self) -> bool {
        false
    }

    async fn enqueue(&self, _: &[Job]) -> Result<()> {
        Ok(())
    }

    async fn claim(&self, _: &str, _: LaneLimits) -> Result<Option<Job>> {
        Ok(None)
    }

    async fn occupy(&self, _: &[Job]) -> Result<()> {
        Ok(())
    }

    async fn hold_only(&self, _: &[Job]) -> Result<()> {
        Ok(())
    }

    async fn free(&self, _: &str, _: GenerationId) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _: &str, _: GenerationId) -> Result<()> {
        Ok(())
    }

    async fn position(&self, _: &str, _: GenerationId) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn depth(&self, _: &str) -> Result<Depth> {
        Ok(Depth::default())
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn keep(&self) -> Result<Kept> {
        Ok(Kept::Kept)
    }

    async fn leave(&self) -> Result<()> {
        Ok(())
    }

    async fn is_my_turn(&self, _: Duration) -> Result<bool> {
        Ok(false)
    }
}
