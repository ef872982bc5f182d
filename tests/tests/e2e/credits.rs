//! Balance, statement and statistics (contract §5).

use serde_json::json;
use tests::harness::{Options, Server};

use crate::{assert_time, column, keys};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statement_is_real_filtered_and_paged() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    server.grant(&ada, 500);
    let done = ada.submit_quick("one").await;
    ada.wait_for(&done, "completed").await;
    let parameters = json!({"outcome": "fail", "latency_ms": 0, "num_images": 2});
    let failed = ada.submit("sandbox/image", "two", parameters).await;
    ada.wait_for(&failed, "failed").await;
    assert_eq!(
        ada.statement().await,
        ["bonus +1000", "bonus +500", "usage -5", "usage -10", "refund +10"]
    );

    let all = ada.get("/api/v1/credits/transactions").await.ok();
    assert_eq!(keys(&all), ["limit", "skip", "total", "transactions"]);
    assert_eq!(
        (&all["total"], &all["skip"], &all["limit"]),
        (&json!(5), &json!(0), &json!(50))
    );
    let newest = &all["transactions"][0];
    for member in [
        "id",
        "user_id",
        "transaction_type",
        "amount",
        "balance_after",
        "description",
        "metadata",
        "created_at",
    ] {
        assert!(newest.get(member).is_some(), "{member}");
    }
    assert_eq!(newest["user_id"], ada.user_id.as_str());
    assert_eq!(newest["generation_id"], failed.as_str());
    assert_eq!(newest["balance_after"], 1495);
    assert_time(&newest["created_at"]);

    let page = ada.get("/api/v1/credits/transactions/?skip=1&limit=2").await.ok();
    assert_eq!(column(&page["transactions"], "transaction_type"), ["usage", "usage"]);
    assert_eq!(
        (&page["total"], &page["skip"], &page["limit"]),
        (&json!(5), &json!(1), &json!(2))
    );
    let bonus = ada
        .get("/api/v1/credits/transactions?transaction_type=bonus")
        .await
        .ok();
    assert_eq!(
        (
            &bonus["total"],
            column(&bonus["transactions"], "transaction_type").len()
        ),
        (&json!(2), 2)
    );
    let none = ada
        .get("/api/v1/credits/transactions?transaction_type=purchase")
        .await
        .ok();
    assert_eq!(none["total"], 0);
    for (query, field) in [
        ("skip=-1", "query.skip"),
        ("skip=x", "query.skip"),
        ("limit=0", "query.limit"),
        ("limit=101", "query.limit"),
        ("transaction_type=nonsense", "query.transaction_type"),
    ] {
        let path = format!("/api/v1/credits/transactions?{query}");
        ada.get(&path).await.invalid(field);
    }

    let stats = ada.get("/api/v1/credits/stats/?days=30").await.ok();
    assert_eq!(
        stats,
        json!({
            "current_balance": 1495, "period_days": 30, "total_spent": 5, "total_purchased": 1500,
            "generation_count": stats["generation_count"], "transaction_count": 5,
        })
    );
    ada.get("/api/v1/credits/stats?days=0").await.invalid("query.days");

    let balance = ada.get("/api/v1/credits/balance/").await.ok();
    assert_eq!(balance["balance"], 1495);
    let user = ada.get("/api/v1/user/credits").await.ok();
    assert_eq!(
        user,
        json!({"user_id": ada.user_id, "credits_balance": 1495, "currency": "credits"})
    );
    let ping = server.anonymous().get("/api/v1/credits/_ping").await.ok();
    assert_eq!((&ping["ok"], &ping["service"]), (&json!(true), &json!("credits")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_come_from_the_command_line_and_start_credits_from_one_place() {
    let server = Server::with(Options::new().env("DEFAULT_USER_CREDITS", "7")).await;
    let ada = server.register("ada").await;
    assert_eq!(ada.statement().await, ["bonus +7"]);
    assert_eq!(ada.get("/api/v1/auth/me").await.ok()["credits_balance"], 7);
    let problem = ada
        .try_submit("sandbox/image", "too much", json!({"num_images": 2}))
        .await
        .problem(402, "insufficient_credits");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("10") && detail.contains('7'), "{detail}");
    assert_eq!(ada.statement().await, ["bonus +7"]);

    server.grant(&ada, 3);
    assert_eq!(ada.balance().await, 10);
    let shown = server.velro(&["credits", "show", "ada@example.com"]).ok();
    assert!(shown.contains("10"), "{shown}");
    for bad in [
        ["credits", "grant", "ada@example.com", "0"],
        ["credits", "grant", "ada@example.com", "1.5"],
        ["credits", "grant", "nobody@example.com", "5"],
    ] {
        server.velro(&bad).fails();
    }
    assert_eq!(ada.balance().await, 10);
    let id = ada.submit_quick("now it is enough").await;
    ada.wait_for(&id, "completed").await;
    assert_eq!(ada.balance().await, 5);
}
