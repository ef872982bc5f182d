//! FAL misbehaves: every failure ends in a refund, a delivery, or an honest "unknown", and nothing is bought twice.

use std::time::Duration;

use serde_json::json;
use tests::fal_sim::{Action, FalSim, Options as SimOptions, Point, Settings};
use tests::harness::{Client, FAL_KEY, Options, SOON, Server};

use crate::fal::{shop, simulator};

const MODEL: &str = "fal-ai/imagen4/preview/ultra";

/// Longer than usual: retries have pauses.
const PATIENT: Duration = Duration::from_secs(45);

async fn fails_with(ada: &Client, prompt: &str, code: &str) {
    let before = ada.balance().await;
    let id = ada.submit(MODEL, prompt, json!({})).await;
    let failed = ada.wait_long(&id, PATIENT).await;
    assert_eq!(failed["status"], "failed", "{prompt}: {failed}");
    assert_eq!(failed["metadata"]["error_code"], code, "{prompt}: {failed}");
    let said = failed["error"].as_str().unwrap();
    assert!(
        !said.is_empty() && !said.contains("http") && !said.contains("sim"),
        "{said}"
    );
    assert_eq!(ada.balance().await, before, "{prompt}");
}

async fn completes(ada: &Client, prompt: &str) {
    let before = ada.balance().await;
    let id = ada.submit(MODEL, prompt, json!({})).await;
    let done = ada.wait_long(&id, PATIENT).await;
    assert_eq!(done["status"], "completed", "{prompt}: {done}");
    assert_eq!(ada.balance().await, before - 45, "{prompt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_at_fal_are_refunded_and_explained() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    for (prompt, code) in [
        ("policy [sim:policy]", "content_policy_violation"),
        ("failure [sim:fail]", "internal_server_error"),
        ("runner [sim:runner]", "runner_server_error"),
        ("timeout [sim:error:generation_timeout]", "generation_timeout"),
    ] {
        fails_with(&ada, prompt, code).await;
    }
    // FAL's status says nothing, only the result does.
    sim.change_settings(|settings| settings.hide_errors = true);
    fails_with(&ada, "hidden policy [sim:policy]", "content_policy_violation").await;
    fails_with(&ada, "hidden failure [sim:fail]", "internal_server_error").await;
    assert_eq!(ada.balance().await, 10_000);
    assert_eq!(sim.bought_twice(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_on_the_way_is_waited_out_without_buying_again() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    let prompts = [
        "a [sim:status=503*2]",
        "b [sim:status=cut*2]",
        "c [sim:status=garbage*1]",
        "d [sim:status=wrong_type*1]",
        "e [sim:status=half*1]",
        "f [sim:result=500*2]",
        "g [sim:result=cut*1]",
        "h [sim:result=half*1]",
        "i [sim:result=garbage*1]",
        "j [sim:media=503*1]",
        "k [sim:media=cut*1]",
        "l [sim:media=half*1]",
        "m [sim:status=429*1]",
        "n [sim:media=slow:5]",
    ];
    let submits = prompts.map(|prompt| completes_alone(&ada, prompt));
    futures_util::future::join_all(submits).await;
    assert_eq!(ada.balance().await, 10_000 - 45 * prompts.len() as i64);
    assert_eq!(sim.bought_twice(), []);
    assert_eq!(sim.requests().len(), prompts.len());
}

async fn completes_alone(ada: &Client, prompt: &str) {
    let id = ada.submit(MODEL, prompt, json!({})).await;
    let done = ada.wait_long(&id, Duration::from_secs(55)).await;
    assert_eq!(done["status"], "completed", "{prompt}: {done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_submit_bought_nothing_and_is_tried_again_or_refunded() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    completes(&ada, "busy [sim:submit=429*2]").await;
    assert_eq!(sim.requests().len(), 1);

    sim.change_settings(|settings| settings.balance_locked = true);
    fails_with(&ada, "locked", "account_locked").await;
    sim.change_settings(|settings| {
        settings.balance_locked = false;
        settings.required_key = Some("another:key".into());
    });
    let before = ada.balance().await;
    let id = ada.submit(MODEL, "wrong key", json!({})).await;
    let failed = ada.wait_for(&id, "failed").await;
    assert!(!failed.to_string().contains(FAL_KEY), "{failed}");
    assert_eq!(ada.balance().await, before);
    assert_eq!(sim.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_cannot_be_reached_is_tried_again() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    sim.refuse_connections().await;
    let id = ada.submit(MODEL, "patience", json!({})).await;
    ada.wait_for(&id, "processing").await;
    sim.accept_connections().await;
    assert_eq!(ada.wait_long(&id, PATIENT).await["status"], "completed");
    assert_eq!(ada.balance().await, 10_000 - 45);
    assert_eq!(sim.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_addresses_are_refused_unless_allowed() {
    let sim = simulator().await;
    let server = Server::with(Options::new().fal(&sim).env("UPSTREAM_ALLOW_PRIVATE", "false")).await;
    let ada = server.register("ada").await;
    ada.try_submit(MODEL, "x", json!({}))
        .await
        .problem(422, "model_unavailable");
    assert_eq!(ada.statement().await, ["bonus +1000"]);
    assert_eq!((sim.requests().len(), sim.refusals().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_too_large_is_not_charged() {
    let sim = simulator().await;
    let server = Server::with(Options::new().fal(&sim).env("VELRO_MAX_OUTPUT_BYTES", "100000")).await;
    let ada = server.register("ada").await;
    let id = ada.submit(MODEL, "huge [sim:media=oversized:300000]", json!({})).await;
    let failed = ada.wait_for(&id, "failed").await;
    assert_eq!(failed["metadata"]["error_code"], "output_lost", "{failed}");
    assert_eq!(ada.balance().await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_never_ends_is_stopped_at_the_deadline() {
    let sim = simulator().await;
    let options = Options::new().fal(&sim).edit_model(MODEL, |model| {
        model.insert("deadline_ms".into(), 2_000.into());
        model.insert("typical_ms".into(), 500.into());
    });
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    let id = ada.submit(MODEL, "never [sim:never]", json!({})).await;
    let failed = ada.wait_long(&id, PATIENT).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(ada.balance().await, 1000);
    let request = &sim.requests()[0];
    assert!(request.counts.cancel >= 1, "FAL was asked to stop");
    assert_eq!(request.billed_milliunits, 0);
}

/// What the operator is shown of open cases.
fn unknown(server: &Server) -> String {
    server.velro(&["generations", "resolve"]).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_submit_stays_unknown_and_held_until_it_is_resolved() {
    let sim = simulator().await;
    let mut server = Server::with(Options::new().fal(&sim)).await;
    let ada = server.register("ada").await;
    let mut ids = Vec::new();
    for (number, action) in [Action::ThenCut, Action::ThenStatus(503), Action::Cut]
        .into_iter()
        .enumerate()
    {
        sim.fault(Point::Submit, action, 1);
        let id = ada.submit(MODEL, &format!("ambiguous {number}"), json!({})).await;
        tests::harness::eventually("the operator is told", SOON, || async {
            unknown(&server).contains(&id).then_some(())
        })
        .await;
        ids.push(id);
    }
    // Held, not charged, not refunded, not bought again; also after a restart.
    server.kill9();
    server.restart().await;
    for id in &ids {
        assert_eq!(ada.status(id).await["status"], "processing");
        assert!(unknown(&server).contains(id.as_str()));
    }
    assert_eq!(ada.balance().await, 1000 - 3 * 45);
    assert_eq!(server.verify_ledger().unwrap(), 3);
    assert_eq!(sim.requests().len(), 2, "accepted twice, cut before acceptance once");
    // The wish to cancel does not turn it into a refund by itself.
    assert_eq!(ada.cancel(&ids[1]).await.ok()["cancelled"], false);
    assert_eq!(ada.status(&ids[1]).await["status"], "processing");

    // Delivered after all: the operator found it at FAL.
    let request = sim.requests()[0].clone();
    let result = server
        .anonymous()
        .request(reqwest::Method::GET, &result_url(&sim, &request.request_id));
    let result = server
        .anonymous()
        .send(result.header("Authorization", format!("Key {FAL_KEY}")))
        .await
        .ok();
    let url = result["images"][0]["url"].as_str().unwrap().to_owned();
    server
        .velro(&["generations", "resolve", &ids[0], "--deliver", &url])
        .ok();
    ada.wait_for(&ids[0], "completed").await;
    // Accepted but worthless: refunded.
    server
        .velro(&[
            "generations",
            "resolve",
            &ids[1],
            "--refund",
            "--reason",
            "no result at FAL",
        ])
        .ok();
    ada.wait_for(&ids[1], "failed").await;
    // Never accepted: tried again, and this time it works.
    server.velro(&["generations", "resolve", &ids[2], "--retry"]).ok();
    assert_eq!(ada.wait_long(&ids[2], PATIENT).await["status"], "completed");
    assert_eq!(ada.balance().await, 1000 - 2 * 45);
    for id in &ids {
        server.velro(&["generations", "resolve", id, "--refund"]).fails();
    }
    assert_eq!(ada.balance().await, 1000 - 2 * 45, "a case is settled once");
}

/// Where FAL answers the result of an image request.
fn result_url(sim: &FalSim, request_id: &str) -> String {
    format!("{}/fal-ai/imagen4/requests/{request_id}", sim.base_url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_that_never_answers_becomes_unknown_and_is_not_sent_again() {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let options = Options::new().fal(&sim).open_holds(0).edit_registry(|registry| {
        let fal = registry["providers"]["fal"].as_table_mut().unwrap();
        fal.insert("timeout_ms".into(), 1_000.into());
    });
    let server = Server::with(options).await;
    let ada = server.register("ada").await;
    sim.fault(Point::Submit, Action::ThenHang, 1);
    let id = ada.submit(MODEL, "hangs", json!({})).await;
    tests::harness::eventually("the operator is told", PATIENT, || async {
        unknown(&server).contains(&id).then_some(())
    })
    .await;
    assert_eq!(sim.requests().len(), 1);
    server.velro(&["generations", "resolve", &id, "--refund"]).ok();
    ada.wait_for(&id, "failed").await;
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -45", "refund +45"]);
}
