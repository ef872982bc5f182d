//! Care of an account that the service keeps: another password, other sessions, leaving.

use super::{BALANCE, LOGIN, ME, REGISTER, credentials, pair, refresh};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use tests::gotrue_sim::PASSWORD;
use tests::harness::{Client, eventually};

const ADA: &str = "ada@example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_password_keeps_this_session_and_ends_the_others_there() {
    let (_sim, server) = pair().await;
    let mut ada = server.anonymous();
    ada.adopt(&ada.post(REGISTER, &credentials(ADA)).await.ok());
    let mut elsewhere = server.anonymous();
    elsewhere.adopt(&elsewhere.post(LOGIN, &credentials(ADA)).await.ok());
    let change = async |client: &Client, current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        client.post("/api/v1/auth/change-password", &body).await
    };
    change(&ada, "not the password", "another password")
        .await
        .problem(401, "invalid_credentials");
    change(&ada, PASSWORD, "another password").await.ok();
    ada.get(ME).await.ok();
    refresh(&ada, &ada.refresh_token).await.ok();
    refresh(&elsewhere, &elsewhere.refresh_token)
        .await
        .problem(401, "unauthorized");
    let body = json!({"email": ADA, "password": "another password"});
    elsewhere.adopt(&server.anonymous().post(LOGIN, &body).await.ok());
    server
        .anonymous()
        .post(LOGIN, &credentials(ADA))
        .await
        .problem(401, "invalid_credentials");

    // Sessions are kept there: they cannot be listed, but ended.
    ada.get("/api/v1/auth/sessions").await.problem(501, "not_implemented");
    elsewhere.delete("/api/v1/auth/sessions").await.ok();
    refresh(&elsewhere, &elsewhere.refresh_token).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_is_deleted_there_and_does_not_come_back() {
    let (sim, server) = pair().await;
    let mut ada = server.anonymous();
    ada.adopt(&ada.post(REGISTER, &credentials(ADA)).await.ok());
    ada.get(BALANCE).await.ok();
    let leave = async |client: &Client, password: &str| {
        let request = client.request(Method::DELETE, "/api/v1/user/account");
        client
            .send(request.json(&json!({"confirm": ADA, "password": password})))
            .await
    };
    leave(&ada, "not the password")
        .await
        .problem(401, "invalid_credentials");
    leave(&ada, PASSWORD).await.ok();
    // The token is in date, and its session goes on there for a while.
    ada.get(BALANCE).await.problem(401, "unauthorized");
    let gone = || async { sim.person(ADA).is_none().then_some(()) };
    eventually("the account there is deleted", Duration::from_secs(30), gone).await;
    refresh(&ada, &ada.refresh_token).await.problem(401, "unauthorized");
    ada.get(BALANCE).await.problem(401, "unauthorized");
    // Whoever registers with the address is somebody else.
    let mut new = server.anonymous();
    new.adopt(&new.post(REGISTER, &credentials(ADA)).await.ok());
    assert_ne!(new.user_id, ada.user_id);
    assert_eq!(new.balance().await, 1000);
}
