//! Care of one's own account: password, sessions, export, leaving.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::harness::{Client, Options, Reply, Server, eventually};

const PASSWORD: &str = "correct horse";
const SESSIONS: &str = "/api/v1/auth/sessions";
const ME: &str = "/api/v1/auth/me";

async fn signed_up(server: &Server, email: &str) -> Client {
    Client::register(&server.base_url, email, PASSWORD).await
}

async fn again(client: &Client) -> Client {
    let mut other = client.clone();
    other.login(PASSWORD).await;
    other
}

async fn change_password(client: &Client, current: &str, new: &str) -> Reply {
    let body = json!({"current_password": current, "new_password": new});
    client.post("/api/v1/auth/change-password", &body).await
}

async fn leave(client: &Client, body: Value) -> Reply {
    let request = client.request(Method::DELETE, "/api/v1/user/account");
    client.send(request.json(&body)).await
}

async fn log_in(server: &Server, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    server.anonymous().post("/api/v1/auth/login", &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_password_ends_every_other_session() {
    let server = Server::with(Options::new().without_env("RATE_LIMIT_ENABLED")).await;
    let ada = signed_up(&server, "ada@example.com").await;
    let elsewhere = again(&ada).await;
    change_password(&ada, "wrong horse", "battery staple")
        .await
        .problem(401, "invalid_credentials");
    change_password(&ada, PASSWORD, "short")
        .await
        .invalid("body.new_password");
    elsewhere.get(ME).await.ok();
    change_password(&ada, PASSWORD, "battery staple").await.ok();
    ada.get(ME).await.ok();
    elsewhere.get(ME).await.problem(401, "unauthorized");
    let body = json!({"refresh_token": elsewhere.refresh_token});
    elsewhere
        .post("/api/v1/auth/refresh", &body)
        .await
        .problem(401, "unauthorized");
    log_in(&server, "ada@example.com", PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    log_in(&server, "ada@example.com", "battery staple").await.ok();
    // Guesses are limited like those of a login, with the right token too.
    let mut last = change_password(&ada, "guess", "battery staple").await;
    for _ in 0..10 {
        last = change_password(&ada, "guess", "battery staple").await;
    }
    last.problem(429, "rate_limited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_seen_and_ended() {
    let mut server = Server::start().await;
    let ada = signed_up(&server, "ada@example.com").await;
    let bob = signed_up(&server, "bob@example.com").await;
    let login = json!({"email": "ada@example.com", "password": PASSWORD});
    let request = server.anonymous().request(Method::POST, "/api/v1/auth/login");
    let session = ada
        .send(request.json(&login).header("User-Agent", "a phone"))
        .await
        .ok();
    let mut phone = ada.clone();
    phone.adopt(&session);
    let third = again(&ada).await;

    let list = ada.get(SESSIONS).await.ok();
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 3);
    let current: Vec<bool> = sessions.iter().map(|s| s["current"].as_bool().unwrap()).collect();
    assert_eq!(current.iter().filter(|c| **c).count(), 1);
    let of_phone = sessions.iter().find(|s| s["user_agent"] == "a phone").unwrap();
    assert_eq!(
        (of_phone["address"].as_str(), of_phone["current"].as_bool()),
        (Some("127.0.0.1"), Some(false))
    );
    let path = format!("{SESSIONS}/{}", of_phone["id"].as_str().unwrap());
    bob.delete(&path).await.problem(404, "not_found");
    phone.get(ME).await.ok();
    ada.delete(&path).await.ok();
    phone.get(ME).await.problem(401, "unauthorized");
    ada.delete(&path).await.problem(404, "not_found");
    ada.delete(SESSIONS).await.ok();
    third.get(ME).await.problem(401, "unauthorized");
    assert_eq!(ada.get(SESSIONS).await.ok()["sessions"].as_array().unwrap().len(), 1);
    bob.get(ME).await.ok();
    // What has ended stays ended.
    server.kill9();
    server.restart().await;
    phone.base_url.clone_from(&server.base_url);
    phone.get(ME).await.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_of_ones_own_is_exported() {
    let server = Server::start().await;
    let ada = signed_up(&server, "ada@example.com").await;
    let bob = signed_up(&server, "bob@example.com").await;
    for client in [&ada, &bob] {
        let id = client.submit_quick(&format!("made by {}", client.email)).await;
        client.wait_for(&id, "completed").await;
        client
            .post("/api/v1/projects", &json!({"name": client.email}))
            .await
            .ok();
        client.post("/api/v1/keys", &json!({"name": "a key"})).await.ok();
    }
    let answer = ada.get("/api/v1/user/export").await;
    assert!(answer.header("content-disposition").contains("velro-export.json"));
    let text = answer.text();
    assert!(
        !text.contains("bob") && !text.contains("argon2") && !text.contains("hash"),
        "{text}"
    );
    let export = answer.ok();
    assert_eq!(export["user"]["email"], "ada@example.com");
    assert_eq!(export["projects"][0]["name"], "ada@example.com");
    assert_eq!(export["generations"][0]["prompt"], "made by ada@example.com");
    let amounts: Vec<i64> = export["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["amount"].as_i64().unwrap())
        .collect();
    assert_eq!(amounts, [-5, 1000]);
    for list in ["sessions", "api_keys"] {
        assert_eq!(export[list].as_array().unwrap().len(), 1, "{list}");
    }
    // Longer lists than are read at once are whole.
    for n in 0..205 {
        ada.submit(
            "sandbox/image",
            &format!("number {n}"),
            json!({"outcome": "refuse", "latency_ms": 0}),
        )
        .await;
    }
    let export = ada.get("/api/v1/user/export").await.ok();
    let generations = export["generations"].as_array().unwrap();
    assert_eq!(generations.len(), 206);
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| if e.path().is_dir() { files(&e.path()) } else { 1 })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_is_erased_even_through_a_crash() {
    // It dies between the files and the rows.
    let options = Options::new().env("FAILPOINTS", "erase::files=return");
    let mut server = Server::with(options).await;
    let ada = signed_up(&server, "ada@example.com").await;
    let bob = signed_up(&server, "bob@example.com").await;
    let (mine, theirs) = (
        ada.submit_quick("the secret prompt of ada").await,
        bob.submit_quick("bob's").await,
    );
    ada.wait_for(&mine, "completed").await;
    bob.wait_for(&theirs, "completed").await;
    let slow = ada
        .submit("sandbox/image", "slow secret", json!({"latency_ms": 600_000}))
        .await;
    ada.wait_for(&slow, "processing").await;
    let key = ada.post("/api/v1/keys", &json!({"name": "k"})).await.ok();
    let program = ada.with_token(key["key"].as_str().unwrap());
    program.get(ME).await.ok();
    let outputs = server.path().join("data/outputs");
    let before = files(&outputs);

    leave(&ada, json!({"confirm": "somebody@example.com", "password": PASSWORD}))
        .await
        .invalid("body.confirm");
    leave(&ada, json!({"confirm": "ada@example.com"}))
        .await
        .problem(401, "invalid_credentials");
    leave(&ada, json!({"confirm": "ada@example.com", "password": "wrong"}))
        .await
        .problem(401, "invalid_credentials");
    ada.get(ME).await.ok();
    leave(&ada, json!({"confirm": "ADA@example.com", "password": PASSWORD}))
        .await
        .ok();
    for client in [&ada, &program] {
        client.get(ME).await.problem(401, "unauthorized");
    }
    log_in(&server, "ada@example.com", PASSWORD)
        .await
        .problem(401, "invalid_credentials");

    server.wait_for_failpoint("erase::files", Duration::from_secs(30)).await;
    server.kill9();
    server.change(|options| options.without_env("FAILPOINTS"));
    server.restart().await;
    let erased = || async {
        server
            .log_text()
            .contains("an account that was deleted is erased")
            .then_some(())
    };
    eventually("the account is erased", Duration::from_secs(60), erased).await;
    assert_eq!(files(&outputs), before - 1, "ada's file is gone, bob's is there");
    let ada = Client::anonymous(&server.base_url).with_token(ada.token());
    ada.get(ME).await.problem(401, "unauthorized");
    // The address is free, and whoever takes it is somebody else with start credits of their own.
    let new = signed_up(&server, "ada@example.com").await;
    assert_eq!((new.balance().await, new.generations().await.len()), (1000, 0));
    let bob = Client::anonymous(&server.base_url).with_token(bob.token());
    assert_eq!(bob.generations().await.len(), 1);
    assert!(server.velro(&["ledger", "verify"]).ok().contains("ok"));
}
