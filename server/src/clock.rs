//! Time as the domain and the store keep it. This is the only caller of the system clock for stored times.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// The present moment.
pub fn now() -> Micros {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(elapsed.as_micros() as i64)
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

    #[test]
    fn the_contract_s_timestamp_form() {
        assert_eq!(
            Micros(1_795_396_446_595_443).rfc3339(),
            "2026-11-23T01:14:06.595443+00:00"
        );
    }
}
