//! The server dies by SIGKILL at every step of a generation, and at any moment under load, and is started again.
//!
//! What must hold every time: the generation ends, or is `unknown` exactly when a paid submit was in flight; nothing is
//! bought twice; whoever pays has the files; the ledger verifies and no hold is orphaned (the harness asserts both at
//! the end of every test).

#![allow(clippy::unwrap_used, clippy::panic)]

mod storm;

use serde_json::{Value, json};
use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{Client, FAL_KEY, Options, SOON, Server, eventually, id_of};

const FAL_MODEL: &str = "fal-ai/imagen4/preview/ultra";
const FAL_PRICE: i64 = 45;
const KEY: &str = "one submit, however often it is sent";

/// Which provider a generation runs at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Sandbox,
    Fal,
    /// With a public URL, so that FAL sends webhooks.
    FalWithWebhooks,
    /// FAL refuses, and the sandbox is next.
    FalRefuses,
}

/// A server that dies at a failpoint, its client and the simulator.
struct Scene {
    at: At,
    sim: FalSim,
    server: Server,
    ada: Client,
}

impl Scene {
    async fn new(at: At, failpoint: &str) -> Scene {
        let settings = Settings {
            required_key: Some(FAL_KEY.into()),
            run_ms: 300,
            // Long enough for a restart in between.
            webhook_retry_ms: vec![300; 40],
            ..Settings::default()
        };
        let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
        let options = Options::new()
            .fal(&sim)
            .env("FAILPOINTS", format!("{failpoint}=return"));
        let options = match at {
            At::FalWithWebhooks => options.webhooks(),
            At::FalRefuses => options.edit_model(FAL_MODEL, |model| {
                let next = "provider = \"sandbox\"\nprovider_model = \"sandbox/image\"\n\
                            fixed = { latency_ms = 300, outcome = \"ok\" }\n\
                            inputs = { image_size = \"image_size\", output_format = { not_sent = \"always PNG\" }, \
                            safety_tolerance = { not_sent = \"no need\" } }";
                let next: toml::Table = next.parse().unwrap();
                model.insert("fallbacks".into(), vec![next].into());
            }),
            _ => options,
        };
        let server = Server::with(options).await;
        let ada = server.register("ada").await;
        Scene { at, sim, server, ada }
    }

    fn body(&self) -> Value {
        match self.at {
            At::Sandbox => json!({
                "model_id": "sandbox/image", "prompt": "survivor",
                "parameters": {"image_size": "square", "latency_ms": 300},
            }),
            At::FalRefuses => json!({"model_id": FAL_MODEL, "prompt": "survivor [sim:submit=402]"}),
            _ => json!({"model_id": FAL_MODEL, "prompt": "survivor"}),
        }
    }

    fn price(&self) -> i64 {
        match self.at {
            At::Sandbox => 5,
            _ => FAL_PRICE,
        }
    }

    /// Submits, waits for the failpoint, kills, starts again without it, and submits again with the same key.
    async fn die_and_rise(&mut self, failpoint: &str) -> String {
        let (ada, body) = (self.ada.clone(), self.body());
        let request = ada.request(reqwest::Method::POST, tests::harness::SUBMIT).json(&body);
        let request = request.header("Idempotency-Key", KEY);
        // The answer may never come; the second submit asks for it.
        let first = tokio::spawn(async move { ada.try_send(request).await });
        self.server.wait_for_failpoint(failpoint, SOON).await;
        self.server.kill9();
        drop(first.await.unwrap());
        self.server.change(|options| options.without_env("FAILPOINTS"));
        self.server.restart().await;
        id_of(&self.ada.submit_with_key(&self.body(), KEY).await.ok())
    }

