//! `/api/v1/operator`: closed to everybody else, and every change is in the audit. Generic over the OpenAPI document.

use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tests::harness::{Client, Reply, SOON, Server, eventually};

use crate::column;

/// Operations below `/api/v1/operator` of the document: method and path.
async fn operations(client: &Client) -> Vec<(String, String)> {
    let document = client.get("/openapi.json").await.ok();
    let paths = document["paths"].as_object().unwrap();
    let ours = paths.iter().filter(|(path, _)| path.starts_with("/api/v1/operator"));
    ours.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
    })
    .collect()
}

async fn call(client: &Client, method: &str, path: &str, body: &Value) -> Reply {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let request = client.request(method, path);
    match body {
        Value::Null => client.send(request).await,
        body => client.send(request.json(body)).await,
    }
}

async fn audit(operator: &Client) -> Vec<Value> {
    let answer = operator.get("/api/v1/operator/audit?limit=100").await.ok();
    answer["items"].as_array().unwrap().clone()
}

/// What of the installation an operation could change.
async fn snapshot(operator: &Client) -> Value {
    let mut seen = Vec::new();
    for path in ["users", "generations", "codes", "audit", "pauses"] {
        let mut list = operator.get(&format!("/api/v1/operator/{path}?limit=100")).await.ok();
        // When it is looked at next changes while it runs.
        for item in list["items"].as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove("attempt");
        }
        seen.push(list);
    }
    Value::Array(seen)
}

