//! Bad input gets a problem document that names the field, and changes nothing.

use reqwest::Method;
use serde_json::{Value, json};
use tests::harness::{Client, SUBMIT, Server, announce, fields};

/// A submit that is good but for one change.
fn call(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({"model_id": "sandbox/image", "prompt": "x", "parameters": {"latency_ms": 0}});
    change(&mut body);
    body
}

fn parameter(name: &str, value: Value) -> Value {
    call(|body| body["parameters"][name] = value)
}

async fn raw(client: &Client, content_type: &str, body: impl Into<reqwest::Body>) -> tests::harness::Reply {
    let request = client.request(Method::POST, SUBMIT);
    client
        .send(request.header("Content-Type", content_type).body(body))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_call_names_its_field_and_changes_nothing() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let remove = |name: &'static str| call(|body| drop(body.as_object_mut().unwrap().remove(name)));
    let table: Vec<(Value, u16, &str, &str)> = vec![
        (remove("model_id"), 422, "validation_failed", "body.model_id"),
        (remove("prompt"), 422, "validation_failed", "body.prompt"),
        (
            call(|b| b["model_id"] = json!(7)),
            422,
            "validation_failed",
            "body.model_id",
        ),
        (
            call(|b| b["model_id"] = json!(null)),
            422,
            "validation_failed",
            "body.model_id",
        ),
        (
            call(|b| b["model_id"] = json!("flux-dev")),
            422,
            "unknown_model",
            "body.model_id",
        ),
        (
            call(|b| b["model_id"] = json!("")),
            422,
            "unknown_model",
            "body.model_id",
        ),
        (
            call(|b| b["prompt"] = json!(["x"])),
            422,
            "validation_failed",
            "body.prompt",
        ),
        (
            call(|b| b["prompt"] = json!("")),
            422,
            "validation_failed",
            "body.prompt",
        ),
        (
            call(|b| b["prompt"] = json!(" \n\t ")),
            422,
            "validation_failed",
            "body.prompt",
        ),
        (
            call(|b| b["prompt"] = json!("x".repeat(2001))),
            422,
            "validation_failed",
            "body.prompt",
        ),
        (
            call(|b| b["prompt"] = json!("a\u{0}b")),
            422,
            "validation_failed",
            "body.prompt",
        ),
        (
            call(|b| b["parameters"] = json!([])),
            422,
            "validation_failed",
            "body.parameters",
        ),
        (
            call(|b| b["parameters"] = json!("{}")),
            422,
            "validation_failed",
            "body.parameters",
        ),
        (
            call(|b| b["negative_prompt"] = json!("ugly")),
            422,
            "validation_failed",
            "body.negative_prompt",
        ),
        (
            call(|b| b["reference_image_url"] = json!("https://example.com/a.png")),
            422,
            "validation_failed",
            "body.reference_image_url",
        ),
        (
            call(|b| b["project_id"] = json!("x")),
            422,
            "validation_failed",
            "body.project_id",
        ),
        (
            parameter("num_images", json!(0)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!(99)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!(-1)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!(1.5)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!("2")),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!(1e300)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!(i64::MAX)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!(u64::MAX)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("num_images", json!(true)),
            422,
            "validation_failed",
            "body.parameters.num_images",
        ),
        (
            parameter("image_size", json!("huge")),
            422,
            "validation_failed",
            "body.parameters.image_size",
        ),
        (
            parameter("image_size", json!({"width": 1})),
            422,
            "validation_failed",
            "body.parameters.image_size",
        ),
        (
            parameter("latency_ms", json!(600_001)),
            422,
            "validation_failed",
            "body.parameters.latency_ms",
        ),
        (
            parameter("outcome", json!("explode")),
            422,
            "validation_failed",
            "body.parameters.outcome",
        ),
        (
            parameter("seed", json!(-1)),
            422,
            "validation_failed",
            "body.parameters.seed",
        ),
        (json!([]), 422, "validation_failed", ""),
        (json!("text"), 422, "validation_failed", ""),
        (json!(null), 422, "validation_failed", ""),
    ];
    for (body, status, code, field) in table {
        let problem = ada.post(SUBMIT, &body).await.problem(status, code);
        if !field.is_empty() {
            let named = fields(&problem);
            assert!(
                named.iter().any(|name| name == field),
                "{field} is not in {named:?} for {body}"
            );
        }
        for inside in ["serde", "sqlx", "panicked", "src/"] {
            assert!(!problem.to_string().contains(inside), "{problem}");
        }
    }
    // The message teaches: the rule and the allowed values.
    let size = ada
        .post(SUBMIT, &parameter("image_size", json!("huge")))
        .await
        .invalid("body.parameters.image_size");
    assert!(size["detail"].as_str().unwrap().contains("landscape_4_3"), "{size}");
    let unknown = ada.post(SUBMIT, &call(|b| b["model_id"] = json!("flux-dev"))).await;
    let unknown = unknown.problem(422, "unknown_model");
    assert!(
        unknown["detail"].as_str().unwrap().contains("sandbox/image"),
        "{unknown}"
    );
    // Several faults are told at once.
    let two = json!({"model_id": "sandbox/image", "prompt": "x", "parameters": {"num_images": 9, "outcome": "x"}});
    let two = ada.post(SUBMIT, &two).await.invalid("body.parameters.outcome");
    assert_eq!(two["errors"].as_array().unwrap().len(), 2, "{two}");

    assert_eq!(ada.statement().await, ["bonus +1000"]);
    assert_eq!(ada.generations().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_bodies_are_told_from_wrong_ones() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    for broken in ["", "{", "{\"model_id\":", "nonsense", "{}{}", "\u{feff}{}", "{'a': 1}"] {
        raw(&ada, "application/json", broken).await.problem(400, "bad_request");
    }
    raw(&ada, "application/json", vec![b'{', b'"', 0xff, b'"', b':', b'1', b'}'])
        .await
        .problem(400, "bad_request");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    raw(&ada, "application/json", deep).await.problem(400, "bad_request");
    for kind in [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "nonsense",
    ] {
        raw(&ada, kind, "{}").await.problem(415, "unsupported_media_type");
    }
    // A little too much arrives whole before the refusal; a lot is refused when it is announced.
    let big = format!("{{\"prompt\": \"{}\"}}", "x".repeat(1 << 20));
    raw(&ada, "application/json", big)
        .await
        .problem(413, "payload_too_large");
    assert_eq!(announce(&ada, SUBMIT, "application/json", 1 << 40).await, 413);
    // Where a charset or a vendor's type stands, JSON is still JSON.
    let good = json!({"model_id": "sandbox/image", "prompt": "x", "parameters": {"latency_ms": 0}}).to_string();
    for kind in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
    ] {
        let id = tests::harness::id_of(&raw(&ada, kind, good.clone()).await.ok());
        ada.wait_for(&id, "completed").await;
    }
    assert_eq!(ada.generations().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_parameters_are_dropped_and_named() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let parameters = json!({"latency_ms": 0, "image_size": "square", "duration": 5.0, "fps": 25});
    let answer = ada.try_submit("sandbox/image", "x", parameters).await.ok();
    assert_eq!(answer["metadata"]["dropped_parameters"], json!(["duration", "fps"]));
    let id = tests::harness::id_of(&answer);
    let done = ada.wait_for(&id, "completed").await;
    assert_eq!(done["metadata"]["dropped_parameters"], json!(["duration", "fps"]));
    let detail = ada.get(&format!("/api/v1/generations/{id}")).await.ok();
    assert!(detail["parameters"].get("fps").is_none(), "{detail}");
    assert_eq!(detail["parameters"]["num_images"], 1, "defaults are filled in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_refuse_limits_out_of_range() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    for (path, field) in [
        ("/api/v1/generations?limit=0", "query.limit"),
        ("/api/v1/generations?limit=101", "query.limit"),
        ("/api/v1/generations?limit=ten", "query.limit"),
        ("/api/v1/generations?skip=-1", "query.skip"),
        ("/api/v1/generations?skip=99999999999999999999", "query.skip"),
        ("/api/v1/generations?project_id=x", "query.project_id"),
        ("/api/v1/projects?limit=101", "query.limit"),
        ("/api/v1/projects?skip=-1", "query.skip"),
        ("/api/v1/generations/async/user/history?limit=-1", "query.limit"),
        ("/api/v1/models?available_only=maybe", "query.available_only"),
    ] {
        ada.get(path).await.invalid(field);
    }
}
