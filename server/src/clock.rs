//! Time as the domain and the store keep it. This is the only caller of the system clock for stored times.
//!
//! Leases, due times and token times of several processes are compared with each other, so all of them follow one clock,
//! the database's. [`now`] runs on the monotonic clock, from the wall clock at the start of the process on, plus what it is
//! known to be off by. A process looks at the database's clock before it uses any time and every few seconds after
//! ([`follow`]); the embedded database has the wall clock of this machine. So a wall clock that is stepped while the process
//! runs (by NTP, after a suspend) moves nothing at once: it could make all leases of others look as if they had run out.

use serde::{Deserialize, Serialize};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

use crate::failpoint;

/// When this process first looked at its clocks.
static START: LazyLock<(Instant, Micros)> = LazyLock::new(|| (Instant::now(), system()));

/// What has to be added to the steady clock, in microseconds.
static OFFSET_US: AtomicI64 = AtomicI64::new(0);

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// The present moment, by the clock that all processes follow.
pub fn now() -> Micros {
    Micros(steady().0.saturating_add(OFFSET_US.load(Ordering::Relaxed)))
}

/// The wall clock at the start of the process, and what the monotonic clock has counted since.
fn steady() -> Micros {
    let (began, wall) = &*START;
    wall.plus(began.elapsed())
}

/// The present moment by the wall clock of this machine; only to compare it with another clock.
pub fn system() -> Micros {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros((elapsed.as_micros() as i64).saturating_add(failpoint::clock_skew_us()))
}

/// One look at the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// How far its clock was ahead of this process's steady one, in microseconds.
    pub ahead_us: i64,
    /// How far its clock was ahead of this machine's wall clock, in microseconds; 0 when it cannot be told apart.
    pub ahead_of_machine_us: i64,
    /// How long the question and its answer took; the answer is from some moment in between.
    pub round_trip: Duration,
}

impl Look {
    /// To be called as soon as the answer is there.
    pub fn taken(database_now: Micros, asked_at: Instant) -> Look {
        Look::between(database_now, steady(), system(), asked_at.elapsed())
    }

    fn between(database_now: Micros, steady: Micros, machine: Micros, round_trip: Duration) -> Look {
        // Half-way is wrong by half the round trip at most.
        let ahead_of = |answered_at: Micros| database_now.0.saturating_sub(answered_at.minus(round_trip / 2).0);
        let machine = Look {
            ahead_us: ahead_of(machine),
            ahead_of_machine_us: 0,
            round_trip,
        };
        Look {
            ahead_us: ahead_of(steady),
            ahead_of_machine_us: machine.corrected(0),
            round_trip,
        }
    }

    /// The offset after this look at a clock that was followed with `offset_us`: the same as long as the look cannot
    /// tell the two apart, so that time does not tremble with the network.
    fn corrected(self, offset_us: i64) -> i64 {
        let doubt_us = self.round_trip.as_micros() as i64 / 2 + 2;
        match self.ahead_us.abs_diff(offset_us) > doubt_us.unsigned_abs() {
            true => self.ahead_us,
            false => offset_us,
        }
    }
}

/// Follows the database's clock from now on, as one look showed it.
pub fn follow(look: Look) {
    let offset_us = look.corrected(OFFSET_US.load(Ordering::Relaxed));
    OFFSET_US.store(offset_us, Ordering::Relaxed);
}

impl Micros {
    /// Later by `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Micros {
        Micros(self.0.saturating_add(duration.as_micros() as i64))
    }

    /// Earlier by `duration`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Micros {
        Micros(self.0.saturating_sub(duration.as_micros() as i64))
    }

    /// How long until this moment, seen from `now`; zero when it has passed.
    pub fn after(self, now: Micros) -> Duration {
        Duration::from_micros(self.0.saturating_sub(now.0).max(0) as u64)
    }

    /// Milliseconds since the Unix epoch.
    pub fn millis(self) -> u64 {
        (self.0 / 1000).max(0) as u64
    }

    /// Whole seconds since the Unix epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// From RFC 3339 text, such as `2030-01-31T00:00:00Z`; `None` when it is none.
    pub fn parse_rfc3339(text: &str) -> Option<Micros> {
        let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1000))
            .ok()
            .map(Micros)
    }

    /// `2026-11-23T01:14:06.595443+00:00`, the form of every timestamp in the REST contract.
    pub fn rfc3339(self) -> String {
        let t =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.microsecond()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_look_is_from_the_middle_of_its_round_trip() {
        let look = Look::between(Micros(5_000_000), Micros(1_010_000), Micros(5_012_000), 20 * MS);
        assert_eq!((look.ahead_us, look.ahead_of_machine_us), (4_000_000, 0));
        let behind = Look::between(Micros(1_000_000), Micros(5_010_000), Micros(2_010_000), 20 * MS);
        assert_eq!((behind.ahead_us, behind.ahead_of_machine_us), (-4_000_000, -1_000_000));
    }

    #[test]
    fn a_look_steps_the_clock_only_when_it_can_tell() {
        let look = |ahead_us, round_trip| Look {
            ahead_us,
            ahead_of_machine_us: 0,
            round_trip,
        };
        assert_eq!(look(300_000_000, 2 * MS).corrected(0), 300_000_000);
        assert_eq!(look(-90_000, 2 * MS).corrected(10_000), -90_000);
        // A slow answer does not move what a quick one has found.
        assert_eq!(look(140_000, 100 * MS).corrected(100_000), 100_000);
        assert_eq!(look(151_000, 100 * MS).corrected(100_000), 151_000);
    }

    /// The repair of a machine's clock that was followed around already must not be counted a second time.
    #[test]
    fn a_stepped_wall_clock_moves_nothing() {
        let minute = 60_000_000;
        let before = Look::between(Micros(0), Micros(-5 * minute), Micros(-5 * minute), 2 * MS);
        let after = Look::between(Micros(minute), Micros(-4 * minute), Micros(minute), 2 * MS);
        assert_eq!(after.corrected(before.corrected(0)), before.corrected(0));
        let (earlier, later) = (now(), now());
        assert!(earlier <= later && later.after(earlier) < Duration::from_secs(10));
    }

    #[test]
    fn the_contract_s_timestamp_form() {
        assert_eq!(
            Micros(1_795_396_446_595_443).rfc3339(),
            "2026-11-23T01:14:06.595443+00:00"
        );
    }
}