/// As if Stripe had said what does not fit: the sandbox's till never does.
async fn in_trouble(server: &Server, order: &str) {
    let file = server.path().join("data/velro.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let sql = "UPDATE orders SET trouble = 'another amount was paid' WHERE id = $1";
    let done = sqlx::query(sql).bind(order).execute(&mut conn).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operator_route_refuses_plain_users_and_every_change_is_in_the_audit() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let [ada, eve] = [server.register("ada").await, server.register("eve").await];
    let done = ada.submit_quick("done").await;
    ada.wait_for(&done, "completed").await;
    let slow = ada
        .submit(
            "sandbox/image",
            "slow",
            json!({"latency_ms": 600_000, "image_size": "square"}),
        )
        .await;
    ada.wait_for(&slow, "processing").await;
    let body = json!({"credits": 5, "note": "before"});
    let code = operator.post("/api/v1/operator/codes", &body).await.ok();
    let code_id = code["details"]["id"].as_str().unwrap();
    assert!(code["code"].as_str().unwrap().len() >= 20, "{code}");

    let order = ada
        .post("/api/v1/credits/purchase", &json!({"package_id": "starter"}))
        .await
        .ok();
    let order_id = order["order_id"].as_str().unwrap();
    in_trouble(&server, order_id).await;

    let base = "/api/v1/operator";
    let why = json!({"reason": "because"});
    let changes = [
        (
            "put",
            "/users/{user_id}/role",
            json!({"role": "operator", "reason": "because"}),
            "user.role",
        ),
        ("post", "/users/{user_id}/suspend", why.clone(), "user.suspend"),
        ("post", "/users/{user_id}/unsuspend", why.clone(), "user.unsuspend"),
        (
            "post",
            "/users/{user_id}/credits/grant",
            json!({"amount": 7, "reason": "because"}),
            "credits.grant",
        ),
        (
            "post",
            "/users/{user_id}/credits/correct",
            json!({"amount": -7, "reason": "because"}),
            "credits.correct",
        ),
        (
            "post",
            "/generations/{generation_id}/refund",
            why.clone(),
            "generation.refund",
        ),
        (
            "post",
            "/generations/{generation_id}/resolve",
            json!({"outcome": "refund", "force": true, "reason": "because"}),
            "generation.resolve",
        ),
        (
            "post",
            "/codes",
            json!({"credits": 9, "note": "because"}),
            "code.create",
        ),
        ("post", "/orders/{order_id}/settle", why.clone(), "order.settle"),
        ("post", "/codes/{code_id}/disable", why, "code.disable"),
        (
            "put",
            "/log-level",
            json!({"filter": "debug", "minutes": 1, "reason": "because"}),
            "log.level",
        ),
        (
            "put",
            "/pauses/queue",
            json!({"mode": "paused", "reason": "because"}),
            "pause.set",
        ),
        (
            "put",
            "/pauses/providers/{provider}",
            json!({"mode": "draining", "reason": "because"}),
            "pause.set",
        ),
    ];
    let fill = |template: &str| {
        let generation = if template.ends_with("resolve") { &slow } else { &done };
        template
            .replace("{user_id}", &ada.user_id)
            .replace("{generation_id}", generation)
            .replace("{code_id}", code_id)
            .replace("{order_id}", order_id)
            .replace("{provider}", "sandbox")
    };
    let documented = operations(&ada).await;
    let known: BTreeSet<(String, String)> = changes
        .iter()
        .map(|(m, p, ..)| ((*m).to_owned(), format!("{base}{p}")))
        .collect();
    let mutating: BTreeSet<_> = documented
        .iter()
        .filter(|(method, _)| method != "get")
        .cloned()
        .collect();
    assert_eq!(mutating, known, "every change of the document is tried here");

    let before = snapshot(&operator).await;
    let body_of = |method: &str, path: &str| {
        let same = |change: &&(&str, &str, Value, &str)| change.0 == method && format!("{base}{}", change.1) == path;
        changes.iter().find(same).map_or(Value::Null, |change| change.2.clone())
    };
    for (method, path) in &documented {
        let body = body_of(method, path);
        let path = fill(path);
        call(&eve, method, &path, &body).await.problem(403, "forbidden");
        // Nor does it help to own what it is about.
        call(&ada, method, &path, &body).await.problem(403, "forbidden");
        call(&ada.without_token(), method, &path, &body)
            .await
            .problem(401, "unauthorized");
    }
    assert_eq!(snapshot(&operator).await, before, "nothing has changed");

    for (method, template, body, action) in &changes {
        let path = fill(&format!("{base}{template}"));
        // Without a reason nothing happens.
        let mut silent = body.clone();
        for name in ["reason", "note"] {
            if silent.get(name).is_some() {
                silent[name] = json!("  ");
                call(&operator, method, &path, &silent)
                    .await
                    .invalid(&format!("body.{name}"));
            }
        }
        let entries = audit(&operator).await.len();
        call(&operator, method, &path, body).await.ok();
        let now = audit(&operator).await;
        assert_eq!(now.len(), entries + 1, "{method} {path}");
        let entry = &now[0];
        assert_eq!(entry["action"], *action, "{entry}");
        assert_eq!(entry["actor"], format!("operator {}", operator.user_id));
        assert_eq!(entry["reason"], "because");
        for member in ["before", "after"] {
            assert!(entry["details"].get(member).is_some(), "{entry}");
        }
    }
    for (method, path) in documented.iter().filter(|(method, _)| method == "get") {
        let path = fill(path);
        let query = if path.ends_with("/problems") {
            "?kind=unknown"
        } else {
            ""
        };
        call(&operator, method, &format!("{path}{query}"), &Value::Null)
            .await
            .ok();
    }
    // A suspended operator is none.
    server
        .velro(&["users", "suspend", "operator@example.com", "--reason", "x"])
        .ok();
    operator.get("/api/v1/operator/users").await.problem(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_and_settles_over_the_api() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let ada = server.register("ada").await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = ada.submit_quick(&format!("picture {n}")).await;
        ada.wait_for(&id, "completed").await;
        ids.push(id);
    }
    // Page by page.
    let mut path = "/api/v1/operator/generations?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = operator.get(&path).await.ok();
        seen.extend(column(&page["items"], "id").into_iter().map(str::to_owned));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/operator/generations?limit=2&cursor={next}");
    }
    ids.reverse();
    assert_eq!(seen, ids);
    operator
        .get("/api/v1/operator/generations?cursor=x")
        .await
        .invalid("query.cursor");
    operator
        .get("/api/v1/operator/generations?status=lost")
        .await
        .invalid("query.status");
    operator.get("/api/v1/operator/problems").await.invalid("query.kind");

    let folder = server.path().join("data/outputs").join(&ids[0]);
    std::fs::remove_dir_all(folder).unwrap();
    let found = operator
        .get("/api/v1/operator/problems?kind=charged_without_output")
        .await
        .ok();
    assert_eq!(found["items"][0]["generation"]["id"], ids[0].as_str());
    assert_eq!(
        (found["items"].as_array().unwrap().len(), &found["looked_at"]),
        (1, &json!(3))
    );

    let path = format!("/api/v1/operator/generations/{}/refund", ids[0]);
    let part = json!({"amount": 2, "reason": "files are gone"});
    operator.post(&path, &part).await.invalid("header.idempotency-key");
    for replayed in [false, true] {
        let request = operator
            .request(Method::POST, &path)
            .json(&part)
            .header("Idempotency-Key", "t-1");
        let answer = operator.send(request).await.ok();
        assert_eq!(
            (&answer["refunded"], &answer["replayed"]),
            (&json!(2), &json!(replayed))
        );
    }
    let request = operator
        .request(Method::POST, &path)
        .json(&json!({"amount": 3, "reason": "x"}));
    operator
        .send(request.header("Idempotency-Key", "t-1"))
        .await
        .problem(422, "idempotency_key_reused");
    let too_much = operator
        .request(Method::POST, &path)
        .json(&json!({"amount": 4, "reason": "x"}));
    operator
        .send(too_much.header("Idempotency-Key", "t-2"))
        .await
        .problem(409, "conflict");
    for amount in [3, 0] {
        let answer = operator.post(&path, &json!({"reason": "the rest"})).await.ok();
        assert_eq!((&answer["amount"], &answer["refunded"]), (&json!(amount), &json!(5)));
    }
    assert_eq!(ada.balance().await, 990);

    let grant = format!("/api/v1/operator/users/{}/credits/grant", ada.user_id);
    for replayed in [false, true] {
        let request = operator
            .request(Method::POST, &grant)
            .json(&json!({"amount": 10, "reason": "thanks"}));
        let answer = operator.send(request.header("Idempotency-Key", "g-1")).await.ok();
        assert_eq!(
            (&answer["available"], &answer["replayed"]),
            (&json!(1000), &json!(replayed))
        );
    }
    let correct = format!("/api/v1/operator/users/{}/credits/correct", ada.user_id);
    operator
        .post(&correct, &json!({"amount": -1001, "reason": "x"}))
        .await
        .problem(409, "conflict");
    operator
        .post(&correct, &json!({"amount": 0, "reason": "x"}))
        .await
        .invalid("body.amount");
    let user = operator
        .get(&format!("/api/v1/operator/users/{}", ada.user_id))
        .await
        .ok();
    assert_eq!(
        (&user["user"]["available"], &user["transactions"][0]["description"]),
        (&json!(1000), &json!("thanks"))
    );
    let last = format!("/api/v1/operator/users/{}/role", operator.user_id);
    operator
        .put(&last, &json!({"role": "user", "reason": "x"}))
        .await
        .problem(409, "conflict");

    // Ended by hand: the owner's stream hears of it, and the worker drops it.
    let slow = ada
        .submit(
            "sandbox/image",
            "slow",
            json!({"latency_ms": 600_000, "image_size": "square"}),
        )
        .await;
    ada.wait_for(&slow, "processing").await;
    let mut stream = ada.stream(&slow).await;
    let path = format!("/api/v1/operator/generations/{slow}/resolve");
    operator
        .post(&path, &json!({"outcome": "refund", "reason": "x"}))
        .await
        .problem(409, "conflict");
    operator
        .post(&path, &json!({"outcome": "retry", "force": true, "reason": "x"}))
        .await
        .invalid("body.force");
    operator
        .post(&path, &json!({"outcome": "deliver", "reason": "x"}))
        .await
        .invalid("body.urls");
    let ended = operator
        .post(&path, &json!({"outcome": "refund", "force": true, "reason": "hangs"}))
        .await
        .ok();
    assert_eq!(ended["generation"]["status"], "failed");
    let mut last = None;
    while let Some(frame) = stream.next().await {
        last = Some(frame.event().to_owned());
    }
    assert_eq!(last.as_deref(), Some("error"));
    eventually("its slot is free", SOON, || async {
        let metrics = operator.get("/api/v1/generations/async/metrics/system").await.ok();
        (metrics["queues"]["sandbox"]["running"] == 0).then_some(())
    })
    .await;
    assert_eq!(ada.balance().await, 1000);
}
