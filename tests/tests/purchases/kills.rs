//! The process dies between and during purchases and deliveries: credits are booked exactly once.

use super::*;
use std::time::Duration;
use tests::harness::SOON;

/// Sends something that ends at a failpoint, kills the server there, and starts it again.
async fn die_at(server: &mut Server, failpoint: &str, request: reqwest::RequestBuilder) {
    let from = server.log_lines();
    let call = tokio::spawn(request.send());
    let line = format!("failpoint {failpoint} reached");
    server.wait_for_log(from, &line, SOON).await;
    server.kill9();
    assert!(call.await.unwrap().is_err(), "nobody answers");
}

async fn with_failpoint(server: &mut Server, failpoint: Option<&str>) {
    server.change(|options| match failpoint {
        Some(name) => options.env("FAILPOINTS", format!("{name}=return")),
        None => options.without_env("FAILPOINTS"),
    });
    server.restart().await;
}

/// The call of somebody whose first try died goes on with the same order and the same checkout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_died_goes_on_with_the_same_key() {
    let (sim, mut server, ada) = shop().await;
    for (n, failpoint) in ["payments::ordered", "payments::checkout_made"].into_iter().enumerate() {
        let call = || {
            let request = ada
                .request(Method::POST, PURCHASE)
                .json(&json!({"package_id": "hundred"}));
            request.header("Idempotency-Key", format!("key {n}"))
        };
        server.terminate();
        with_failpoint(&mut server, Some(failpoint)).await;
        die_at(&mut server, failpoint, call()).await;
        with_failpoint(&mut server, None).await;
        let bought = ada.send(call()).await.ok();
        let sessions = sim.sessions();
        assert_eq!(sessions.len(), n + 1, "one checkout for each order");
        assert_eq!(bought["checkout_url"], sessions[n]["url"]);
        let session = sim.session_of(&order_of(&bought)).unwrap();
        assert_eq!(told(&server, &sim.pay(&session)).await, "booked");
    }
    assert_eq!(ada.statement().await, ["purchase +100", "purchase +100"]);
}

/// A payment whose order we never brought to a close: the buyer has paid, the process had died before it noted where.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_finds_its_order_though_its_session_was_never_noted() {
    let (sim, mut server, ada) = shop().await;
    server.terminate();
    with_failpoint(&mut server, Some("payments::checkout_made")).await;
    let request = ada
        .request(Method::POST, PURCHASE)
        .json(&json!({"package_id": "hundred"}));
    die_at(&mut server, "payments::checkout_made", request).await;
    with_failpoint(&mut server, None).await;
    let session = sim.sessions()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(told(&server, &sim.pay(&session)).await, "booked");
    assert_eq!(ada.balance().await, 100);
}

/// Killed before and after the booking of each event of some histories; whatever was not answered is delivered again, as
/// Stripe does, one to five times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_event_the_books_are_the_same() {
    let (sim, mut server, ada) = shop().await;
    let mut expected = 0;
    for (n, history) in [[0, 1, 2], [2, 0, 1], [1, 2, 0]].into_iter().enumerate() {
        let (_, session) = session(&sim, &ada, "hundred").await;
        let paid = sim.pay(&session);
        let [refund, charge] = sim.refund(&session, 40);
        let events = [paid, refund, charge];
        for (position, event) in history.into_iter().enumerate() {
            let failpoint = ["payments::heard", "payments::recorded"][(n + position) % 2];
            server.terminate();
            with_failpoint(&mut server, Some(failpoint)).await;
            let body = events[event].to_string();
            let header = sign(&body, WEBHOOK_SECRET, now());
            let request = server.anonymous().request(Method::POST, HOOK).body(body);
            die_at(&mut server, failpoint, request.header("Stripe-Signature", header)).await;
            with_failpoint(&mut server, None).await;
            for _ in 0..=(n + position) {
                deliver(&server, &events[event]).await.ok();
            }
        }
        expected += 60;
        assert_eq!(ada.balance().await, expected, "{history:?}");
        assert_eq!(server.verify_ledger().unwrap(), 0);
    }
}

/// Killed at random moments while everything is delivered at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_hail_of_deliveries_the_books_are_the_same() {
    let (sim, mut server, ada) = shop().await;
    let mut events = Vec::new();
    for _ in 0..20 {
        let (_, session) = session(&sim, &ada, "hundred").await;
        let paid = sim.pay(&session);
        let [refund, charge] = sim.refund(&session, 40);
        events.extend([charge, refund, paid]);
    }
    for round in 0..4u64 {
        let calls: Vec<_> = events
            .iter()
            .map(|event| {
                let body = event.to_string();
                let header = sign(&body, WEBHOOK_SECRET, now());
                let request = server.anonymous().request(Method::POST, HOOK).body(body);
                tokio::spawn(request.header("Stripe-Signature", header).send())
            })
            .collect();
        // Not a wait for anything: the blow has to fall at some moment in the middle, another one each time.
        tokio::time::sleep(Duration::from_millis(5 + 12 * round)).await;
        server.kill9();
        for call in calls {
            drop(call.await.unwrap());
        }
        server.restart().await;
        assert_eq!(server.verify_ledger().unwrap(), 0);
    }
    for event in &events {
        deliver(&server, event).await.ok();
    }
    assert_eq!(ada.balance().await, 20 * 60);
}
