//! Projects, and who may see or change what.

use super::*;
use crate::clock;
use crate::http::openapi;
use crate::store::{By, ChangeUser, Role, UserChange, UserChanged};
use salvo::http::Method;

async fn create(house: &House, token: &str, body: Value) -> Answer {
    house
        .send(
            TestClient::post(url("/api/v1/projects/"))
                .bearer_auth(token)
                .json(&body),
        )
        .await
}

/// As an operator does.
async fn give(house: &House, email: &str, role: Role) {
    let store = &house.services.store;
    let user = store.user_by_email(email).await.unwrap().unwrap();
    let change = ChangeUser {
        user_id: user.id,
        change: UserChange::Role(role),
        by: By {
            actor: "a test".into(),
            reason: "for the test".into(),
            now: clock::now(),
        },
    };
    let changed = store.change_user(change).await.unwrap();
    assert!(
        matches!(changed, UserChanged::Done { changed: true, .. }),
        "{changed:?}"
    );
}

#[tokio::test]
async fn a_project_lives_and_goes() {
    let house = house().await;
    let token = house.token("ada@example.com").await;
    let body = json!({"name": "Lighthouses", "tags": ["sea"], "metadata": {"a": [1, null]}, "unknown": 1});
    let project = create(&house, &token, body).await.ok();
    assert_eq!(project["visibility"], "private");
    assert_eq!(
        (&project["description"], &project["generation_count"]),
        (&Value::Null, &json!(0))
    );
    let path = format!("/api/v1/projects/{}", project["id"].as_str().unwrap());
    assert_eq!(house.get(&path, &token).await.ok(), project);

    let put = |body: Value| TestClient::put(url(&path)).bearer_auth(&token).json(&body);
    let changed = house
        .send(put(
            json!({"name": null, "description": "By night", "visibility": "team-only"}),
        ))
        .await
        .ok();
    assert_eq!(
        (&changed["name"], &changed["description"]),
        (&json!("Lighthouses"), &json!("By night"))
    );
    assert_eq!(
        (&changed["visibility"], &changed["tags"]),
        (&json!("team-only"), &json!(["sea"]))
    );
    house.send(put(json!({}))).await.ok();

    let stats = house.get(&format!("{path}/stats"), &token).await.ok();
    assert_eq!(
        (&stats["name"], &stats["generation_count"]),
        (&json!("Lighthouses"), &json!(0))
    );
    assert_eq!(
        house
            .get("/api/v1/projects?visibility=team-only", &token)
            .await
            .ok()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        house.get("/api/v1/projects?visibility=private", &token).await.ok(),
        json!([])
    );

    let delete = || TestClient::delete(url(&path)).bearer_auth(&token);
    assert_eq!(
        house.send(delete()).await.ok(),
        json!({"message": "Project deleted successfully"})
    );
    house.send(delete()).await.problem(404, "not_found");
    house
        .get(&format!("{path}/stats"), &token)
        .await
        .problem(404, "not_found");
    house
        .get("/api/v1/projects/7", &token)
        .await
        .problem(422, "validation_failed");
}

