//! Models with several providers: a refusal and a verified failure go to the next one, what may have been bought does not,
//! and a provider that does not work is not asked for a while.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod breaker;
mod code;
mod shop;

use velro_plugin::{ErrorKind, Retry};

use shop::{Does, PRICE, START_CREDITS, Shop, until};
use velro::generation::{AttemptState, Status};
use velro::intake::{Refusal, Stopped};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_is_delivered_by_the_next_provider_and_paid_once() {
    let shop = Shop::open().await;
    shop.first.set(Does::Refuse(ErrorKind::Quota, Retry::OtherProvider));
    let process = shop.process();
    let id = shop.submit(&process).await;
    let done = shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!(
        (done.provider.as_str(), done.provider_model.as_str()),
        ("second", "second/a")
    );
    assert_eq!(done.provider_input, r#"{"text":"a quiet harbour"}"#);
    assert_eq!((shop.first.submits(), shop.second.submits()), (1, 1));
    assert_eq!(
        (shop.money().await, done.captured.unwrap().0),
        ((START_CREDITS - PRICE, 0), PRICE)
    );
    let text = process.metrics.render().unwrap();
    let line = r#"velro_reroutes_total{from="first",reason="refused",to="second"} 1"#;
    assert!(text.contains(line), "{text}");
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_goes_to_no_other_provider() {
    let shop = Shop::open().await;
    shop.first.set(Does::Cut);
    let process = shop.process();
    let id = shop.submit(&process).await;
    shop.until(id, Status::Processing, Some(AttemptState::Unknown)).await;
    // Some sweeps and a restart later it still waits for somebody who knows.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    process.end().await;
    let process = shop.process();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let held = shop.until(id, Status::Processing, Some(AttemptState::Unknown)).await;
    assert_eq!((held.provider.as_str(), held.fallbacks.len()), ("first", 1));
    assert_eq!((shop.first.submits(), shop.second.submits()), (1, 0), "bought twice");
    assert_eq!(shop.money().await, (START_CREDITS, PRICE));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_by_the_provider_s_word_goes_to_the_next_one() {
    for (kind, retry) in [
        (ErrorKind::Upstream, Retry::SameProvider),
        (ErrorKind::Unavailable, Retry::SameProvider),
        (ErrorKind::ContentPolicy, Retry::OtherProvider),
    ] {
        let shop = Shop::open().await;
        shop.first.set(Does::Fail(kind, retry));
        let process = shop.process();
        let id = shop.submit(&process).await;
        let done = shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
        assert_eq!(done.provider, "second", "{kind:?}");
        assert_eq!((shop.first.submits(), shop.second.submits()), (1, 1), "{kind:?}");
        assert_eq!(shop.money().await, (START_CREDITS - PRICE, 0));
        process.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_provider_would_refuse_too_ends_here() {
    for does in [
        Does::Refuse(ErrorKind::InvalidInput, Retry::Never),
        Does::Refuse(ErrorKind::ContentPolicy, Retry::Never),
        Does::Fail(ErrorKind::ContentPolicy, Retry::Never),
        Does::Fail(ErrorKind::Upstream, Retry::Never),
        Does::Fail(ErrorKind::InvalidInput, Retry::OtherProvider),
        Does::Fail(ErrorKind::Auth, Retry::OtherProvider),
    ] {
        let shop = Shop::open().await;
        let end = match does {
            Does::Refuse(..) => AttemptState::Rejected,
            _ => AttemptState::Finished,
        };
        shop.first.set(does);
        let process = shop.process();
        let id = shop.submit(&process).await;
        let failed = shop.until(id, Status::Failed, Some(end)).await;
        assert_eq!(failed.error.unwrap().code, "first");
        assert_eq!(shop.second.submits(), 0);
        assert_eq!(shop.money().await, (START_CREDITS, 0));
        process.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_providers_refuse_the_last_word_is_told_and_nothing_is_paid() {
    let shop = Shop::open().await;
    shop.first.set(Does::Fail(ErrorKind::Upstream, Retry::SameProvider));
    shop.second.set(Does::Refuse(ErrorKind::NotFound, Retry::OtherProvider));
    let process = shop.process();
    let id = shop.submit(&process).await;
    let failed = shop.until(id, Status::Failed, Some(AttemptState::Rejected)).await;
    assert_eq!(
        (failed.error.unwrap().code.as_str(), failed.provider.as_str()),
        ("second", "second")
    );
    assert_eq!((shop.first.submits(), shop.second.submits()), (1, 1));
    assert_eq!(shop.money().await, (START_CREDITS, 0));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_between_two_providers_ends_it_at_once() {
    let shop = Shop::open().await;
    shop.first.set(Does::Refuse(ErrorKind::Quota, Retry::OtherProvider));
    shop.second.set(Does::Work);
    let process = shop.process();
    // The only slot of the second provider is taken.
    let other = shop.try_submit(&process, "b").await.unwrap().id;
    shop.until(other, Status::Processing, Some(AttemptState::Accepted))
        .await;
    let id = shop.submit(&process).await;
    let waiting = shop.until(id, Status::Queued, Some(AttemptState::Rejected)).await;
    assert_eq!(waiting.provider, "second");
    until("it has no place in the queue of the second", async || {
        process.intake.position(&waiting).await == Some(0)
    })
    .await;
    let stopped = process.intake.cancel(shop.user, id).await.unwrap();
    assert!(matches!(stopped, Some(Stopped::Cancelled(_))), "{stopped:?}");
    assert_eq!(process.intake.position(&waiting).await, None);
    let stopped = process.intake.cancel(shop.user, other).await.unwrap();
    assert!(matches!(stopped, Some(Stopped::Cancelled(_))), "{stopped:?}");
    assert_eq!(shop.second.submits(), 1);
    assert_eq!(shop.money().await, (START_CREDITS, 0));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_the_provider_refuses_goes_to_no_other_one() {
    let shop = Shop::open().await;
    shop.first.set(Does::Refuse(ErrorKind::Quota, Retry::OtherProvider));
    shop.first.open.store(false, std::sync::atomic::Ordering::SeqCst);
    let process = shop.process();
    let id = shop.submit(&process).await;
    until("nothing was sent", async || shop.first.submits() == 1).await;
    let refusal = async {
        until("the wish was not noted", async || {
            shop.generation(id).await.cancel_requested
        })
        .await;
        shop.first.open.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let (stopped, ()) = tokio::join!(process.intake.cancel(shop.user, id), refusal);
    assert!(matches!(stopped.unwrap(), Some(Stopped::Cancelled(_))));
    assert_eq!(shop.second.submits(), 0);
    assert_eq!(shop.money().await, (START_CREDITS, 0));
    process.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_switched_off_or_gone_is_passed_over() {
    let shop = Shop::open().await;
    shop.first.set(Does::Refuse(ErrorKind::Quota, Retry::OtherProvider));
    let off = |name: &'static str| {
        Shop::registry(move |text| {
            let entry = format!("[providers.{name}]\nkind = \"sandbox\"\n");
            text.replace(&entry, &format!("{entry}enabled = false\n"))
        })
    };
    // No way out: the second is off.
    let process = shop.process_with(off("second"), [&shop.first, &shop.second]);
    let id = shop.submit(&process).await;
    shop.until(id, Status::Failed, Some(AttemptState::Rejected)).await;
    let refused = shop.try_submit(&process, "b").await;
    assert!(matches!(refused, Err(Refusal::ModelUnavailable(_))), "{refused:?}");
    process.end().await;
    assert_eq!(shop.second.submits(), 0);
    // The first is off: nothing is sent there at all.
    let process = shop.process_with(off("first"), [&shop.first, &shop.second]);
    let stored = shop.try_submit(&process, "a").await.unwrap();
    assert_eq!(
        (stored.provider.as_str(), stored.fallbacks[0].provider.as_str()),
        ("second", "first")
    );
    shop.until(stored.id, Status::Completed, Some(AttemptState::Finished))
        .await;
    process.end().await;
    assert_eq!((shop.first.submits(), shop.second.submits()), (1, 1));
    assert_eq!(shop.money().await, (START_CREDITS - PRICE, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_provider_that_was_removed_goes_to_the_next() {
    let shop = Shop::open().await;
    shop.first.open.store(false, std::sync::atomic::Ordering::SeqCst);
    let process = shop.process();
    process
        .provider(&shop.first)
        .health
        .broke("a test", velro::clock::now());
    process
        .provider(&shop.second)
        .health
        .broke("a test", velro::clock::now());
    // Both breakers are open, so it waits at the first, prepared.
    let id = shop.submit(&process).await;
    shop.until(id, Status::Processing, Some(AttemptState::Prepared)).await;
    process.end().await;
    let renamed = Shop::registry(|text| {
        text.replace("providers.first]", "providers.other]")
            .replace("\"first\"", "\"other\"")
    });
    let process = shop.process_with(renamed, [&shop.second]);
    let done = shop.until(id, Status::Completed, Some(AttemptState::Finished)).await;
    assert_eq!((done.provider.as_str(), shop.first.submits()), ("second", 0));
    process.end().await;
}
