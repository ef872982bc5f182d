//! How cost grows with what waits and with what is in flight, ten-fold by ten-fold: memory per job, start and rebuild,
//! what one claim costs, and what the server uses while nothing happens. Nothing may grow faster than the logarithm.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use benches::cpu;
use benches::ground::{Database, Ground, Kind, open};
use benches::server::{Setup, Velro};
use benches::{people, requests, table};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tests::fal_sim::{FalSim, Options, Settings};
use tests::services::{Persistence, Redis};
use tokio::task::JoinSet;
use velro::id::GenerationId;
use velro::store::Submitted;

/// Jobs that are claimed to see what a claim costs.
const CLAIMS: u32 = 500;
/// Submits at once while a database is filled.
const FILLERS: u64 = 256;
/// How long the server is watched while nothing happens: three sweeps.
const IDLE: Duration = Duration::from_secs(15);
/// Whatever is waited for takes no longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures how cost grows with the number of jobs that wait and that are in flight.
#[derive(Parser)]
struct Arguments {
    /// How many wait, in steps.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    queued: Vec<u64>,
    /// How many are in flight, in steps.
    #[arg(long, value_delimiter = ',', default_value = "2000,20000")]
    in_flight: Vec<u32>,
    /// Over which database; both by default.
    #[arg(long, value_enum)]
    only: Vec<Over>,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Over {
    /// PostgreSQL, and Redis where the server uses it.
    Postgres,
    /// The embedded database and the queue in memory.
    Sqlite,
}

/// One step of the queue's growth.
#[derive(Debug, Serialize)]
struct Queued {
    over: &'static str,
    jobs: u64,
    /// From the start of the process until it is ready.
    start_ms: f64,
    /// Until the newest job has its place in the queue.
    rebuilt_ms: f64,
    /// CPU time until then.
    rebuild_cpu_us_per_job: f64,
    /// Memory above that of a server without jobs.
    bytes_per_job: f64,
    /// CPU time of the server in a second in which nothing happens.
    idle_cpu_ms: f64,
    /// From the first to the last of some hundred claims, which the provider accepts; time per claim.
    claim_ms: f64,
    /// CPU time of the server for it.
    claim_cpu_us: f64,
}

/// One step of the growth of what is in flight.
#[derive(Debug, Serialize)]
struct InFlight {
    over: &'static str,
    jobs: u32,
    /// CPU time for a job from the queue to the provider's acceptance.
    begin_cpu_us: f64,
    /// Memory per job above that of a server without jobs, in the process that began them.
    bytes_per_job: f64,
    /// The same in a process that took them over from one that was killed.
    bytes_per_adopted: f64,
    /// From its start until it had all of them.
    adopted_ms: f64,
    /// Polls of the provider in a second while all of them are in flight.
    polls_per_second: f64,
    /// CPU time of the server per poll, with all else it does meanwhile.
    poll_cpu_us: f64,
}

#[derive(Serialize)]
struct Report {
    queued: Vec<Queued>,
    in_flight: Vec<InFlight>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scale = Scale {
        ground: Ground::start().await?,
        redis: Redis::start(Persistence::None).await?,
    };
    let mut report = Report {
        queued: Vec::new(),
        in_flight: Vec::new(),
    };
    for (over, kind) in [(Over::Sqlite, Kind::Sqlite), (Over::Postgres, Kind::Postgres)] {
        if !arguments.only.is_empty() && !arguments.only.contains(&over) {
            continue;
        }
        let nothing = scale.memory_of_nothing(kind).await?;
        for &jobs in &arguments.queued {
            report.queued.push(scale.queued(kind, jobs, nothing).await?);
        }
        for &jobs in &arguments.in_flight {
            report.in_flight.push(scale.in_flight(kind, jobs, nothing).await?);
        }
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print(&report),
    }
    Ok(())
}

struct Scale {
    ground: Ground,
    redis: Redis,
}

impl Scale {
    async fn simulator(&self) -> Result<FalSim> {
        let settings = Settings {
            queue_ms: 0,
            // Longer than any run of this command.
            run_ms: 86_400_000,
            ..Settings::default()
        };
        FalSim::start(Options { port: 0, settings }).await
    }

