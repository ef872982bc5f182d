//! The model listings in their three shapes, per-model detail and pricing (contract §6).

use serde_json::{Value, json};
use tests::harness::{Client, Server};

use crate::{column, keys};

/// The seed models in the order of the registry, with type, credits, and the long name of §6.2.
const SEED: [(&str, &str, i64, &str); 7] = [
    ("fal-ai/flux-pro/v1.1-ultra", "image", 50, "Flux Pro/V1.1 Ultra"),
    ("fal-ai/flux-pro/kontext/max", "image", 60, "Flux Pro/Kontext/Max"),
    ("fal-ai/imagen4/preview/ultra", "image", 45, "Imagen4/Preview/Ultra"),
    ("fal-ai/veo3", "video", 500, "Veo3"),
    (
        "fal-ai/minimax/hailuo-02/pro/text-to-video",
        "video",
        400,
        "Minimax/Hailuo 02/Pro/Text To Video",
    ),
    (
        "fal-ai/kling-video/v2.1/master/text-to-video",
        "video",
        350,
        "Kling Video/V2.1/Master/Text To Video",
    ),
    ("fal-ai/wan-pro/text-to-video", "video", 300, "Wan Pro/Text To Video"),
];

async fn models(client: &Client, path: &str) -> Value {
    client.get(path).await.ok()["models"].clone()
}

