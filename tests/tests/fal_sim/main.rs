//! The simulator's faults and its ledger, seen from outside: a fault test that trusted a fault which does not happen
//! would prove nothing.

#![allow(clippy::unwrap_used, clippy::panic)]

mod webhooks;

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tests::fal_sim::{Action, FalSim, MODELS, Options, Phase, Point, Rule, Settings};

const FLUX: &str = "fal-ai/flux-pro/v1.1-ultra";
const SOON: Duration = Duration::from_secs(10);

async fn start(settings: Settings) -> FalSim {
    FalSim::start(Options { port: 0, settings }).await.unwrap()
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

async fn submit_as(client: &Client, sim: &FalSim, query: &str, input: &Value) -> reqwest::Result<Response> {
    client
        .post(format!("{}/{FLUX}{query}", sim.base_url))
        .header("authorization", "Key id:secret")
        .json(input)
        .send()
        .await
}

async fn submit(client: &Client, sim: &FalSim, prompt: &str) -> reqwest::Result<Response> {
    submit_as(client, sim, "", &json!({ "prompt": prompt })).await
}

async fn get(client: &Client, url: &str) -> reqwest::Result<Response> {
    client.get(url).header("authorization", "Key id:secret").send().await
}

/// Submits and gives the answer's body.
async fn accepted(client: &Client, sim: &FalSim, prompt: &str) -> Value {
    let answer = submit(client, sim, prompt).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn text(body: &Value, key: &str) -> String {
    body[key].as_str().unwrap().to_owned()
}

async fn all_completed(sim: &FalSim) {
    sim.wait_for(SOON, |requests| {
        requests.iter().all(|one| one.phase == Phase::Completed)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn every_model_is_delivered_with_its_media_and_billed() {
    let sim = start(Settings::default()).await;
    let client = client();
    for model in MODELS {
        let mut input = json!({ "prompt": format!("all {}", model.endpoint) });
        if model.endpoint == "fal-ai/flux-pro/kontext/max" {
            input["image_url"] = "https://example.com/in.png".into();
        }
        let answer: Value = client
            .post(format!("{}/{}", sim.base_url, model.endpoint))
            .header("authorization", "Key id:secret")
            .json(&input)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(answer["status"], "IN_QUEUE");
        all_completed(&sim).await;
        let answer = get(&client, &text(&answer, "response_url")).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", model.endpoint);
        let units = answer.headers()["x-fal-billable-units"].to_str().unwrap().to_owned();
        let expected = match model.endpoint {
            "fal-ai/veo3" => "8",
            "fal-ai/minimax/hailuo-02/pro/text-to-video" => "6",
            "fal-ai/wan-pro/text-to-video" => "1.2",
            "fal-ai/kling-video/v2.1/master/text-to-video" => "5",
            _ => "1",
        };
        assert_eq!(units, expected, "{}", model.endpoint);
        let result: Value = answer.json().await.unwrap();
        let file = result.get("video").unwrap_or_else(|| &result["images"][0]);
        let media = client.get(text(file, "url")).send().await.unwrap();
        assert_eq!(media.headers()["content-type"], text(file, "content_type"));
        assert!(media.bytes().await.unwrap().len() > 100);
    }
    let requests = sim.requests();
    assert_eq!(requests.len(), MODELS.len());
    assert!(
        requests
            .iter()
            .all(|one| one.counts.media == 1 && one.counts.media_with_key == 0)
    );
}

#[tokio::test]
async fn codes_while_waiting_and_both_spellings_of_the_address() {
    let sim = start(Settings {
        manual: true,
        ..Settings::default()
    })
    .await;
    let client = client();
    let body = accepted(&client, &sim, "codes").await;
    let id = text(&body, "request_id");
    for (code, phase) in [(202, "IN_QUEUE"), (202, "IN_PROGRESS"), (200, "COMPLETED")] {
        for prefix in [FLUX, "fal-ai/flux-pro"] {
            let url = format!("{}/{prefix}/requests/{id}/status", sim.base_url);
            let answer = get(&client, &url).await.unwrap();
            assert_eq!(answer.status(), code);
            assert_eq!(answer.json::<Value>().await.unwrap()["status"], phase);
        }
        let _ = match phase {
            "IN_QUEUE" => sim.start_job(&id),
            "IN_PROGRESS" => sim.finish_job(&id),
            _ => Ok(()),
        };
    }
    for wrong in ["fal-ai/veo3", "fal-ai", "fal-ai/flux-pro/v1.1"] {
        let url = format!("{}/{wrong}/requests/{id}/status", sim.base_url);
        assert_eq!(get(&client, &url).await.unwrap().status(), 404, "{wrong}");
    }
    let response_url = text(&body, "response_url");
    for suffix in ["", "/response"] {
        let url = format!("{response_url}{suffix}");
        assert_eq!(get(&client, &url).await.unwrap().status(), 200);
    }
    assert_eq!(client.get(&response_url).send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_cut_answer_hides_a_purchase_and_buying_again_is_noticed() {
    let sim = start(Settings::default()).await;
    let client = client();
    let prompt = "lost answer [sim:submit=accept_then_cut*1]";
    assert!(submit(&client, &sim, prompt).await.is_err());
    assert_eq!(sim.requests().len(), 1);
    assert_eq!(sim.bought_twice(), []);
    accepted(&client, &sim, prompt).await;
    let twice = sim.bought_twice();
    assert_eq!(twice.len(), 1);
    assert_eq!((twice[0].by, twice[0].request_ids.len()), ("prompt", 2));

    // The same by webhook URL, whatever the prompt.
    for prompt in ["one", "two"] {
        let query = "?fal_webhook=http%3A%2F%2F127.0.0.1%3A9%2Fattempt-1";
        let answer = submit_as(&client, &sim, query, &json!({ "prompt": prompt })).await;
        assert_eq!(answer.unwrap().status(), 200);
    }
    let twice = sim.bought_twice();
    let by: Vec<_> = twice.iter().map(|one| one.by).collect();
    assert_eq!(by, ["prompt", "webhook_url"]);
}

#[tokio::test]
async fn buying_again_after_a_free_failure_is_no_double_purchase() {
    let sim = start(Settings::default()).await;
    let client = client();
    sim.fault(Point::Job, Action::Fail("internal_server_error".into()), 1);
    accepted(&client, &sim, "again").await;
    all_completed(&sim).await;
    assert_eq!(sim.billed_milliunits(), 0);
    accepted(&client, &sim, "again").await;
    all_completed(&sim).await;
    assert_eq!(sim.bought_twice(), []);
    assert_eq!(sim.billed_milliunits(), 1000);
}

#[tokio::test]
async fn refused_submits_buy_nothing() {
    let sim = start(Settings::default()).await;
    let client = client();
    for (action, status) in [("500", 500), ("502", 502), ("429", 429)] {
        sim.fault(Point::Submit, action.parse().unwrap(), 1);
        assert_eq!(submit(&client, &sim, "refused").await.unwrap().status(), status);
    }
    sim.fault(Point::Submit, Action::Cut, 1);
    assert!(submit(&client, &sim, "refused").await.is_err());
    sim.change_settings(|settings| settings.balance_locked = true);
    let locked = submit(&client, &sim, "refused").await.unwrap();
    assert_eq!(locked.status(), 403);
    assert!(locked.text().await.unwrap().contains("Exhausted balance"));
    assert_eq!(submit(&client, &sim, "[sim:fial]").await.unwrap().status(), 400);
    assert_eq!(sim.requests().len(), 0);
    let answers: Vec<_> = sim.refusals().into_iter().map(|one| one.answer).collect();
    assert_eq!(answers, ["500", "502", "429", "cut", "403", "400"]);
}

#[tokio::test]
async fn hanging_answers_differ_in_whether_they_bought() {
    let sim = start(Settings::default()).await;
    let client = Client::builder()
        .no_proxy()
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    sim.fault(Point::Submit, Action::Hang, 1);
    assert!(submit(&client, &sim, "hangs").await.unwrap_err().is_timeout());
    assert_eq!(sim.requests().len(), 0);
    sim.fault(Point::Submit, Action::ThenHang, 1);
    assert!(submit(&client, &sim, "hangs").await.unwrap_err().is_timeout());
    assert_eq!(sim.requests().len(), 1);
}

#[tokio::test]
async fn refused_connections_come_back_on_the_same_port() {
    let sim = start(Settings::default()).await;
    let client = client();
    accepted(&client, &sim, "before").await;
    sim.refuse_connections().await;
    let error = submit(&client, &sim, "during").await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    sim.accept_connections().await;
    accepted(&client, &sim, "after").await;
    assert_eq!(sim.requests().len(), 2);
}

#[tokio::test]
async fn a_dropped_simulator_is_gone() {
    let sim = start(Settings::default()).await;
    let client = client();
    accepted(&client, &sim, "before").await;
    let url = format!("{}/_sim/requests", sim.base_url);
    drop(sim);
    let gone = async {
        while client.get(&url).send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn queue_length_and_start_deadline_are_kept() {
    let sim = start(Settings {
        manual: true,
        ..Settings::default()
    })
    .await;
    let client = client();
    let first = accepted(&client, &sim, "first").await;
    let second = accepted(&client, &sim, "second").await;
    assert_eq!(
        (&first["queue_position"], &second["queue_position"]),
        (&json!(0), &json!(1))
    );
    let query = "?fal_max_queue_length=1";
    let full = submit_as(&client, &sim, query, &json!({ "prompt": "third" }))
        .await
        .unwrap();
    assert_eq!(full.status(), 429);
    sim.start_job(&text(&first, "request_id")).unwrap();
    let status: Value = get(&client, &text(&second, "status_url"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(status["queue_position"], 0);
    let late = client
        .post(format!("{}/{FLUX}", sim.base_url))
        .header("authorization", "Key id:secret")
        .header("x-fal-request-timeout", "0.2")
        .json(&json!({ "prompt": "late" }))
        .send()
        .await
        .unwrap();
    let late: Value = late.json().await.unwrap();
    let requests = sim
        .wait_for(SOON, |requests| requests[2].phase == Phase::Completed)
        .await
        .unwrap();
    assert_eq!(requests[2].error_type.as_deref(), Some("request_timeout"));
    let result = get(&client, &text(&late, "response_url")).await.unwrap();
    assert_eq!(result.status(), 504);
    assert_eq!(result.headers()["x-fal-request-timeout-type"], "user");
}

#[tokio::test]
async fn damaged_answers_are_damaged() {
    let sim = start(Settings::default()).await;
    let client = client();
    let body = accepted(&client, &sim, "damaged").await;
    all_completed(&sim).await;
    let (status_url, response_url) = (text(&body, "status_url"), text(&body, "response_url"));

    sim.fault(Point::Status, Action::HalfBody, 1);
    let half = get(&client, &status_url).await.unwrap();
    assert_eq!(half.status(), 200);
    assert!(half.bytes().await.is_err());

    sim.fault(Point::Status, Action::Garbage, 1);
    let garbage = get(&client, &status_url).await.unwrap();
    assert_eq!(garbage.headers()["content-type"], "application/json");
    assert!(garbage.json::<Value>().await.is_err());

    sim.fault(Point::Result, Action::WrongContentType, 1);
    let page = get(&client, &response_url).await.unwrap();
    assert!(
        page.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );

    sim.add_rule(
        Rule::new(Point::Result, Action::Status(500))
            .times(2)
            .skip(1)
            .prompt("damaged"),
    );
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(get(&client, &response_url).await.unwrap().status().as_u16());
    }
    assert_eq!(codes, [200, 500, 500, 200]);
    let counts = &sim.requests()[0].counts;
    assert_eq!((counts.status, counts.result), (2, 5));
}

#[tokio::test]
async fn media_can_be_missing_short_slow_and_endless() {
    let sim = start(Settings::default()).await;
    let client = client();
    let body = accepted(&client, &sim, "media").await;
    all_completed(&sim).await;
    let result: Value = get(&client, &text(&body, "response_url"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let url = text(&result["images"][0], "url");
    let whole = client.get(&url).send().await.unwrap().bytes().await.unwrap();

    sim.fault(Point::Media, Action::Status(404), 1);
    assert_eq!(client.get(&url).send().await.unwrap().status(), 404);
    sim.fault(Point::Media, Action::HalfBody, 1);
    assert!(client.get(&url).send().await.unwrap().bytes().await.is_err());
    sim.fault(Point::Media, Action::Oversized(5_000_000), 1);
    let endless = client.get(&url).send().await.unwrap();
    assert_eq!(endless.content_length(), None);
    assert_eq!(endless.bytes().await.unwrap().len(), 5_000_000);
    sim.fault(Point::Media, Action::Slow(20), 1);
    let begun = std::time::Instant::now();
    assert_eq!(client.get(&url).send().await.unwrap().bytes().await.unwrap(), whole);
    assert!(begun.elapsed() >= Duration::from_millis(20) * u32::try_from(whole.len().div_ceil(1024)).unwrap());
}

#[tokio::test]
async fn jobs_end_as_told() {
    let sim = start(Settings::default()).await;
    let client = client();
    for (word, status, error_type) in [
        ("fail", 500, "internal_server_error"),
        ("policy", 422, "content_policy_violation"),
        ("error:runner_disconnected", 503, "runner_disconnected"),
        ("error:generation_timeout", 504, "generation_timeout"),
    ] {
        let body = accepted(&client, &sim, &format!("ends [sim:{word}]")).await;
        all_completed(&sim).await;
        let told: Value = get(&client, &text(&body, "status_url"))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(told["error_type"], error_type);
        sim.change_settings(|settings| settings.hide_errors = true);
        let silent: Value = get(&client, &text(&body, "status_url"))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert!(silent.get("error").is_none() && silent.get("error_type").is_none());
        sim.change_settings(|settings| settings.hide_errors = false);
        let result = get(&client, &text(&body, "response_url")).await.unwrap();
        assert_eq!(result.status(), status);
        assert_eq!(result.headers()["x-fal-billable-units"], "0");
    }
    let input = json!({ "prompt": "fewer [sim:fewer]", "num_images": 3 });
    let body: Value = submit_as(&client, &sim, "", &input)
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    all_completed(&sim).await;
    let result = get(&client, &text(&body, "response_url")).await.unwrap();
    assert_eq!(result.headers()["x-fal-billable-units"], "2");
    let result: Value = result.json().await.unwrap();
    assert_eq!(result["images"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_cancel_can_come_too_late() {
    let settings = Settings {
        manual: true,
        ignore_cancel: true,
        ..Settings::default()
    };
    let sim = start(settings).await;
    let client = client();
    let body = accepted(&client, &sim, "cancel").await;
    let id = text(&body, "request_id");
    sim.start_job(&id).unwrap();
    let cancel = || {
        let request = client.put(text(&body, "cancel_url"));
        request.header("authorization", "Bearer t").send()
    };
    assert_eq!(cancel().await.unwrap().status(), 202);
    assert_eq!(sim.request(&id).unwrap().phase, Phase::InProgress);
    sim.finish_job(&id).unwrap();
    assert_eq!(cancel().await.unwrap().status(), 400);
    assert_eq!(sim.billed_milliunits(), 1000);
    assert_eq!(sim.request(&id).unwrap().counts.cancel, 2);
}

#[tokio::test]
async fn control_over_http_does_what_the_handle_does() {
    let sim = start(Settings::default()).await;
    let client = client();
    let faults = format!("{}/_sim/faults", sim.base_url);
    let change = json!({
        "rules": [{ "at": "submit", "action": "accept_then_502", "times": 1 }],
        "settings": { "run_ms": 1, "queue_ms": 1 },
    });
    let answer = client.post(&faults).json(&change).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(submit(&client, &sim, "over http").await.unwrap().status(), 502);
    accepted(&client, &sim, "over http").await;
    let url = format!("{}/_sim/requests", sim.base_url);
    let told: Value = client.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(told["requests"].as_array().unwrap().len(), 2);
    assert_eq!(told["bought_twice"][0]["by"], "prompt");
    for wrong in [
        json!({ "rules": [{ "at": "submit", "action": "explode" }] }),
        json!({ "settings": { "run_seconds": 1 } }),
        json!({ "rule": [] }),
    ] {
        let answer = client.post(&faults).json(&wrong).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{wrong}");
    }
    let refuse = json!({ "refuse_for_ms": 100 });
    assert_eq!(client.post(&faults).json(&refuse).send().await.unwrap().status(), 200);
    let mut refused = false;
    // First it still answers, then it refuses, then it answers again.
    loop {
        match client.get(&faults).send().await {
            Err(error) => refused |= error.is_connect(),
            Ok(_) if refused => break,
            Ok(_) => {}
        }
    }
    assert_eq!(client.delete(&faults).send().await.unwrap().status(), 200);
    assert!(sim.rules().is_empty());
}
