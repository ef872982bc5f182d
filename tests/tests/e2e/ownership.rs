//! Who may do what: every operation of the OpenAPI document without a token, with somebody else's, and, where it is an
//! operator's, as a plain user. An operation that is not in the table fails the test.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use tests::harness::{Client, Reply, Server};

/// Who an operation is for, and what somebody else gets who uses the owner's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Anybody.
    Public,
    /// The signed-in person's own things; names nobody else's.
    Own,
    /// One thing by id; somebody else's is missing.
    OwnedBy(&'static str),
    /// Operators.
    Operator,
    /// A signature in the request instead of a token.
    Signed,
}

use Access::{Operator, Own, OwnedBy, Public, Signed};

const GENERATION: Access = OwnedBy("generation");
const API_KEY: Access = OwnedBy("API key");
const SESSION: Access = OwnedBy("session");
const PROJECT: Access = OwnedBy("project");
const ORDER: Access = OwnedBy("order");

/// Every operation: method, path, for whom, body.
fn table() -> Vec<(&'static str, &'static str, Access, Value)> {
    let call =
        json!({"model_id": "sandbox/image", "prompt": "x", "parameters": {"latency_ms": 0, "outcome": "refuse"}});
    let none = Value::Null;
    let mut table = vec![
        ("get", "/", Public, none.clone()),
        ("get", "/__health", Public, none.clone()),
        ("get", "/__version", Public, none.clone()),
        ("get", "/health", Public, none.clone()),
        ("get", "/health/ready", Public, none.clone()),
        ("get", "/metrics", Public, none.clone()),
        ("get", "/docs", Public, none.clone()),
        ("get", "/openapi.json", Public, none.clone()),
        ("get", "/redoc", Public, none.clone()),
        ("get", "/api/v1/health/config", Public, none.clone()),
        ("get", "/outputs/{key}", Signed, none.clone()),
        ("post", "/webhooks/{provider}/{attempt_id}", Signed, json!({})),
        ("get", "/api/v1/auth/health", Public, none.clone()),
        ("post", "/api/v1/auth/check-email", Public, none.clone()),
        ("post", "/api/v1/auth/login", Public, json!({})),
        ("post", "/api/v1/auth/register", Public, json!({})),
        ("post", "/api/v1/auth/refresh", Public, json!({})),
        ("get", "/api/v1/auth/me", Own, none.clone()),
        ("get", "/api/v1/auth/whoami", Own, none.clone()),
        ("post", "/api/v1/auth/stream-token", Own, none.clone()),
        ("post", "/api/v1/auth/logout", Own, none.clone()),
        (
            "post",
            "/api/v1/auth/change-password",
            Own,
            json!({"current_password": "wrong", "new_password": "battery staple"}),
        ),
        ("get", "/api/v1/auth/sessions", Own, none.clone()),
        ("delete", "/api/v1/auth/sessions", Own, none.clone()),
        ("delete", "/api/v1/auth/sessions/{session_id}", SESSION, none.clone()),
        ("get", "/api/v1/user/export", Own, none.clone()),
        (
            "delete",
            "/api/v1/user/account",
            Own,
            json!({"confirm": "nobody@example.com"}),
        ),
        ("get", "/api/v1/credits/_ping", Public, none.clone()),
        ("get", "/api/v1/credits/balance", Own, none.clone()),
        ("get", "/api/v1/credits/stats", Own, none.clone()),
        ("get", "/api/v1/credits/transactions", Own, none.clone()),
        ("get", "/api/v1/credits/packages", Public, none.clone()),
        ("get", "/api/v1/credits/checkout-result", Public, none.clone()),
        (
            "get",
            "/api/v1/credits/sandbox-checkout/{order_id}",
            Signed,
            none.clone(),
        ),
        (
            "post",
            "/api/v1/credits/sandbox-checkout/{order_id}",
            Signed,
            none.clone(),
        ),
        (
            "post",
            "/api/v1/credits/purchase",
            Own,
            json!({"package_id": "starter"}),
        ),
        ("get", "/api/v1/credits/orders", Own, none.clone()),
        ("get", "/api/v1/credits/orders/{order_id}", ORDER, none.clone()),
        ("post", "/api/v1/webhooks/stripe", Signed, json!({})),
        ("post", "/api/v1/credits/redeem", Own, json!({"code": "WELCOME-2027"})),
        ("get", "/api/v1/keys", Own, none.clone()),
        ("post", "/api/v1/keys", Own, json!({"name": "x"})),
        ("get", "/api/v1/keys/{key_id}", API_KEY, none.clone()),
        ("patch", "/api/v1/keys/{key_id}", API_KEY, json!({"name": "taken over"})),
        ("delete", "/api/v1/keys/{key_id}", API_KEY, none.clone()),
        ("get", "/api/v1/models", Public, none.clone()),
        ("get", "/api/v1/models/supported", Public, none.clone()),
        ("get", "/api/v1/models/{model_id}", Public, none.clone()),
        ("get", "/api/v1/models/{model_id}/pricing", Public, none.clone()),
        ("get", "/api/v1/projects/_ping", Public, none.clone()),
        ("get", "/api/v1/projects", Own, none.clone()),
        ("post", "/api/v1/projects", Own, json!({"name": "x"})),
        ("get", "/api/v1/projects/{project_id}", PROJECT, none.clone()),
        (
            "put",
            "/api/v1/projects/{project_id}",
            PROJECT,
            json!({"name": "taken over"}),
        ),
        ("get", "/api/v1/projects/{project_id}/stats", PROJECT, none.clone()),
        ("delete", "/api/v1/projects/{project_id}", PROJECT, none.clone()),
        ("get", "/api/v1/user/credits", Own, none.clone()),
        ("get", "/api/v1/user/info", Own, none.clone()),
        ("get", "/api/v1/user/profile", Own, none.clone()),
        ("put", "/api/v1/user/profile", Own, json!({"display_name": "x"})),
        (
            "get",
            "/api/v1/generations/async/metrics/system",
            Operator,
            none.clone(),
        ),
        ("get", "/api/v1/generations/async/models/available", Own, none.clone()),
        ("get", "/api/v1/generations/async/user/history", Own, none.clone()),
        ("post", "/api/v1/generations/async/submit", Own, call.clone()),
        (
            "get",
            "/api/v1/generations/async/{generation_id}/status",
            GENERATION,
            none.clone(),
        ),
        (
            "get",
            "/api/v1/generations/async/{generation_id}/stream",
            GENERATION,
            none.clone(),
        ),
        (
            "delete",
            "/api/v1/generations/async/{generation_id}/cancel",
            GENERATION,
            none.clone(),
        ),
    ];
    for (method, suffix, access, body) in [
        ("get", "/models/supported", Public, none.clone()),
        ("get", "", Own, none.clone()),
        ("post", "", Own, call.clone()),
        ("get", "/stats", Own, none.clone()),
        ("post", "/quote", Own, call),
        ("get", "/{generation_id}", GENERATION, none.clone()),
        ("get", "/{generation_id}/media-urls", GENERATION, none.clone()),
        ("post", "/{generation_id}/favorite", GENERATION, none.clone()),
        ("delete", "/{generation_id}", GENERATION, none),
    ] {
        for mount in [
            ["/api/v1/generations", suffix].concat(),
            ["/generations", suffix].concat(),
        ] {
            table.push((method, mount.leak(), access, body.clone()));
        }
    }
    table
}

