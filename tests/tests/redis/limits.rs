//! Rate limits over replicas.

use std::time::Duration;
use tests::redis::{OwnRedis, test_link};
use velro::http::{Key, Policy, RateLimiter};
use velro::shared::Part;

use super::{link_to, until};

#[tokio::test]
async fn two_replicas_count_together() {
    let link = test_link();
    let replicas = [
        RateLimiter::new(true, Some(link.clone())),
        RateLimiter::new(true, Some(link)),
    ];
    let key = Key::account("ann@example.com");
    for left in (0..5).rev() {
        let limiter = &replicas[left % 2];
        let taken = limiter.take(Policy::LoginAccount, key).await.unwrap().unwrap();
        assert_eq!(taken.remaining as usize, left);
        assert!(taken.reset <= Duration::from_secs(60) && taken.reset > Duration::from_secs(50 - 10 * left as u64));
    }
    for limiter in &replicas {
        let spent = limiter.take(Policy::LoginAccount, key).await.unwrap_err();
        assert!(spent.retry_after <= Duration::from_secs(12), "{spent:?}");
        assert!(spent.retry_after > Duration::from_secs(2), "{spent:?}");
    }
    replicas[0].give_back(Policy::LoginAccount, key).await;
    assert!(replicas[1].take(Policy::LoginAccount, key).await.is_ok());
    assert!(replicas[0].take(Policy::LoginAccount, key).await.is_err());
    let other = Key::account("bob@example.com");
    assert!(replicas[0].take(Policy::LoginAccount, other).await.is_ok());
    assert!(
        replicas[0].take(Policy::Login, key).await.is_ok(),
        "policies are counted apart"
    );
}

#[tokio::test]
async fn what_was_given_back_leaves_no_debt() {
    let limiter = RateLimiter::new(true, Some(test_link()));
    let key = Key::account("ann@example.com");
    for _ in 0..50 {
        assert!(limiter.take(Policy::LoginAccount, key).await.is_ok());
        limiter.give_back(Policy::LoginAccount, key).await;
        limiter.give_back(Policy::LoginAccount, key).await;
    }
    for _ in 0..5 {
        assert!(limiter.take(Policy::LoginAccount, key).await.is_ok());
    }
    assert!(
        limiter.take(Policy::LoginAccount, key).await.is_err(),
        "giving back twice must not make a larger quota"
    );
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_lock_anybody_out() {
    let redis = OwnRedis::start();
    let limiter = RateLimiter::new(true, Some(link_to(&redis)));
    let key = Key::account("ann@example.com");
    limiter.take(Policy::LoginAccount, key).await.unwrap();
    // As if it had been counted an hour from now.
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("velro:rl1:*").query(&mut connection).unwrap();
    let ask =
        |connection: &mut redis::Connection| -> u64 { redis::cmd("GET").arg(&keys[0]).query(connection).unwrap() };
    let later = ask(&mut connection) + 3600 * 1_000_000;
    redis.command(&format!("SET {} {later} PX 3660000", keys[0]));
    let spent = limiter.take(Policy::LoginAccount, key).await.unwrap_err();
    assert!(spent.reset <= Duration::from_secs(60), "{spent:?}");
    assert!(spent.retry_after <= Duration::from_secs(12), "{spent:?}");
    assert!(
        ask(&mut connection) <= later - 3500 * 1_000_000,
        "and no longer than a window"
    );
}

#[tokio::test]
async fn without_redis_every_process_decides_alone() {
    let mut redis = OwnRedis::start();
    let link = link_to(&redis);
    let limiter = RateLimiter::new(true, Some(link.clone()));
    let key = Key::account("ann@example.com");
    for _ in 0..5 {
        assert!(limiter.take(Policy::LoginAccount, key).await.is_ok());
    }
    assert!(limiter.take(Policy::LoginAccount, key).await.is_err());
    redis.kill();
    for _ in 0..5 {
        assert!(limiter.take(Policy::LoginAccount, key).await.is_ok());
    }
    assert!(
        limiter.take(Policy::LoginAccount, key).await.is_err(),
        "the local quota is spent too"
    );
    assert!(link.fallbacks(Part::Limits) >= 6);
    limiter.give_back(Policy::LoginAccount, key).await;
    assert!(limiter.take(Policy::LoginAccount, key).await.is_ok());
    redis.start_again();
    until("Redis was not found again", || async { link.is_up() }).await;
    let left = limiter.take(Policy::LoginAccount, key).await.unwrap().unwrap();
    assert_eq!(left.remaining, 4, "an empty Redis counts from the beginning");
}
