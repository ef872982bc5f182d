//! API keys as a program uses them: every way to send one, scopes, models, caps, and how they end.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::harness::{Client, Reply, Server, eventually, fields, race};

const BALANCE: &str = "/api/v1/credits/balance";
const ME: &str = "/api/v1/auth/me";
const HISTORY: &str = "/api/v1/generations/async/user/history";

/// Makes a key and gives it with its id.
async fn make(owner: &Client, body: Value) -> (String, String) {
    let made = owner.post("/api/v1/keys", &body).await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["key"]), text(&made["api_key"]["id"]))
}

/// The owner as seen through a key.
async fn holder(owner: &Client, body: Value) -> Client {
    owner.with_token(&make(owner, body).await.0)
}

async fn key(owner: &Client, id: &str) -> Value {
    owner.get(&format!("/api/v1/keys/{id}")).await.ok()
}

async fn change(owner: &Client, id: &str, body: Value) -> Reply {
    let request = owner.request(Method::PATCH, &format!("/api/v1/keys/{id}"));
    owner.send(request.json(&body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once_and_sent_in_three_ways() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let (secret, id) = make(&ada, json!({"name": " renders ", "scopes": ["read", "read"]})).await;
    assert!(secret.starts_with("velro_sk_") && secret.len() == 47, "{secret}");
    for text in [ada.get("/api/v1/keys").await.text(), key(&ada, &id).await.to_string()] {
        assert!(!text.contains(&secret[..16]), "{text}");
    }
    let shown = key(&ada, &id).await;
    let told = json!([
        shown["name"],
        shown["hint"],
        shown["status"],
        shown["scopes"],
        shown["models"],
        shown["spending_cap"]
    ]);
    assert_eq!(told, json!(["renders", &secret[..13], "active", ["read"], null, null]));

    let nobody = server.anonymous();
    let send = async |name: &str, value: String| {
        let request = nobody.request(Method::GET, ME).header(name, value);
        nobody.send(request).await
    };
    for (name, value) in [
        ("Authorization", format!("Bearer {secret}")),
        ("authorization", format!("KEY {secret}")),
        ("X-Api-Key", secret.clone()),
    ] {
        assert_eq!(send(name, value).await.ok()["id"], ada.user_id.as_str(), "{name}");
    }
    // A person's token is good in the same places.
    assert_eq!(
        send("x-api-key", ada.token().to_owned()).await.ok()["id"],
        ada.user_id.as_str()
    );
    let mistyped = format!("{}x", &secret[..46]);
    for (name, value) in [
        ("Authorization", format!("Basic {secret}")),
        ("Authorization", secret.clone()),
        ("Authorization", format!("Bearer {mistyped}")),
        ("X-Api-Key", String::new()),
        ("X-Api-Key", mistyped),
    ] {
        send(name, value).await.problem(401, "unauthorized");
    }
    let used = || async { key(&ada, &id).await["last_used_at"].as_str().map(str::to_owned) };
    eventually("the use of a key is noted", Duration::from_secs(20), used).await;
    assert!(!server.log_text().contains(&secret[10..]), "no key in a log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_does_what_its_scopes_say_and_no_more() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    server.velro(&["users", "promote", "ada@example.com"]).ok();
    let document = ada.get("/openapi.json").await.ok();
    let scopes = ["generate", "read", "billing"];
    let mut holders = Vec::new();
    for scope in scopes {
        holders.push((scope, holder(&ada, json!({"name": scope, "scopes": [scope]})).await));
    }
    let mut counted = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(security) = operation["security"].as_array() else {
                continue;
            };
            let allowed: Vec<&str> = security.iter().filter_map(|s| s["api_key"][0].as_str()).collect();
            // A path of nothing that exists: whoever gets past the guard finds nothing.
            let url = path.replace(['{', '}'], "");
            for (scope, holder) in &holders {
                let request = holder.request(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), &url);
                let answer = holder.send(request).await;
                let refused = answer.status == 403 && answer.text().contains("insufficient_scope");
                assert_eq!(
                    refused,
                    !allowed.contains(scope),
                    "{method} {path} with {scope}: {}",
                    answer.text()
                );
                counted += 1;
            }
        }
    }
    assert!(counted > 100, "{counted}");
    // Not even an operator's key is an operator.
    let all = holder(&ada, json!({"name": "all", "scopes": scopes})).await;
    ada.get("/api/v1/generations/async/metrics/system").await.ok();
    all.get("/api/v1/generations/async/metrics/system")
        .await
        .problem(403, "insufficient_scope");
    all.post("/api/v1/keys", &json!({"name": "more"}))
        .await
        .problem(403, "insufficient_scope");
    all.post_empty("/api/v1/auth/logout")
        .await
        .problem(403, "insufficient_scope");
    ada.get(ME).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_generates_watches_and_is_bound_to_its_models() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let program = holder(
        &ada,
        json!({"name": "p", "scopes": ["generate"], "models": ["sandbox/image"]}),
    )
    .await;
    let id = program.submit_quick("by a program").await;
    let stream = program.stream(&id).await;
    drop(stream);
    program.wait_for(&id, "completed").await;
    assert_eq!(ada.generations().await.len(), 1, "its owner sees it");
    let refused = program.try_submit("sandbox/video", "x", json!({})).await;
    refused.problem(403, "insufficient_scope");
    program
        .post(
            "/api/v1/generations/quote",
            &json!({"model_id": "sandbox/video", "prompt": "x"}),
        )
        .await
        .problem(403, "insufficient_scope");
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5"]);

    // A stream token that a key made opens the stream and dies with the key.
    let token = program.post_empty("/api/v1/auth/stream-token").await.ok();
    let url = format!(
        "/api/v1/generations/async/{id}/stream?token={}",
        token["token"].as_str().unwrap()
    );
    let watcher = program.without_token();
    drop(watcher.open_stream(watcher.request(Method::GET, &url)).await);
    let keys = ada.get("/api/v1/keys").await.ok();
    let key_id = keys["keys"][0]["id"].as_str().unwrap();
    ada.delete(&format!("/api/v1/keys/{key_id}")).await.ok();
    watcher.get(&url).await.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_holds_under_fifty_parallel_submits() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let (secret, id) = make(&ada, json!({"name": "capped", "spending_cap": 100})).await;
    let program = ada.with_token(&secret);
    // Five credits each: twenty fit, whoever comes first.
    let answers = race(50, |n| {
        let program = program.clone();
        async move {
            let parameters = json!({"image_size": "square", "latency_ms": 0});
            program
                .try_submit("sandbox/image", &format!("number {n}"), parameters)
                .await
        }
    })
    .await;
    let mut accepted = Vec::new();
    for answer in answers {
        match answer.status.as_u16() {
            200 => accepted.push(tests::harness::id_of(&answer.ok())),
            _ => drop(answer.problem(402, "key_cap_reached")),
        }
    }
    assert_eq!(
        (accepted.len(), key(&ada, &id).await["spent"].clone()),
        (20, json!(100))
    );
    for generation in &accepted {
        ada.wait_for(generation, "completed").await;
    }
    assert_eq!(
        (ada.balance().await, key(&ada, &id).await["spent"].clone()),
        (900, json!(100))
    );

    // A raised cap counts at once; what failed is given back to the key.
    change(&ada, &id, json!({"spending_cap": 105})).await.ok();
    let failing = program
        .submit("sandbox/image", "x", json!({"outcome": "fail", "latency_ms": 0}))
        .await;
    ada.wait_for(&failing, "failed").await;
    assert_eq!(key(&ada, &id).await["spent"], 100);
    let last = program.submit_quick("the last one").await;
    ada.wait_for(&last, "completed").await;
    let over = program.try_submit("sandbox/image", "x", json!({})).await;
    over.problem(402, "key_cap_reached");
    // Its owner is not bound by it.
    let own = ada.submit_quick("by hand").await;
    ada.wait_for(&own, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ends_when_it_should() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let (secret, id) = make(&ada, json!({"name": "k", "scopes": ["read", "billing"]})).await;
    let program = ada.with_token(&secret);
    program.get(BALANCE).await.ok();
    // What is changed at this server holds at once.
    change(&ada, &id, json!({"scopes": ["read"]})).await.ok();
    program.get(BALANCE).await.problem(403, "insufficient_scope");
    program.get(HISTORY).await.ok();
    let soon = time::OffsetDateTime::now_utc() + Duration::from_secs(2);
    let soon = soon.format(&time::format_description::well_known::Rfc3339).unwrap();
    change(&ada, &id, json!({"expires_at": soon})).await.ok();
    let refused = || async { (program.get(HISTORY).await.status == 401).then_some(()) };
    eventually("the key expires", Duration::from_secs(10), refused).await;
    assert_eq!(key(&ada, &id).await["status"], "expired");
    change(&ada, &id, json!({"expires_at": null})).await.ok();
    program.get(HISTORY).await.ok();
    ada.delete(&format!("/api/v1/keys/{id}")).await.ok();
    ada.delete(&format!("/api/v1/keys/{id}")).await.ok();
    program.get(HISTORY).await.problem(401, "unauthorized");
    assert_eq!(key(&ada, &id).await["status"], "revoked");
    change(&ada, &id, json!({"name": "again"}))
        .await
        .problem(404, "not_found");
    // Nor after a restart, nor with the session of its owner over.
    let mut server = server;
    server.kill9();
    server.restart().await;
    let program = Client::anonymous(&server.base_url).with_token(&secret);
    program.get(HISTORY).await.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_request_names_every_field() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let wrong = json!({
        "name": " ", "scopes": [], "models": ["sandbox/image", "no/such"], "spending_cap": -1, "expires_at": "yesterday",
    });
    let answer = ada.post("/api/v1/keys", &wrong).await.problem(422, "validation_failed");
    let named = fields(&answer);
    assert_eq!(
        named,
        [
            "body.name",
            "body.scopes",
            "body.models.1",
            "body.spending_cap",
            "body.expires_at"
        ]
    );
    ada.post("/api/v1/keys", &json!({"name": "x", "scopes": ["root"]}))
        .await
        .invalid("body.scopes.0");
    ada.post(
        "/api/v1/keys",
        &json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}),
    )
    .await
    .invalid("body.expires_at");
    ada.post("/api/v1/keys", &json!({})).await.invalid("body.name");
    assert_eq!(ada.get("/api/v1/keys").await.ok()["keys"], json!([]));
}
