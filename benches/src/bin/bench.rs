//! Measures submits over HTTP and through the store alone, the same statements run by pgbench, and reads against the
//! smallest server of the same framework; in turns, in one run. Prints a table and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use benches::cpu::Whose;
use benches::ground::{Ground, Kind, open};
use benches::hello::{self, Hello};
use benches::pgbench::{self, Script};
use benches::phase::{Phase, Tally, Times};
use benches::server::{Setup, Velro};
use benches::table::{self, Results, Row};
use benches::{load, people, requests, store};
use clap::{Parser, Subcommand, ValueEnum};
use velro::store::Submitted;

/// Clients at once.
const CLIENTS: [usize; 3] = [1, 64, 256];
/// Clients of the reads.
const READERS: usize = 64;
const KINDS: [Kind; 2] = [Kind::Postgres, Kind::Sqlite];

/// Measures Velro against pgbench and a hello-world server. Figures of one run on one machine, to be read as ratios.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// How long each measurement is counted.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How often each is done; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Leaves the others out; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    helper: Option<Helper>,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Submits over HTTP.
    Submit,
    /// Submits through the store alone.
    Store,
    /// The same statements by pgbench.
    Pgbench,
    /// Status reads, and what a request costs at least.
    Reads,
}

#[derive(Subcommand)]
enum Helper {
    /// Is the hello-world server; this program starts it by itself.
    #[command(name = hello::ARGUMENT, hide = true)]
    Hello {
        /// Where to listen.
        port: u16,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Helper::Hello { port }) = arguments.helper {
        return hello::serve(port).await;
    }
    let bench = Bench {
        ground: Ground::start().await?,
        times: Times {
            warm_up: Duration::from_secs(1),
            counted: Duration::from_secs(arguments.seconds.max(1)),
        },
        arguments,
    };
    let mut results = Results::default();
    for _ in 0..bench.arguments.rounds.max(1) {
        bench.round(&mut results).await?;
    }
    match bench.arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&results.medians())?),
        false => print(&results),
    }
    Ok(())
}

struct Bench {
    ground: Ground,
    times: Times,
    arguments: Arguments,
}

impl Bench {
    fn wants(&self, part: Part) -> bool {
        self.arguments.only.is_empty() || self.arguments.only.contains(&part)
    }

    /// Everything once. What is compared with each other is measured side by side.
    async fn round(&self, results: &mut Results) -> Result<()> {
        for clients in CLIENTS {
            for kind in KINDS {
                if self.wants(Part::Submit) {
                    results.add(self.submit(kind, clients).await?);
                }
                if self.wants(Part::Store) {
                    results.add(self.store(kind, clients).await?);
                }
            }
        }
        if self.wants(Part::Pgbench) {
            for script in Script::ALL {
                self.pgbench(script, results).await?;
            }
        }
        if self.wants(Part::Reads) {
            for kind in KINDS {
                self.reads(kind, results).await?;
            }
            results.add(self.hello().await?);
        }
        Ok(())
    }

    /// Submits over HTTP; the server's books are verified at the end.
    async fn submit(&self, kind: Kind, clients: usize) -> Result<Row> {
        let database = self.ground.database(kind).await?;
        let velro = Velro::start(&database, &Setup::default()).await?;
        let (row, accepted) = self
            .load(submit_name(kind), &velro, clients, requests::submits()?)
            .await?;
        velro.stop_and_verify(accepted).await?;
        Ok(row)
    }

    /// Any requests to a server; gives how many were answered in all.
    async fn load(&self, what: String, velro: &Velro, clients: usize, requests: Vec<Vec<u8>>) -> Result<(Row, u64)> {
        let phase = Arc::new(Phase::default());
        let load = load::run(velro.address, clients, Arc::new(requests), Arc::clone(&phase));
        let clocks = [velro.cpu(), self.ground.postgres(), Whose::Own];
        let (tally, counted) = tokio::join!(load, phase.run(self.times, clocks));
        let (tally, (took, used)) = (tally?, counted?);
        let all = tally.all;
        Ok((row(what, clients, tally, took, used), all))
    }

    /// The same without HTTP.
    async fn store(&self, kind: Kind, tasks: usize) -> Result<Row> {
        let database = self.ground.database(kind).await?;
        let store = open(&database).await?;
        let phase = Arc::new(Phase::default());
        let submits = store::submits(Arc::clone(&store), tasks, Arc::clone(&phase));
        let clocks = [Whose::Own, self.ground.postgres(), Whose::Ended];
        let (tally, counted) = tokio::join!(submits, phase.run(self.times, clocks));
        let (tally, (took, used)) = (tally?, counted?);
        let report = store.verify_ledger().await?;
        anyhow::ensure!(
            report.faults.is_empty(),
            "the ledger does not balance: {:?}",
            report.faults
        );
        store.close().await;
        let mut row = row(store_name(kind), tasks, tally, took, used);
        row.load_us = None;
        Ok(row)
    }