/// Every operation of the document: method and path, and whether it asks for a token.
fn documented(document: &Value) -> BTreeMap<(String, String), bool> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if ["get", "put", "post", "delete", "patch", "head", "options"].contains(&method.as_str()) {
                let secured = operation["security"].as_array().is_some_and(|s| !s.is_empty());
                found.insert((method.clone(), path.clone()), secured);
            }
        }
    }
    found
}

/// The owner's things.
struct Things {
    generation: String,
    project: String,
    api_key: String,
    session: String,
    order: String,
}

impl Things {
    fn path(&self, template: &str) -> String {
        template
            .replace("{generation_id}", &self.generation)
            .replace("{project_id}", &self.project)
            .replace("{key_id}", &self.api_key)
            .replace("{session_id}", &self.session)
            .replace("{order_id}", &self.order)
            .replace("{model_id}", "sandbox/image")
            .replace("{provider}", "fal")
            .replace("{attempt_id}", &self.generation)
            .replace("{key}", &format!("{}/0.png", self.generation))
    }
}

async fn call(client: &Client, method: &str, path: &str, body: &Value) -> Reply {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let request = client.request(method, path);
    match body {
        Value::Null => client.send(request).await,
        body => client.send(request.json(body)).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_guarded() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    let document = nobody.get("/openapi.json").await.ok();
    assert_eq!(document["openapi"].as_str().unwrap().get(..3), Some("3.1"));
    let documented = documented(&document);
    let table = table();
    let tested: BTreeSet<(String, String)> = table.iter().map(|(m, p, ..)| ((*m).into(), (*p).into())).collect();
    assert_eq!(tested.len(), table.len(), "no operation is twice in the table");
    // Those of the operator's desk are tried in `operator_api.rs`, all that the document has.
    let elsewhere = |key: &&(String, String)| key.1.starts_with("/api/v1/operator");
    let missing: Vec<_> = documented
        .keys()
        .filter(|key| !tested.contains(*key) && !elsewhere(key))
        .collect();
    assert!(missing.is_empty(), "operations without a row in the table: {missing:?}");
    let gone: Vec<_> = tested.iter().filter(|key| !documented.contains_key(*key)).collect();
    assert!(gone.is_empty(), "rows without an operation: {gone:?}");

    let owner = server.register("owner").await;
    let eve = server.register("eve").await;
    let operator = server.operator().await;
    let generation = owner.submit_quick("mine").await;
    owner.wait_for(&generation, "completed").await;
    let project = owner.post("/api/v1/projects", &json!({"name": "mine"})).await.ok();
    let key = owner.post("/api/v1/keys", &json!({"name": "mine"})).await.ok();
    // A second one, so that its end does not lock the owner out.
    let mut elsewhere = owner.clone();
    elsewhere.login(tests::harness::PASSWORD).await;
    let sessions = owner.get("/api/v1/auth/sessions").await.ok();
    let sessions = sessions["sessions"].as_array().unwrap();
    let other = sessions.iter().find(|s| s["current"] == false).unwrap();
    let order = owner
        .post("/api/v1/credits/purchase", &json!({"package_id": "starter"}))
        .await
        .ok();
    let things = Things {
        session: other["id"].as_str().unwrap().to_owned(),
        api_key: key["api_key"]["id"].as_str().unwrap().to_owned(),
        generation,
        project: project["id"].as_str().unwrap().to_owned(),
        order: order["order_id"].as_str().unwrap().to_owned(),
    };
    let before = snapshot(&owner).await;

    for (method, template, access, body) in &table {
        let path = things.path(template);
        let secured = documented[&((*method).to_owned(), (*template).to_owned())];
        assert_eq!(
            secured,
            matches!(access, Own | OwnedBy(_) | Operator),
            "{method} {template}: documented"
        );
        // Without a token: nothing happens, not even validation.
        let without = call(&nobody, method, &path, body).await;
        let forged = call(&nobody.with_token("forged"), method, &path, body).await;
        match access {
            Public => {
                for answer in [without, forged] {
                    let status = answer.status.as_u16();
                    assert!(
                        ![401, 403].contains(&status) && status < 500,
                        "{method} {path}: {status}"
                    );
                }
            }
            Signed => {
                let status = without.status.as_u16();
                assert!([401, 403, 404].contains(&status), "{method} {path}: {status}");
            }
            _ => {
                without.problem(401, "unauthorized");
                forged.problem(401, "unauthorized");
            }
        }
        // Somebody else, who knows the ids.
        if let OwnedBy(_) = access {
            call(&eve, method, &path, body).await.problem(404, "not_found");
            // An operator is no owner either.
            call(&operator, method, &path, body).await.problem(404, "not_found");
        }
        if *access == Operator {
            call(&eve, method, &path, body).await.problem(403, "forbidden");
            call(&operator, method, &path, body).await.ok();
        }
    }
    assert_eq!(
        snapshot(&owner).await,
        before,
        "nobody has changed anything of the owner's"
    );

    // The same rows as the owner: the guards are not simply shut. Deleting comes last in the table.
    for (method, template, access, body) in &table {
        if matches!(access, OwnedBy(_)) && *method != "delete" {
            let answer = call(&owner, method, &things.path(template), body).await;
            assert!(answer.status.is_success(), "{method} {template}: {}", answer.text());
        }
    }
    // What is not there is missing, not forbidden, and needs no token to be missing.
    nobody.get("/nope").await.problem(404, "not_found");
    nobody.get("/api/v1/nope").await.problem(404, "not_found");
    call(&owner, "patch", "/api/v1/projects", &json!({}))
        .await
        .problem(405, "method_not_allowed");
}

/// What the owner sees of everything.
async fn snapshot(owner: &Client) -> Value {
    let mut seen = Vec::new();
    for path in [
        "/api/v1/credits/transactions",
        "/api/v1/keys",
        "/api/v1/projects",
        "/api/v1/user/profile",
        "/api/v1/generations/stats",
    ] {
        seen.push(owner.get(path).await.ok());
    }
    // Signed URLs differ from one look to the next.
    for mut generation in owner.generations().await {
        for urls in ["output_urls", "media_url"] {
            generation.as_object_mut().unwrap().remove(urls);
        }
        seen.push(generation);
    }
    Value::Array(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_sums_never_mix_people() {
    let server = Server::start().await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let id = ada.submit_quick("ada's").await;
    ada.wait_for(&id, "completed").await;
    ada.post("/api/v1/projects", &json!({"name": "ada's"})).await.ok();
    for path in [
        "/api/v1/generations",
        "/generations",
        "/api/v1/projects",
        "/api/v1/generations/async/user/history",
    ] {
        assert_eq!(bob.get(path).await.ok(), json!([]), "{path}");
    }
    assert_eq!(bob.get("/api/v1/generations/stats").await.ok()["total_generations"], 0);
    assert_eq!(bob.statement().await, ["bonus +1000"]);
    for line in bob.transactions().await {
        assert_eq!(line["user_id"], bob.user_id.as_str());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_made_by_the_command_line_or_by_configuration() {
    let options = tests::harness::Options::new().env("OPERATOR_EMAILS", "boss@example.com, chief@example.com");
    let server = Server::with(options).await;
    let metrics = "/api/v1/generations/async/metrics/system";
    let boss = server.register("boss").await;
    let ada = server.register("ada").await;
    let seen = boss.get(metrics).await.ok();
    assert_eq!(seen["redis_connections"], Value::Null, "no connection details");
    for member in [
        "active_generations",
        "status_counts",
        "cache_entries",
        "semaphore_available",
        "timestamp",
    ] {
        assert!(seen.get(member).is_some(), "{member}");
    }
    ada.get(metrics).await.problem(403, "forbidden");
    server.velro(&["users", "promote", "ADA@example.com"]).ok();
    ada.get(metrics).await.ok();
    server.velro(&["users", "promote", "nobody@example.com"]).fails();
}
