//! Many people, both providers, faults at FAL, and a server that is killed again and again at any moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{Client, FAL_KEY, Options, SUBMIT, Server, eventually, id_of, race};

const PEOPLE: usize = 3;
const JOBS_EACH: usize = 12;
const DEATHS: u64 = 6;

/// A repeatable spread of numbers; the seed is in every message.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The call number `number` of `person`.
fn call(person: usize, number: usize) -> Value {
    let prompt = format!("storm {person} {number}");
    match number % 4 {
        0 => json!({"model_id": "sandbox/image", "prompt": prompt,
                    "parameters": {"image_size": "square", "latency_ms": number * 50}}),
        1 => json!({"model_id": "sandbox/image", "prompt": prompt,
                    "parameters": {"image_size": "square", "latency_ms": 200, "outcome": "fail"}}),
        2 => json!({"model_id": "fal-ai/imagen4/preview/ultra", "prompt": prompt}),
        _ => json!({"model_id": "fal-ai/imagen4/preview/ultra",
                    "prompt": format!("{prompt} [sim:status=503*1] [sim:media=cut*1]")}),
    }
}

/// Submits until there is an answer, with one key, as a good client does.
async fn submit(ada: &Client, person: usize, number: usize) -> String {
    let body = call(person, number);
    eventually("a submit is answered", Duration::from_secs(60), || async {
        let request = ada.request(reqwest::Method::POST, SUBMIT).json(&body);
        let request = request.header("Idempotency-Key", format!("{person}-{number}"));
        let answer = ada.try_send(request).await.ok()?;
        (answer.status == 200).then(|| id_of(&answer.json()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_under_load_the_books_and_the_purchases_stay_right() {
    let seed = 20_261_123;
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        queue_ms: 100,
        run_ms: 400,
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await.unwrap();
    let mut server = Server::with(Options::new().fal(&sim)).await;
    let people = race(PEOPLE, |i| {
        let server = &server;
        async move { server.register(&format!("user{i}")).await }
    })
    .await;

    let crowd: Vec<_> = (0..PEOPLE * JOBS_EACH)
        .map(|i| {
            let (person, number) = (i % PEOPLE, i / PEOPLE);
            let client = people[person].clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(number as u64 * 300)).await;
                (person, submit(&client, person, number).await)
            })
        })
        .collect();
    let mut dice = Dice(seed);
    for _ in 0..DEATHS {
        tokio::time::sleep(Duration::from_millis(200 + dice.below(700))).await;
        server.kill9();
        server.restart().await;
    }
    let mut ids = Vec::new();
    for job in crowd {
        ids.push(job.await.unwrap());
    }

    // Everything ends or is an open case of the operator.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut delivered = [0; PEOPLE];
    for (person, id) in &ids {
        let client = &people[*person];
        let end = eventually("a generation ends or is unknown", Duration::from_secs(60), || async {
            let answer = client.status(id).await;
            let over = ["completed", "failed"].contains(&answer["status"].as_str().unwrap());
            let unknown = !over && server.velro(&["generations", "resolve"]).ok().contains(id.as_str());
            (over || unknown).then_some(answer)
        })
        .await;
        let status = end["status"].as_str().unwrap().to_owned();
        if status == "completed" {
            let url = end["output_urls"][0].as_str().unwrap();
            assert!(client.get(url).await.expect(200).bytes.len() > 100);
            delivered[*person] += end["metadata"]["credits_used"].as_i64().unwrap();
        }
        if status == "processing" {
            server.velro(&["generations", "resolve", id, "--refund"]).ok();
            client.wait_for(id, "failed").await;
        }
        *counts.entry(status).or_default() += 1;
    }
    assert_eq!(sim.bought_twice(), [], "seed {seed}");
    for (client, delivered) in people.iter().zip(delivered) {
        assert_eq!(client.balance().await, 1000 - delivered, "seed {seed}: {counts:?}");
        assert_eq!(client.generations().await.len(), JOBS_EACH);
    }
    let half = PEOPLE * JOBS_EACH / 2;
    assert!(counts["completed"] >= half, "most of it is delivered: {counts:?}");
}
