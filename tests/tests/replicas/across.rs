//! Clients speak to one process, another one works: streams, cancels and positions cross the boundary.

use std::time::Duration;

use serde_json::{Value, json};
use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{Cluster, ClusterOptions, FAL_KEY, Options, Role, SOON, eventually};

use super::at;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_at_the_api_tells_what_a_worker_does() {
    let cluster = Cluster::start(ClusterOptions::new(&[Role::Api, Role::Worker]).pooled()).await;
    let ada = cluster.api().register("ada").await;
    let id = ada
        .submit(
            "sandbox/image",
            "watched",
            json!({"image_size": "square", "latency_ms": 1500}),
        )
        .await;
    let frames = ada.stream(&id).await.rest().await;
    let events: Vec<&str> = frames.iter().map(|frame| frame.event()).collect();
    assert!(events.contains(&"processing"), "{events:?}");
    assert_eq!(events.last(), Some(&"completed"));
    let numbers: Vec<i64> = frames.iter().map(|f| f.id.as_ref().unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    // The file that the worker wrote.
    let done = ada.status(&id).await;
    let file = ada.get(done["output_urls"][0].as_str().unwrap()).await.expect(200);
    assert!(file.bytes.starts_with(b"\x89PNG"));
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_at_the_api_stops_what_a_worker_has_begun() {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        manual: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let layout = ClusterOptions::new(&[Role::Api, Role::Worker]).pooled();
    let cluster = Cluster::start(layout.options(Options::new().fal(&sim))).await;
    let ada = cluster.api().register("ada").await;
    let id = ada.submit("fal-ai/imagen4/preview/ultra", "unwanted", json!({})).await;
    sim.wait_for(SOON, |requests| requests.len() == 1).await.unwrap();
    let mut stream = ada.stream(&id).await;
    ada.wait_for(&id, "processing").await;
    ada.cancel(&id).await.expect(200);
    ada.wait_for(&id, "cancelled").await;
    sim.wait_for(SOON, |requests| requests[0].counts.cancel > 0)
        .await
        .unwrap();
    assert_eq!(sim.requests()[0].billed_milliunits, 0);
    let frames = stream.until("the end", |frame| frame.is_final()).await;
    assert_eq!(frames.last().unwrap().event(), "cancelled");
    assert_eq!(ada.statement().await, ["bonus +1000", "usage -45", "refund +45"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_at_the_api_wakes_the_worker() {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        manual: true,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    // Polls are so rare that only the webhook can end it in time.
    let slow = |registry: &mut toml::Table| {
        for model in tests::harness::models(registry) {
            model.insert("typical_ms".into(), 600_000.into());
            model.insert("poll_ceiling_ms".into(), 600_000.into());
        }
    };
    let options = Options::new().fal(&sim).webhooks().edit_registry(slow);
    let layout = ClusterOptions::new(&[Role::Api, Role::Worker]);
    let cluster = Cluster::start(layout.options(options)).await;
    let ada = cluster.api().register("ada").await;
    let id = ada
        .submit("fal-ai/imagen4/preview/ultra", "called back", json!({}))
        .await;
    let bought = sim.wait_for(SOON, |requests| requests.len() == 1).await.unwrap();
    ada.wait_for(&id, "processing").await;
    sim.finish_job(&bought[0].request_id).unwrap();
    ada.wait_for(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_api_tells_the_same_position_and_every_change_of_it() {
    let one_at_a_time = |registry: &mut toml::Table| {
        let sandbox = registry["providers"]["sandbox"].as_table_mut().unwrap();
        sandbox.insert("concurrency".into(), 1.into());
        sandbox.insert("concurrency_per_user".into(), 1.into());
    };
    let layout = ClusterOptions::new(&[Role::Api, Role::Api, Role::Worker]);
    let cluster = Cluster::start(layout.options(Options::new().edit_registry(one_at_a_time))).await;
    let first = cluster.api().register("first").await;
    let blocker = first.submit("sandbox/image", "x", json!({"outcome": "hang"})).await;
    first.wait_for(&blocker, "processing").await;
    let mut waiting = Vec::new();
    for (number, name) in ["bob", "carl", "dora"].into_iter().enumerate() {
        let client = cluster.api().register(name).await;
        let parameters = json!({"image_size": "square", "latency_ms": 1500});
        let id = client.submit("sandbox/image", name, parameters).await;
        waiting.push((client, id));
        for replica in 0..2 {
            for (position, (client, id)) in waiting.iter().enumerate() {
                let client = at(&cluster, replica, client);
                let told = eventually("a position", SOON, || async {
                    client.status(id).await["queue_position"].as_u64()
                })
                .await;
                assert_eq!(told, position as u64, "replica {replica}, after {} submits", number + 1);
            }
        }
    }
    let (dora, id) = waiting.last().unwrap();
    let mut stream = at(&cluster, 1, dora).stream(id).await;
    let snapshot = stream.next().await.unwrap();
    assert_eq!((snapshot.event(), &snapshot.data()["position"]), ("queued", &json!(2)));
    // Through the other API than the one that is watched.
    first.cancel(&blocker).await.expect(200);
    let frames = stream.rest().await;
    let positions: Vec<&Value> = frames
        .iter()
        .filter(|frame| frame.event() == "queued")
        .map(|frame| &frame.data()["position"])
        .collect();
    assert_eq!(positions, [&json!(1), &json!(0)]);
    assert_eq!(frames.last().unwrap().event(), "completed");
    for (client, id) in &waiting {
        client.wait_long(id, Duration::from_secs(30)).await;
    }
}
