//! The library for Replicate generates through the running server, at a simulator that Replicate's own clients accept.

use serde_json::{Value, json};
use tests::harness::{Client, Options, SOON, Server, media};
use tests::libraries::{PluginFolder, built, options, table};
use tests::replicate_sim::{Prediction, ReplicateSim, SECRET, Settings, Status, TOKEN, VERSION, sign};

const ULTRA: &str = "black-forest-labs/flux-1.1-pro-ultra";
const SCHNELL: &str = "black-forest-labs/flux-schnell";

/// What every model of the tests costs.
const CREDITS: i64 = 7;

/// A model, by its name at Replicate; `poll_ms` is the longest time between two polls.
fn model(id: &str, theirs: &str, poll_ms: u32) -> toml::Table {
    table(&format!(
        r#"
        id = "{id}"
        provider = "replicate"
        provider_model = "{theirs}"
        media_type = "image"
        description = "Of the tests."
        credits = {CREDITS}
        max_resolution = "64x48"
        formats = ["png"]
        typical_ms = 1_000
        deadline_ms = 3_600_000
        poll_ceiling_ms = {poll_ms}
        negative_prompt = {{ refused = "not here" }}
        reference_image = {{ refused = "not here" }}

        [params.aspect_ratio]
        type = "string"
        default = "16:9"
        allowed = ["16:9", "7:7"]
        description = "Shape of the picture; Replicate knows no 7:7."
        "#
    ))
}

/// A server with the built library and models of every sort, and somebody with credits.
struct Shop {
    sim: ReplicateSim,
    server: Server,
    ada: Client,
    _plugins: PluginFolder,
}

impl Shop {
    async fn open(settings: Settings, poll_ms: u32, more: impl FnOnce(Options) -> Options) -> Shop {
        let sim = ReplicateSim::start(settings).await.unwrap();
        let plugins = PluginFolder::new();
        let library = plugins.install(&built("velro-replicate"), "libvelro_replicate.so");
        let entry = table(&format!(
            "kind = \"plugin\"\npath = \"{}\"\nsha256 = \"{}\"\nallow_private = true\nconfig = {{ base_url = \"{}/v1\" }}",
            library.name, library.sha256, sim.base_url
        ));
        let models = [
            model("ultra", ULTRA, poll_ms),
            model("schnell", SCHNELL, poll_ms),
            model("sdxl", &format!("stability-ai/sdxl:{VERSION}"), poll_ms),
            model("fast", "deployments/acme/fast", poll_ms),
            model("gone", &"0".repeat(64), poll_ms),
        ];
        let options = options(&plugins)
            .env("REPLICATE_API_TOKEN", TOKEN)
            .edit_registry(|registry| {
                let providers = registry["providers"].as_table_mut().unwrap();
                providers.insert("replicate".to_owned(), entry.into());
                let all = registry["models"].as_array_mut().unwrap();
                all.extend(models.map(toml::Value::from));
            });
        let server = Server::with(more(options)).await;
        let ada = server.register("ada").await;
        Shop {
            sim,
            server,
            ada,
            _plugins: plugins,
        }
    }

    /// Waits for one more purchase and for Velro's knowing of it.
    async fn running(&self, generation: &str, count: usize) -> Prediction {
        let bought = self.sim.wait_for(SOON, |bought| bought.len() == count).await.unwrap();
        self.ada.wait_for(generation, "processing").await;
        bought[count - 1].clone()
    }

    /// What a generation delivered: one picture of the simulator's.
    async fn delivered(&self, ended: &Value) {
        let urls = ended["output_urls"].as_array().unwrap();
        assert_eq!(urls.len(), 1, "{ended}");
        let file = self.server.anonymous().get(urls[0].as_str().unwrap()).await.expect(200);
        assert_eq!(media::png_size(&file.bytes), (64, 48));
    }

