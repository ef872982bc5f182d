//! Redis or PostgreSQL is away for some seconds, under load.

use std::time::Duration;

use tests::storm::{Outage, postgres_outage, redis_outage};

const SHORT: Outage = Outage {
    lasts: Duration::from_secs(3),
};

/// Longer than a writer tries by itself, shorter than a lease.
const LONGER: Outage = Outage {
    lasts: Duration::from_secs(8),
};

#[allow(clippy::print_stderr, reason = "belongs into the report of a failed test")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_redis_no_submit_fails_and_no_job_is_lost() {
    redis_outage(SHORT, say).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_postgresql_clients_get_a_clean_503_and_what_was_accepted_ends() {
    postgres_outage(LONGER, say).await;
}
