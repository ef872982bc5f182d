//! The long storm: what `tests/replicas` runs for a minute, for as long as one likes, with its progress.

use std::io::Write as _;
use std::time::Duration;

use clap::Parser;
use tests::storm::{Outage, Storm, postgres_outage, redis_outage};

/// Kills, restarts, cuts and flushes everything under a running cluster, and checks that nothing was lost.
///
/// Starts PostgreSQL, Redis, Velro and the simulator of FAL by itself. Needs the binary of `make build`.
#[derive(Parser)]
struct Arguments {
    /// Decides what strikes when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many generations are submitted; 0 leaves the storm out.
    #[arg(long, default_value_t = 2000)]
    generations: usize,
    /// How many users submit them.
    #[arg(long, default_value_t = 10)]
    people: usize,
    /// How many worker processes there are.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Milliseconds between two submits.
    #[arg(long, default_value_t = 80)]
    gap_ms: u64,
    /// How long Redis and then PostgreSQL are away in the two tests that follow; 0 leaves them out.
    #[arg(long, default_value_t = 30)]
    outage_seconds: u64,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let say = |text: &str| {
        // Nobody reads it any more: no reason to stop.
        let _ = writeln!(std::io::stdout(), "{text}");
    };
    if arguments.generations > 0 {
        let storm = Storm {
            seed: arguments.seed,
            generations: arguments.generations,
            people: arguments.people,
            workers: arguments.workers,
            gap: Duration::from_millis(arguments.gap_ms),
            least_blows: 20,
        };
        storm.run(say).await;
    }
    if arguments.outage_seconds > 0 {
        let lasts = Duration::from_secs(arguments.outage_seconds);
        redis_outage(Outage { lasts }, say).await;
        postgres_outage(Outage { lasts }, say).await;
    }
    say("nothing was lost");
}