/// The rows of FAL's models.
fn seed_rows<'v>(list: &'v Value, id: &str) -> Vec<&'v Value> {
    let list = list.as_array().unwrap();
    list.iter()
        .filter(|row| row[id].as_str().unwrap().starts_with("fal-ai/"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_listings_have_their_own_shapes_and_orders() {
    let server = Server::start().await;
    let nobody = server.anonymous();

    // §6.1: by type, then by credits; public below /api/v1 and below the alias.
    for path in [
        "/api/v1/generations/models/supported",
        "/api/v1/generations/models/supported/",
        "/generations/models/supported",
    ] {
        let list = models(&nobody, path).await;
        let rows = seed_rows(&list, "model_id");
        let credits: Vec<_> = rows.iter().map(|row| row["credits"].as_i64().unwrap()).collect();
        assert_eq!(credits, [45, 50, 60, 300, 350, 400, 500], "{path}");
        let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "Ultra",
                "V1.1 Ultra",
                "Max",
                "Text To Video",
                "Text To Video",
                "Text To Video",
                "Veo3"
            ]
        );
        assert_eq!(
            keys(rows[0]),
            [
                "credits",
                "description",
                "endpoint",
                "example_params",
                "max_resolution",
                "model_id",
                "name",
                "parameters",
                "supported_formats",
                "type"
            ]
        );
        assert_eq!(rows[0]["endpoint"], "fal-ai/imagen4/preview/ultra");
        let types = column(&list, "type");
        assert!(types.is_sorted(), "by type first: {types:?}");
    }

    // §6.2: in the order of the registry, with long names.
    let list = models(&nobody, "/api/v1/models").await;
    for (row, (id, kind, credits, name)) in seed_rows(&list, "id").into_iter().zip(SEED) {
        assert_eq!(
            keys(row),
            [
                "credits_cost",
                "description",
                "generation_type",
                "id",
                "is_active",
                "name",
                "parameters"
            ]
        );
        assert_eq!(
            (&row["id"], &row["generation_type"], &row["credits_cost"], &row["name"]),
            (&json!(id), &json!(kind), &json!(credits), &json!(name))
        );
        assert_eq!(row["is_active"], true);
    }
    assert_eq!(seed_rows(&list, "id").len(), SEED.len());
    let videos = models(&nobody, "/api/v1/models/?model_type=VIDEO").await;
    assert_eq!(seed_rows(&videos, "id").len(), 4);
    assert!(column(&videos, "generation_type").iter().all(|kind| *kind == "video"));
    assert_eq!(models(&nobody, "/api/v1/models?model_type=smell").await, json!([]));

    // §6.3: short rows with a count.
    let answer = nobody.get("/api/v1/models/supported").await.ok();
    assert_eq!(keys(&answer), ["count", "models", "source"]);
    assert_eq!(answer["source"], "fal");
    assert_eq!(
        answer["count"].as_u64().unwrap() as usize,
        answer["models"].as_array().unwrap().len()
    );
    assert_eq!(
        keys(&answer["models"][0]),
        ["credits", "description", "is_active", "model_id", "name", "type"]
    );
    let images = nobody.get("/api/v1/models/supported?model_type=image").await.ok();
    assert_eq!(seed_rows(&images["models"], "model_id").len(), 3);

    // §4.8: the bare array of §6.1, for those who are signed in.
    let ada = server.register("ada").await;
    let bare = ada.get("/api/v1/generations/async/models/available").await.ok();
    assert_eq!(bare, models(&nobody, "/api/v1/generations/models/supported").await);
    nobody
        .get("/api/v1/generations/async/models/available")
        .await
        .problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_parameters_are_those_of_the_contract() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    let list = models(&nobody, "/api/v1/generations/models/supported").await;
    let spec = |id: &str| {
        let mut rows = list.as_array().unwrap().iter();
        rows.find(|row| row["model_id"] == id).unwrap()["parameters"].clone()
    };
    let sizes = json!([
        "square_hd",
        "square",
        "portrait_4_3",
        "portrait_16_9",
        "landscape_4_3",
        "landscape_16_9"
    ]);
    let shapes = json!(["16:9", "9:16", "1:1"]);
    let flux = [
        (
            "image_size",
            json!({"type": "string", "default": "landscape_4_3", "enum": sizes}),
        ),
        (
            "num_images",
            json!({"type": "integer", "default": 1, "min": 1, "max": 4}),
        ),
        (
            "output_format",
            json!({"type": "string", "default": "jpeg", "enum": ["jpeg", "png"]}),
        ),
        (
            "guidance_scale",
            json!({"type": "number", "default": 3.5, "min": 1.0, "max": 20.0}),
        ),
        (
            "num_inference_steps",
            json!({"type": "integer", "default": 28, "min": 1, "max": 50}),
        ),
        (
            "safety_tolerance",
            json!({"type": "integer", "default": 2, "min": 1, "max": 6}),
        ),
    ];
    let duration = |default: f64| json!({"type": "number", "default": default, "min": 1.0, "max": 10.0});
    let shape = json!({"type": "string", "default": "16:9", "enum": shapes});
    let quality = |allowed: Value| json!({"type": "string", "default": "high", "enum": allowed});
    let expected: Vec<(&str, Vec<(&str, Value)>)> = vec![
        ("fal-ai/flux-pro/v1.1-ultra", flux.to_vec()),
        ("fal-ai/flux-pro/kontext/max", flux.to_vec()),
        (
            "fal-ai/imagen4/preview/ultra",
            flux.iter()
                .filter(|(name, _)| !matches!(*name, "guidance_scale" | "num_inference_steps"))
                .cloned()
                .collect(),
        ),
        (
            "fal-ai/veo3",
            vec![
                ("duration", duration(5.0)),
                ("aspect_ratio", shape.clone()),
                ("quality", quality(json!(["medium", "high"]))),
                ("enable_prompt_expansion", json!({"type": "boolean", "default": true})),
            ],
        ),
        (
            "fal-ai/minimax/hailuo-02/pro/text-to-video",
            vec![
                ("duration", duration(6.0)),
                ("aspect_ratio", shape.clone()),
                ("fps", json!({"type": "integer", "default": 25, "enum": [24, 25, 30]})),
                ("quality", quality(json!(["low", "medium", "high"]))),
            ],
        ),
        (
            "fal-ai/kling-video/v2.1/master/text-to-video",
            vec![
                ("duration", duration(5.0)),
                ("aspect_ratio", shape.clone()),
                (
                    "creativity",
                    json!({"type": "number", "default": 0.7, "min": 0.0, "max": 1.0}),
                ),
                (
                    "camera_motion",
                    json!({"type": "string", "default": "none", "enum": ["none", "horizontal", "vertical", "zoom", "pan"]}),
                ),
            ],
        ),
        (
            "fal-ai/wan-pro/text-to-video",
            vec![
                ("duration", duration(5.0)),
                ("aspect_ratio", shape),
                ("quality", quality(json!(["medium", "high"]))),
            ],
        ),
    ];
    for (id, parameters) in expected {
        let mut specs = spec(id);
        let specs = specs.as_object_mut().unwrap();
        for spec in specs.values_mut() {
            spec.as_object_mut().unwrap().remove("description");
        }
        let prompt = specs.remove("prompt").unwrap();
        assert_eq!(
            prompt,
            json!({"type": "string", "required": true, "max_length": 2000}),
            "{id}"
        );
        let wanted = parameters
            .into_iter()
            .map(|(name, spec)| (name.to_owned(), spec))
            .collect();
        assert_eq!(Value::Object(specs.clone()), Value::Object(wanted), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_with_slashes_work_encoded_and_plain() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    for (id, kind, credits, name) in SEED {
        let encoded = id.replace('/', "%2F");
        for spelling in [id.to_owned(), encoded.clone(), format!("{id}/"), format!("{encoded}/")] {
            let detail = nobody.get(&format!("/api/v1/models/{spelling}")).await.ok();
            assert_eq!(
                (&detail["id"], &detail["name"]),
                (&json!(id), &json!(name)),
                "{spelling}"
            );
            assert_eq!(
                (&detail["generation_type"], &detail["credits_cost"]),
                (&json!(kind), &json!(credits))
            );
            for member in ["max_resolution", "supported_formats", "example_params", "parameters"] {
                assert!(detail.get(member).is_some(), "{member}");
            }
        }
        for spelling in [
            format!("{id}/pricing"),
            format!("{encoded}/pricing"),
            format!("{encoded}%2Fpricing"),
        ] {
            let pricing = nobody.get(&format!("/api/v1/models/{spelling}")).await.ok();
            assert_eq!(
                keys(&pricing),
                ["credits_cost", "max_resolution", "model_id", "supported_formats"]
            );
            assert_eq!(
                (&pricing["model_id"], &pricing["credits_cost"]),
                (&json!(id), &json!(credits))
            );
        }
    }
    for unknown in [
        "nonsense",
        "fal-ai/nonsense",
        "fal-ai%2Fnonsense/pricing",
        "fal-ai",
        "%00",
    ] {
        nobody
            .get(&format!("/api/v1/models/{unknown}"))
            .await
            .problem(404, "not_found");
    }
}
