//! The count that all replicas share: one small script per request, on Redis' own clock; keys expire by themselves.

use redis::Script;
use std::sync::LazyLock;
use std::time::Duration;

use super::{Key, Left, Quota, Spent, interval};
use crate::shared::{Link, LinkError};

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));

/// Counts one request, if the quota has room.
pub(super) async fn take(link: &Link, quota: Quota, key: Key) -> Result<Result<Left, Spent>, LinkError> {
    let (passed, ahead) = run(link, quota, key, 1).await?;
    let (interval, window) = (interval(quota), quota.window);
    Ok(match passed {
        true => Ok(Left {
            remaining: (window.saturating_sub(ahead).as_nanos() as u64 / interval) as u32,
            reset: ahead,
        }),
        false => Err(Spent {
            retry_after: (ahead + Duration::from_nanos(interval)).saturating_sub(window),
            reset: ahead,
        }),
    })
}

/// Takes one request back.
pub(super) async fn give_back(link: &Link, quota: Quota, key: Key) -> Result<(), LinkError> {
    run(link, quota, key, -1).await.map(drop)
}

/// Whether it passed, and how far the count is ahead of the clock then.
async fn run(link: &Link, quota: Quota, key: Key, take: i8) -> Result<(bool, Duration), LinkError> {
    let interval_us = interval(quota) / 1000;
    let mut call = TAKE.prepare_invoke();
    call.key(link.key(format_args!("rl1:{}:{:032x}", quota.name, key.0)))
        .arg(interval_us)
        .arg(interval_us * u64::from(quota.requests))
        .arg(take);
    let (passed, ahead_us): (u8, u64) = link.script(&call).await?;
    Ok((passed > 0, Duration::from_micros(ahead_us)))
}
