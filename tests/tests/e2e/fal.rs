//! The seven seed models through the built-in FAL provider: what FAL receives, what the user gets, what both pay.

use serde_json::{Value, json};
use tests::fal_sim::{FalSim, Options as SimOptions, RequestRecord, Settings};
use tests::harness::{Client, FAL_KEY, Options, Server, media};

/// A simulator that takes one key only.
pub async fn simulator() -> FalSim {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        ..Settings::default()
    };
    FalSim::start(SimOptions { port: 0, settings }).await.unwrap()
}

/// A server that buys at `sim`, and a person with a lot of credits.
pub async fn shop(sim: &FalSim) -> (Server, Client) {
    let server = Server::with(Options::new().fal(sim).env("DEFAULT_USER_CREDITS", "10000")).await;
    let ada = server.register("ada").await;
    (server, ada)
}

/// One model: what the client sends and what FAL must receive, apart from the prompt.
struct Case {
    model: &'static str,
    call: Value,
    endpoint: &'static str,
    input: Value,
    credits: i64,
}

fn cases() -> Vec<Case> {
    let case = |model, call, endpoint, input, credits| Case {
        model,
        call,
        endpoint,
        input,
        credits,
    };
    vec![
        case(
            "fal-ai/flux-pro/v1.1-ultra",
            json!({"image_size": "portrait_16_9", "num_images": 2, "safety_tolerance": 5, "guidance_scale": 7.5,
                   "num_inference_steps": 40}),
            "fal-ai/flux-pro/v1.1-ultra",
            json!({"aspect_ratio": "9:16", "num_images": 2, "output_format": "jpeg", "safety_tolerance": "5",
                   "sync_mode": false}),
            100,
        ),
        case(
            "fal-ai/flux-pro/kontext/max",
            json!({"image_size": "square_hd", "output_format": "png", "guidance_scale": 7.5}),
            "fal-ai/flux-pro/kontext/max/text-to-image",
            json!({"aspect_ratio": "1:1", "num_images": 1, "output_format": "png", "safety_tolerance": "2",
                   "guidance_scale": 7.5, "sync_mode": false}),
            60,
        ),
        case(
            "fal-ai/imagen4/preview/ultra",
            json!({}),
            "fal-ai/imagen4/preview/ultra",
            json!({"aspect_ratio": "4:3", "num_images": 1, "output_format": "jpeg", "safety_tolerance": "2",
                   "resolution": "1K", "sync_mode": false}),
            45,
        ),
        case(
            "fal-ai/veo3",
            json!({"duration": 5.0, "aspect_ratio": "1:1", "quality": "medium", "enable_prompt_expansion": false}),
            "fal-ai/veo3",
            json!({"duration": "6s", "aspect_ratio": "16:9", "resolution": "720p", "auto_fix": false,
                   "generate_audio": true}),
            500,
        ),
        case(
            "fal-ai/minimax/hailuo-02/pro/text-to-video",
            json!({"duration": 10, "fps": 24, "quality": "low"}),
            "fal-ai/minimax/hailuo-02/pro/text-to-video",
            json!({"prompt_optimizer": true}),
            400,
        ),
        case(
            "fal-ai/kling-video/v2.1/master/text-to-video",
            json!({"duration": 7.5, "aspect_ratio": "9:16", "creativity": 0.7, "camera_motion": "zoom"}),
            "fal-ai/kling-video/v2.1/master/text-to-video",
            json!({"duration": "10", "aspect_ratio": "9:16", "cfg_scale": 0.3}),
            350,
        ),
        case(
            "fal-ai/wan-pro/text-to-video",
            json!({}),
            "fal-ai/wan-pro/text-to-video",
            json!({"enable_safety_checker": true}),
            300,
        ),
    ]
}

