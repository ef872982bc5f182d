//! The caller's own profile (contract §5b).

use serde_json::{Value, json};
use tests::harness::Server;

use crate::assert_time;

const PROFILE: &str = "/api/v1/user/profile";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_can_be_read_and_changed() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let profile = ada.get(PROFILE).await.ok();
    for (member, value) in [
        ("id", json!(ada.user_id)),
        ("email", json!("ada@example.com")),
        ("full_name", json!("Test Person")),
        ("avatar_url", Value::Null),
        ("credits_balance", json!(1000)),
        ("role", json!("viewer")),
        ("current_plan", json!("free")),
        ("phone", Value::Null),
        ("phone_confirmed_at", Value::Null),
    ] {
        assert_eq!(profile[member], value, "{member}");
    }
    for time in ["created_at", "updated_at", "email_confirmed_at"] {
        assert_time(&profile[time]);
    }
    assert_eq!(
        ada.get("/api/v1/user/info").await.ok(),
        json!({"id": ada.user_id, "email": "ada@example.com", "role": "authenticated", "authenticated": true})
    );

    let change = json!({
        "full_name": "Jean-Luc O'Neil Jr.", "display_name": "jl", "avatar_url": "https://example.com/a.png",
        "credits_balance": 1_000_000, "role": "operator", "email": "eve@example.com",
    });
    let changed = ada.put(PROFILE, &change).await.ok();
    assert_eq!(changed["full_name"], "Jean-Luc O'Neil Jr.");
    assert_eq!(changed["avatar_url"], "https://example.com/a.png");
    // What is not a person's own to change is ignored like any unknown key.
    assert_eq!(
        (&changed["credits_balance"], &changed["role"]),
        (&json!(1000), &json!("viewer"))
    );
    assert_eq!(changed["email"], "ada@example.com");
    let left = ada.put(PROFILE, &json!({"display_name": null})).await.ok();
    assert_eq!(
        (&left["display_name"], &left["full_name"]),
        (&Value::Null, &changed["full_name"])
    );
    let same = ada.put(PROFILE, &json!({})).await.ok();
    assert_eq!(same["full_name"], changed["full_name"]);

    for (body, field) in [
        (json!({"full_name": "<script>"}), "body.full_name"),
        (json!({"full_name": "x".repeat(201)}), "body.full_name"),
        (json!({"full_name": 7}), "body.full_name"),
        (json!({"avatar_url": "http://example.com/a.png"}), "body.avatar_url"),
        (json!({"avatar_url": "javascript:alert(1)"}), "body.avatar_url"),
    ] {
        ada.put(PROFILE, &body).await.invalid(field);
    }
    assert_eq!(ada.get(PROFILE).await.ok()["full_name"], "Jean-Luc O'Neil Jr.");
    assert_eq!(
        ada.get("/api/v1/auth/me").await.ok()["full_name"],
        "Jean-Luc O'Neil Jr."
    );
}
