//! The FAL simulator as a program, for demonstrations and for tests in other processes.

use std::io::Write as _;

use clap::Parser;
use tests::fal_sim::{FalSim, Options, Settings};

/// Serves a simulated FAL.ai on 127.0.0.1 and prints where.
#[derive(Parser)]
struct Arguments {
    /// TCP port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Seconds a job waits in the queue.
    #[arg(long, default_value_t = 0.2)]
    queue_seconds: f64,
    /// Seconds a job runs.
    #[arg(long, default_value_t = 1.0)]
    seconds_per_job: f64,
    /// The only API key accepted; by default any that is not empty.
    #[arg(long)]
    key: Option<String>,
    /// Deliver no webhooks.
    #[arg(long)]
    no_webhooks: bool,
    /// What clients call this simulator, if not the Host header of each request.
    #[arg(long)]
    public_url: Option<String>,
    /// Longer edge of images in pixels.
    #[arg(long, default_value_t = 1024)]
    media_long_edge_px: u16,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let milliseconds = |seconds: f64| -> anyhow::Result<u64> {
        let duration = std::time::Duration::try_from_secs_f64(seconds)?;
        Ok(u64::try_from(duration.as_millis())?)
    };
    let sim = FalSim::start(Options {
        port: arguments.port,
        settings: Settings {
            queue_ms: milliseconds(arguments.queue_seconds)?,
            run_ms: milliseconds(arguments.seconds_per_job)?,
            required_key: arguments.key,
            webhooks: !arguments.no_webhooks,
            public_url: arguments.public_url,
            media_long_edge_px: arguments.media_long_edge_px,
            ..Settings::default()
        },
    })
    .await?;
    // One flushed line each, so that a parent process can read them from a pipe.
    let mut out = std::io::stdout().lock();
    writeln!(out, "FAL_QUEUE_URL={}", sim.base_url)?;
    writeln!(out, "FAL_RUN_URL={}", sim.run_url())?;
    writeln!(out, "FAL_REST_URL={}", sim.base_url)?;
    out.flush()?;
    drop(out);
    tokio::signal::ctrl_c().await?;
    Ok(())
}
