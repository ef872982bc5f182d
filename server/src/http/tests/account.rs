//! Registering, signing in, the profile and the statement.

use super::*;
use salvo::http::header::CONTENT_TYPE;

#[tokio::test]
async fn a_session_carries_what_the_existing_frontend_reads() {
    let house = house().await;
    let session = house.join("Ada@Example.com").await;
    assert_eq!(session["token_type"], "Bearer");
    assert_eq!(session["expires_in"], 3600);
    let user = &session["user"];
    assert_eq!(user["email"], "ada@example.com");
    assert_eq!(user["role"], "authenticated");
    assert_eq!(user["credits_balance"], 1000);
    assert_eq!(user["full_name"], "Ada Lovelace");
    assert_eq!(user["user_metadata"]["full_name"], "Ada Lovelace");
    assert_eq!(user["app_metadata"]["providers"], json!(["email"]));
    for key in [
        "display_name",
        "current_plan",
        "last_sign_in_at",
        "identities",
        "phone",
        "is_anonymous",
    ] {
        assert!(user.get(key).is_some(), "{key} is missing");
    }

    let login = json!({"email": "ADA@example.com", "password": PASSWORD, "remember_me": true});
    let session = house.post("/api/v1/auth/login", login).await.ok();
    let refresh = json!({"refresh_token": session["refresh_token"]});
    let renewed = house.post("/api/v1/auth/refresh", refresh.clone()).await.ok();
    let reused = house.post("/api/v1/auth/refresh", refresh).await;
    assert_eq!(reused.problem(401, "unauthorized")["detail"], "Invalid refresh token");
    let token = renewed["access_token"].as_str().unwrap();
    house.get("/api/v1/auth/me", token).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn all_broken_fields_are_named_at_once() {
    let house = house().await;
    let body = json!({"email": "nobody", "password": "short", "full_name": "a\u{0}b"});
    let problem = house
        .post("/api/v1/auth/register", body)
        .await
        .problem(422, "validation_failed");
    let fields: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["loc"][1].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["email", "password", "full_name"]);

    let missing = house
        .post("/api/v1/auth/register", json!({"email": "a@example.com"}))
        .await;
    assert_eq!(
        missing.problem(422, "validation_failed")["errors"][0]["loc"],
        json!(["body", "password"])
    );
    house.join("ada@example.com").await;
    let taken = json!({"email": "ada@example.com", "password": PASSWORD});
    house
        .post("/api/v1/auth/register", taken)
        .await
        .problem(409, "email_taken");

    let post = |body: &'static str| TestClient::post(url("/api/v1/auth/login")).body(body);
    house
        .send(post("{").add_header(CONTENT_TYPE, "application/json", true))
        .await
        .problem(400, "bad_request");
    house
        .send(post("{}").add_header(CONTENT_TYPE, "text/plain", true))
        .await
        .problem(415, "unsupported_media_type");
    let fields_in_order = json!(["bob@example.com", PASSWORD, null]);
    house
        .post("/api/v1/auth/register", fields_in_order)
        .await
        .problem(422, "validation_failed");
    let large = format!("{{\"email\":\"{}\"}}", "x".repeat(4 << 20));
    let large = TestClient::post(url("/api/v1/auth/login")).raw_json(large);
    house.send(large).await.problem(413, "payload_too_large");
}

#[tokio::test]
async fn wrong_and_unknown_are_the_same_answer() {
    let house = house().await;
    house.join("ada@example.com").await;
    let mut details = Vec::new();
    for email in ["ada@example.com", "bob@example.com"] {
        let answer = house
            .post("/api/v1/auth/login", json!({"email": email, "password": "wrong"}))
            .await;
        details.push(answer.problem(401, "invalid_credentials")["detail"].clone());
    }
    assert_eq!(
        details,
        [json!("Invalid email or password"), json!("Invalid email or password")]
    );
    let check = |email: &str| TestClient::post(url(&format!("/api/v1/auth/check-email?email={email}")));
    assert_eq!(
        house.send(check("ada@example.com")).await.ok(),
        json!({"available": false})
    );
    assert_eq!(
        house.send(check("bob@example.com")).await.ok(),
        json!({"available": true})
    );
    house.send(check("bob")).await.problem(422, "validation_failed");
}