    async fn pgbench(&self, script: Script, results: &mut Results) -> Result<()> {
        let database = self.ground.database(Kind::Postgres).await?;
        for clients in pgbench::CLIENTS {
            let outcome = pgbench::run(&database, self.ground.postgres(), script, clients, self.times.counted).await?;
            results.add(Row {
                what: script.name().to_owned(),
                clients,
                rate: outcome.rate,
                p50_ms: outcome.average_ms,
                p99_ms: None,
                server_us: None,
                postgres_us: Some(outcome.postgres_us),
                load_us: Some(outcome.pgbench_us),
            });
        }
        Ok(())
    }

    /// Reads of generations that wait, and a route that does nothing.
    async fn reads(&self, kind: Kind, results: &mut Results) -> Result<()> {
        let database = self.ground.database(kind).await?;
        let store = open(&database).await?;
        let mut generations = Vec::new();
        for person in 0..people::PEOPLE {
            let new = requests::stored(people::id(person)?);
            generations.push((person, new.id));
            let submitted = store.submit(new).await?;
            anyhow::ensure!(
                matches!(submitted, Submitted::New { .. }),
                "not accepted: {submitted:?}"
            );
        }
        store.close().await;
        let velro = Velro::start(&database, &Setup::default()).await?;
        for (what, requests) in [
            (status_name(kind), requests::reads(&generations)?),
            (health_name(kind), requests::plain("/health")),
        ] {
            let (row, _) = self.load(what, &velro, READERS, requests).await?;
            results.add(row);
        }
        velro.stop_and_verify(people::PEOPLE).await
    }

    async fn hello(&self) -> Result<Row> {
        let hello = Hello::start().await?;
        let phase = Arc::new(Phase::default());
        let requests = Arc::new(requests::plain("/"));
        let load = load::run(hello.address, READERS, requests, Arc::clone(&phase));
        let clocks = [hello.cpu(), self.ground.postgres(), Whose::Own];
        let (tally, counted) = tokio::join!(load, phase.run(self.times, clocks));
        let (tally, (took, used)) = (tally?, counted?);
        Ok(row(HELLO.to_owned(), READERS, tally, took, used))
    }
}

const HELLO: &str = "hello world of the framework";

fn submit_name(kind: Kind) -> String {
    format!("submit over HTTP, {}", kind.name())
}

fn store_name(kind: Kind) -> String {
    format!("submit, the store alone, {}", kind.name())
}

fn status_name(kind: Kind) -> String {
    format!("status read, {}", kind.name())
}

fn health_name(kind: Kind) -> String {
    format!("/health, {}", kind.name())
}

/// `used`: the server, PostgreSQL, the load generator.
fn row(what: String, clients: usize, mut tally: Tally, took: Duration, used: [Duration; 3]) -> Row {
    let calls = tally.micros.len() as f64;
    let [server, postgres, load] = used.map(|used| used.as_secs_f64() * 1e6 / calls);
    Row {
        what,
        clients,
        rate: calls / took.as_secs_f64(),
        p50_ms: tally.quantile_ms(0.5),
        p99_ms: Some(tally.quantile_ms(0.99)),
        server_us: Some(server),
        postgres_us: Some(postgres),
        load_us: Some(load),
    }
}

fn print(results: &Results) {
    let medians = results.medians();
    println!("{}", table::rows(&medians));
    let find = |what: &str, clients: usize| medians.iter().find(|row| row.what == what && row.clients == clients);
    let mut ratios = Vec::new();
    for clients in CLIENTS {
        let (http, alone) = (submit_name(Kind::Postgres), store_name(Kind::Postgres));
        for what in [http, alone] {
            let Some(ours) = find(&what, clients) else { continue };
            let mut cells = vec![what, clients.to_string()];
            for script in Script::ALL {
                let best = results.best(script.name());
                cells.push(best.map_or_else(String::new, |best| table::number(ours.rate / best.rate)));
            }
            ratios.push(cells);
        }
    }
    if !ratios.is_empty() && medians.iter().any(|row| row.what == Script::Three.name()) {
        let head = [
            "rate, as a multiple of pgbench's best",
            "clients",
            "three",
            "three, prepared",
            "five, prepared",
        ];
        println!("{}", table::markdown(&head, &ratios));
    }
    let Some(hello) = find(HELLO, READERS).and_then(|row| row.server_us) else {
        return;
    };
    let costs: Vec<Vec<String>> = medians
        .iter()
        .filter(|row| row.clients == READERS && row.load_us.is_some() && row.server_us.is_some())
        .filter_map(|row| Some(vec![row.what.clone(), table::number(row.server_us? / hello)]))
        .collect();
    let head = ["server CPU, as a multiple of the hello world's", "at 64 clients"];
    println!("{}", table::markdown(&head, &costs));
}