    /// So much was bought, nothing of it twice, and so much was paid.
    async fn books(&self, bought: usize, statement: &[&str]) {
        let predictions = self.sim.bought();
        assert_eq!(predictions.len(), bought, "{predictions:#?}");
        assert_eq!(self.sim.bought_twice(), Vec::<String>::new());
        assert_eq!(self.ada.statement().await, statement);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_of_every_sort_are_polled_to_their_end() {
    let shop = Shop::open(Settings::default(), 500, |options| options).await;
    for (model, path) in [
        ("ultra", "/v1/models/black-forest-labs/flux-1.1-pro-ultra/predictions"),
        ("schnell", "/v1/models/black-forest-labs/flux-schnell/predictions"),
        ("sdxl", "/v1/predictions"),
        ("fast", "/v1/deployments/acme/fast/predictions"),
    ] {
        let id = shop.ada.submit(model, &format!("a fox by {model}"), json!({})).await;
        let ended = shop.ada.wait_for(&id, "completed").await;
        shop.delivered(&ended).await;
        let bought = shop.sim.bought().pop().unwrap();
        assert_eq!((bought.path.as_str(), bought.status), (path, Status::Succeeded));
        assert_eq!(
            json!(bought.input),
            json!({"prompt": format!("a fox by {model}"), "aspect_ratio": "16:9"})
        );
        assert_eq!(bought.headers["authorization"], format!("Bearer {TOKEN}"));
        assert!(!bought.headers.contains_key("prefer") && bought.headers.contains_key("cancel-after"));
        assert!(bought.webhook.is_none() && bought.polls > 0);
    }
    let usage = "usage -7";
    shop.books(4, &["bonus +1000", usage, usage, usage, usage]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_webhook_ends_a_job_long_before_its_next_poll() {
    let hardly_polled = 600_000;
    let more = |options: Options| options.webhooks().env("REPLICATE_WEBHOOK_SIGNING_SECRET", SECRET);
    let shop = Shop::open(Settings::default(), hardly_polled, more).await;
    let id = shop.ada.submit("ultra", "a fox [sim:hold]", json!({})).await;
    let bought = shop.running(&id, 1).await;
    assert_eq!(bought.events, ["completed"]);

    // Nobody else can say so: no signature, another secret's, and one for other words.
    let url = bought.webhook.as_deref().unwrap();
    let body = json!({ "id": bought.id, "status": "failed" }).to_string();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    // No idle connection is left to the server that is stopped at the end.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let other = "whsec_YW5vdGhlciBzZWNyZXQ=";
    for signature in [
        String::new(),
        sign(other, "msg_1", now, &body).unwrap(),
        sign(SECRET, "msg_1", now, "{}").unwrap(),
        sign(SECRET, "msg_1", now - 3_600, &body).unwrap(),
    ] {
        let request = client
            .post(url)
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", now)
            .header("webhook-signature", &signature);
        let answer = request.body(body.clone()).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{signature}: {}", answer.status());
    }

    let polls = shop.sim.bought()[0].polls;
    shop.sim.nudge(&bought.id);
    shop.sim.nudge(&bought.id);
    let ended = shop.ada.wait_for(&id, "completed").await;
    shop.delivered(&ended).await;
    let delivered = shop.sim.wait_for(SOON, |bought| !bought[0].deliveries.is_empty());
    let bought = delivered.await.unwrap().remove(0);
    assert_eq!(bought.deliveries[0].answered, Some(200), "its webhook is believed");
    // What it says is fetched and not believed; a poll that was due at that very moment may have come before.
    let asked = bought.polls - polls;
    assert!((1..=2).contains(&asked), "{bought:#?}");
    shop.books(1, &["bonus +1000", "usage -7"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_whose_answer_is_lost_is_found_by_its_webhook_and_bought_once() {
    let more = |options: Options| options.webhooks().env("REPLICATE_WEBHOOK_SIGNING_SECRET", SECRET);
    let shop = Shop::open(Settings::default(), 500, more).await;
    let id = shop.ada.submit("ultra", "a fox [sim:lost]", json!({})).await;
    let ended = shop.ada.wait_for(&id, "completed").await;
    shop.delivered(&ended).await;
    shop.books(1, &["bonus +1000", "usage -7"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_or_is_refused_costs_nothing_and_is_not_bought_again() {
    let shop = Shop::open(Settings::default(), 500, |options| options).await;
    let failed = async |model: &str, prompt: &str, parameters: Value, says: &str| {
        let id = shop.ada.submit(model, prompt, parameters).await;
        let ended = shop.ada.wait_for(&id, "failed").await;
        assert!(ended.to_string().contains(says), "{prompt}: {ended}");
        assert_eq!(shop.ada.balance().await, 1_000, "{prompt}");
    };
    // Bought, and failed there.
    failed("ultra", "[sim:nsfw]", json!({}), "safety system").await;
    failed("ultra", "[sim:memory]", json!({}), "ran out of memory").await;
    failed("schnell", "[sim:fail]", json!({}), "failed at the provider").await;
    assert!(shop.sim.refused().is_empty());
    // Refused there, so never bought.
    failed("ultra", "a fox", json!({"aspect_ratio": "7:7"}), "`aspect_ratio`").await;
    failed("ultra", "[sim:broke]", json!({}), "account").await;
    failed("gone", "a fox", json!({}), "not offer this model").await;
    assert_eq!(shop.sim.refused(), [422, 402, 422]);
    assert_eq!(shop.sim.bought().len(), 3);
    assert_eq!(shop.sim.bought_twice(), Vec::<String>::new());
    let bought = shop.sim.bought();
    assert!(bought.iter().all(|p| p.status == Status::Failed), "{bought:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_replicate_has_removed_costs_nothing() {
    let shop = Shop::open(Settings::default(), 500, |options| options).await;
    let id = shop.ada.submit("ultra", "late [sim:hold]", json!({})).await;
    let bought = shop.running(&id, 1).await;
    shop.sim.forget(&bought.id);
    shop.sim.nudge(&bought.id);
    shop.sim.nudge(&bought.id);
    let ended = shop.ada.wait_for(&id, "failed").await;
    assert!(ended.to_string().contains("no longer knows this job"), "{ended}");
    assert_eq!(shop.ada.balance().await, 1_000);
    assert_eq!(shop.sim.bought().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_create_is_repeated_and_bought_once() {
    let shop = Shop::open(Settings::default(), 500, |options| options).await;
    let id = shop.ada.submit("ultra", "a fox [sim:throttled]", json!({})).await;
    let ended = shop.ada.wait_for(&id, "completed").await;
    shop.delivered(&ended).await;
    assert_eq!(shop.sim.refused(), [429]);
    shop.books(1, &["bonus +1000", "usage -7"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_replicate_and_costs_nothing() {
    let shop = Shop::open(Settings::default(), 500, |options| options).await;
    let id = shop.ada.submit("ultra", "for ever [sim:hold]", json!({})).await;
    shop.running(&id, 1).await;
    shop.ada.cancel(&id).await.ok();
    shop.ada.wait_for(&id, "cancelled").await;
    let bought = shop.sim.bought().remove(0);
    assert_eq!((bought.status, bought.cancels), (Status::Canceled, 1));
    assert_eq!(shop.ada.balance().await, 1_000);

    // What somebody cancels on Replicate's pages ends here too.
    let id = shop
        .ada
        .submit("ultra", "not ours to cancel [sim:canceled]", json!({}))
        .await;
    shop.ada.wait_until_terminal(&id).await;
    assert_eq!(shop.ada.balance().await, 1_000);
    let bought = shop.sim.bought().remove(1);
    assert_eq!((bought.status, bought.cancels), (Status::Canceled, 0));
    assert_eq!(shop.sim.bought_twice(), Vec::<String>::new());
}
