//! Many calls at once, and conditions that come true.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

/// Runs `count` calls at once and gives their results in order.
pub async fn race<T, F: Future<Output = T>>(count: usize, call: impl Fn(usize) -> F) -> Vec<T> {
    join_all((0..count).map(call)).await
}

/// Asks again and again until `look` finds something; fails the test after `patience`.
pub async fn eventually<T, F>(what: &str, patience: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}