fn bought<'r>(requests: &'r [RequestRecord], prompt: &str) -> &'r RequestRecord {
    let mut found = requests.iter().filter(|request| request.prompt() == prompt);
    let one = found.next().unwrap_or_else(|| panic!("{prompt} was not bought"));
    assert!(found.next().is_none(), "{prompt} was bought twice");
    one
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_seven_models_are_mapped_bought_delivered_and_paid_once() {
    let sim = simulator().await;
    let (server, ada) = shop(&sim).await;
    let mut jobs = Vec::new();
    for case in cases() {
        let prompt = format!("a picture by {}", case.model);
        let id = ada.submit(case.model, &prompt, case.call.clone()).await;
        jobs.push((case, prompt, id));
    }
    let mut spent = 0;
    for (case, prompt, id) in jobs {
        let done = ada.wait_for(&id, "completed").await;
        spent += case.credits;
        assert_eq!(done["metadata"]["credits_used"], case.credits, "{}", case.model);
        let requests = sim.requests();
        let request = bought(&requests, &prompt);
        assert_eq!(request.endpoint, case.endpoint);
        let mut input = case.input;
        input["prompt"] = json!(prompt);
        assert_eq!(request.input, input, "{}", case.model);
        assert!(!request.headers.contains_key("authorization"));
        assert_eq!((request.counts.media_with_key, &request.webhook_url), (0, &None));

        // Copied to our own storage: FAL's URLs appear nowhere.
        let text = done.to_string();
        assert!(
            !text.contains(&sim.base_url) && !text.contains(&request.request_id),
            "{text}"
        );
        for url in done["output_urls"].as_array().unwrap() {
            let file = server.anonymous().get(url.as_str().unwrap()).await.expect(200);
            match file.header("content-type") {
                "video/mp4" => assert!(media::mp4_track(&file.bytes).2 > 0),
                "image/png" => assert!(media::png_size(&file.bytes).0 > 0),
                "image/jpeg" => assert!(file.bytes.starts_with(b"\xff\xd8\xff")),
                other => panic!("{}: {other}", case.model),
            }
        }
    }
    assert_eq!(ada.balance().await, 10_000 - spent);
    assert_eq!(sim.bought_twice(), []);
    assert_eq!(sim.refusals(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn negative_prompts_and_references_are_used_or_refused_with_a_reason() {
    let sim = simulator().await;
    let (_server, ada) = shop(&sim).await;
    let submit = |model: &str, extra: Value| {
        let mut body = json!({"model_id": model, "prompt": format!("{model} {extra}")});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let ada = ada.clone();
        async move { ada.post(tests::harness::SUBMIT, &body).await }
    };
    let used = [
        (
            "fal-ai/veo3",
            json!({"negative_prompt": "rain"}),
            "fal-ai/veo3",
            "negative_prompt",
        ),
        (
            "fal-ai/kling-video/v2.1/master/text-to-video",
            json!({"negative_prompt": "rain"}),
            "fal-ai/kling-video/v2.1/master/text-to-video",
            "negative_prompt",
        ),
        (
            "fal-ai/flux-pro/v1.1-ultra",
            json!({"reference_image_url": "http://127.0.0.1:9/a.png"}),
            "fal-ai/flux-pro/v1.1-ultra",
            "image_url",
        ),
        (
            "fal-ai/flux-pro/kontext/max",
            json!({"reference_image_url": "http://127.0.0.1:9/a.png"}),
            "fal-ai/flux-pro/kontext/max",
            "image_url",
        ),
    ];
    for (model, extra, endpoint, name) in used {
        let id = tests::harness::id_of(&submit(model, extra.clone()).await.ok());
        ada.wait_for(&id, "completed").await;
        let last = sim.requests().pop().unwrap();
        assert_eq!(last.endpoint, endpoint);
        assert_eq!(
            &last.input[name],
            extra.as_object().unwrap().values().next().unwrap(),
            "{model}"
        );
    }
    let count = sim.requests().len();
    for (model, extra, field) in [
        (
            "fal-ai/flux-pro/v1.1-ultra",
            json!({"negative_prompt": "rain"}),
            "body.negative_prompt",
        ),
        (
            "fal-ai/imagen4/preview/ultra",
            json!({"negative_prompt": "rain"}),
            "body.negative_prompt",
        ),
        (
            "fal-ai/wan-pro/text-to-video",
            json!({"negative_prompt": "rain"}),
            "body.negative_prompt",
        ),
        (
            "fal-ai/veo3",
            json!({"reference_image_url": "https://example.com/a.png"}),
            "body.reference_image_url",
        ),
        (
            "fal-ai/flux-pro/kontext/max",
            json!({"reference_image_url": "ftp://x/a.png"}),
            "body.reference_image_url",
        ),
        (
            "fal-ai/flux-pro/kontext/max",
            json!({"reference_image_url": "nonsense"}),
            "body.reference_image_url",
        ),
        (
            "fal-ai/flux-pro/kontext/max",
            json!({"reference_image_url": "file:///etc/passwd"}),
            "body.reference_image_url",
        ),
    ] {
        submit(model, extra).await.invalid(field);
    }
    assert_eq!(sim.requests().len(), count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_cannot_reach_private_addresses() {
    let server = Server::with(Options::new().env("FAL_KEY", FAL_KEY)).await;
    let ada = server.register("ada").await;
    for url in [
        "http://127.0.0.1/a.png",
        "http://localhost:8000/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png",
        "http://10.0.0.1/a.png",
        "http://0x7f000001/a.png",
        "http://2130706433/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
    ] {
        let body = json!({"model_id": "fal-ai/flux-pro/kontext/max", "prompt": "x", "reference_image_url": url});
        ada.post(tests::harness::SUBMIT, &body)
            .await
            .invalid("body.reference_image_url");
    }
    assert_eq!(ada.balance().await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fal_s_queue_is_shown_and_its_lane_is_shared_fairly() {
    let settings = Settings {
        manual: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let options = Options::new()
        .fal(&sim)
        .env("DEFAULT_USER_CREDITS", "10000")
        .edit_registry(|registry| {
            let fal = registry["providers"]["fal"].as_table_mut().unwrap();
            fal.insert("concurrency".into(), 2.into());
            fal.insert("concurrency_per_user".into(), 2.into());
        });
    let server = Server::with(options).await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let mut ids = Vec::new();
    for i in 0..8 {
        ids.push(
            ada.submit("fal-ai/imagen4/preview/ultra", &format!("ada {i}"), json!({}))
                .await,
        );
    }
    let bobs = bob.submit("fal-ai/imagen4/preview/ultra", "bob", json!({})).await;
    sim.wait_for(tests::harness::SOON, |requests| requests.len() == 2)
        .await
        .unwrap();
    // Bob has waited the shortest, but Ada has had her share: he is next but one at the latest.
    assert!(bob.status(&bobs).await["queue_position"].as_u64().unwrap() <= 1);
    assert!(ada.status(&ids[7]).await["queue_position"].as_u64().unwrap() >= 4);
    // Nine in all, never more than two at FAL.
    sim.change_settings(|settings| settings.manual = false);
    for request in sim.requests() {
        sim.start_job(&request.request_id).unwrap();
        sim.finish_job(&request.request_id).unwrap();
    }
    bob.wait_for(&bobs, "completed").await;
    for id in &ids {
        ada.wait_for(id, "completed").await;
    }
    let order: Vec<String> = sim.requests().iter().map(|r| r.prompt().to_owned()).collect();
    let bobs_turn = order.iter().position(|prompt| prompt == "bob").unwrap();
    assert!(bobs_turn <= 4, "one job does not wait for a thousand: {order:?}");
}
