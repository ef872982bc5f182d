//! Nobody pays more than the balance, nothing that was not delivered is charged.

use serde_json::json;
use tests::fal_sim::{FalSim, Options as SimOptions};
use tests::harness::{Options, Server, id_of, race};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_submits_of_45_credits_on_1000_are_22_accepted_and_18_refused() {
    let sim = FalSim::start(SimOptions::default()).await.unwrap();
    let server = Server::with(Options::new().fal(&sim)).await;
    let ada = server.register("ada").await;
    let answers = race(40, |i| {
        let ada = &ada;
        async move {
            ada.try_submit("fal-ai/imagen4/preview/ultra", &format!("cat {i}"), json!({}))
                .await
        }
    })
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert_eq!((accepted.len(), refused.len()), (22, 18));
    for answer in refused {
        let problem = answer.problem(402, "insufficient_credits");
        assert!(problem["detail"].as_str().unwrap().contains("45"), "{problem}");
    }
    assert_eq!(ada.balance().await, 10);
    for answer in &accepted {
        ada.wait_for(&id_of(&answer.json()), "completed").await;
    }
    assert_eq!(ada.balance().await, 10);
    let statement = ada.statement().await;
    assert_eq!(statement.iter().filter(|line| *line == "usage -45").count(), 22);
    assert_eq!(statement.len(), 23);
    // Every line's balance follows from the one before.
    let lines = ada.transactions().await;
    for pair in lines.windows(2) {
        let [newer, older] = pair else { panic!("windows of two") };
        let number = |line: &serde_json::Value, name: &str| line[name].as_i64().unwrap();
        assert_eq!(
            number(newer, "balance_after"),
            number(older, "balance_after") + number(newer, "amount")
        );
    }
    assert_eq!(sim.requests().len(), 22);
    assert_eq!(sim.bought_twice(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_refusals_give_the_money_back() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    for (outcome, code) in [("fail", "sandbox_failure"), ("refuse", "content_policy_violation")] {
        let parameters = json!({"outcome": outcome, "latency_ms": 0, "num_images": 4});
        let id = ada.submit("sandbox/image", outcome, parameters).await;
        let failed = ada.wait_for(&id, "failed").await;
        assert!(failed["error"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(failed["metadata"]["error_code"], code);
        assert_eq!(failed["metadata"]["credits_used"], 0);
        assert_eq!(failed["output_urls"], json!(null));
        let last = ada.stream(&id).await.rest().await;
        assert_eq!(last.last().unwrap().event(), "error");
        assert_eq!(last.last().unwrap().data()["status"], "failed");
    }
    assert_eq!(
        ada.statement().await,
        ["bonus +1000", "usage -20", "refund +20", "usage -20", "refund +20"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_delivered_is_a_part_paid() {
    let sim = FalSim::start(SimOptions::default()).await.unwrap();
    let server = Server::with(Options::new().fal(&sim)).await;
    let ada = server.register("ada").await;
    let parameters = json!({"num_images": 4});
    let id = ada
        .submit("fal-ai/flux-pro/v1.1-ultra", "four [sim:fewer]", parameters)
        .await;
    let done = ada.wait_for(&id, "completed").await;
    assert_eq!(done["output_urls"].as_array().unwrap().len(), 3);
    assert_eq!(done["metadata"]["credits_used"], 150);
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -200", "refund +50"]);

    let id = ada
        .submit("fal-ai/flux-pro/v1.1-ultra", "none [sim:no_media]", json!({}))
        .await;
    ada.wait_for(&id, "failed").await;
    assert_eq!(ada.balance().await, 850);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_is_the_one_of_the_submit_whatever_happens_to_the_registry() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada
        .submit(
            "sandbox/image",
            "slow",
            json!({"latency_ms": 4000, "image_size": "square"}),
        )
        .await;
    let text = std::fs::read_to_string(server.registry_path()).unwrap();
    assert_eq!(text.matches("\ncredits = 5\n").count(), 1);
    std::fs::write(
        server.registry_path(),
        text.replace("\ncredits = 5\n", "\ncredits = 9\n"),
    )
    .unwrap();
    tests::harness::eventually("the new price", tests::harness::SOON, || async {
        let pricing = ada.get("/api/v1/models/sandbox/image/pricing").await.ok();
        (pricing["credits_cost"] == 9).then_some(())
    })
    .await;
    assert_eq!(
        ada.status(&id).await["status"],
        "processing",
        "the edit came while it ran"
    );
    ada.wait_for(&id, "completed").await;
    let next = ada.submit_quick("next").await;
    ada.wait_for(&next, "completed").await;
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5", "usage -9"]);
}