    /// The provider has accepted one and goes on with it for ever, so that what waits keeps waiting.
    fn setup(&self, kind: Kind, sim: &FalSim, concurrency: u32) -> Setup {
        let mut env = Vec::new();
        if kind == Kind::Postgres {
            env.push(("REDIS_URL".to_owned(), self.redis.url()));
            // Every step begins with an empty queue: clearing away what the one before left would be measured with it.
            let prefix = format!("scale-{}:", uuid::Uuid::new_v4());
            env.push(("VELRO_REDIS_PREFIX".to_owned(), prefix));
        }
        Setup {
            fal: Some(sim.base_url.clone()),
            concurrency,
            // What is in flight must not cover with its polls what is measured.
            poll_ceiling_ms: Some(60_000),
            env,
        }
    }

    /// What a server uses that has started and has nothing to do.
    async fn memory_of_nothing(&self, kind: Kind) -> Result<u64> {
        let sim = self.simulator().await?;
        let database = self.ground.database(kind).await?;
        let velro = Velro::start(&database, &self.setup(kind, &sim, 1)).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let resident = cpu::resident(velro.pid())?;
        velro.stop_and_verify(0).await?;
        Ok(resident)
    }

    async fn queued(&self, kind: Kind, jobs: u64, nothing: u64) -> Result<Queued> {
        let sim = self.simulator().await?;
        let database = self.ground.database(kind).await?;
        let newest = fill(&database, jobs).await?;
        let began = Instant::now();
        let velro = Velro::start(&database, &self.setup(kind, &sim, 1)).await?;
        wait(async || {
            velro
                .position(newest.0, newest.1)
                .await
                .map(|position| position.is_some())
        })
        .await?;
        let rebuilt = began.elapsed();
        let rebuild_cpu = cpu::time(velro.cpu())?;
        // The gauges are counted and the first job is accepted.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let resident = cpu::resident(velro.pid())?;
        let idle_cpu_ms = idle(&velro).await?;

        let before = cpu::time(velro.cpu())?;
        velro.edit_registry(&self.setup(kind, &sim, 1 + CLAIMS))?;
        let accepted = sim.handle();
        wait(async || Ok(accepted.requests().len() > CLAIMS as usize)).await?;
        let claim_cpu = cpu::time(velro.cpu())?.saturating_sub(before);
        let times: Vec<u64> = accepted.requests().iter().map(|record| record.accepted_at_ms).collect();
        let took_ms = times
            .last()
            .zip(times.get(1))
            .map_or(0, |(last, first)| last.saturating_sub(*first));
        let row = Queued {
            over: kind.name(),
            jobs,
            start_ms: velro.started_in.as_secs_f64() * 1000.0,
            rebuilt_ms: rebuilt.as_secs_f64() * 1000.0,
            rebuild_cpu_us_per_job: rebuild_cpu.as_secs_f64() * 1e6 / jobs as f64,
            bytes_per_job: resident.saturating_sub(nothing) as f64 / jobs as f64,
            idle_cpu_ms,
            claim_ms: took_ms as f64 / f64::from(CLAIMS),
            claim_cpu_us: claim_cpu.as_secs_f64() * 1e6 / f64::from(CLAIMS),
        };
        velro.stop_and_verify(jobs).await?;
        Ok(row)
    }