    /// Delivered, whole, paid once.
    async fn assert_delivered(&self, id: &str) {
        let done = self.ada.wait_for(id, "completed").await;
        let urls = done["output_urls"].as_array().unwrap();
        assert_eq!(urls.len(), 1);
        let file = self.ada.get(urls[0].as_str().unwrap()).await.expect(200);
        assert!(file.bytes.len() > 100);
        let usage = format!("usage -{}", self.price());
        assert_eq!(self.ada.statement().await, ["bonus +1000".to_owned(), usage]);
        assert_eq!(self.ada.generations().await.len(), 1);
        let finals = self.ada.stream_after(id, "0").await.rest().await;
        assert_eq!(finals.iter().filter(|frame| frame.is_final()).count(), 1);
    }

    fn assert_bought(&self, times: usize) {
        assert_eq!(self.sim.requests().len(), times, "{:#?}", self.sim.requests());
        assert_eq!(self.sim.bought_twice(), []);
    }

    /// Waits until the operator is told of an open case.
    async fn wait_until_unknown(&self, id: &str) {
        eventually("the case is open", SOON, || async {
            let cases = self.server.velro(&["generations", "resolve"]).ok();
            cases.contains(id).then_some(())
        })
        .await;
        assert_eq!(self.ada.status(id).await["status"], "processing");
        assert_eq!(self.ada.balance().await, 1000 - self.price(), "held");
        assert_eq!(self.server.verify_ledger().unwrap(), 1);
    }
}

/// Dies at `failpoint`, and delivers after the restart.
async fn survives(at: At, failpoint: &str) {
    let mut scene = Scene::new(at, failpoint).await;
    let id = scene.die_and_rise(failpoint).await;
    scene.assert_delivered(&id).await;
    scene.assert_bought(usize::from(matches!(at, At::Fal | At::FalWithWebhooks)));
}

macro_rules! survives {
    ($($name:ident: $at:ident dies at $failpoint:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                survives(At::$at, $failpoint).await;
            }
        )+
    };
}

