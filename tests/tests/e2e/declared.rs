//! Providers that only `providers.toml` describes, in the real binary: an asynchronous one with webhooks, and a
//! synchronous one that answers with base64.

use base64::Engine as _;
use serde_json::{Value, json};
use std::io::Cursor;
use tests::fal_sim::FalSim;
use tests::harness::{FAL_KEY, Options, SOON, Server, eventually, media, models};
use tests::queue_sim::QueueSim;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const MODEL: &str = "fal-ai/imagen4/preview/ultra";

/// Adds what a shipped declaration says, with `base_url` (and whatever `edit` changes) of the test.
fn described(options: Options, text: &str, name: &str, base_url: &str, edit: impl FnOnce(&mut toml::Table)) -> Options {
    let mut file: toml::Table = text.parse().unwrap();
    let mut provider = file["providers"][name].as_table().unwrap().clone();
    provider.insert("base_url".into(), base_url.into());
    provider.insert("allow_private".into(), true.into());
    edit(&mut provider);
    let its_models = file.remove("models").unwrap();
    options.edit_registry(|registry| {
        registry["providers"]
            .as_table_mut()
            .unwrap()
            .insert(name.into(), provider.into());
        let all = registry["models"].as_array_mut().unwrap();
        all.extend(its_models.as_array().unwrap().iter().cloned());
    })
}

/// The shipped registry with all of FAL's models served by the declaration, and no built-in FAL.
fn fal(sim: &FalSim) -> Options {
    let text = include_str!("../../../docs/providers/fal.toml");
    let jwks = format!("{}/.well-known/jwks.json", sim.base_url);
    // Its webhooks come to an address that is not public.
    let options = Options::new()
        .env("FAL_KEY", FAL_KEY)
        .env("UPSTREAM_ALLOW_PRIVATE", "true");
    described(options, text, "fal-http", &sim.base_url, |provider| {
        provider["webhook"]
            .as_table_mut()
            .unwrap()
            .insert("jwks".into(), jwks.into());
    })
    .edit_registry(|registry| {
        for model in models(registry) {
            if model["provider"].as_str() == Some("fal") {
                model.insert("provider".into(), "fal-http".into());
                model.insert("poll_ceiling_ms".into(), 200.into());
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_described_fal_sells_pictures() {
    let sim = super::fal::simulator().await;
    let server = Server::with(fal(&sim).webhooks()).await;
    let ada = server.register("ada").await;
    let id = ada.submit(MODEL, "described", json!({})).await;
    let done = ada.wait_for(&id, "completed").await;
    assert_eq!(done["output_urls"].as_array().unwrap().len(), 1, "{done}");
    let request = sim
        .wait_for(SOON, |r| !r[0].deliveries.is_empty())
        .await
        .unwrap()
        .remove(0);
    assert_eq!(request.deliveries[0].answered, Some(200), "its webhook is believed");
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -45"]);

    // What the provider refuses costs nothing, and a cancel reaches it.
    let id = ada.submit(MODEL, "refused [sim:job=policy]", json!({})).await;
    ada.wait_for(&id, "failed").await;
    let id = ada.submit(MODEL, "for ever [sim:job=never]", json!({})).await;
    sim.wait_for(SOON, |r| r.len() == 3).await.unwrap();
    ada.cancel(&id).await.ok();
    ada.wait_for(&id, "cancelled").await;
    assert_eq!(sim.handle().bought_twice(), []);
    assert_eq!(ada.balance().await, 955);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_machine_answers_with_base64() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut calls = 0;
        while let Ok((stream, _)) = listener.accept().await {
            calls += 1;
            // The first answer gets lost; it cost nothing, so it is asked again.
            draw(stream, calls > 1).await;
        }
    });
    let text = include_str!("../../../docs/providers/stable-diffusion-webui.toml");
    let server = Server::with(described(Options::new(), text, "webui", &base_url, |_| {})).await;
    let ada = server.register("ada").await;
    let id = ada
        .submit("webui/default", "a fox", json!({"num_images": 2, "width": 256}))
        .await;
    let done = ada.wait_for(&id, "completed").await;
    let urls = done["output_urls"].as_array().unwrap();
    assert_eq!(urls.len(), 2, "{done}");
    for url in urls {
        let file = server.anonymous().get(url.as_str().unwrap()).await.expect(200);
        assert_eq!(media::png_size(&file.bytes), (8, 8));
    }
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -2"]);
}

/// An API that nobody has heard of, described while the server runs.
const NEWCOMER: &str = r#"
[providers.newcomer]
kind = "http"
base_url = "BASE_URL"
allow_private = true
headers = { authorization = "Bearer {{secret:NEWCOMER_KEY}}" }
outputs = [{ at = "/url", kind = "image" }]

[providers.newcomer.submit]
path = "/v1/jobs"
body = "{params}"

[providers.newcomer.status]
path = "/v1/jobs/{id}"

[providers.newcomer.cancel]
method = "DELETE"
path = "/v1/jobs/{id}"

[providers.newcomer.job]
id = "/id"
state = "/status"
error = "/error"

[providers.newcomer.states]
queued = "queued"
running = "running"
done = "done"
failed = "failed"
cancelled = "cancelled"

[[models]]
id = "newcomer/draw"
provider = "newcomer"
media_type = "image"
description = "Draws."
credits = 9
max_resolution = "64x48"
formats = ["png"]
typical_ms = 1_000
deadline_ms = 300_000
poll_ceiling_ms = 500
negative_prompt = { refused = "it has none" }
reference_image = { refused = "it draws from text alone" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_described_provider_generates_without_a_restart() {
    let sim = QueueSim::start().await.unwrap();
    let server = Server::with(Options::new().env("NEWCOMER_KEY", "newcomer-secret")).await;
    let ada = server.register("ada").await;
    ada.try_submit("newcomer/draw", "x", json!({}))
        .await
        .problem(422, "unknown_model");
    let shipped = std::fs::read_to_string(server.registry_path()).unwrap();
    let described = NEWCOMER.replace("BASE_URL", &sim.base_url);
    std::fs::write(server.registry_path(), format!("{shipped}{described}")).unwrap();
    eventually("the new model is listed", SOON, || async {
        let detail = ada.get("/api/v1/models/newcomer/draw").await;
        (detail.status == 200).then_some(())
    })
    .await;
    let id = ada.submit("newcomer/draw", "a fox", json!({})).await;
    let done = ada.wait_for(&id, "completed").await;
    assert_eq!(done["output_urls"].as_array().unwrap().len(), 1, "{done}");
    let failed = ada.submit("newcomer/draw", "fail", json!({})).await;
    ada.wait_for(&failed, "failed").await;
    let jobs = sim.book.jobs();
    assert_eq!((jobs.len(), jobs[0].key.as_str()), (2, "Bearer newcomer-secret"));
    assert_eq!(ada.balance().await, 1000 - 9);
    assert!(!server.log_text().contains("newcomer-secret"));
}

/// Reads one request; answers with as many pictures as it asks for, or not at all.
async fn draw(mut stream: TcpStream, answer: bool) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
    let body: Value = loop {
        let n = stream.read(&mut buffer).await.unwrap();
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&buffer[..n]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        if let Ok(body) = serde_json::from_slice(&bytes[end + 4..]) {
            break body;
        }
    };
    if !answer {
        return;
    }
    let mut png = Cursor::new(Vec::new());
    image::RgbImage::new(8, 8)
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let picture = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    let count = usize::try_from(body["batch_size"].as_u64().unwrap()).unwrap();
    let text = json!({"images": vec![picture; count], "parameters": body, "info": ""}).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
}
