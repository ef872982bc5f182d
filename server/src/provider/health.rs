//! Whether a provider is worth asking: a circuit breaker per provider and process.
//!
//! ```text
//! closed     --five failures in a row, or a call that does not return-->  open
//! open       --its time is over-->                       half open: one attempt is let through
//! half open  --it succeeds-->  closed        --it fails-->  open, for twice as long
//! ```
//!
//! A failure is what says that the provider does not work: no answer, a 5xx, a refused key. A refusal of the input, or a
//! job that failed by itself, is an answer like any other. What is in flight goes on whatever the breaker says.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use velro_plugin::Fault;

use crate::clock::Micros;
use crate::plugin::did_not_return;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// How long it stays open at first; every time it opens again, twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long the one attempt that is let through may take before another one is.
const PROBE: Duration = Duration::from_secs(60);

/// The breaker of one provider.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Set while it is not closed.
    open: Option<Open>,
    /// How often the code of the provider did not work.
    faults: u64,
}

#[derive(Debug, Clone)]
struct Open {
    reason: String,
    until: Micros,
    pause: Duration,
    /// An attempt has been let through since; `until` is then when the next one is.
    probing: bool,
}

/// What the breaker says at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Everything goes through.
    Closed,
    /// Nothing goes through.
    #[allow(missing_docs)]
    Open { until: Micros, reason: String },
    /// One attempt goes through to see.
    #[allow(missing_docs)]
    HalfOpen { reason: String },
}

/// Whether an attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Granted,
    /// Not before this moment.
    NotBefore(Micros),
}

impl Standing {
    /// The word for people and metrics: `closed`, `open` or `half_open`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Standing::Closed => "closed",
            Standing::Open { .. } => "open",
            Standing::HalfOpen { .. } => "half_open",
        }
    }

    /// The number for the gauge: 0 closed, 1 half open, 2 open.
    pub fn level(&self) -> u8 {
        match self {
            Standing::Closed => 0,
            Standing::HalfOpen { .. } => 1,
            Standing::Open { .. } => 2,
        }
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves a whole state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for an attempt to begin. When the breaker is half open, whoever asks first is the one that is let through.
    pub fn admit(&self, now: Micros) -> Admission {
        match &mut self.state().open {
            None => Admission::Granted,
            Some(open) if now < open.until => Admission::NotBefore(open.until),
            Some(open) => {
                open.probing = true;
                open.until = now.plus(PROBE);
                Admission::Granted
            }
        }
    }

    /// The provider answered.
    pub fn succeeded(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.open = None;
    }

    /// The provider did not do what it should. True when that opened the breaker.
    pub fn failed(&self, reason: &str, now: Micros) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        match state.open.is_some() || state.failures >= FAILURES {
            true => state.trip(reason, now),
            false => false,
        }
    }

    /// The code of the provider does not work. A call that did not return opens the breaker at once; a panic or nonsense may
    /// be the fault of one job, and counts like a failure. True when that opened the breaker.
    pub fn faulted(&self, fault: &Fault, now: Micros) -> bool {
        let reason = fault.to_string();
        self.state().faults += 1;
        match did_not_return(fault) {
            true => self.broke(&reason, now),
            false => self.failed(&reason, now),
        }
    }

    /// Opens it at once. True when it was closed.
    pub fn broke(&self, reason: &str, now: Micros) -> bool {
        self.state().trip(reason, now)
    }

    /// How often the code of the provider did not work.
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    /// What the breaker says.
    pub fn standing(&self, now: Micros) -> Standing {
        match &self.state().open {
            None => Standing::Closed,
            Some(open) if now < open.until && !open.probing => Standing::Open {
                until: open.until,
                reason: open.reason.clone(),
            },
            Some(open) => Standing::HalfOpen {
                reason: open.reason.clone(),
            },
        }
    }
}

