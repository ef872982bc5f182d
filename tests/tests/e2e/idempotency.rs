//! `Idempotency-Key` on submit: once, whatever the network does.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tests::harness::{Server, id_of, race};

fn body(prompt: &str) -> Value {
    json!({"model_id": "sandbox/image", "prompt": prompt, "parameters": {"latency_ms": 0, "image_size": "square"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_buys_once() {
    let server = Server::start().await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let first = ada.submit_with_key(&body("x"), "key-1").await;
    assert_eq!(first.header("idempotent-replayed"), "");
    let id = id_of(&first.ok());
    ada.wait_for(&id, "completed").await;
    // Again, with quotes as the draft standard writes it, and with the members in another order.
    let reordered = r#"{"parameters":{"image_size":"square","latency_ms":0},"prompt":"x","model_id":"sandbox/image"}"#;
    for (key, text) in [
        ("key-1", body("x").to_string()),
        ("\"key-1\"", body("x").to_string()),
        ("key-1", reordered.into()),
    ] {
        let request = ada.request(Method::POST, tests::harness::SUBMIT);
        let request = request
            .header("Idempotency-Key", key)
            .header("Content-Type", "application/json")
            .body(text);
        let again = ada.send(request).await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        let again = again.ok();
        assert_eq!((id_of(&again), &again["status"]), (id.clone(), &json!("completed")));
    }
    // The synchronous route is the same intake.
    let request = ada.request(Method::POST, "/api/v1/generations").json(&body("x"));
    let synchronous = ada.send(request.header("Idempotency-Key", "key-1")).await.ok();
    assert_eq!(synchronous["id"], id.as_str());

    let other = ada.submit_with_key(&body("y"), "key-1").await;
    other.problem(422, "idempotency_key_reused");
    let foreign = bob.submit_with_key(&body("x"), "key-1").await.ok();
    assert_ne!(id_of(&foreign), id, "keys belong to accounts");
    bob.wait_for(&id_of(&foreign), "completed").await;
    for bad in ["", "\"\"", &"k".repeat(256), "\u{e9}"] {
        let request = ada.request(Method::POST, tests::harness::SUBMIT).json(&body("x"));
        let header = reqwest::header::HeaderValue::from_bytes(bad.as_bytes()).unwrap();
        ada.send(request.header("Idempotency-Key", header))
            .await
            .invalid("header.idempotency-key");
    }
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5"]);
    assert_eq!(ada.generations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_at_once_with_one_key_are_one_generation() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let same = body("x");
    let answers = race(20, |_| ada.submit_with_key(&same, "one")).await;
    let ids: BTreeSet<String> = answers.into_iter().map(|answer| id_of(&answer.ok())).collect();
    assert_eq!(ids.len(), 1);
    ada.wait_for(ids.first().unwrap(), "completed").await;
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5"]);

    // Twenty that differ: one wins, nineteen are told.
    let answers = race(20, |i| {
        let ada = &ada;
        async move { ada.submit_with_key(&body(&format!("{i}")), "two").await }
    })
    .await;
    let won: Vec<_> = answers.iter().filter(|a| a.status == 200).collect();
    assert_eq!(won.len(), 1);
    ada.wait_for(&id_of(&won[0].json()), "completed").await;
    for lost in answers.iter().filter(|a| a.status != 200) {
        lost.clone().problem(422, "idempotency_key_reused");
    }
    assert_eq!(ada.balance().await, 990);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_a_crash_and_refusals_do_not_use_them_up() {
    let mut server = Server::start().await;
    let ada = server.register("ada").await;
    let mut refused = body("x");
    refused["parameters"]["num_images"] = json!(9);
    ada.submit_with_key(&refused, "key").await.expect(422);
    let id = id_of(&ada.submit_with_key(&body("x"), "key").await.ok());
    server.kill9();
    server.restart().await;
    assert_eq!(id_of(&ada.submit_with_key(&body("x"), "key").await.ok()), id);
    ada.wait_for(&id, "completed").await;
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5"]);
}
