//! FAL's webhooks: signed, matched, doubted, and only ever a hint.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::fal_sim::{Action, FalSim, Options as SimOptions, Point, Settings, Signer, USER_ID};
use tests::harness::{Client, FAL_KEY, Options, Reply, SOON, Server, announce};

const MODEL: &str = "fal-ai/imagen4/preview/ultra";

/// A model whose polling is so slow that only a webhook ends a job within a test's patience.
fn hardly_polled(options: Options) -> Options {
    options.edit_model(MODEL, |model| {
        model.insert("typical_ms".into(), 600_000.into());
        model.insert("poll_ceiling_ms".into(), 600_000.into());
        model.insert("deadline_ms".into(), 3_600_000.into());
    })
}

async fn shop(settings: Settings, options: impl FnOnce(Options) -> Options) -> (FalSim, Server, Client) {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        ..settings
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let server = Server::with(options(Options::new().fal(&sim).webhooks())).await;
    let ada = server.register("ada").await;
    (sim, server, ada)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_wakes_a_job_long_before_its_next_poll() {
    let settings = Settings {
        run_ms: 700,
        ..Settings::default()
    };
    let (sim, _server, ada) = shop(settings, hardly_polled).await;
    let id = ada.submit(MODEL, "early", json!({})).await;
    ada.wait_for(&id, "completed").await;
    let request = sim
        .wait_for(SOON, |r| !r[0].deliveries.is_empty())
        .await
        .unwrap()
        .remove(0);
    assert_eq!(request.deliveries[0].answered, Some(200));
    assert!(request.counts.status <= 1, "{:?}", request.counts);
    assert_eq!(request.counts.result, 1, "the result is fetched, not believed");
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -45"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_change_nothing() {
    let (sim, _server, ada) = shop(Settings::default(), hardly_polled).await;
    let id = ada.submit(MODEL, "thrice [sim:webhook=duplicate]", json!({})).await;
    ada.wait_for(&id, "completed").await;
    let requests = sim.wait_for(SOON, |r| r[0].deliveries.len() == 3).await.unwrap();
    assert!(
        requests[0].deliveries.iter().all(|d| d.answered == Some(200)),
        "{:?}",
        requests[0].deliveries
    );
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -45"]);
    assert_eq!(
        ada.stream_after(&id, "0")
            .await
            .rest()
            .await
            .iter()
            .filter(|f| f.is_final())
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_is_looked_into_and_the_truth_counts() {
    let settings = Settings {
        run_ms: 800,
        ..Settings::default()
    };
    let (sim, _server, ada) = shop(settings, |options| options).await;
    let good = ada.submit(MODEL, "true in the end [sim:webhook=lie]", json!({})).await;
    let bad = ada
        .submit(MODEL, "false in the end [sim:webhook=lie] [sim:policy]", json!({}))
        .await;
    ada.wait_for(&good, "completed").await;
    let failed = ada.wait_for(&bad, "failed").await;
    assert_eq!(failed["metadata"]["error_code"], "content_policy_violation");
    assert_eq!(ada.balance().await, 955);
    sim.wait_for(SOON, |r| r.iter().all(|r| r.deliveries.len() >= 2))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_stale_webhooks_are_refused_and_polling_goes_on() {
    let settings = Settings {
        webhook_retry_ms: vec![],
        ..Settings::default()
    };
    let (sim, _server, ada) = shop(settings, |options| options).await;
    for prompt in [
        "forged [sim:webhook=bad_signature]",
        "stale [sim:webhook=stale]",
        "lost [sim:webhook=drop]",
    ] {
        let id = ada.submit(MODEL, prompt, json!({})).await;
        ada.wait_for(&id, "completed").await;
    }
    let requests = sim
        .wait_for(SOON, |r| r[..2].iter().all(|r| r.deliveries.len() == 1))
        .await
        .unwrap();
    for request in &requests[..2] {
        assert_eq!(request.deliveries[0].answered, Some(401), "{}", request.prompt());
    }
    assert_eq!(ada.balance().await, 1000 - 3 * 45);
}

/// Delivers a body as FAL would, signed by its key.
async fn deliver(client: &Client, url: &str, request_id: &str, body: &Value) -> Reply {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let body = body.to_string();
    let signature = Signer::fixed().unwrap().sign(request_id, USER_ID, now, body.as_bytes());
    let request = client.request(Method::POST, url).body(body);
    let request = request.header("Content-Type", "application/json");
    let request = request
        .header("x-fal-webhook-request-id", request_id)
        .header("x-fal-webhook-user-id", USER_ID);
    let request = request.header("x-fal-webhook-timestamp", now.to_string());
    client.send(request.header("x-fal-webhook-signature", signature)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_mixed_up_webhooks_decide_nothing() {
    let settings = Settings {
        manual: true,
        webhooks: false,
        ..Settings::default()
    };
    let (sim, server, ada) = shop(settings, hardly_polled).await;
    let nobody = server.anonymous();
    let [one, two] = [
        ada.submit(MODEL, "one", json!({})).await,
        ada.submit(MODEL, "two", json!({})).await,
    ];
    let requests = sim.wait_for(SOON, |r| r.len() == 2).await.unwrap();
    let of = |prompt: &str| requests.iter().find(|r| r.prompt() == prompt).unwrap().clone();
    let (first, second) = (of("one"), of("two"));
    let hook = first.webhook_url.clone().unwrap();
    assert!(hook.starts_with(&server.base_url), "{hook}");
    let body =
        |id: &str| json!({"request_id": id, "gateway_request_id": id, "status": "OK", "payload": {}, "error": null});

    // No signature, a signature for other words, a huge body.
    nobody
        .post(&hook, &body(&first.request_id))
        .await
        .problem(401, "unauthorized");
    let other = hook.rsplit_once('/').unwrap().0;
    let unknown = format!("{other}/0190f0f0-0000-7000-8000-000000000000");
    deliver(&nobody, &unknown, &first.request_id, &body(&first.request_id))
        .await
        .problem(404, "not_found");
    let nowhere = hook.replace("/webhooks/fal/", "/webhooks/nobody/");
    deliver(&nobody, &nowhere, &first.request_id, &body(&first.request_id))
        .await
        .problem(404, "not_found");
    let path = hook.strip_prefix(&server.base_url).unwrap();
    assert_eq!(announce(&nobody, path, "application/json", 8 << 20).await, 413);

    // Signed by FAL, but the second job's word at the first job's door: no picture of somebody else.
    sim.start_job(&second.request_id).unwrap();
    sim.finish_job(&second.request_id).unwrap();
    deliver(&nobody, &hook, &second.request_id, &body(&second.request_id)).await;
    let door = second.webhook_url.clone().unwrap();
    deliver(&nobody, &door, &second.request_id, &body(&second.request_id))
        .await
        .ok();
    ada.wait_for(&two, "completed").await;
    assert_eq!(ada.status(&one).await["status"], "processing");

    // The right word at the right door, again and again, also after the end.
    sim.start_job(&first.request_id).unwrap();
    sim.finish_job(&first.request_id).unwrap();
    for _ in 0..3 {
        deliver(&nobody, &hook, &first.request_id, &body(&first.request_id))
            .await
            .ok();
    }
    ada.wait_for(&one, "completed").await;
    let over = deliver(&nobody, &hook, &first.request_id, &body(&first.request_id))
        .await
        .ok();
    assert_eq!(over["status"], "over");
    assert_eq!(ada.balance().await, 1000 - 2 * 45);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_resolves_a_submit_whose_answer_was_lost() {
    let settings = Settings {
        run_ms: 1500,
        ..Settings::default()
    };
    let (sim, server, ada) = shop(settings, hardly_polled).await;
    sim.fault(Point::Submit, Action::ThenCut, 1);
    let id = ada.submit(MODEL, "lost and found", json!({})).await;
    tests::harness::eventually("the operator is told", Duration::from_secs(10), || async {
        server
            .velro(&["generations", "resolve"])
            .ok()
            .contains(&id)
            .then_some(())
    })
    .await;
    ada.wait_for(&id, "completed").await;
    assert_eq!(sim.requests().len(), 1);
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -45"]);
}
