//! A load that runs in three phases: warming up, counted, over. CPU time is taken at the edges of the counted one.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cpu::{self, Whose};

/// Where a load is, for everybody who makes it.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

const COUNTED: u8 = 1;
const OVER: u8 = 2;

impl Phase {
    /// Whether what ends now counts.
    pub fn counts(&self) -> bool {
        self.0.load(Ordering::Relaxed) == COUNTED
    }

    /// Whether nothing new begins.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OVER
    }

    /// Warms up, counts, ends; gives the length of the counted phase and the CPU time of each in it.
    ///
    /// # Errors
    /// If one of the processes is gone.
    pub async fn run<const N: usize>(&self, times: Times, of: [Whose; N]) -> Result<(Duration, [Duration; N])> {
        let outcome = self.timed(times, of).await;
        // In any case, or the load would never end.
        self.0.store(OVER, Ordering::Relaxed);
        outcome
    }

    async fn timed<const N: usize>(&self, times: Times, of: [Whose; N]) -> Result<(Duration, [Duration; N])> {
        tokio::time::sleep(times.warm_up).await;
        let before = all(of)?;
        let began = Instant::now();
        self.0.store(COUNTED, Ordering::Relaxed);
        tokio::time::sleep(times.counted).await;
        self.0.store(OVER, Ordering::Relaxed);
        let took = began.elapsed();
        let mut used = all(of)?;
        for (used, before) in used.iter_mut().zip(before) {
            *used = used.saturating_sub(before);
        }
        Ok((took, used))
    }
}

fn all<const N: usize>(of: [Whose; N]) -> Result<[Duration; N]> {
    let mut times = [Duration::ZERO; N];
    for (time, whose) in times.iter_mut().zip(of) {
        *time = cpu::time(whose)?;
    }
    Ok(times)
}

/// How long a load runs.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub counted: Duration,
}

/// What came of a load, before anything is divided.
#[derive(Debug, Default)]
pub struct Tally {
    /// Time of each counted call, in microseconds.
    pub micros: Vec<u32>,
    /// Calls that succeeded, counted or not.
    pub all: u64,
}

impl Tally {
    /// A call that took `elapsed` has succeeded.
    pub fn note(&mut self, phase: &Phase, elapsed: Duration) {
        self.all += 1;
        if phase.counts() {
            self.micros.push(u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Adds another one.
    pub fn add(&mut self, other: Tally) {
        self.micros.extend(other.micros);
        self.all += other.all;
    }

    /// The value that this share of the calls did not exceed, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&mut self, share: f64) -> f64 {
        self.micros.sort_unstable();
        let at = (self.micros.len() as f64 * share) as usize;
        let micros = self.micros.get(at.min(self.micros.len().saturating_sub(1)));
        micros.map_or(f64::NAN, |&micros| f64::from(micros) / 1000.0)
    }
}
