//! The queues against the shared conformance suite. A new queue adds a module with how it is made.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod memory {
    use std::sync::Arc;
    use velro::queue::Queue;
    use velro::queue::memory::MemoryQueue;

    fn fresh() -> Arc<dyn Queue> {
        Arc::new(MemoryQueue::default())
    }

    tests::queue_suite!(fresh());
}

mod redis {
    use std::sync::Arc;
    use tests::redis::test_link;
    use velro::queue::Queue;
    use velro::queue::live::Live;
    use velro::queue::redis::{LIFE, RedisQueue};

    /// Under a prefix of its own.
    async fn fresh() -> Arc<dyn Queue> {
        Arc::new(RedisQueue::new(test_link(), Arc::new(Live::default()), LIFE))
    }

    tests::queue_suite!(fresh().await);
}
