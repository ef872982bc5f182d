//! The generation side without a worker: what is submitted waits until a test does something with it.

use salvo::test::TestClient;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

use super::{House, house, house_with, url};
use crate::catalog::Registry;
use crate::clock;

const SUBMIT: &str = "/api/v1/generations/async/submit";
const CREATE: &str = "/api/v1/generations";

/// A surface with the shipped registry.
pub(super) async fn shop() -> House {
    stocked(house().await)
}

pub(super) fn stocked(house: House) -> House {
    let text = include_str!("../../../../providers.toml");
    let registry = Registry::from_toml(text, Path::new("providers.toml"), clock::now()).unwrap();
    let services = &house.services;
    services.providers.take_up(&services.config, &registry).unwrap();
    house.services.shelf.set(registry);
    house
}

pub(super) fn picture() -> Value {
    json!({"model_id": "sandbox/image", "prompt": "a lighthouse", "parameters": {"num_images": 2}})
}

impl House {
    pub(super) async fn submit(&self, token: &str, body: &Value) -> Value {
        let request = TestClient::post(url(SUBMIT)).bearer_auth(token).json(body);
        self.send(request).await.ok()
    }

    async fn balance(&self, token: &str) -> i64 {
        let answer = self.get("/api/v1/credits/balance", token).await.ok();
        answer["balance"].as_i64().unwrap()
    }

    pub(super) async fn cancel(&self, token: &str, id: &str) -> Value {
        let path = format!("/api/v1/generations/async/{id}/cancel");
        self.send(TestClient::delete(url(&path)).bearer_auth(token)).await.ok()
    }
}

#[tokio::test]
async fn a_submit_holds_the_price_once_however_often_it_is_sent_and_by_whichever_route() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let before = shop.balance(&token).await;
    let send = |path, body: Value| {
        let request = TestClient::post(url(path)).bearer_auth(&token);
        request.add_header("idempotency-key", "\"one\"", true).json(&body)
    };
    let first = shop.send(send(SUBMIT, picture())).await;
    let id = first.ok()["generation_id"].clone();
    assert_eq!(first.header("idempotent-replayed"), "");
    let again = shop.send(send(SUBMIT, picture())).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.ok()["generation_id"], id);
    let form = TestClient::post(url("/generations"))
        .bearer_auth(&token)
        .add_header("idempotency-key", "one", true)
        .form(&[
            ("model_id", "sandbox/image"),
            ("prompt", "a lighthouse"),
            ("parameters", "{\"num_images\": 2}"),
        ]);
    assert_eq!(shop.send(form).await.ok()["id"], id);
    let mut other = picture();
    other["prompt"] = json!("another");
    shop.send(send(CREATE, other))
        .await
        .problem(422, "idempotency_key_reused");
    assert_eq!(shop.balance(&token).await, before - 10);
}

