//! `velro orders`: what no webhook told is asked for, and booked once.

use super::*;
use tests::harness::SOON;
use tests::stripe_sim::Fault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_webhook_told_is_found_and_booked_once() {
    let (sim, mut server, ada) = shop().await;
    let mut sold = Vec::new();
    for _ in 0..5 {
        sold.push(session(&sim, &ada, "hundred").await);
    }
    let [paid, refunded, disputed, expired, open] = [0, 1, 2, 3, 4].map(|n: usize| sold[n].clone());
    // Not one event of all this is delivered.
    for (_, session) in [&paid, &refunded, &disputed] {
        sim.pay(session);
    }
    sim.refund(&refunded.1, 30);
    sim.dispute(&disputed.1);
    sim.expire(&expired.1);
    // An order whose process died before it noted the session.
    server.terminate();
    server.change(|o| o.env("FAILPOINTS", "payments::checkout_made=return"));
    server.restart().await;
    let from = server.log_lines();
    let request = ada
        .request(Method::POST, PURCHASE)
        .json(&json!({"package_id": "hundred"}));
    let call = tokio::spawn(request.send());
    server
        .wait_for_log(from, "failpoint payments::checkout_made reached", SOON)
        .await;
    server.kill9();
    drop(call.await.unwrap());
    server.change(|o| o.without_env("FAILPOINTS"));
    server.restart().await;

    let dry = server.velro(&["orders", "reconcile", "--dry-run"]).fails();
    for (order, _) in [&paid, &refunded, &disputed] {
        assert!(
            dry.contains(&format!("{order}  would change: is open, Stripe says paid")),
            "{dry}"
        );
    }
    assert!(
        dry.contains(&format!("{}  would change: is open, Stripe says expired", expired.0)),
        "{dry}"
    );
    assert!(!dry.contains(&open.0) && dry.contains("nothing was booked"), "{dry}");
    assert_eq!(ada.balance().await, 0);

    let said = server.velro(&["orders", "reconcile", "--since", "1d", "--json"]).ok();
    let findings: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(findings.iter().all(|f| f["open"] == false), "{said}");
    let of = |order: &str| findings.iter().filter(|f| f["order_id"] == order).count();
    assert_eq!(
        [&paid, &refunded, &disputed, &expired, &open].map(|o| of(&o.0)),
        [1, 2, 2, 1, 0]
    );
    assert_eq!(ada.balance().await, 100 + 70);
    assert_eq!(status(&ada, &expired.0).await, "cancelled");
    // Again, nothing; and the webhooks that come after all change nothing either.
    let again = server.velro(&["orders", "reconcile"]).ok();
    assert!(again.contains("everything agrees with Stripe"), "{again}");
    // A dispute that is decided later is found as well.
    sim.dispute_closes(&disputed.1, true);
    let later = server.velro(&["orders", "reconcile"]).ok();
    assert!(later.contains("100 credits given back"), "{later}");
    assert_eq!(ada.balance().await, 270);

    let shown = server.velro(&["orders", "show", &refunded.0]).ok();
    assert!(
        shown.contains("reversed   30 credits") && shown.contains("refund of 30 usd"),
        "{shown}"
    );
    let listed = server
        .velro(&["orders", "list", "--user", &ada.email, "--status", "paid", "--json"])
        .ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_settled_is_left_for_an_operator() {
    let (sim, server, ada) = shop().await;
    let (order, session) = session(&sim, &ada, "hundred").await;
    sim.fail_next([Fault::Status(500); 3]);
    let said = server.velro(&["orders", "reconcile"]).fails();
    assert!(
        said.contains(&format!("OPEN    {order}")) && said.contains("Stripe does not answer"),
        "{said}"
    );
    let mut event = sim.pay(&session);
    event["data"]["object"]["amount_total"] = json!(1);
    assert_eq!(told(&server, &event).await, "trouble");
    // The truth is booked, and what was strange stays to be looked at.
    let said = server.velro(&["orders", "reconcile"]).fails();
    assert!(
        said.contains("100 credits booked") && said.contains("needs an operator"),
        "{said}"
    );
    assert_eq!(ada.balance().await, 100);
    server.velro(&["orders", "show", &ada.user_id]).fails();
    server.velro(&["orders", "show", "x"]).fails();
}
