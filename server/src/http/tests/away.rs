//! The database is away, or does not answer: every operation of the document says so at once, and nothing is half-done.

use salvo::http::Method;
use salvo::test::{RequestBuilder, TestClient};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::generations::{picture, stocked};
use super::{House, PASSWORD, house_over, house_with, url};
use crate::http::openapi;
use crate::store::wrapped::{Manner, Prompt, Wrapped};
use crate::store::{Result, StoreError};

/// How a database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Refuses,
    SaysNothing,
}

/// A switch between a store and whoever uses it.
struct Line {
    cut: AtomicBool,
    how: Away,
}

impl Manner for Line {
    async fn make<T: Send>(&self, method: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match (self.cut.load(SeqCst), self.how) {
            (false, _) => call.await,
            (true, Away::Refuses) => Err(StoreError::Unavailable(anyhow::anyhow!("{method}: connection refused"))),
            (true, Away::SaysNothing) => std::future::pending().await,
        }
    }
}

/// Operations that are answered without the store, and with what.
const WITHOUT_STORE: &[(&str, u16)] = &[
    ("get /", 200),
    ("get /__health", 200),
    ("get /__version", 200),
    ("get /health", 200),
    ("get /metrics", 200),
    ("get /docs", 200),
    ("get /redoc", 302),
    ("get /openapi.json", 200),
    ("get /api/v1/health/config", 200),
    ("get /api/v1/user/info", 200),
    ("post /api/v1/auth/stream-token", 200),
    ("get /api/v1/credits/_ping", 200),
    ("get /api/v1/credits/packages", 200),
    ("get /api/v1/credits/checkout-result", 200),
    ("get /api/v1/projects/_ping", 200),
    ("get /api/v1/models", 200),
    ("get /api/v1/models/supported", 200),
    ("get /api/v1/models/{model_id}", 200),
    ("get /api/v1/models/{model_id}/pricing", 200),
    ("get /api/v1/generations/models/supported", 200),
    ("get /generations/models/supported", 200),
    ("get /api/v1/generations/async/models/available", 200),
    ("post /api/v1/generations/quote", 200),
    ("post /generations/quote", 200),
    // Signatures are looked at first.
    ("get /outputs/{key}", 403),
    ("post /webhooks/{provider}/{attempt_id}", 401),
    ("get /api/v1/credits/sandbox-checkout/{order_id}", 403),
    ("post /api/v1/credits/sandbox-checkout/{order_id}", 403),
    // Nobody takes webhooks without a secret.
    ("post /api/v1/webhooks/stripe", 404),
];

/// What an operation needs to get as far as the store.
fn body(operation: &str, refresh_token: &Value) -> Value {
    match operation {
        "post /api/v1/auth/register" => json!({"email": "new@example.com", "password": PASSWORD}),
        "post /api/v1/auth/login" => json!({"email": "a@example.com", "password": PASSWORD}),
        "post /api/v1/auth/refresh" => json!({"refresh_token": refresh_token}),
        "post /api/v1/projects" | "put /api/v1/projects/{project_id}" => json!({"name": "x"}),
        "post /api/v1/credits/purchase" => json!({"package_id": "starter"}),
        "post /api/v1/auth/change-password" => {
            json!({"current_password": PASSWORD, "new_password": "another password"})
        }
        "delete /api/v1/user/account" => json!({"confirm": "a@example.com", "password": PASSWORD}),
        "post /api/v1/keys" | "patch /api/v1/keys/{key_id}" => json!({"name": "x"}),
        "post /api/v1/credits/redeem" => json!({"code": "WELCOME-2027"}),
        "put /api/v1/user/profile" => json!({"display_name": "x"}),
        "post /webhooks/{provider}/{attempt_id}" => json!({}),
        operation if operation.starts_with("post") && operation.ends_with("generations") => picture(),
        operation if operation.ends_with("/submit") || operation.ends_with("/quote") => picture(),
        _ => Value::Null,
    }
}

/// What the owner sees of everything.
async fn snapshot(house: &House, token: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    for path in [
        "/api/v1/credits/transactions",
        "/api/v1/credits/balance",
        "/api/v1/projects",
        "/api/v1/user/profile",
        "/api/v1/generations",
    ] {
        seen.push(house.get(path, token).await.ok());
    }
    seen
}

