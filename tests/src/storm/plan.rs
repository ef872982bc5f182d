//! What strikes when, from one seed.

use std::time::Duration;

use super::dice::Dice;

/// How PostgreSQL goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As an administrator stops it.
    Fast,
    /// Without a checkpoint.
    Immediate,
    /// SIGKILL to all of it.
    Kill,
}

/// One thing that goes wrong. Whatever goes down comes back before the next blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL of a worker, which is away for a while.
    KillWorker {
        /// From 0.
        worker: usize,
        /// Milliseconds.
        away_ms: u64,
    },
    /// SIGTERM of a worker and a new start, as in a rolling update.
    RestartWorker {
        /// From 0.
        worker: usize,
    },
    /// Redis forgets everything.
    FlushRedis,
    /// SIGKILL of Redis, which is away for a while.
    KillRedis {
        /// Milliseconds.
        away_ms: u64,
    },
    /// PostgreSQL stops and starts.
    RestartPostgres {
        /// How.
        stop: Stop,
    },
    /// Every connection to PostgreSQL breaks.
    CutPostgres,
    /// Every connection to Redis breaks.
    CutRedis,
    /// PostgreSQL takes bytes and does not answer.
    HangPostgres {
        /// Milliseconds.
        for_ms: u64,
    },
    /// Redis takes bytes and does not answer.
    HangRedis {
        /// Milliseconds.
        for_ms: u64,
    },
}

/// Blows without end, each with the pause before it. All kinds come before a kind comes again.
#[derive(Debug, Clone)]
pub struct Plan {
    dice: Dice,
    workers: usize,
    round: Vec<Blow>,
}

impl Plan {
    /// The same seed gives the same blows.
    #[must_use]
    pub fn new(seed: u64, workers: usize) -> Self {
        Self {
            dice: Dice::new(seed),
            workers,
            round: Vec::new(),
        }
    }

    fn new_round(&mut self) -> Vec<Blow> {
        let dice = &mut self.dice;
        let first = usize::try_from(dice.below(self.workers as u64)).unwrap_or_default();
        let other = (first + 1) % self.workers;
        let stop = match dice.below(3) {
            0 => Stop::Fast,
            1 => Stop::Immediate,
            _ => Stop::Kill,
        };
        let mut blows = vec![
            Blow::KillWorker {
                worker: first,
                away_ms: dice.below(1500),
            },
            Blow::KillWorker {
                worker: other,
                away_ms: dice.below(300),
            },
            Blow::RestartWorker { worker: first },
            Blow::FlushRedis,
            Blow::KillRedis {
                away_ms: dice.within(200..2000),
            },
            Blow::RestartPostgres { stop },
            Blow::CutPostgres,
            Blow::CutRedis,
            Blow::HangPostgres {
                for_ms: dice.within(100..1500),
            },
            Blow::HangRedis {
                for_ms: dice.within(100..1500),
            },
        ];
        dice.shuffle(&mut blows);
        blows
    }
}

impl Iterator for Plan {
    type Item = (Duration, Blow);

    fn next(&mut self) -> Option<Self::Item> {
        if self.round.is_empty() {
            self.round = self.new_round();
        }
        let pause = Duration::from_millis(self.dice.within(100..1000));
        self.round.pop().map(|blow| (pause, blow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_blows_and_every_kind_comes() {
        let plan = |seed| Plan::new(seed, 2).take(40).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        for round in plan(7).chunks(10) {
            let kinds: std::collections::HashSet<_> =
                round.iter().map(|(_, blow)| std::mem::discriminant(blow)).collect();
            assert_eq!(kinds.len(), 9, "{round:?}");
        }
    }
}