    async fn in_flight(&self, kind: Kind, jobs: u32, nothing: u64) -> Result<InFlight> {
        let sim = self.simulator().await?;
        let database = self.ground.database(kind).await?;
        fill(&database, u64::from(jobs)).await?;
        let setup = self.setup(kind, &sim, jobs);
        let velro = Velro::start(&database, &setup).await?;
        let accepted = sim.handle();
        wait(async || Ok(accepted.requests().len() >= jobs as usize)).await?;
        let begin_cpu = cpu::time(velro.cpu())?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let resident = cpu::resident(velro.pid())?;
        let polls = polls_of(&sim);
        let cpu_ms = idle(&velro).await?;
        let polls_per_second = (polls_of(&sim) - polls) as f64 / IDLE.as_secs_f64();
        // Killed: the next one takes over what is in flight.
        drop(velro);

        let began = Instant::now();
        let velro = Velro::start(&database, &setup).await?;
        let adopted = r#"velro_leases_total{kind="adopted"}"#;
        wait(async || Ok(velro.metric(adopted).await?.unwrap_or(0.0) >= f64::from(jobs))).await?;
        let adopted = began.elapsed();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let again = cpu::resident(velro.pid())?;
        let bought = sim.requests().len();
        ensure!(
            bought == jobs as usize,
            "{bought} requests reached the provider for {jobs} jobs"
        );
        let per = |resident: u64| resident.saturating_sub(nothing) as f64 / f64::from(jobs);
        let row = InFlight {
            over: kind.name(),
            jobs,
            begin_cpu_us: begin_cpu.as_secs_f64() * 1e6 / f64::from(jobs),
            bytes_per_job: per(resident),
            bytes_per_adopted: per(again),
            adopted_ms: adopted.as_secs_f64() * 1000.0,
            polls_per_second,
            poll_cpu_us: cpu_ms * 1000.0 / polls_per_second,
        };
        velro.stop_and_verify(u64::from(jobs)).await?;
        Ok(row)
    }
}

/// Submits so many through the store, from many tasks, which share transactions; gives the newest and its owner.
async fn fill(database: &Database, jobs: u64) -> Result<(u64, GenerationId)> {
    let store = open(database).await?;
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let store = std::sync::Arc::clone(&store);
        fillers.spawn(async move {
            let mut newest = None;
            for number in (filler..jobs).step_by(FILLERS as usize) {
                let person = number % people::PEOPLE;
                let new = requests::stored(people::id(person)?);
                let id = new.id;
                let submitted = store.submit(new).await?;
                ensure!(
                    matches!(submitted, Submitted::New { .. }),
                    "not accepted: {submitted:?}"
                );
                newest = Some((id, person));
            }
            Ok(newest)
        });
    }
    let mut newest = None;
    while let Some(done) = fillers.join_next().await {
        newest = newest.max(done??);
    }
    store.close().await;
    newest.map(|(id, person)| (person, id)).context("there are no jobs")
}

/// How often the provider was asked for a status.
fn polls_of(sim: &FalSim) -> u64 {
    sim.requests()
        .iter()
        .map(|request| u64::from(request.counts.status))
        .sum()
}

/// CPU time that the server uses in a second, in milliseconds, while nobody asks for anything.
async fn idle(velro: &Velro) -> Result<f64> {
    let before = cpu::time(velro.cpu())?;
    tokio::time::sleep(IDLE).await;
    let used = cpu::time(velro.cpu())?.saturating_sub(before);
    Ok(used.as_secs_f64() * 1000.0 / IDLE.as_secs_f64())
}

async fn wait(mut met: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !met().await? {
        ensure!(began.elapsed() < PATIENCE, "it did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn print(report: &Report) {
    let n = table::number;
    let rows: Vec<Vec<String>> = report
        .queued
        .iter()
        .map(|q| {
            vec![
                format!("{}, {} wait", q.over, q.jobs),
                n(q.start_ms),
                n(q.rebuilt_ms),
                n(q.rebuild_cpu_us_per_job),
                n(q.bytes_per_job),
                n(q.idle_cpu_ms),
                n(q.claim_ms),
                n(q.claim_cpu_us),
            ]
        })
        .collect();
    let head = [
        "",
        "ready ms",
        "rebuilt ms",
        "rebuild CPU us per job",
        "bytes per job",
        "idle CPU ms/s",
        "claim ms",
        "claim CPU us",
    ];
    println!("{}", table::markdown(&head, &rows));
    let rows: Vec<Vec<String>> = report
        .in_flight
        .iter()
        .map(|f| {
            vec![
                format!("{}, {} in flight", f.over, f.jobs),
                n(f.begin_cpu_us),
                n(f.bytes_per_job),
                n(f.bytes_per_adopted),
                n(f.adopted_ms),
                n(f.polls_per_second),
                n(f.poll_cpu_us),
            ]
        })
        .collect();
    let head = [
        "",
        "begin CPU us",
        "bytes per job",
        "bytes per adopted job",
        "adopted ms",
        "polls per second",
        "poll CPU us",
    ];
    println!("{}", table::markdown(&head, &rows));
}