#[tokio::test]
async fn the_rules_of_a_project_are_named() {
    let house = house().await;
    let token = house.token("ada@example.com").await;
    for (body, loc) in [
        (json!({}), json!(["body", "name"])),
        (json!({"name": "  "}), json!(["body", "name"])),
        (json!({"name": "x".repeat(101)}), json!(["body", "name"])),
        (
            json!({"name": "x", "description": "x".repeat(501)}),
            json!(["body", "description"]),
        ),
        (
            json!({"name": "x", "visibility": "secret"}),
            json!(["body", "visibility"]),
        ),
        (json!({"name": "x", "tags": vec!["t"; 11]}), json!(["body", "tags"])),
        (
            json!({"name": "x", "tags": ["t", "x".repeat(51)]}),
            json!(["body", "tags", "1"]),
        ),
        (json!({"name": "x", "metadata": []}), json!(["body", "metadata"])),
        (
            json!({"name": "x", "metadata": {"a": {"b\u{0}": 1}}}),
            json!(["body", "metadata"]),
        ),
        (
            json!({"name": "x", "metadata": {"a": "x".repeat(17_000)}}),
            json!(["body", "metadata"]),
        ),
    ] {
        let problem = create(&house, &token, body.clone())
            .await
            .problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["loc"], loc, "{body}");
    }
    create(&house, &token, json!({"name": "ä".repeat(100)})).await.ok();
    for bad in ["limit=0", "limit=101", "skip=-1", "visibility=all"] {
        house
            .get(&format!("/api/v1/projects?{bad}"), &token)
            .await
            .problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn another_user_sees_public_projects_only_and_changes_none() {
    let house = house().await;
    let ada = house.token("ada@example.com").await;
    let bob = house.token("bob@example.com").await;
    for (visibility, status) in [("private", 404), ("team-only", 404), ("public", 200)] {
        let project = create(&house, &ada, json!({"name": visibility, "visibility": visibility}))
            .await
            .ok();
        let path = format!("/api/v1/projects/{}", project["id"].as_str().unwrap());
        assert_eq!(house.get(&path, &bob).await.status.as_u16(), status, "{visibility}");
        assert_eq!(
            house.get(&format!("{path}/stats"), &bob).await.status.as_u16(),
            status,
            "{visibility}"
        );
        let put = TestClient::put(url(&path))
            .bearer_auth(&bob)
            .json(&json!({"name": "mine"}));
        house.send(put).await.problem(404, "not_found");
        house
            .send(TestClient::delete(url(&path)).bearer_auth(&bob))
            .await
            .problem(404, "not_found");
        assert_eq!(house.get(&path, &ada).await.ok()["name"], visibility);
    }
    assert_eq!(house.get("/api/v1/projects", &bob).await.ok(), json!([]));
    let public = house.get("/api/v1/projects?visibility=public", &bob).await.ok();
    assert_eq!(public.as_array().unwrap().len(), 1);
    assert_eq!(
        house.get("/api/v1/projects", &ada).await.ok().as_array().unwrap().len(),
        3
    );
}

#[tokio::test]
async fn system_metrics_are_for_operators_and_a_promotion_counts_at_once() {
    let house = house().await;
    let path = "/api/v1/generations/async/metrics/system";
    house
        .send(TestClient::get(url(path)))
        .await
        .problem(401, "unauthorized");
    let ada = house.token("ada@example.com").await;
    house.get(path, &ada).await.problem(403, "forbidden");
    give(&house, "ada@example.com", Role::Operator).await;
    let metrics = house.get(path, &ada).await.ok();
    assert_eq!(
        (&metrics["active_generations"], &metrics["held_credits"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(metrics["status_counts"]["queued"], 0);
    assert_eq!(metrics["redis_connections"], Value::Null);
    assert_eq!(house.get("/api/v1/auth/me", &ada).await.ok()["is_operator"], true);
    // Somebody else is one too, or ada would have to stay.
    let boss = house.token("boss@example.com").await;
    house.get(path, &boss).await.ok();
    give(&house, "ada@example.com", Role::User).await;
    house.get(path, &ada).await.problem(403, "forbidden");
}

#[tokio::test]
async fn no_documented_operation_lets_a_stranger_in() {
    let house = house().await;
    let document = serde_json::to_value(openapi::document()).unwrap();
    let mut protected = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .split('/')
            .map(|part| {
                if part.starts_with('{') {
                    "0192f0c1-2345-7890-abcd-ef0123456789"
                } else {
                    part
                }
            })
            .collect::<Vec<_>>()
            .join("/");
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            let is_protected = operation["security"].as_array().is_some_and(|s| !s.is_empty());
            protected += usize::from(is_protected);
            for header in [
                None,
                Some("Bearer"),
                Some("Bearer "),
                Some("Basic YTpi"),
                Some("Bearer a.b.c"),
            ] {
                let mut request = RequestBuilder::new(url(&path), method.clone());
                if let Some(value) = header {
                    request = request.add_header("authorization", value, true);
                }
                let answer = house.send(request).await;
                let refused = answer.status == StatusCode::UNAUTHORIZED;
                assert_eq!(
                    refused, is_protected,
                    "{method} {path} with {header:?}: {} {}",
                    answer.status, answer.text
                );
                if is_protected {
                    answer.problem(401, "unauthorized");
                }
            }
        }
    }
    assert!(protected >= 20, "only {protected} protected operations were documented");
}
