//! What a newcomer does with the README in hand: no database, no key, no configuration.

use serde_json::json;
use tests::harness::{Client, Options, PASSWORD, Server, media, models};

use crate::{assert_time, keys};

/// A server as `cargo run` starts it: nothing is set.
fn untouched() -> Options {
    ["JWT_SECRET", "RATE_LIMIT_ENABLED", "LOG_LEVEL"]
        .into_iter()
        .fold(Options::new(), Options::without_env)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_a_picture_and_pays_once() {
    let server = Server::with(untouched()).await;
    let ada = Client::register(&server.base_url, "ada@example.com", PASSWORD).await;
    assert_eq!(ada.balance().await, 1000);

    let parameters = json!({"image_size": "landscape_4_3", "latency_ms": 600, "seed": 7});
    let answer = ada
        .try_submit("sandbox/image", "a lighthouse in the fog", parameters)
        .await
        .ok();
    assert_eq!(
        keys(&answer),
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
    assert_eq!(answer["status"], "queued");
    assert_eq!(answer["cached"], false);
    let id = answer["generation_id"].as_str().unwrap();

    // From the very first event on, whenever the stream was opened.
    let frames = ada.stream_after(id, "0").await.rest().await;
    let events: Vec<&str> = frames.iter().map(|frame| frame.event()).collect();
    assert_eq!(events.first(), Some(&"queued"), "{frames:#?}");
    assert_eq!(events.last(), Some(&"completed"), "{frames:#?}");
    let progress: Vec<f64> = frames
        .iter()
        .filter(|frame| frame.event() == "processing")
        .filter_map(|frame| frame.data()["progress"].as_f64())
        .collect();
    assert!(progress.len() >= 2, "progress is shown: {frames:#?}");
    assert!(
        progress.is_sorted() && progress.iter().all(|p| (0.0..=1.0).contains(p)),
        "{progress:?}"
    );
    let told = frames.last().unwrap().data();

    let done = ada.status(id).await;
    assert_eq!(done["status"], "completed");
    assert!(done["metadata"]["generation_time"].as_f64().unwrap() >= 0.6);
    assert_eq!(done["metadata"]["credits_used"], 5);
    let url = done["output_urls"][0].as_str().unwrap();
    assert_eq!(told["output_urls"].as_array().unwrap().len(), 1);
    assert!(url.starts_with(&server.base_url), "{url}");

    // The URL alone is enough: a browser's <img> sends no token.
    let picture = server.anonymous().get(url).await.expect(200);
    assert_eq!(picture.header("content-type"), "image/png");
    assert_eq!(picture.header("x-content-type-options"), "nosniff");
    assert_eq!(media::png_size(&picture.bytes), (1024, 768));

    assert_eq!(ada.balance().await, 995);
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5"]);
    let lines = ada.transactions().await;
    assert_eq!(lines[0]["balance_after"], 995);
    assert_eq!(lines[0]["generation_id"], id);
    assert_time(&lines[0]["created_at"]);

    // The same prompt and seed draw the same picture, the next one is paid for like the first.
    let parameters = json!({"image_size": "landscape_4_3", "latency_ms": 0, "seed": 7});
    let again = ada.submit("sandbox/image", "a lighthouse in the fog", parameters).await;
    let again = ada.wait_for(&again, "completed").await;
    let again = ada.get(again["output_urls"][0].as_str().unwrap()).await.expect(200);
    assert_eq!(again.bytes, picture.bytes);
    assert_eq!(ada.balance().await, 990);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clip_is_an_mp4_that_plays() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let parameters = json!({"duration": 1.0, "aspect_ratio": "9:16", "latency_ms": 0});
    let id = ada.submit("sandbox/video", "waves", parameters).await;
    let done = ada.wait_for(&id, "completed").await;
    let clip = ada.get(done["output_urls"][0].as_str().unwrap()).await.expect(200);
    assert_eq!(clip.header("content-type"), "video/mp4");
    let (width, height, samples) = media::mp4_track(&clip.bytes);
    assert!(height > width && samples > 5, "{width}x{height}, {samples} samples");
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -20"]);

    // Players ask for parts.
    let request = ada.request(reqwest::Method::GET, done["output_urls"][0].as_str().unwrap());
    let part = ada.send(request.header("Range", "bytes=4-7")).await.expect(206);
    assert_eq!(part.bytes, b"ftyp");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn size_and_count_are_honoured() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    for (image_size, size) in [
        ("square_hd", (1024, 1024)),
        ("square", (512, 512)),
        ("portrait_4_3", (768, 1024)),
        ("landscape_16_9", (1024, 576)),
    ] {
        let count = if image_size == "square" { 3 } else { 1 };
        let parameters = json!({"image_size": image_size, "num_images": count, "latency_ms": 0});
        let id = ada.submit("sandbox/image", image_size, parameters).await;
        let done = ada.wait_for(&id, "completed").await;
        let urls = done["output_urls"].as_array().unwrap();
        assert_eq!(urls.len(), count);
        for url in urls {
            let picture = ada.get(url.as_str().unwrap()).await.expect(200);
            assert_eq!(media::png_size(&picture.bytes), size, "{image_size}");
        }
    }
    assert_eq!(ada.balance().await, 1000 - 6 * 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_jobs_and_pictures_survive_a_restart() {
    let mut server = Server::with(untouched()).await;
    let ada = Client::register(&server.base_url, "ada@example.com", PASSWORD).await;
    let done = ada.submit_quick("before").await;
    let url = ada.wait_for(&done, "completed").await["output_urls"][0].clone();
    let parameters = json!({"image_size": "square", "latency_ms": 3000});
    let running = ada.submit("sandbox/image", "during", parameters).await;
    ada.wait_for(&running, "processing").await;

    server.terminate();
    server.restart().await;

    // The generated secret was kept: the token is still good, and so is the signed URL.
    ada.wait_for(&running, "completed").await;
    ada.get(url.as_str().unwrap()).await.expect(200);
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5", "usage -5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_fal_s_models_are_listed_and_refused_with_a_reason() {
    let server = Server::with(Options::new().edit_registry(|registry| {
        assert!(models(registry).count() >= 9);
    }))
    .await;
    let ada = server.register("ada").await;
    let problem = ada
        .try_submit("fal-ai/veo3", "a city", json!({}))
        .await
        .problem(422, "model_unavailable");
    assert!(!problem["detail"].as_str().unwrap().contains("FAL_KEY"), "{problem}");
    assert_eq!(ada.balance().await, 1000);
}