impl State {
    /// Opens it, or keeps it open. Failures of what was let through before it opened do not make the pause longer; that
    /// of the one attempt that was let through since does.
    fn trip(&mut self, reason: &str, now: Micros) -> bool {
        let pause = match &self.open {
            None => FIRST_PAUSE,
            Some(open) if open.probing => (open.pause * 2).min(LONGEST_PAUSE),
            Some(_) => return false,
        };
        let news = self.open.is_none();
        self.open = Some(Open {
            reason: reason.to_owned(),
            until: now.plus(pause),
            pause,
            probing: false,
        });
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(seconds: u64) -> Micros {
        Micros(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_one_success_closes_it() {
        let health = Health::default();
        for _ in 0..4 {
            assert!(!health.failed("503", after(0)));
        }
        health.succeeded();
        for _ in 0..4 {
            assert!(!health.failed("503", after(0)));
        }
        assert_eq!(health.admit(after(0)), Admission::Granted);
        assert!(health.failed("503", after(0)), "the fifth in a row");
        assert_eq!(health.admit(after(29)), Admission::NotBefore(after(30)));
        let reason = "503".to_owned();
        let until = after(30);
        assert_eq!(health.standing(after(1)), Standing::Open { until, reason });
    }

    #[test]
    fn half_open_lets_one_through_and_its_failure_doubles_the_pause() {
        let health = Health::default();
        assert!(health.broke("panic", after(0)));
        assert!(!health.failed("an older attempt", after(10)), "it is open already");
        assert_eq!(
            health.admit(after(20)),
            Admission::NotBefore(after(30)),
            "and no longer than before"
        );
        assert_eq!(health.admit(after(30)), Admission::Granted);
        assert_eq!(health.standing(after(31)).as_str(), "half_open");
        assert_eq!(
            health.admit(after(31)),
            Admission::NotBefore(after(90)),
            "one at a time"
        );
        assert!(!health.failed("503", after(40)));
        assert_eq!(health.admit(after(99)), Admission::NotBefore(after(100)));
        assert_eq!(health.admit(after(100)), Admission::Granted);
        health.succeeded();
        assert_eq!(health.standing(after(101)), Standing::Closed);
    }

    /// Something happens at a moment: an attempt asks, an answer comes, a failure or a fault does.
    fn history() -> impl Strategy<Value = Vec<(u64, u8)>> {
        proptest::collection::vec((0_u64..120, 0_u8..4), 1..80)
    }

    proptest! {
        #[test]
        fn an_open_breaker_lets_one_through_at_a_time_and_never_stays_shut(steps in history()) {
            let health = Health::default();
            let mut now = Micros(0);
            // While the breaker is not closed: when the last one was let through, and none has come back since.
            let mut probe: Option<Micros> = None;
            let mut in_a_row = 0;
            for (wait, what) in steps {
                now = now.plus(Duration::from_secs(wait));
                let before = health.standing(now);
                match what {
                    0 => match health.admit(now) {
                        Admission::Granted if before == Standing::Closed => {}
                        Admission::Granted => {
                            let free = probe.is_none_or(|at| now >= at.plus(PROBE));
                            prop_assert!(free, "two at a time");
                            prop_assert_eq!(health.standing(now).as_str(), "half_open");
                            probe = Some(now);
                        }
                        Admission::NotBefore(until) => {
                            prop_assert_ne!(before, Standing::Closed);
                            prop_assert!(now < until && until <= now.plus(LONGEST_PAUSE));
                        }
                    },
                    1 => {
                        health.succeeded();
                        (probe, in_a_row) = (None, 0);
                        prop_assert_eq!(health.standing(now), Standing::Closed);
                    }
                    2 => {
                        in_a_row += 1;
                        let opened = health.failed("503", now);
                        prop_assert_eq!(opened, before == Standing::Closed && in_a_row >= FAILURES);
                        probe = None;
                    }
                    _ => {
                        let opened = health.broke("panic", now);
                        prop_assert_eq!(opened, before == Standing::Closed);
                        prop_assert_ne!(health.standing(now), Standing::Closed);
                        probe = None;
                    }
                }
            }
            // Whatever happened, after the longest pause somebody may try.
            prop_assert_eq!(health.admit(now.plus(LONGEST_PAUSE)), Admission::Granted);
        }
    }

    #[test]
    fn a_probe_that_never_comes_back_does_not_keep_it_closed_off_for_ever() {
        let health = Health::default();
        health.broke("no answer", after(0));
        assert_eq!(health.admit(after(30)), Admission::Granted);
        assert_eq!(health.admit(after(90)), Admission::Granted);
    }

    #[test]
    fn a_panic_counts_like_a_failure_and_a_call_that_hangs_opens_it() {
        let (health, now) = (Health::default(), after(0));
        let fault = |message: &str| Fault::new(velro_plugin::FaultCode::Internal, message);
        for _ in 0..4 {
            assert!(!health.faulted(&fault("boom"), now));
        }
        assert_eq!((health.standing(now), health.faults()), (Standing::Closed, 4));
        health.succeeded();
        assert!(health.faulted(&fault("the library does not answer within 1000 ms"), now));
        assert_eq!(health.faults(), 5);
    }
}