#[tokio::test]
async fn every_key_of_the_contract_is_there() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let mut call = picture();
    call["parameters"]["fps"] = json!(25);
    let submitted = shop.submit(&token, &call).await;
    let id = submitted["generation_id"].as_str().unwrap().to_owned();
    let status = shop
        .get(&format!("/api/v1/generations/async/{id}/status/"), &token)
        .await
        .ok();
    for object in [&submitted, &status] {
        let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "cached",
                "error",
                "estimated_time",
                "generation_id",
                "metadata",
                "output_urls",
                "queue_position",
                "status"
            ]
        );
        assert_eq!(object["status"], "queued");
        assert_eq!(object["queue_position"], 0);
        assert_eq!(object["metadata"]["dropped_parameters"], json!(["fps"]));
        assert!(object["output_urls"].is_null() && object["error"].is_null());
    }
    let object = shop.get(&format!("{CREATE}/{id}"), &token).await.ok();
    assert_eq!((&object["status"], &object["cost"]), (&json!("pending"), &json!(10)));
    assert_eq!(object.as_object().unwrap().len(), 23);
    let history = shop.get("/api/v1/generations/async/user/history", &token).await.ok();
    let record = history[0].as_object().unwrap();
    assert_eq!(record["request_id"], record["generation_id"]);
    assert_eq!(
        record["created_at"].as_str().unwrap().len(),
        "2026-11-23T01:09:03.273312".len()
    );
    let parameters: Value = serde_json::from_str(record["parameters"].as_str().unwrap()).unwrap();
    assert_eq!(parameters["num_images"], 2);
    for absent in [
        "output_urls",
        "completed_at",
        "error",
        "failed_at",
        "metadata",
        "cache_key",
    ] {
        assert!(!record.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn refusals_are_honest_and_change_nothing() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let before = shop.balance(&token).await;
    let cases = [
        (json!({"model_id": "nope", "prompt": "x"}), 422, "unknown_model"),
        (
            json!({"model_id": "fal-ai/veo3", "prompt": "x"}),
            422,
            "model_unavailable",
        ),
        (
            json!({"model_id": "sandbox/image", "prompt": " "}),
            422,
            "validation_failed",
        ),
        (
            json!({"model_id": "sandbox/image", "prompt": "\u{0}"}),
            422,
            "validation_failed",
        ),
        (json!({"model_id": "sandbox/image"}), 422, "validation_failed"),
        (
            json!({"model_id": "sandbox/image", "prompt": "x", "parameters": {"num_images": 9}}),
            422,
            "validation_failed",
        ),
        (
            json!({"model_id": "sandbox/image", "prompt": "x", "parameters": []}),
            422,
            "validation_failed",
        ),
        (
            json!({"model_id": "sandbox/image", "prompt": "x", "project_id": "0190a3e4-0000-7000-8000-000000000000"}),
            404,
            "not_found",
        ),
    ];
    for (body, status, code) in cases {
        for path in [SUBMIT, CREATE] {
            let request = TestClient::post(url(path)).bearer_auth(&token).json(&body);
            shop.send(request).await.problem(status, code);
        }
    }
    assert_eq!(shop.balance(&token).await, before);
    assert_eq!(shop.get(CREATE, &token).await.ok(), json!([]));
}

#[tokio::test]
async fn too_few_credits_are_402() {
    let shop = stocked(house_with(&[("DEFAULT_USER_CREDITS", "9")]).await);
    let token = shop.token("a@example.com").await;
    let request = TestClient::post(url(SUBMIT)).bearer_auth(&token).json(&picture());
    let body = shop.send(request).await.problem(402, "insufficient_credits");
    assert_eq!(body["detail"], "Insufficient credits. Required: 10, Available: 9");
}

#[tokio::test]
async fn a_quote_is_the_price_of_the_submit() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let request = TestClient::post(url("/api/v1/generations/quote"))
        .bearer_auth(&token)
        .json(&picture());
    let quote = shop.send(request).await.ok();
    assert_eq!((&quote["credits"], &quote["base_credits"]), (&json!(10), &json!(5)));
    assert_eq!(quote["factors"], json!([{"parameter": "num_images", "value": 2}]));
    let before = shop.balance(&token).await;
    shop.submit(&token, &picture()).await;
    assert_eq!(shop.balance(&token).await, before - 10);
}

#[tokio::test]
async fn what_runs_cannot_be_deleted_and_what_was_cancelled_can() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let before = shop.balance(&token).await;
    let id = shop.submit(&token, &picture()).await["generation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("{CREATE}/{id}");
    let delete = || TestClient::delete(url(&path)).bearer_auth(&token);
    shop.send(delete()).await.problem(409, "conflict");
    assert_eq!(shop.cancel(&token, &id).await["cancelled"], true);
    assert_eq!(shop.cancel(&token, &id).await["cancelled"], false);
    assert_eq!(shop.balance(&token).await, before);
    let toggled = TestClient::post(url(&format!("{path}/favorite"))).bearer_auth(&token);
    assert_eq!(shop.send(toggled).await.ok()["is_favorite"], true);
    assert_eq!(
        shop.get(&format!("{path}/media-urls"), &token).await.ok()["file_count"],
        0
    );
    shop.send(delete()).await.ok();
    shop.get(&path, &token).await.problem(404, "not_found");
}

