//! A provider that does not work is not asked for a while, and then by one job first.

use std::time::Duration;
use velro_plugin::{ErrorKind, Retry};

use crate::shop::{Does, START_CREDITS, Shop, until};
use velro::clock::{self, Micros};
use velro::generation::{AttemptState, Status};
use velro::intake::Stopped;
use velro::provider::Standing;

#[tokio::test(flavor = "multi_thread")]
async fn five_failures_open_the_breaker_and_submits_take_the_next_provider() {
    let shop = Shop::open().await;
    shop.first
        .set(Does::Refuse(ErrorKind::Unavailable, Retry::SameProvider));
    let process = shop.process();
    let health = &process.provider(&shop.first).health;
    for n in 1..=5 {
        assert_eq!(health.standing(clock::now()), Standing::Closed, "before failure {n}");
        let stored = shop.try_submit(&process, "a").await.unwrap();
        assert_eq!(stored.provider, "first");
        let done = shop
            .until(stored.id, Status::Completed, Some(AttemptState::Finished))
            .await;
        assert_eq!(done.provider, "second");
    }
    assert!(matches!(health.standing(clock::now()), Standing::Open { .. }));
    let stored = shop.try_submit(&process, "a").await.unwrap();
    assert_eq!(
        (stored.provider.as_str(), stored.fallbacks[0].provider.as_str()),
        ("second", "first")
    );
    shop.until(stored.id, Status::Completed, Some(AttemptState::Finished))
        .await;
    assert_eq!((shop.first.submits(), shop.second.submits()), (5, 6));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_lets_one_job_through_and_closes_when_it_is_answered() {
    let shop = Shop::open().await;
    shop.first.open.store(false, std::sync::atomic::Ordering::SeqCst);
    let process = shop.process();
    let health = &process.provider(&shop.first).health;
    // It opened long enough ago.
    health.broke("a test", Micros(clock::now().0 - 31_000_000));
    assert_eq!(health.standing(clock::now()).as_str(), "half_open");
    let probe = shop.submit(&process).await;
    until("the probe was not sent", async || shop.first.submits() == 1).await;
    // While it is not answered, the next one goes on elsewhere without a try.
    let next = shop.submit(&process).await;
    let done = shop.until(next, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!((done.provider.as_str(), shop.first.submits()), ("second", 1));
    let text = process.metrics.render().unwrap();
    let line = r#"velro_reroutes_total{from="first",reason="breaker",to="second"} 1"#;
    assert!(text.contains(line), "{text}");
    shop.first.open.store(true, std::sync::atomic::Ordering::SeqCst);
    let done = shop.until(probe, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!(done.provider, "first");
    assert_eq!(health.standing(clock::now()), Standing::Closed);
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_input_opens_no_breaker() {
    let shop = Shop::open().await;
    shop.first.set(Does::Refuse(ErrorKind::InvalidInput, Retry::Never));
    let process = shop.process();
    for _ in 0..8 {
        let id = shop.submit(&process).await;
        shop.until(id, Status::Failed, Some(AttemptState::Rejected)).await;
    }
    let health = &process.provider(&shop.first).health;
    assert_eq!(health.standing(clock::now()), Standing::Closed);
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_another_provider_a_job_waits_for_the_breaker_and_can_be_cancelled() {
    let shop = Shop::open().await;
    let process = shop.process();
    let health = &process.provider(&shop.second).health;
    health.broke("a test", clock::now());
    let stored = shop.try_submit(&process, "b").await.unwrap();
    shop.until(stored.id, Status::Processing, Some(AttemptState::Prepared))
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(shop.second.submits(), 0);
    let stopped = process.intake.cancel(shop.user, stored.id).await.unwrap();
    assert!(matches!(stopped, Some(Stopped::Cancelled(_))), "{stopped:?}");
    assert_eq!(shop.money().await, (START_CREDITS, 0));
    // The one that is in flight shows that it works again, and the next one is not kept waiting.
    let next = shop.try_submit(&process, "b").await.unwrap();
    health.succeeded();
    shop.until(next.id, Status::Completed, Some(AttemptState::Finished))
        .await;
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_breakers_are_open_the_first_provider_is_kept() {
    let shop = Shop::open().await;
    let process = shop.process();
    for vendor in [&shop.first, &shop.second] {
        process.provider(vendor).health.broke("a test", clock::now());
    }
    let stored = shop.try_submit(&process, "a").await.unwrap();
    assert_eq!(stored.provider, "first");
    let waiting = shop
        .until(stored.id, Status::Processing, Some(AttemptState::Prepared))
        .await;
    assert_eq!((waiting.provider.as_str(), waiting.fallbacks.len()), ("first", 1));
    // As soon as another one works, it goes there.
    process.provider(&shop.second).health.succeeded();
    let done = shop
        .until(stored.id, Status::Completed, Some(AttemptState::Finished))
        .await;
    assert_eq!((done.provider.as_str(), shop.first.submits()), ("second", 0));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_so_long_for_a_breaker_that_no_time_is_left_for_the_job() {
    let shop = Shop::open().await;
    let process = shop.process();
    process.provider(&shop.second).health.broke("a test", clock::now());
    let stored = shop.try_submit(&process, "c").await.unwrap();
    let failed = shop
        .until(stored.id, Status::Failed, Some(AttemptState::Rejected))
        .await;
    assert_eq!(failed.error.unwrap().code, "provider_unavailable");
    assert_eq!(shop.second.submits(), 0);
    assert_eq!(shop.money().await, (START_CREDITS, 0));
    process.end().await;
}
