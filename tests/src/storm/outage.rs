//! Redis or PostgreSQL is away for a while, under load.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::judgement::judge;
use super::load::{Job, answers, assert_unavailable, crowd, stays_open};
use super::replicas::{CREDITS, END_PATIENCE, cluster, people, simulator};
use crate::harness::{Client, Cluster, Options};

const PEOPLE: usize = 4;

/// Between two submits.
const GAP: Duration = Duration::from_millis(100);

/// Load before and after.
const MARGIN: Duration = Duration::from_millis(1500);

/// How long it lasts.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    /// From the end of the server to its new start.
    pub lasts: Duration,
}

impl Outage {
    /// Calls of each person, so that the load begins before and ends after the outage.
    fn calls(self) -> usize {
        let all = (self.lasts + 2 * MARGIN).as_millis() / GAP.as_millis();
        usize::try_from(all).map_or(usize::MAX, |all| all / PEOPLE)
    }
}

/// Redis is away. Nobody notices: no submit is refused, no job is lost.
pub async fn redis_outage(outage: Outage, say: impl Fn(&str)) {
    let jobs = run("Redis", outage, say, async |cluster, lasts| {
        let redis = &mut cluster.own().redis;
        redis.kill9().await?;
        tokio::time::sleep(lasts).await;
        redis.start_again().await
    })
    .await;
    let refused: Vec<_> = jobs.iter().filter(|job| job.unavailable > 0).collect();
    assert!(refused.is_empty(), "submits failed while Redis was away: {refused:#?}");
}

/// PostgreSQL is away. Clients get what they asked for or a clean 503, and whatever was accepted ends.
pub async fn postgres_outage(outage: Outage, say: impl Fn(&str)) {
    run("PostgreSQL", outage, say, async |cluster, lasts| {
        let postgres = &mut cluster.own().postgres;
        postgres.stop().await?;
        tokio::time::sleep(lasts).await;
        postgres.start_again().await
    })
    .await;
}

async fn run(
    name: &str,
    outage: Outage,
    say: impl Fn(&str),
    strike: impl AsyncFnOnce(&mut Cluster, Duration) -> anyhow::Result<()>,
) -> Vec<Job> {
    let sim = simulator().await;
    // Without webhooks, which would mend what a worker forgot.
    let mut cluster = cluster(Options::new().fal(&sim), 2).await;
    let people = people(&cluster, PEOPLE).await;
    let crowd = crowd(&people, outage.calls(), GAP, |_| false);
    let mut readers = JoinSet::new();
    for client in people.clone() {
        readers.spawn(read(client));
    }
    tokio::time::sleep(MARGIN).await;
    say(&format!("{name} goes away for {:?}", outage.lasts));
    let began = Instant::now();
    let struck = strike(&mut cluster, outage.lasts).await;
    struck.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    say(&format!("{name} is back after {:?}", began.elapsed()));
    let jobs = answers(crowd).await;
    // A reader ends by itself only when it has found something wrong.
    if let Some(Err(error)) = readers.try_join_next() {
        std::panic::resume_unwind(error.into_panic());
    }
    readers.shutdown().await;
    let unanswered: Vec<_> = jobs.iter().filter(|job| job.unanswered > 0).collect();
    assert!(
        unanswered.is_empty(),
        "connections broke while {name} was away: {unanswered:#?}"
    );
    let unavailable: usize = jobs.iter().map(|job| job.unavailable).sum();
    say(&format!("{} submits, {unavailable} times 503", jobs.len()));
    let context = format!("{name} was away for {:?}", outage.lasts);
    let tally = judge(&context, cluster.api(), &people, CREDITS, &jobs, &sim, END_PATIENCE).await;
    say(&format!("{tally:?}"));
    let lost_by_fal = PEOPLE * (0..outage.calls()).filter(|number| stays_open(*number)).count();
    assert_eq!(
        tally.resolved, lost_by_fal,
        "{context}: an answer that was there was forgotten, and its credits were held for nothing"
    );
    jobs
}

/// Reads again and again: an answer or a clean 503, nothing else.
async fn read(client: Client) {
    loop {
        for path in ["/api/v1/credits/balance", "/api/v1/generations?limit=5"] {
            let answer = client.get(path).await;
            if answer.status == 503 {
                assert_unavailable(&answer);
            } else {
                answer.expect(200);
            }
        }
        tokio::time::sleep(GAP).await;
    }
}
