//! Provider code that does not work, and code that is replaced while jobs are in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::shop::{Does, PRICE, START_CREDITS, Shop, Vendor, until};
use velro::clock;
use velro::generation::{AttemptState, Pending, Status};
use velro::store::Delivered;

#[tokio::test(flavor = "multi_thread")]
async fn code_that_panics_is_counted_and_the_job_goes_on_elsewhere() {
    let shop = Shop::open().await;
    shop.first.set(Does::PanicAtStart);
    let process = shop.process();
    let id = shop.submit(&process).await;
    let done = shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!((done.provider.as_str(), shop.first.submits()), ("second", 0));
    let health = &process.provider(&shop.first).health;
    // One panic may be the fault of one job; five in a row are not.
    assert_eq!((health.standing(clock::now()).as_str(), health.faults()), ("closed", 1));
    let text = process.metrics.render().unwrap();
    for line in [
        r#"velro_provider_faults_total{provider="first"} 1"#,
        r#"velro_reroutes_total{from="first",reason="fault",to="second"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(shop.money().await, (START_CREDITS - PRICE, 0));
    for _ in 0..4 {
        let id = shop.submit(&process).await;
        shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
    }
    let health = &process.provider(&shop.first).health;
    assert_eq!((health.standing(clock::now()).as_str(), health.faults()), ("open", 5));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_the_code_does_not_know_is_dropped_and_polling_goes_on() {
    let shop = Shop::open().await;
    shop.first.set(Does::NoWebhooks);
    let process = shop.process();
    let id = shop.submit(&process).await;
    shop.until(id, Status::Processing, Some(AttemptState::Accepted)).await;
    let (attempt, _) = shop.store.newest_attempt(id).await.unwrap().unwrap();
    let delivered = shop
        .store
        .deliver_webhook("first", attempt.id, b"{}".to_vec(), clock::now());
    assert_eq!(delivered.await.unwrap(), Delivered::Stored);
    until("the webhook was not dropped", async || {
        let (attempt, _) = shop.store.newest_attempt(id).await.unwrap().unwrap();
        let waits =
            matches!(attempt.pending, Pending::Wait) && attempt.due_at > clock::now().plus(Duration::from_secs(20));
        assert_eq!(attempt.state, AttemptState::Accepted);
        attempt.inbox.is_none() && waits
    })
    .await;
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_after_the_acceptance_is_not_unknown_and_is_asked_about_again() {
    let shop = Shop::open().await;
    shop.first.set(Does::PanicLater);
    let process = shop.process();
    let id = shop.submit(&process).await;
    let health = &process.provider(&shop.first).health;
    until("the code did not fail", async || health.faults() > 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    shop.until(id, Status::Processing, Some(AttemptState::Accepted)).await;
    assert_eq!(shop.money().await, (START_CREDITS, PRICE));
    process.end().await;
    // Mended, and asked by the next process.
    shop.first.set(Does::Deliver);
    let process = shop.process();
    let done = shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!(done.provider, "first");
    assert_eq!((shop.first.submits(), shop.second.submits()), (1, 0), "bought once");
    assert_eq!(shop.money().await, (START_CREDITS - PRICE, 0));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_flight_finishes_on_the_code_it_began_with() {
    let shop = Shop::open().await;
    shop.first.set(Does::Work);
    let process = shop.process();
    let id = shop.submit(&process).await;
    shop.until(id, Status::Processing, Some(AttemptState::Accepted)).await;
    let newer = Vendor::start("first").await;
    process.providers.put([Arc::new(newer.loaded())]);
    let before = shop.first.steps.load(SeqCst);
    until("the old code is not asked any more", async || {
        shop.first.steps.load(SeqCst) > before + 4
    })
    .await;
    assert_eq!(newer.steps.load(SeqCst), 0);
    // What begins now begins with the new code.
    let next = shop.submit(&process).await;
    shop.until(next, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!((newer.submits(), shop.first.submits()), (1, 1));
    shop.first.set(Does::Deliver);
    shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!((newer.submits(), shop.second.submits()), (1, 0));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_newest_code_goes_on() {
    let shop = Shop::open().await;
    shop.first.set(Does::Work);
    let process = shop.process();
    let id = shop.submit(&process).await;
    shop.until(id, Status::Processing, Some(AttemptState::Accepted)).await;
    process.end().await;
    let newer = Vendor::start("first").await;
    let process = shop.process_with(Shop::registry(str::to_owned), [&newer, &shop.second]);
    shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
    assert!(newer.steps.load(SeqCst) > 0 && newer.submits() == 0);
    process.end().await;
}
