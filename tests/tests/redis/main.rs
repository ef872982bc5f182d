//! What replicas share over Redis, and what happens without it: slots of dead processes, events and nudges of other
//! processes, common limits, a worker that goes on alone. Most tests stop or flush a server of their own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod limits;
mod link;
mod live;
mod queue;
mod server;
mod worker;

use std::time::Duration;
use tests::redis::OwnRedis;
use velro::shared::Link;

/// A link to a server under one prefix, as every process of an installation has it.
fn link_to(redis: &OwnRedis) -> Link {
    Link::open(&redis.url(), "velro:", 4).unwrap()
}

/// Waits for a condition.
async fn until<F: Future<Output = bool>>(otherwise: &str, condition: impl Fn() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .expect(otherwise);
}