survives! {
    fal_stored: Fal dies at "intake::stored";
    fal_claimed: Fal dies at "worker::claimed";
    fal_prepared_and_not_sent: Fal dies at "worker::prepared";
    fal_accepted: Fal dies at "worker::accepted";
    fal_result_fetched: Fal dies at "worker::fetched";
    fal_outputs_collected: Fal dies at "worker::collected";
    fal_settled: Fal dies at "worker::settled";
    fal_with_webhooks_accepted: FalWithWebhooks dies at "worker::accepted";
    fal_with_webhooks_settled: FalWithWebhooks dies at "worker::settled";
    sandbox_stored: Sandbox dies at "intake::stored";
    sandbox_claimed: Sandbox dies at "worker::claimed";
    sandbox_accepted: Sandbox dies at "worker::accepted";
    sandbox_result_fetched: Sandbox dies at "worker::fetched";
    sandbox_outputs_collected: Sandbox dies at "worker::collected";
    sandbox_settled: Sandbox dies at "worker::settled";
    refused_and_given_to_the_next: FalRefuses dies at "worker::rerouted";
    // FAL has it and nobody here knows; FAL's own word resolves it.
    fal_with_webhooks_answered: FalWithWebhooks dies at "worker::answered";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_before_the_next_provider_is_stored_is_unknown_and_goes_nowhere() {
    let failpoint = "worker::rerouting";
    let mut scene = Scene::new(At::FalRefuses, failpoint).await;
    let id = scene.die_and_rise(failpoint).await;
    scene.wait_until_unknown(&id).await;
    scene.server.velro(&["generations", "resolve", &id, "--retry"]).ok();
    scene.assert_delivered(&id).await;
    scene.assert_bought(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_before_the_send_is_unknown_until_somebody_says_that_nothing_was_bought() {
    let failpoint = "worker::sending";
    let mut scene = Scene::new(At::Fal, failpoint).await;
    let id = scene.die_and_rise(failpoint).await;
    scene.wait_until_unknown(&id).await;
    scene.assert_bought(0);
    // Nobody can tell this from a send whose answer was lost, so nothing happens by itself; also not a restart later.
    scene.server.kill9();
    scene.server.restart().await;
    scene.wait_until_unknown(&id).await;
    scene.assert_bought(0);

    scene
        .server
        .velro(&[
            "generations",
            "resolve",
            &id,
            "--retry",
            "--reason",
            "FAL has no such request",
        ])
        .ok();
    scene.assert_delivered(&id).await;
    scene.assert_bought(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_before_the_answer_was_stored_is_unknown_until_it_is_refunded() {
    let failpoint = "worker::answered";
    let mut scene = Scene::new(At::Fal, failpoint).await;
    let id = scene.die_and_rise(failpoint).await;
    scene.wait_until_unknown(&id).await;
    scene.assert_bought(1);
    scene.server.velro(&["generations", "resolve", &id, "--refund"]).ok();
    scene.ada.wait_for(&id, "failed").await;
    assert_eq!(scene.ada.statement().await, ["bonus +1000", "usage -45", "refund +45"]);
    scene.assert_bought(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_while_the_submit_travels_never_buys_twice() {
    let mut scene = Scene::new(At::Fal, "nowhere").await;
    let body = json!({"model_id": FAL_MODEL, "prompt": "in flight [sim:submit=slow:1500]"});
    let id = id_of(&scene.ada.submit_with_key(&body, KEY).await.ok());
    scene.ada.wait_for(&id, "processing").await;
    // The attempt is stored as sending before it is sent; the provider thinks about it for a second and a half.
    scene
        .sim
        .wait_for(std::time::Duration::from_millis(300), |_| false)
        .await
        .unwrap_err();
    scene.server.kill9();
    scene.server.restart().await;
    scene.wait_until_unknown(&id).await;
    assert!(scene.sim.requests().len() <= 1);
    scene.server.velro(&["generations", "resolve", &id, "--refund"]).ok();
    scene.ada.wait_for(&id, "failed").await;
    assert_eq!(scene.ada.balance().await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_was_asked_for_before_the_crash_is_not_forgotten() {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        manual: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let mut server = Server::with(Options::new().fal(&sim)).await;
    let ada = server.register("ada").await;
    let id = ada.submit(FAL_MODEL, "unwanted", json!({})).await;
    sim.wait_for(SOON, |requests| requests.len() == 1).await.unwrap();
    // FAL does not answer the cancel, so the wish is stored and nothing more.
    sim.fault(tests::fal_sim::Point::Cancel, tests::fal_sim::Action::Hang, 1);
    let canceller = ada.clone();
    let path = format!("/api/v1/generations/async/{id}/cancel");
    let cancel = tokio::spawn(async move {
        let request = canceller.request(reqwest::Method::DELETE, &path);
        canceller.try_send(request).await
    });
    sim.wait_for(SOON, |requests| requests[0].counts.cancel == 1)
        .await
        .unwrap();
    server.kill9();
    drop(cancel.await.unwrap());
    server.restart().await;
    ada.wait_for(&id, "cancelled").await;
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -45", "refund +45"]);
    assert_eq!(sim.requests()[0].billed_milliunits, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_clock_is_wrong_can_be_made_for_a_test() {
    for skew_s in [600.0, -600.0] {
        let options = Options::new().env("VELRO_CLOCK_SKEW_MS", format!("{}", skew_s * 1000.0));
        let server = Server::with(options).await;
        let right = std::time::SystemTime::now();
        let right_s = right.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let told = server.anonymous().get("/health").await.ok()["timestamp"]
            .as_f64()
            .unwrap();
        assert!((told - right_s - skew_s).abs() < 10.0, "{told} {right_s}");
        // Its own tokens and leases hold: all of it goes by one clock.
        let ada = server.register("ada").await;
        let id = ada.submit_quick("x").await;
        ada.wait_for(&id, "completed").await;
        // The embedded database has this machine's clock, right or wrong.
        let metrics = server.anonymous().get("/metrics").await.expect(200).text();
        assert!(metrics.contains("velro_clock_offset_seconds 0\n"), "{metrics}");
    }
}