#[tokio::test]
async fn every_operation_says_at_once_that_the_database_is_away_and_does_nothing_by_half() {
    for how in [Away::Refuses, Away::SaysNothing] {
        let line = Arc::new(Line {
            cut: AtomicBool::new(false),
            how,
        });
        let cut = Arc::clone(&line);
        let house = house_over(&[], move |store| {
            // What is right for a test is a fiftieth of what is right for a person.
            let prompt = Arc::new(Prompt(Duration::from_millis(100)));
            Arc::new(Wrapped::new(Arc::new(Wrapped::new(store, cut)), prompt))
        });
        let house = stocked(house.await);
        let session = house.join("a@example.com").await;
        let token = session["access_token"].as_str().unwrap();
        let generation = house.submit(token, &picture()).await["generation_id"].clone();
        let project = TestClient::post(url("/api/v1/projects")).bearer_auth(token);
        let project = house.send(project.json(&json!({"name": "mine"}))).await.ok()["id"].clone();
        let before = snapshot(&house, token).await;

        line.cut.store(true, SeqCst);
        let document = serde_json::to_value(openapi::document()).unwrap();
        let (mut without_store, mut faults) = (Vec::<(&str, u16)>::new(), Vec::<String>::new());
        for (template, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let operation = format!("{method} {template}");
                let path = template
                    .replace("{generation_id}", generation.as_str().unwrap())
                    .replace("{project_id}", project.as_str().unwrap())
                    .replace("{model_id}", "sandbox/image")
                    .replace("{provider}", "fal")
                    .replace("{attempt_id}", generation.as_str().unwrap())
                    .replace("{order_id}", generation.as_str().unwrap())
                    .replace("{key_id}", generation.as_str().unwrap())
                    .replace("{session_id}", generation.as_str().unwrap())
                    .replace("{key}", "nobody/0.png")
                    .replace("check-email", "check-email?email=b@example.com");
                let method = method.to_uppercase().parse::<Method>().unwrap();
                let mut request = RequestBuilder::new(url(&path), method).bearer_auth(token);
                let body = body(&operation, &session["refresh_token"]);
                if !body.is_null() {
                    request = request.json(&body);
                }
                let asked_at = Instant::now();
                let answer = house.send(request).await;
                let waited = asked_at.elapsed();
                let known = WITHOUT_STORE.iter().find(|(known, _)| *known == operation);
                let expected = known.map_or(503, |(_, status)| *status);
                let retry_after = answer.header("retry-after").parse::<u64>();
                let is_right = answer.status.as_u16() == expected
                    && waited < Duration::from_secs(3)
                    && (expected != 503 || retry_after.is_ok_and(|s| (1..=60).contains(&s)));
                if !is_right {
                    let status = answer.status.as_u16();
                    faults.push(format!("{operation}: {status} after {waited:?}: {}", answer.text));
                } else if expected == 503 {
                    answer.problem(503, "service_unavailable");
                }
                without_store.extend(known);
            }
        }
        assert!(faults.is_empty(), "{how:?}\n{}", faults.join("\n"));
        assert_eq!(without_store.len(), WITHOUT_STORE.len(), "{without_store:?}");

        line.cut.store(false, SeqCst);
        assert_eq!(snapshot(&house, token).await, before, "{how:?}");
        let nobody = house.services.store.user_by_email("new@example.com").await.unwrap();
        assert!(nobody.is_none(), "{how:?}");
        let refresh = json!({"refresh_token": session["refresh_token"]});
        house.post("/api/v1/auth/refresh", refresh).await.ok();
    }
}

#[tokio::test]
async fn a_login_that_the_database_could_not_check_is_not_counted_as_a_guess() {
    let line = Arc::new(Line {
        cut: AtomicBool::new(false),
        how: Away::Refuses,
    });
    let cut = Arc::clone(&line);
    let house = house_over(&[("RATE_LIMIT_ENABLED", "true")], move |store| {
        Arc::new(Wrapped::new(store, cut))
    });
    let house = house.await;
    house.join("a@example.com").await;
    line.cut.store(true, SeqCst);
    // More than the five guesses a minute that an account allows.
    for _ in 0..6 {
        let body = json!({"email": "a@example.com", "password": PASSWORD});
        house
            .post("/api/v1/auth/login", body)
            .await
            .problem(503, "service_unavailable");
    }
}

/// Holds calls, once it is shut, until it is opened.
#[derive(Default)]
struct Gate {
    shut: AtomicBool,
    reached: Notify,
    opened: Notify,
}

impl Manner for Gate {
    async fn make<T: Send>(&self, _: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if self.shut.load(SeqCst) {
            self.reached.notify_one();
            self.opened.notified().await;
        }
        call.await
    }
}

#[tokio::test]
async fn a_drain_is_told_at_once_while_requests_in_flight_finish() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let house = house_over(&[], move |store| Arc::new(Wrapped::new(store, held))).await;
    let token = house.token("a@example.com").await;
    gate.shut.store(true, SeqCst);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(crate::http::serve(listener, Arc::clone(&house.services)));
    let mut in_flight = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/v1/credits/balance HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    in_flight.write_all(request.as_bytes()).await.unwrap();
    gate.reached.notified().await;

    house.services.shutdown.cancel();
    let said = house.get("/health/ready", "").await.problem(503, "service_unavailable");
    assert!(said["detail"].as_str().unwrap().contains("draining"), "{said}");
    assert!(!serving.is_finished());
    gate.opened.notify_one();
    let mut answer = String::new();
    in_flight.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_answers_probes_and_nothing_else() {
    let postgres = "postgres://nobody@localhost/nothing";
    let house = house_with(&[("VELRO_ROLE", "worker"), ("DATABASE_URL", postgres)]).await;
    let house = stocked(house);
    for path in ["/health", "/health/ready", "/metrics/", "/__health", "/__version", "/"] {
        let answer = house.get(path, "").await;
        assert_eq!(answer.status.as_u16(), 200, "{path}: {}", answer.text);
    }
    let index = house.get("/", "").await.ok();
    assert_eq!((&index["role"], index.get("docs")), (&json!("worker"), None));
    assert_eq!(house.get("/__version", "").await.ok()["role"], "worker");
    for path in [
        "/api/v1/models",
        "/docs",
        "/openapi.json",
        "/api/v1/credits/balance",
        "/generations",
        "/nope",
    ] {
        let said = house.get(path, "").await.problem(404, "not_found");
        assert!(
            said["detail"].as_str().unwrap().contains("is a worker"),
            "{path}: {said}"
        );
    }
    let login = json!({"email": "a@example.com", "password": PASSWORD});
    house.post("/api/v1/auth/login", login).await.problem(404, "not_found");
}
