//! Many people, both providers, faults at FAL, and a server that is killed again and again at any moment.

use std::time::Duration;

use tests::fal_sim::{FalSim, Options as SimOptions, Settings};
use tests::harness::{FAL_KEY, Options, Server, race};
use tests::storm::{Dice, answers, crowd, judge};

const PEOPLE: usize = 3;
const JOBS_EACH: usize = 12;
const DEATHS: u64 = 6;

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

    let crowd = crowd(&people, JOBS_EACH, Duration::from_millis(100), |_| false);
    let mut dice = Dice::new(seed);
    for _ in 0..DEATHS {
        tokio::time::sleep(Duration::from_millis(dice.within(200..900))).await;
        server.kill9();
        server.restart().await;
    }
    let jobs = answers(crowd).await;

    // Everything ends or is an open case of the operator.
    let context = format!("seed {seed}");
    let patience = Duration::from_secs(60);
    let tally = judge(&context, &server, &people, 1000, &jobs, &sim, patience).await;
    for client in &people {
        assert_eq!(client.generations().await.len(), JOBS_EACH, "{context}");
    }
    let half = PEOPLE * JOBS_EACH / 2;
    assert!(
        tally.count("completed") >= half,
        "{context}: most of it is delivered: {tally:?}"
    );
}