#[tokio::test]
async fn me_whoami_profile_and_info_agree() {
    let house = house().await;
    let token = house.token("ada@example.com").await;
    let me = house.get("/api/v1/auth/me", &token).await.ok();
    let whoami = house.get("/api/v1/auth/whoami", &token).await.ok();
    let profile = house.get("/api/v1/user/profile", &token).await.ok();
    let info = house.get("/api/v1/user/info", &token).await.ok();
    let credits = house.get("/api/v1/user/credits", &token).await.ok();
    assert_eq!(me["full_name"], "Ada Lovelace");
    assert_eq!(
        (&me["role"], &me["is_operator"]),
        (&json!("authenticated"), &json!(false))
    );
    assert_eq!(profile["role"], "viewer");
    assert_eq!(info["authenticated"], true);
    assert_eq!(whoami["metadata"]["credits_balance"], 1000);
    assert_eq!(
        (&credits["credits_balance"], &credits["currency"]),
        (&json!(1000), &json!("credits"))
    );
    for other in [&whoami["id"], &profile["id"], &info["id"], &credits["user_id"]] {
        assert_eq!(other, &me["id"]);
    }

    let put = |body: Value| {
        TestClient::put(url("/api/v1/user/profile"))
            .bearer_auth(&token)
            .json(&body)
    };
    let changed = json!({"full_name": "Ada King", "display_name": "ada", "avatar_url": "https://example.com/a.png"});
    let changed = house.send(put(changed)).await.ok();
    assert_eq!(changed["full_name"], "Ada King");
    let cleared = house.send(put(json!({"full_name": null, "other": 1}))).await.ok();
    assert_eq!(
        (&cleared["full_name"], &cleared["display_name"]),
        (&Value::Null, &json!("ada"))
    );
    house
        .send(put(json!({"avatar_url": "http://example.com/a.png"})))
        .await
        .problem(422, "validation_failed");
    house
        .send(put(json!({"full_name": 7})))
        .await
        .problem(422, "validation_failed");
}

#[tokio::test]
async fn logging_out_needs_no_body_and_minds_none() {
    let house = house().await;
    for body in [None, Some("{}"), Some("{\"a\":"), Some("junk")] {
        let session = match body {
            None => house.join("ada@example.com").await,
            Some(_) => {
                let login = json!({"email": "ada@example.com", "password": PASSWORD});
                house.post("/api/v1/auth/login", login).await.ok()
            }
        };
        let token = session["access_token"].as_str().unwrap();
        let mut logout = TestClient::post(url("/api/v1/auth/logout")).bearer_auth(token);
        if let Some(body) = body {
            logout = logout.raw_json(body);
        }
        assert_eq!(
            house.send(logout).await.ok(),
            json!({"message": "Logged out successfully"})
        );
        house.get("/api/v1/auth/me", token).await.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_stream_token_is_no_bearer_token() {
    let house = house().await;
    let token = house.token("ada@example.com").await;
    let post = |body: &'static str| {
        let request = TestClient::post(url("/api/v1/auth/stream-token")).bearer_auth(&token);
        if body.is_empty() {
            request
        } else {
            request.raw_json(body)
        }
    };
    for body in ["", "null", "{}", "{\"generation_id\":null}"] {
        let answer = house.send(post(body)).await.ok();
        assert_eq!(answer["expires_in"], 300);
        let stream_token = answer["token"].as_str().unwrap();
        house
            .get("/api/v1/auth/me", stream_token)
            .await
            .problem(401, "unauthorized");
    }
    house
        .send(post("{\"generation_id\":\"7\"}"))
        .await
        .problem(422, "validation_failed");
}

#[tokio::test]
async fn the_statement_adds_up_and_can_be_filtered() {
    let house = house().await;
    let token = house.token("ada@example.com").await;
    let list = async |query: &str| house.get(&format!("/api/v1/credits/transactions{query}"), &token).await;
    let page = list("").await.ok();
    assert_eq!(
        (&page["total"], &page["skip"], &page["limit"]),
        (&json!(1), &json!(0), &json!(50))
    );
    let line = &page["transactions"][0];
    assert_eq!(
        (&line["transaction_type"], &line["amount"]),
        (&json!("bonus"), &json!(1000))
    );
    assert_eq!(
        (&line["balance_after"], &line["generation_id"]),
        (&json!(1000), &Value::Null)
    );
    assert_eq!(list("?transaction_type=bonus&limit=1").await.ok()["total"], 1);
    assert_eq!(list("?transaction_type=usage").await.ok()["total"], 0);
    assert_eq!(list("?skip=1").await.ok()["transactions"], json!([]));
    for bad in [
        "?limit=0",
        "?limit=101",
        "?limit=x",
        "?skip=-1",
        "?transaction_type=gift",
    ] {
        list(bad).await.problem(422, "validation_failed");
    }
    assert_eq!(
        house.get("/api/v1/credits/balance", &token).await.ok(),
        json!({"balance": 1000, "held": 0, "debt": 0})
    );
    let stats = house.get("/api/v1/credits/stats?days=7", &token).await.ok();
    assert_eq!(
        stats,
        json!({"current_balance": 1000, "period_days": 7, "total_spent": 0, "total_purchased": 1000,
               "generation_count": 0, "transaction_count": 1})
    );
    house
        .get("/api/v1/credits/stats?days=0", &token)
        .await
        .problem(422, "validation_failed");
}
