//! The synchronous routes: create in three content types, list, detail, favourite, delete, media URLs, statistics and
//! quote (contract §5d).

use reqwest::{Method, multipart};
use serde_json::{Value, json};
use tests::fal_sim::{FalSim, Options as SimOptions};
use tests::harness::{Client, Options, Reply, Server, announce, media};

use crate::{assert_time, column, keys};

const GENERATIONS: &str = "/api/v1/generations";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn create_form(client: &Client, fields: &[(&str, &str)]) -> Reply {
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let request = client.request(Method::POST, GENERATIONS).body(body);
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    client.send(request).await
}

fn part_form(fields: &[(&'static str, &'static str)]) -> multipart::Form {
    fields
        .iter()
        .fold(multipart::Form::new(), |form, (name, value)| form.text(*name, *value))
}

const FIELDS: [(&str, &str); 3] = [
    ("model_id", "sandbox/image"),
    ("prompt", "a nice cat"),
    ("parameters", r#"{"latency_ms": 0, "image_size": "square", "seed": 3}"#),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_by_form_multipart_and_json_at_both_mounts() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let body = json!({
        "model_id": "sandbox/image", "prompt": "a nice cat",
        "parameters": {"latency_ms": 0, "image_size": "square", "seed": 3},
    });
    let answers = [
        create_form(&ada, &FIELDS).await,
        ada.send(ada.request(Method::POST, GENERATIONS).multipart(part_form(&FIELDS)))
            .await,
        ada.post(GENERATIONS, &body).await,
        ada.post(&format!("{GENERATIONS}/"), &body).await,
        ada.post("/generations", &body).await,
        ada.send(ada.request(Method::POST, "/generations/").multipart(part_form(&FIELDS)))
            .await,
    ];
    let mut ids = Vec::new();
    for answer in answers {
        let made = answer.ok();
        assert_eq!(
            keys(&made),
            [
                "completed_at",
                "cost",
                "created_at",
                "credits_refunded",
                "credits_used",
                "error_message",
                "id",
                "is_favorite",
                "media_type",
                "media_url",
                "model_id",
                "negative_prompt",
                "output_urls",
                "parameters",
                "parent_generation_id",
                "processing_time",
                "project_id",
                "prompt",
                "reference_image_url",
                "status",
                "style_stack_id",
                "updated_at",
                "user_id"
            ]
        );
        assert_eq!((&made["status"], &made["cost"]), (&json!("pending"), &json!(5)));
        assert_eq!(
            (&made["media_type"], &made["is_favorite"]),
            (&json!("image"), &json!(false))
        );
        assert_eq!((&made["project_id"], &made["output_urls"]), (&Value::Null, &json!([])));
        assert_time(&made["created_at"]);
        ids.push(text(&made["id"]));
    }
    let mut pictures = Vec::new();
    for id in &ids {
        ada.wait_for(id, "completed").await;
        let done = ada.get(&format!("{GENERATIONS}/{id}")).await.ok();
        assert_eq!(
            (&done["status"], &done["credits_used"]),
            (&json!("completed"), &json!(5))
        );
        assert_eq!(done["media_url"], done["output_urls"][0]);
        assert!(done["processing_time"].as_f64().is_some());
        assert_time(&done["completed_at"]);
        assert_eq!(done["parameters"]["seed"], 3);
        let picture = ada.get(done["media_url"].as_str().unwrap()).await.expect(200);
        assert_eq!(media::png_size(&picture.bytes), (512, 512));
        pictures.push(picture.bytes);
    }
    assert!(
        pictures.iter().all(|picture| *picture == pictures[0]),
        "one call, however it was sent"
    );

    let list = ada.get(GENERATIONS).await.ok();
    let newest_first: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    assert_eq!(column(&list, "id"), newest_first);
    let page = ada.get("/generations/?skip=1&limit=2").await.ok();
    assert_eq!(column(&page, "id"), newest_first[1..3]);
    assert_eq!(ada.balance().await, 1000 - 6 * 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn favourite_media_urls_statistics_and_delete() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let done = ada.submit_quick("one").await;
    ada.wait_for(&done, "completed").await;
    let failed = ada
        .submit("sandbox/image", "two", json!({"outcome": "fail", "latency_ms": 0}))
        .await;
    ada.wait_for(&failed, "failed").await;
    let hanging = ada
        .submit("sandbox/video", "three", json!({"outcome": "hang", "latency_ms": 0}))
        .await;
    ada.wait_for(&hanging, "processing").await;

    let favourite = format!("{GENERATIONS}/{done}/favorite");
    assert_eq!(ada.post_empty(&favourite).await.ok()["is_favorite"], true);
    assert_eq!(ada.post_empty(&favourite).await.ok()["is_favorite"], false);
    assert_eq!(ada.post_empty(&format!("{favourite}/")).await.ok()["is_favorite"], true);

    let urls = ada.get(&format!("/generations/{done}/media-urls")).await.ok();
    assert_eq!(urls["generation_id"], done.as_str());
    assert_eq!((&urls["file_count"], &urls["expires_in"]), (&json!(1), &json!(3600)));
    assert_eq!(urls["primary_url"], urls["signed_urls"][0]);
    assert_time(&urls["expires_at"]);
    ada.without_token()
        .get(urls["primary_url"].as_str().unwrap())
        .await
        .expect(200);
    let none = ada.get(&format!("{GENERATIONS}/{failed}/media-urls")).await.ok();
    assert_eq!((&none["signed_urls"], &none["primary_url"]), (&json!([]), &Value::Null));

    let stats = ada.get(&format!("{GENERATIONS}/stats/")).await.ok();
    assert_eq!(
        stats,
        json!({
            "total_generations": 3, "completed_generations": 1, "failed_generations": 1,
            "processing_generations": 1, "favorite_generations": 1, "total_credits_used": 5, "success_rate": 33.33,
            "type_breakdown": {"image": 2, "video": 1},
            "model_breakdown": {"sandbox/image": 2, "sandbox/video": 1},
        })
    );

    // What runs is cancelled first, what is gone is gone, and the books stay.
    let running = format!("{GENERATIONS}/{hanging}");
    ada.delete(&running).await.problem(409, "conflict");
    assert_eq!(ada.cancel(&hanging).await.ok()["cancelled"], true);
    let picture = text(&urls["primary_url"]);
    for id in [&hanging, &failed, &done] {
        let answer = ada.delete(&format!("{GENERATIONS}/{id}")).await.ok();
        assert_eq!(answer, json!({"message": "Generation deleted successfully"}));
        for missing in [
            ada.get(&format!("{GENERATIONS}/{id}")).await,
            ada.delete(&format!("{GENERATIONS}/{id}")).await,
            ada.post_empty(&format!("{GENERATIONS}/{id}/favorite")).await,
            ada.get(&format!("{GENERATIONS}/{id}/media-urls")).await,
            ada.get(&format!("{GENERATIONS}/async/{id}/status")).await,
        ] {
            missing.problem(404, "not_found");
        }
    }
    ada.get(&picture).await.problem(404, "not_found");
    assert_eq!(ada.generations().await.len(), 0);
    assert_eq!(
        ada.statement().await,
        [
            "bonus +1000",
            "usage -5",
            "usage -5",
            "refund +5",
            "usage -20",
            "refund +20"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_urls_open_their_own_file_until_they_expire() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let [one, two] = [ada.submit_quick("one").await, ada.submit_quick("two").await];
    let url_of = |answer: Value| text(&answer["output_urls"][0]);
    let one = url_of(ada.wait_for(&one, "completed").await);
    let two = url_of(ada.wait_for(&two, "completed").await);
    let parts = |url: &str| {
        let url = url::Url::parse(url).unwrap();
        let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        (url.path().to_owned(), query)
    };
    let (path, query) = parts(&one);
    let (other_path, _) = parts(&two);
    let with = |path: &str, change: &dyn Fn(&str, &str) -> String| {
        let pairs: Vec<String> = query.iter().map(|(k, v)| format!("{k}={}", change(k, v))).collect();
        format!("{path}?{}", pairs.join("&"))
    };
    let nobody = server.anonymous();
    nobody.get(&with(&path, &|_, v| v.to_owned())).await.expect(200);
    for forged in [
        path.clone(),
        with(&other_path, &|_, v| v.to_owned()),
        with(&path, &|k, v| {
            if k == "exp" { "9999999999".into() } else { v.to_owned() }
        }),
        with(&path, &|k, v| if k == "exp" { "1".into() } else { v.to_owned() }),
        with(&path, &|k, v| if k == "sig" { format!("{v}0") } else { v.to_owned() }),
        with("/outputs/../velro.db", &|_, v| v.to_owned()),
        with("/outputs/..%2F..%2Fproviders.toml", &|_, v| v.to_owned()),
        "/outputs/".to_owned(),
    ] {
        let status = nobody.get(&forged).await.status.as_u16();
        assert!([400, 403, 404].contains(&status), "{forged}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_are_checked_field_by_field() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let with = |name: &'static str, value: &'static str| {
        let mut fields: Vec<(&str, &str)> = FIELDS.iter().filter(|(n, _)| *n != name).copied().collect();
        fields.push((name, value));
        fields
    };
    let without = |name: &str| -> Vec<(&str, &str)> { FIELDS.iter().filter(|(n, _)| *n != name).copied().collect() };
    for (fields, field) in [
        (without("model_id"), "body.model_id"),
        (without("prompt"), "body.prompt"),
        (with("prompt", "   "), "body.prompt"),
        (with("parameters", "{"), "body.parameters"),
        (with("parameters", "[]"), "body.parameters"),
        (with("parameters", r#"{"seed": {"nested": 1}}"#), "body.parameters.seed"),
        (with("parameters", r#"{"num_images": 9}"#), "body.parameters.num_images"),
        (with("project_id", "nonsense"), "body.project_id"),
    ] {
        create_form(&ada, &fields).await.invalid(field);
    }
    create_form(&ada, &with("model_id", "no/such"))
        .await
        .problem(422, "unknown_model");
    let missing_project = with("project_id", "0190f0f0-0000-7000-8000-000000000000");
    create_form(&ada, &missing_project).await.problem(404, "not_found");
    assert_eq!(ada.generations().await.len(), 0);
    assert_eq!(ada.balance().await, 1000);
    // An empty project is no project.
    let made = create_form(&ada, &with("project_id", "")).await.ok();
    ada.wait_for(made["id"].as_str().unwrap(), "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_reference_image_reaches_the_provider() {
    let sim = FalSim::start(SimOptions::default()).await.unwrap();
    let server = Server::with(Options::new().fal(&sim).webhooks()).await;
    let ada = server.register("ada").await;
    let id = ada.submit_quick("a reference").await;
    let url = text(&ada.wait_for(&id, "completed").await["output_urls"][0]);
    let picture = ada.get(&url).await.expect(200).bytes;

    let form = |bytes: Vec<u8>, kind: &str| {
        let file = multipart::Part::bytes(bytes)
            .file_name("cat.png")
            .mime_str(kind)
            .unwrap();
        part_form(&[("model_id", "fal-ai/flux-pro/kontext/max"), ("prompt", "make it night")])
            .part("reference_image", file)
    };
    let create = |form| ada.send(ada.request(Method::POST, GENERATIONS).multipart(form));
    let made = create(form(picture.clone(), "image/png")).await.ok();
    assert_eq!(made["status"], "pending");
    ada.wait_for(made["id"].as_str().unwrap(), "completed").await;
    let bought = &sim.requests()[0];
    assert_eq!(bought.endpoint, "fal-ai/flux-pro/kontext/max");
    let reference = bought.input["image_url"].as_str().unwrap();
    assert_eq!(server.anonymous().get(reference).await.expect(200).bytes, picture);

    // The bytes decide, not what the client calls them.
    create(form(b"<html>no picture</html>".to_vec(), "image/png"))
        .await
        .invalid("body.reference_image");
    let kind = "multipart/form-data; boundary=x";
    assert_eq!(announce(&ada, GENERATIONS, kind, 64 << 20).await, 413);
    let sandbox = part_form(&FIELDS).part("reference_image", multipart::Part::bytes(picture).file_name("x.png"));
    create(sandbox).await.expect(422);
    assert_eq!(sim.requests().len(), 1);
    assert_eq!(ada.balance().await, 1000 - 5 - 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quote_prices_without_buying() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let quote = |model: &str, parameters: Value| {
        let body = json!({"model_id": model, "prompt": "x", "parameters": parameters});
        let ada = ada.clone();
        async move { ada.post("/api/v1/generations/quote", &body).await }
    };
    let answer = quote("sandbox/image", json!({"num_images": 3, "fps": 25})).await.ok();
    assert_eq!((&answer["credits"], &answer["base_credits"]), (&json!(15), &json!(5)));
    assert_eq!(answer["factors"], json!([{"parameter": "num_images", "value": 3}]));
    assert_eq!(answer["dropped_parameters"], json!(["fps"]));
    assert_eq!(answer["parameters"]["image_size"], "landscape_4_3");
    assert_eq!(quote("sandbox/video", json!({})).await.ok()["credits"], 20);
    quote("sandbox/image", json!({"num_images": 5}))
        .await
        .invalid("body.parameters.num_images");
    quote("no/such", json!({})).await.problem(422, "unknown_model");
    assert_eq!(ada.statement().await, ["bonus +1000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_keeps_the_records_of_the_original() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let done = ada.submit_quick("one").await;
    ada.wait_for(&done, "completed").await;
    let failed = ada
        .submit("sandbox/image", "two", json!({"outcome": "fail", "latency_ms": 0}))
        .await;
    ada.wait_for(&failed, "failed").await;

    let history = ada.get("/api/v1/generations/async/user/history").await.ok();
    assert_eq!(column(&history, "generation_id"), [failed.as_str(), done.as_str()]);
    let [failed_record, done_record] = [&history[0], &history[1]];
    for record in [failed_record, done_record] {
        for member in [
            "generation_id",
            "user_id",
            "model_id",
            "prompt",
            "request_id",
            "status",
            "created_at",
        ] {
            assert!(record[member].is_string(), "{member} in {record}");
        }
        let parameters: Value = serde_json::from_str(record["parameters"].as_str().unwrap()).unwrap();
        assert!(parameters.is_object());
        assert!(
            !record["created_at"].as_str().unwrap().contains('+'),
            "naive, as the original wrote it"
        );
        assert!(record.get("cache_key").is_none());
    }
    assert_eq!(done_record["output_urls"].as_array().unwrap().len(), 1);
    assert!(done_record["metadata"]["generation_time"].as_f64().is_some());
    assert!(failed_record["error"].is_string() && failed_record["failed_at"].is_string());
    let one = ada.get("/api/v1/generations/async/user/history/?limit=1").await.ok();
    assert_eq!(column(&one, "generation_id"), [failed.as_str()]);
    ada.get("/api/v1/generations/async/user/history?limit=0")
        .await
        .invalid("query.limit");
}
