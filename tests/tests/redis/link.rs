//! The way to Redis: bounded, given up at once while Redis is away, found again by itself.

use std::time::{Duration, Instant};
use tests::redis::OwnRedis;
use velro::shared::Link;

use super::{link_to, until};

async fn ping(link: &Link) -> bool {
    let mut commands = redis::pipe();
    commands.cmd("PING");
    let answer: Result<(String,), _> = link.pipe(&commands).await;
    answer.is_ok_and(|(pong,)| pong == "PONG")
}

#[tokio::test]
async fn a_dead_redis_costs_one_short_wait_and_is_found_again() {
    let mut redis = OwnRedis::start();
    let link = link_to(&redis);
    assert!(ping(&link).await && link.is_up());
    redis.kill();
    let began = Instant::now();
    assert!(!ping(&link).await);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let began = Instant::now();
    for _ in 0..1000 {
        assert!(!ping(&link).await && !link.is_up());
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    redis.start_again();
    until("it was not found again", || async { link.is_up() }).await;
    // Connections from before are in the pool still; none of them is used.
    for _ in 0..10 {
        assert!(ping(&link).await);
    }
}

#[tokio::test]
async fn a_redis_that_hangs_is_given_up_too() {
    let redis = OwnRedis::start();
    let link = link_to(&redis);
    assert!(ping(&link).await);
    redis.hang(true);
    let began = Instant::now();
    assert!(!ping(&link).await && !link.is_up());
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    redis.hang(false);
    until("it was not found again", || async { link.is_up() }).await;
    assert!(ping(&link).await);
}

#[tokio::test]
async fn the_url_names_password_and_database_and_is_never_shown() {
    let redis = OwnRedis::start();
    redis.command("CONFIG SET requirepass hunter2");
    let url = |password: &str, database: u8| {
        let with_password = redis.url().replace("redis://", &format!("redis://:{password}@"));
        format!("{with_password}{database}")
    };
    let link = Link::open(&url("hunter2", 3), "velro:", 1).unwrap();
    assert!(ping(&link).await);
    let stranger = Link::open(&url("hunter3", 3), "velro:", 1).unwrap();
    let mut commands = redis::pipe();
    commands.cmd("PING");
    let error = stranger.pipe::<()>(&commands).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter"), "{error:?}");
    for nonsense in ["redis://:hunter2@", "http://:hunter2@h/", "redis://h/x?hunter2"] {
        if let Err(error) = Link::open(nonsense, "velro:", 1) {
            assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn tls_is_spoken_to_rediss() {
    // A server without TLS breaks the handshake; what matters is that there is one.
    let redis = OwnRedis::start();
    let link = Link::open(&redis.url().replace("redis://", "rediss://"), "velro:", 1).unwrap();
    assert!(!ping(&link).await && !link.is_up());
    assert!(ping(&link_to(&redis)).await);
}
