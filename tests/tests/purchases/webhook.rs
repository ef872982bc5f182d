//! Stripe's words: what is believed, in every order, and what becomes of money that goes back.

use super::*;
use tests::harness::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stripe_did_not_sign_now_changes_nothing() {
    let (sim, server, ada) = shop().await;
    let (order, session) = session(&sim, &ada, "hundred").await;
    let event = sim.pay(&session);
    let body = event.to_string();
    let good = sign(&body, WEBHOOK_SECRET, now());
    let bad = [
        (body.clone(), String::new()),
        (body.clone(), "t=1,v1=00".into()),
        (body.clone(), sign(&body, "whsec_other", now())),
        (body.clone(), sign(&body, WEBHOOK_SECRET, now() - 400)),
        (body.clone(), sign(&body, WEBHOOK_SECRET, now() + 400)),
        (body.clone(), good.replace("v1=", "v0=")),
        (body.replace("\"paid\"", "\"paid\" "), good.clone()),
        (body.replace("100", "101"), good),
    ];
    for (body, header) in bad {
        deliver_raw(&server, body, &header).await.problem(400, "bad_request");
    }
    // Signed, but of the other mode, of another API, or no event at all.
    let mut live = event.clone();
    live["livemode"] = json!(true);
    for wrong in [
        live,
        json!({"id": "evt", "object": "v2.core.event", "type": "x"}),
        json!({}),
        json!("evt"),
    ] {
        deliver(&server, &wrong).await.problem(400, "bad_request");
    }
    let garbage = "{\"id\":";
    let header = sign(garbage, WEBHOOK_SECRET, now());
    deliver_raw(&server, garbage, &header).await.problem(400, "bad_request");
    let large = vec![b' '; (1 << 20) + 1];
    deliver_raw(&server, large, "t=1,v1=00")
        .await
        .problem(413, "payload_too_large");

    assert_eq!(
        (ada.balance().await, status(&ada, &order).await.as_str()),
        (0, "pending")
    );
    let shown = server.velro(&["orders", "show", &order, "--json"]).ok();
    assert!(shown.contains("\"events\":[]"), "{shown}");
    // The true one is still good.
    assert_eq!(told(&server, &event).await, "booked");
    assert_eq!(ada.balance().await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_can_be_rotated() {
    let sim = StripeSim::start().await.unwrap();
    let options = selling(&sim)
        .env("STRIPE_WEBHOOK_SECRET", "whsec_new, whsec_newer")
        .env("STRIPE_WEBHOOK_SECRET_PREVIOUS", "whsec_old");
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    for secret in ["whsec_new", "whsec_newer", "whsec_old"] {
        let (_, session) = session(&sim, &ada, "hundred").await;
        let body = sim.pay(&session).to_string();
        let header = sign(&body, secret, now());
        deliver_raw(&server, body, &header).await.ok();
    }
    assert_eq!(ada.balance().await, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_the_order_books_nothing_and_is_shown_to_the_operator() {
    let (sim, server, ada) = shop().await;
    let mut troubled = Vec::new();
    for (member, value) in [
        ("amount_total", json!(99)),
        ("amount_total", Value::Null),
        ("currency", json!("eur")),
        ("livemode", json!(true)),
    ] {
        let (order, session) = session(&sim, &ada, "hundred").await;
        let mut event = sim.pay(&session);
        event["data"]["object"][member] = value;
        assert_eq!(told(&server, &event).await, "trouble", "{member}");
        assert_eq!(told(&server, &event).await, "replayed");
        troubled.push(order);
    }
    // Somebody else's sale in the same account, and what is of no interest.
    let (_, session) = session(&sim, &ada, "hundred").await;
    let mut foreign = sim.pay(&session);
    foreign["data"]["object"]["id"] = json!("cs_test_foreign");
    foreign["data"]["object"]["client_reference_id"] = json!("order 66");
    assert_eq!(told(&server, &foreign).await, "ignored");
    let event = sim.event("customer.created", json!({"id": "cus_1", "object": "customer"}));
    assert_eq!(told(&server, &event).await, "ignored");

    assert_eq!(ada.balance().await, 0);
    let listed = server.velro(&["orders", "list", "--trouble"]).ok();
    for order in &troubled {
        assert!(listed.contains(order.as_str()), "{listed}");
    }
    assert!(
        listed.contains("was about 0.99 USD, the order about 1.00 USD"),
        "{listed}"
    );
    server.wait_for_log(0, "a payment needs an operator", SOON).await;
    let metrics = server.anonymous().get("/metrics").await.text();
    let line = "velro_payment_events_total{outcome=\"trouble\",type=\"checkout.session.completed\"} 4";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("velro_payment_event_lag_seconds_count{type=\"checkout.session.completed\"}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_money_is_waited_for_and_late_money_counts() {
    let (sim, server, ada) = shop().await;
    let (order, slow) = session(&sim, &ada, "hundred").await;
    assert_eq!(told(&server, &sim.pay_later(&slow)).await, "moved");
    assert_eq!(
        (ada.balance().await, status(&ada, &order).await.as_str()),
        (0, "pending")
    );
    assert_eq!(told(&server, &sim.transfer_ends(&slow, true)).await, "booked");
    let (order, failing) = session(&sim, &ada, "hundred").await;
    told(&server, &sim.pay_later(&failing)).await;
    told(&server, &sim.transfer_ends(&failing, false)).await;
    assert_eq!(status(&ada, &order).await, "failed");
    let (order, late) = session(&sim, &ada, "hundred").await;
    told(&server, &sim.expire(&late)).await;
    assert_eq!(status(&ada, &order).await, "cancelled");
    assert_eq!(told(&server, &sim.pay(&late)).await, "booked");
    assert_eq!(
        (ada.balance().await, status(&ada, &order).await.as_str()),
        (200, "completed")
    );
}

/// Payment, refund as Stripe tells it twice, and a dispute that is lost: in every order, each from one to five times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_events_ends_in_the_same_books() {
    let (sim, server, ada) = shop().await;
    let mut expected = 0;
    for (n, permutation) in permutations(4).into_iter().enumerate() {
        let (order, session) = session(&sim, &ada, "hundred").await;
        let paid = sim.pay(&session);
        let [refund, charge] = sim.refund(&session, 30);
        // Half of the histories end with everything gone, half with the refund only.
        let last = match n % 2 {
            0 => sim.dispute(&session),
            _ => {
                let mut won = sim.dispute(&session);
                let closed = sim.dispute_closes(&session, true);
                won["data"] = closed["data"].clone();
                won
            }
        };
        expected += if n % 2 == 0 { 0 } else { 70 };
        let events = [paid, refund, charge, last];
        for (position, &event) in permutation.iter().enumerate() {
            for _ in 0..=(n + position) % 5 {
                deliver(&server, &events[event]).await.ok();
            }
        }
        assert_eq!(ada.balance().await, expected, "{permutation:?}");
        let shown = ada.get(&format!("/api/v1/credits/orders/{order}")).await.ok();
        assert_eq!(
            shown["reversed_credits"],
            if n % 2 == 0 { 100 } else { 30 },
            "{permutation:?}"
        );
    }
    assert_eq!(server.verify_ledger().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_that_were_spent_and_refunded_are_owed_and_paid_by_the_next_purchase() {
    let (sim, server, ada) = shop().await;
    let (_, first) = session(&sim, &ada, "hundred").await;
    told(&server, &sim.pay(&first)).await;
    for n in 0..16 {
        let id = ada.submit_quick(&format!("picture {n}")).await;
        ada.wait_for(&id, "completed").await;
    }
    assert_eq!(ada.balance().await, 20);
    for event in sim.refund(&first, 100) {
        told(&server, &event).await;
    }
    let balance = ada.get("/api/v1/credits/balance").await.ok();
    assert_eq!((&balance["balance"], &balance["debt"]), (&json!(-80), &json!(80)));
    let refused = ada.try_submit("sandbox/image", "x", json!({"latency_ms": 0})).await;
    let refused = refused.problem(402, "insufficient_credits");
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("the account owes 80 credits"),
        "{refused}"
    );

    let (_, second) = session(&sim, &ada, "hundred").await;
    told(&server, &sim.pay(&second)).await;
    let balance = ada.get("/api/v1/credits/balance").await.ok();
    assert_eq!((&balance["balance"], &balance["debt"]), (&json!(20), &json!(0)));
    let statement = ada.statement().await;
    assert_eq!(statement.first().unwrap(), "purchase +100");
    assert_eq!(&statement[statement.len() - 2..], ["purchase -100", "purchase +100"]);
    // The refund bounces: the credits are back.
    assert_eq!(told(&server, &sim.refund_fails(&first)).await, "given back");
    assert_eq!(ada.balance().await, 120);
}