#[tokio::test]
async fn ids_with_slashes_have_a_page_and_a_price() {
    let shop = shop().await;
    for id in ["fal-ai/flux-pro/v1.1-ultra", "fal-ai%2Fflux-pro%2Fv1.1-ultra"] {
        let detail = shop
            .send(TestClient::get(url(&format!("/api/v1/models/{id}"))))
            .await
            .ok();
        assert_eq!(
            (&detail["name"], &detail["credits_cost"]),
            (&json!("Flux Pro/V1.1 Ultra"), &json!(50))
        );
        for slash in ["", "/"] {
            let path = format!("/api/v1/models/{id}/pricing{slash}");
            let pricing = shop.send(TestClient::get(url(&path))).await.ok();
            assert_eq!(pricing["model_id"], "fal-ai/flux-pro/v1.1-ultra");
            assert_eq!(pricing["supported_formats"], json!(["jpg", "png", "webp"]));
        }
    }
    shop.send(TestClient::get(url("/api/v1/models/nope")))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn listings_are_cached_by_what_they_say() {
    let shop = shop().await;
    for path in [
        "/api/v1/models",
        "/api/v1/models/supported",
        "/api/v1/generations/models/supported",
        "/generations/models/supported/",
    ] {
        let listing = shop.send(TestClient::get(url(path))).await;
        assert!(listing.ok()["models"].as_array().unwrap().len() >= 9, "{path}");
        assert_eq!(listing.header("cache-control"), "public, max-age=60");
        let again = TestClient::get(url(path)).add_header("if-none-match", listing.header("etag"), true);
        assert_eq!(shop.send(again).await.status.as_u16(), 304, "{path}");
    }
    let unknown = shop
        .send(TestClient::get(url("/api/v1/models/supported?model_type=smell")))
        .await
        .ok();
    assert_eq!(unknown, json!({"models": [], "count": 0, "source": "fal"}));
    let listing = shop
        .send(TestClient::get(url("/api/v1/generations/models/supported")))
        .await
        .ok();
    let credits: Vec<_> = listing["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["type"].clone(), m["credits"].as_i64()))
        .collect();
    assert!(
        credits.windows(2).all(|w| w[0].0 != w[1].0 || w[0].1 <= w[1].1),
        "{credits:?}"
    );
}

#[tokio::test]
async fn files_are_served_for_their_signature_only() {
    let shop = shop().await;
    let user = crate::id::UserId::new();
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(4, 4)
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let png = png.into_inner();
    let key = shop.services.outputs.store_upload(user, &png).await.unwrap();
    let signed = shop.services.outputs.sign(&key, clock::now());
    let path = &signed[signed.find("/outputs/").unwrap()..];
    let file = shop.send(TestClient::get(url(path))).await;
    assert_eq!((file.status.as_u16(), file.header("content-type")), (200, "image/png"));
    assert_eq!(file.header("access-control-allow-origin"), "*");
    assert_eq!(file.header("content-security-policy"), "sandbox; default-src 'none'");
    assert!(
        file.header("content-disposition")
            .starts_with("inline; filename=\"velro-uploads-")
    );
    let part = TestClient::get(url(path)).add_header("range", "bytes=1-3", true);
    let part = shop.send(part).await;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, "PNG"));
    let head = shop.send(TestClient::head(url(path))).await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-length")),
        (200, png.len().to_string().as_str())
    );
    for bad in [
        path.replace("sig=", "sig=0"),
        path.replace("exp=", "exp=9"),
        path.split('?').next().unwrap().to_owned(),
    ] {
        shop.send(TestClient::get(url(&bad))).await.problem(403, "forbidden");
    }
    let expired = shop
        .services
        .outputs
        .sign(&key, clock::now().minus(Duration::from_secs(86_400 * 30)));
    let expired = &expired[expired.find("/outputs/").unwrap()..];
    shop.send(TestClient::get(url(expired))).await.problem(403, "forbidden");
    shop.services.outputs.remove(&[&key]).await.unwrap();
    shop.send(TestClient::get(url(path))).await.problem(404, "not_found");
}

#[tokio::test]
async fn webhooks_need_a_known_provider_and_its_signature() {
    let shop = shop().await;
    let attempt = "0190a3e4-0000-7000-8000-000000000000";
    shop.post(&format!("/webhooks/nobody/{attempt}"), json!({}))
        .await
        .problem(404, "not_found");
    for provider in ["fal", "sandbox"] {
        shop.post(&format!("/webhooks/{provider}/{attempt}"), json!({}))
            .await
            .problem(401, "unauthorized");
    }
    let text = shop.services.metrics.render().unwrap();
    assert!(
        text.contains(r#"velro_webhooks_total{outcome="refused",provider="fal"} 1"#),
        "{text}"
    );
    assert!(!text.contains("provider=\"nobody"));
}

#[tokio::test]
async fn the_documentation_needs_no_other_server() {
    let shop = shop().await;
    for path in ["/docs", "/docs/"] {
        let page = shop.send(TestClient::get(url(path))).await;
        assert_eq!(page.status.as_u16(), 200);
        assert!(!page.text.contains("://"), "no address of another server");
        assert!(page.header("content-security-policy").contains("script-src 'self'"));
        let wanted = page.text.split('"').filter(|t| t.starts_with("/docs/"));
        let assets: Vec<_> = wanted.map(str::to_owned).collect();
        assert_eq!(assets.len(), 4);
        for asset in assets {
            let asset = shop.send(TestClient::get(url(&asset))).await;
            assert_eq!(asset.status.as_u16(), 200);
        }
    }
    let document = shop.send(TestClient::get(url("/openapi.json"))).await.ok();
    assert_eq!(document["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_a_reason() {
    let shop = shop().await;
    let token = shop.token("a@example.com").await;
    let max = shop.services.config.max_body_bytes as usize;
    let body = json!({"model_id": "sandbox/image", "prompt": "x".repeat(max)}).to_string();
    for path in [SUBMIT, CREATE] {
        let request = TestClient::post(url(path)).bearer_auth(&token);
        let request = request
            .raw_json(&body)
            .add_header("content-length", body.len().to_string(), true);
        let problem = shop.send(request).await.problem(413, "payload_too_large");
        assert!(
            problem["detail"].as_str().unwrap().contains(&max.to_string()),
            "{problem}"
        );
    }
}
