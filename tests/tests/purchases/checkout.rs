//! From the package to the page where it is paid.

use super::*;
use tests::harness::{JWT_SECRET, SOON};
use tests::stripe_sim::Fault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_leads_to_a_checkout_and_only_its_owner_sees_it() {
    let (sim, server, ada) = shop().await;
    let listing = server.anonymous().get("/api/v1/credits/packages").await.ok();
    assert_eq!(listing["payment"], "stripe");
    assert_eq!(
        listing["packages"][1],
        json!({"id": "thousand", "name": "A thousand", "credits": 1000, "price": "9.99", "amount_minor": 999, "currency": "usd"})
    );

    let bought = buy(&ada, "thousand").await;
    let order = order_of(&bought);
    assert_eq!(bought["transaction_id"], order.as_str());
    assert_eq!(
        (&bought["amount_purchased"], &bought["credits"]),
        (&json!(1000), &json!(1000))
    );
    assert_eq!(
        (&bought["total_cost_usd"], &bought["price"]),
        (&json!(9.99), &json!("9.99"))
    );
    assert_eq!(
        (&bought["status"], &bought["stripe_payment_intent_id"]),
        (&json!("pending"), &Value::Null)
    );
    let made = &sim.sessions()[0];
    assert_eq!(bought["checkout_url"], made["url"]);
    assert_eq!(buy(&ada, "yen").await["total_cost_usd"], Value::Null);

    let asked = &sim.asked()[0];
    let form = |name: &str| asked.form.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(asked.key.as_deref(), Some(format!("velro-order-{order}").as_str()));
    assert_eq!(asked.version.as_deref(), Some("2026-10-28.endive"));
    assert_eq!(
        (
            form("line_items[0][price_data][unit_amount]"),
            form("line_items[0][price_data][currency]")
        ),
        ("999", "usd")
    );
    for place in [
        "client_reference_id",
        "metadata[order_id]",
        "payment_intent_data[metadata][order_id]",
    ] {
        assert_eq!(form(place), order, "{place}");
    }
    let own_page = format!("{}/api/v1/credits/checkout-result?outcome=success", server.base_url);
    assert_eq!(form("success_url"), own_page);
    let page = server.anonymous().get(&own_page).await.expect(200).text();
    assert!(page.contains("Thank you"), "{page}");

    let list = ada.get("/api/v1/credits/orders?limit=1").await.ok();
    assert_eq!(list["orders"][0]["package_id"], "yen");
    let next = list["next_before"].as_str().unwrap();
    let rest = ada.get(&format!("/api/v1/credits/orders?before={next}")).await.ok();
    assert_eq!(
        (&rest["orders"][0]["order_id"], &rest["next_before"]),
        (&json!(order), &Value::Null)
    );
    let eve = server.register("eve").await;
    eve.get(&format!("/api/v1/credits/orders/{order}"))
        .await
        .problem(404, "not_found");
    assert_eq!(eve.get("/api/v1/credits/orders").await.ok()["orders"], json!([]));
    assert_eq!(ada.balance().await, 0, "nothing is given before it is paid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_makes_one_order_and_one_checkout() {
    let (sim, _server, ada) = shop().await;
    let buy = async |key: &str, body: Value| {
        let request = ada.request(Method::POST, PURCHASE).json(&body);
        ada.send(request.header("Idempotency-Key", key)).await
    };
    let first = buy("k", json!({"package_id": "hundred"})).await;
    assert_eq!(first.header("idempotent-replayed"), "");
    let again = buy("\"k\"", json!({"credit_amount": 100, "payment_method_id": "pm_x"})).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(first.ok(), again.ok());
    for other in [
        json!({"package_id": "thousand"}),
        json!({"package_id": "hundred", "success_url": "https://velro.ai/paid"}),
    ] {
        buy("k", other).await.problem(422, "idempotency_key_reused");
    }
    assert_eq!(sim.sessions().len(), 1);
    // Without a key every call is an order.
    super::buy(&ada, "hundred").await;
    super::buy(&ada, "hundred").await;
    assert_eq!(sim.sessions().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_call_is_told_what_to_send() {
    let (sim, _server, ada) = shop().await;
    for (body, field, rule) in [
        (json!({}), "body.package_id", "one of hundred, thousand"),
        (
            json!({"package_id": "million"}),
            "body.package_id",
            "must be one of: hundred",
        ),
        (
            json!({"credit_amount": 7}),
            "body.credit_amount",
            "must be one of: 100, 1000, 1000, 70",
        ),
        (
            json!({"credit_amount": 1000}),
            "body.package_id",
            "several packages have 1000 credits",
        ),
        (
            json!({"package_id": "hundred", "credit_amount": 5}),
            "body.credit_amount",
            "must be 100",
        ),
        (json!({"package_id": 5}), "body.package_id", "string"),
        (json!({"credit_amount": "5"}), "body.credit_amount", "i64"),
        (
            json!({"package_id": "hundred", "payment_method_id": 5}),
            "body.payment_method_id",
            "string",
        ),
        (
            json!({"package_id": "hundred", "success_url": "https://evil.example/"}),
            "body.success_url",
            "CORS_ORIGINS",
        ),
        (
            json!({"package_id": "hundred", "cancel_url": "javascript:alert(1)"}),
            "body.cancel_url",
            "CORS_ORIGINS",
        ),
        (
            json!({"package_id": "hundred", "cancel_url": "https://a@velro.ai/"}),
            "body.cancel_url",
            "CORS_ORIGINS",
        ),
    ] {
        let problem = ada.post(PURCHASE, &body).await.invalid(field);
        assert!(problem["detail"].as_str().unwrap().contains(rule), "{body}: {problem}");
    }
    assert_eq!(sim.asked().len(), 0);
    // A page of a known origin is taken, with its placeholder.
    let body = json!({"package_id": "hundred", "success_url": "https://velro.ai/paid?s={CHECKOUT_SESSION_ID}"});
    ada.post(PURCHASE, &body).await.ok();
    assert_eq!(
        sim.sessions()[0]["success_url"],
        "https://velro.ai/paid?s={CHECKOUT_SESSION_ID}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_at_stripe_costs_a_moment_and_makes_no_second_checkout() {
    let (sim, server, ada) = shop().await;
    // A hiccup is not noticed.
    sim.fail_next([Fault::Status(500), Fault::Status(409)]);
    buy(&ada, "hundred").await;
    assert_eq!(sim.sessions().len(), 1);
    let keys: Vec<_> = sim.asked().iter().map(|a| a.key.clone()).collect();
    assert!(keys.len() == 3 && keys.iter().all(|k| *k == keys[0]), "{keys:?}");
    // An answer that is lost is asked for again.
    sim.fail_next([Fault::Lost]);
    let bought = buy(&ada, "hundred").await;
    assert_eq!(sim.sessions().len(), 2);
    assert_eq!(bought["checkout_url"], sim.sessions()[1]["url"]);
    // A clear no, and a longer outage, are told; the same call goes on later with the same order.
    for faults in [
        vec![Fault::Status(402)],
        vec![Fault::Status(503); 3],
        vec![Fault::Lost; 3],
    ] {
        let before = sim.sessions().len();
        let key = format!("key-{before}");
        let call = || {
            let request = ada
                .request(Method::POST, PURCHASE)
                .json(&json!({"package_id": "hundred"}));
            ada.send(request.header("Idempotency-Key", key.as_str()))
        };
        sim.fail_next(faults);
        let problem = call().await;
        assert_eq!(problem.header("retry-after"), "5");
        let problem = problem.problem(503, "payment_provider_unavailable");
        assert!(!problem.to_string().contains("simulated"), "{problem}");
        call().await.ok();
        assert_eq!(sim.sessions().len(), before + 1, "one order, one checkout");
    }
    let orders = ada.get("/api/v1/credits/orders").await.ok();
    assert_eq!(orders["orders"].as_array().unwrap().len(), 5);
    // A wrong key of ours is in the log without the key, and is nobody else's business.
    drop(server);
    let other = Server::with(selling(&sim).env("STRIPE_SECRET_KEY", "sk_test_of_somebody_else")).await;
    let bob = other.register("bob").await;
    let reply = bob.post(PURCHASE, &json!({"package_id": "hundred"})).await;
    reply.problem(503, "payment_provider_unavailable");
    other.wait_for_log(0, "HTTP 401", SOON).await;
    assert!(!other.log_text().contains("sk_test_of_somebody_else"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_stripe_nothing_is_sold_outside_development() {
    let options = Options::new()
        .env("ENVIRONMENT", "production")
        .env("JWT_SECRET", JWT_SECRET);
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    assert_eq!(ada.get("/api/v1/credits/packages").await.ok()["payment"], Value::Null);
    let reply = ada.post(PURCHASE, &json!({"package_id": "starter"})).await;
    reply.problem(422, "purchases_not_configured");
    deliver(&server, &json!({})).await.problem(404, "not_found");
    let page = format!("/api/v1/credits/sandbox-checkout/{}?token=x", ada.user_id);
    ada.get(&page).await.problem(404, "not_found");
    let said = server.velro(&["orders", "reconcile"]).fails();
    assert!(said.contains("STRIPE_SECRET_KEY"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchases_are_limited() {
    let sim = StripeSim::start().await.unwrap();
    let server = Server::with(selling(&sim).env("RATE_LIMIT_ENABLED", "true")).await;
    let ada = server.register("ada").await;
    for _ in 0..20 {
        buy(&ada, "hundred").await;
    }
    let reply = ada.post(PURCHASE, &json!({"package_id": "hundred"})).await;
    reply.problem(429, "rate_limited");
}
