//! Projects with the rulings on them (contract §5c and §16).

use serde_json::{Value, json};
use tests::harness::{Client, Server};

use crate::{assert_time, column, keys};

const PROJECTS: &str = "/api/v1/projects";

async fn create(client: &Client, body: Value) -> Value {
    client.post(PROJECTS, &body).await.ok()
}

fn path(project: &Value) -> String {
    format!("{PROJECTS}/{}", project["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_are_created_changed_and_deleted() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let plain = create(&ada, json!({"name": "Lighthouses", "unknown": 1})).await;
    assert_eq!(
        keys(&plain),
        [
            "created_at",
            "description",
            "generation_count",
            "id",
            "metadata",
            "name",
            "tags",
            "updated_at",
            "user_id",
            "visibility"
        ]
    );
    assert_eq!(
        (
            &plain["description"],
            &plain["visibility"],
            &plain["tags"],
            &plain["metadata"]
        ),
        (&Value::Null, &json!("private"), &json!([]), &json!({}))
    );
    assert_eq!(plain["user_id"], ada.user_id.as_str());
    assert_time(&plain["created_at"]);

    let rich = json!({
        "name": "Lighthouses", "description": "by night", "visibility": "team-only",
        "tags": ["sea", "night"], "metadata": {"nested": {"a": [1, null]}},
    });
    let rich_project = ada.post(&format!("{PROJECTS}/"), &rich).await.ok();
    for member in ["name", "description", "visibility", "tags", "metadata"] {
        assert_eq!(rich_project[member], rich[member], "{member}");
    }

    // A part changes, null leaves, and a change moves it to the front of the list.
    let changed = ada
        .put(&path(&plain), &json!({"description": "by day", "name": null}))
        .await
        .ok();
    assert_eq!(
        (&changed["name"], &changed["description"]),
        (&json!("Lighthouses"), &json!("by day"))
    );
    assert!(changed["updated_at"].as_str() > plain["updated_at"].as_str());
    let list = ada.get(PROJECTS).await.ok();
    assert_eq!(
        column(&list, "id"),
        [plain["id"].as_str().unwrap(), rich_project["id"].as_str().unwrap()]
    );
    let touched = ada.put(&path(&rich_project), &json!({})).await.ok();
    assert!(touched["updated_at"].as_str() > rich_project["updated_at"].as_str());
    let list = ada.get(&format!("{PROJECTS}/?skip=1&limit=1")).await.ok();
    assert_eq!(column(&list, "id"), [plain["id"].as_str().unwrap()]);

    for (body, field) in [
        (json!({}), "body.name"),
        (json!({"name": 7}), "body.name"),
        (json!({"name": "  "}), "body.name"),
        (json!({"name": "x".repeat(101)}), "body.name"),
        (json!({"name": "x", "description": "x".repeat(501)}), "body.description"),
        (json!({"name": "x", "visibility": "secret"}), "body.visibility"),
        (json!({"name": "x", "tags": vec!["t"; 11]}), "body.tags"),
        (json!({"name": "x", "tags": ["t".repeat(51)]}), "body.tags.0"),
        (json!({"name": "x", "tags": [1]}), "body.tags.0"),
        (json!({"name": "x", "metadata": []}), "body.metadata"),
    ] {
        ada.post(PROJECTS, &body).await.invalid(field);
    }
    assert_eq!(ada.get(PROJECTS).await.ok().as_array().unwrap().len(), 2);

    let gone = ada.delete(&path(&plain)).await.ok();
    assert_eq!(gone, json!({"message": "Project deleted successfully"}));
    for answer in [
        ada.delete(&path(&plain)).await,
        ada.get(&path(&plain)).await,
        ada.put(&path(&plain), &json!({"name": "x"})).await,
        ada.get(&format!("{}/stats", path(&plain))).await,
    ] {
        answer.problem(404, "not_found");
    }
    ada.get(&format!("{PROJECTS}/not-a-uuid"))
        .await
        .invalid("path.project_id");
    let ping = server.anonymous().get(&format!("{PROJECTS}/_ping")).await.ok();
    assert_eq!(ping["service"], "projects");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_public_projects_are_seen_by_others_and_only_when_asked_for() {
    let server = Server::start().await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let mut made = Vec::new();
    for visibility in ["private", "team-only", "public"] {
        made.push(create(&ada, json!({"name": visibility, "visibility": visibility})).await);
    }
    let own = create(&bob, json!({"name": "bob's"})).await;

    let list = bob.get(PROJECTS).await.ok();
    assert_eq!(column(&list, "id"), [own["id"].as_str().unwrap()], "own by default");
    let public = bob.get(&format!("{PROJECTS}?visibility=public")).await.ok();
    assert_eq!(
        column(&public, "name"),
        ["public"],
        "everybody's public ones on request"
    );
    let team = ada.get(&format!("{PROJECTS}?visibility=team-only")).await.ok();
    assert_eq!(column(&team, "name"), ["team-only"]);
    let team = bob.get(&format!("{PROJECTS}?visibility=team-only")).await.ok();
    assert_eq!(team, json!([]));
    bob.get(&format!("{PROJECTS}?visibility=secret"))
        .await
        .invalid("query.visibility");

    for (project, visible) in made.iter().zip([false, false, true]) {
        for suffix in ["", "/stats"] {
            let answer = bob.get(&format!("{}{suffix}", path(project))).await;
            match visible {
                true => assert_eq!(answer.ok()["name"], "public"),
                false => drop(answer.problem(404, "not_found")),
            }
        }
        bob.put(&path(project), &json!({"name": "mine now"}))
            .await
            .problem(404, "not_found");
        bob.delete(&path(project)).await.problem(404, "not_found");
    }
    let list = ada.get(PROJECTS).await.ok();
    assert_eq!(
        column(&list, "name"),
        ["public", "team-only", "private"],
        "nothing was changed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_belong_to_projects_and_outlive_them() {
    let server = Server::start().await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let project = create(&ada, json!({"name": "p", "visibility": "public"})).await;
    let other = create(&ada, json!({"name": "q"})).await;
    let call = |project: &Value| {
        json!({
            "model_id": "sandbox/image", "prompt": "x", "parameters": {"latency_ms": 0, "image_size": "square"},
            "project_id": project["id"],
        })
    };
    let submit = "/api/v1/generations/async/submit";
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = ada.post(submit, &call(&project)).await.ok();
        ids.push(answer["generation_id"].as_str().unwrap().to_owned());
    }
    let elsewhere = ada.submit_quick("elsewhere").await;
    // A public project can be seen by others, but not be filled by them.
    bob.post(submit, &call(&project)).await.problem(404, "not_found");
    ada.post(submit, &call(&json!({"id": "no uuid"})))
        .await
        .invalid("body.project_id");
    assert_eq!(bob.balance().await, 1000);
    for id in ids.iter().chain([&elsewhere]) {
        ada.wait_for(id, "completed").await;
    }

    let id = project["id"].as_str().unwrap();
    let listed = ada.get(&format!("/api/v1/generations?project_id={id}")).await.ok();
    let newest_first: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    assert_eq!(column(&listed, "id"), newest_first);
    assert_eq!(column(&listed, "project_id"), [id, id]);
    assert_eq!(ada.get(&path(&project)).await.ok()["generation_count"], 2);
    assert_eq!(ada.get(&path(&other)).await.ok()["generation_count"], 0);
    let stats = ada.get(&format!("{}/stats", path(&project))).await.ok();
    assert_eq!(
        keys(&stats),
        [
            "created_at",
            "generation_count",
            "id",
            "name",
            "tags",
            "updated_at",
            "visibility"
        ]
    );
    assert_eq!(stats["generation_count"], 2);
    let foreign = bob.get(&format!("/api/v1/generations?project_id={id}")).await.ok();
    assert_eq!(
        foreign,
        json!([]),
        "a public project does not show its owner's generations"
    );

    ada.delete(&path(&project)).await.ok();
    let kept = ada.get(&format!("/api/v1/generations/{}", ids[0])).await.ok();
    assert_eq!(kept["project_id"], Value::Null);
    assert_eq!(ada.generations().await.len(), 3);
}
