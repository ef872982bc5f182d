//! The storm over replicas: one API and some workers over one PostgreSQL and one Redis, and everything but the API dies
//! again and again.

use std::time::{Duration, Instant};

use super::judgement::{Tally, judge};
use super::load::{Job, answers, crowd};
use super::plan::{Blow, Plan, Stop};
use crate::fal_sim::{FalSim, Options as SimOptions, Settings};
use crate::harness::{Client, Cluster, ClusterOptions, FAL_KEY, Options, Role};
use crate::services::Persistence;

/// Enough for any of the storms; the books are compared at the end, so nobody may run out on the way.
pub(super) const CREDITS: i64 = 1_000_000;

/// How long nothing may end after the last blow: leases of dead workers have to run out.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(120);

/// What the clocks of the workers are wrong by.
const WRONG_CLOCKS_MS: [i64; 2] = [45_000, -45_000];

/// A storm.
#[derive(Debug, Clone)]
pub struct Storm {
    /// Decides the blows. The load is always the same.
    pub seed: u64,
    /// How many are submitted, rounded down to a multiple of [`Self::people`].
    pub generations: usize,
    /// How many users.
    pub people: usize,
    /// How many worker processes.
    pub workers: usize,
    /// Between two submits.
    pub gap: Duration,
    /// Blows that are dealt even when the load has ended before.
    pub least_blows: usize,
}

impl Storm {
    /// Runs it. `say` is told what happens.
    pub async fn run(&self, say: impl Fn(&str)) -> Tally {
        let began = Instant::now();
        let say = |text: &str| say(&format!("{:>6.1} s  {text}", began.elapsed().as_secs_f32()));
        say(&format!("{self:?}"));
        let sim = simulator().await;
        // Webhooks: they arrive at one process and wake another one.
        let mut cluster = cluster(Options::new().fal(&sim).webhooks(), self.workers).await;
        let people = people(&cluster, self.people).await;
        say("the replicas are ready");

        let mut crowd = crowd(&people, self.generations / self.people, self.gap, |number| {
            number % 5 == 2
        });
        let total = crowd.len();
        let mut jobs: Vec<Job> = Vec::new();
        for (number, (pause, blow)) in Plan::new(self.seed, self.workers).enumerate() {
            if crowd.is_empty() && number >= self.least_blows {
                break;
            }
            // The plan's own time, not a wait for anything.
            tokio::time::sleep(pause).await;
            while let Some(job) = crowd.try_join_next() {
                jobs.push(job.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
            }
            say(&format!(
                "seed {}: {} of {total} accepted; {blow:?}",
                self.seed,
                jobs.len()
            ));
            deal(&mut cluster, blow).await;
        }
        jobs.extend(answers(crowd).await);
        let unavailable: usize = jobs.iter().map(|job| job.unavailable).sum();
        let unanswered: usize = jobs.iter().map(|job| job.unanswered).sum();
        say(&format!(
            "all accepted; answered with 503: {unavailable}, not answered: {unanswered}"
        ));
        assert_eq!(unanswered, 0, "seed {}: the API never died", self.seed);
        let context = format!("storm with seed {}", self.seed);
        let tally = judge(&context, cluster.api(), &people, CREDITS, &jobs, &sim, END_PATIENCE).await;
        say(&format!("seed {}: {tally:?}", self.seed));
        assert!(
            tally.count("completed") * 3 >= total,
            "{context}: a third at least is delivered: {tally:?}"
        );
        assert!(tally.resolved > 0, "{context}: no case for the operator: {tally:?}");
        tally
    }
}

/// FAL, with jobs that take about half a second.
pub(super) async fn simulator() -> FalSim {
    let settings = Settings {
        required_key: Some(FAL_KEY.into()),
        queue_ms: 100,
        run_ms: 400,
        // Longer than anything is away.
        webhook_retry_ms: vec![500; 20],
        ..Settings::default()
    };
    let sim = FalSim::start(SimOptions { port: 0, settings }).await;
    sim.unwrap_or_else(|error| panic!("{error:#}"))
}

/// One API and `workers` workers over servers of their own. Redis keeps nothing and the clocks of the workers are wrong:
/// neither may do harm.
pub(super) async fn cluster(options: Options, workers: usize) -> Cluster {
    let mut roles = vec![Role::Api];
    roles.resize(1 + workers, Role::Worker);
    let clocks = [0].into_iter().chain(WRONG_CLOCKS_MS.into_iter().cycle());
    let clocks: Vec<i64> = clocks.take(roles.len()).collect();
    let layout = ClusterOptions::new(&roles).options(options).wrong_clocks(&clocks);
    Cluster::start(layout.own_services(Persistence::None)).await
}

/// So many users with [`CREDITS`] each.
pub(super) async fn people(cluster: &Cluster, count: usize) -> Vec<Client> {
    let mut people = Vec::new();
    for number in 0..count {
        let client = cluster.api().register(&format!("user{number}")).await;
        cluster.api().grant(&client, CREDITS - client.balance().await);
        people.push(client);
    }
    people
}

/// Strikes, and sees to it that what went down is up again.
async fn deal(cluster: &mut Cluster, blow: Blow) {
    let dealt: anyhow::Result<()> = async {
        match blow {
            Blow::KillWorker { worker, away_ms } => {
                let worker = cluster.replica_mut(1 + worker);
                worker.kill9();
                pass(away_ms).await;
                worker.restart().await;
            }
            Blow::RestartWorker { worker } => {
                let worker = cluster.replica_mut(1 + worker);
                worker.terminate();
                worker.restart().await;
            }
            Blow::FlushRedis => cluster.own().redis.flush_all().await?,
            Blow::KillRedis { away_ms } => {
                cluster.own().redis.kill9().await?;
                pass(away_ms).await;
                cluster.own().redis.start_again().await?;
            }
            Blow::RestartPostgres { stop } => {
                let postgres = &mut cluster.own().postgres;
                match stop {
                    Stop::Fast => postgres.stop().await?,
                    Stop::Immediate => postgres.stop_immediately().await?,
                    Stop::Kill => postgres.kill9().await?,
                }
                postgres.start_again().await?;
            }
            Blow::CutPostgres => cluster.own().to_postgres.cut(),
            Blow::CutRedis => cluster.own().to_redis.cut(),
            Blow::HangPostgres { for_ms } => {
                cluster.own().to_postgres.pause();
                pass(for_ms).await;
                cluster.own().to_postgres.resume();
            }
            Blow::HangRedis { for_ms } => {
                cluster.own().to_redis.pause();
                pass(for_ms).await;
                cluster.own().to_redis.resume();
            }
        }
        Ok(())
    }
    .await;
    dealt.unwrap_or_else(|error| panic!("{blow:?}: {error:#}"));
}

/// How long something is away is what the plan says; nothing is waited for.
async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
