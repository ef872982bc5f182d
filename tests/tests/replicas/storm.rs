//! The storm, short: every kind of blow at least once.

use std::time::Duration;

use tests::storm::Storm;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[allow(
    clippy::print_stderr,
    reason = "the seed and the plan belong into the report of a failed test"
)]
async fn nothing_is_lost_and_nothing_bought_twice_whatever_dies() {
    let storm = Storm {
        seed: 20_261_125,
        generations: 160,
        people: 8,
        workers: 2,
        gap: Duration::from_millis(100),
        least_blows: 10,
    };
    storm.run(|text| eprintln!("{text}")).await;
}
