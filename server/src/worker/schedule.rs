//! When which attempt is due: sorted by time, found by id.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Running;
use crate::clock::Micros;
use crate::id::AttemptId;

/// An attempt that waits.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) attempt_id: AttemptId,
    pub(crate) running: Running,
}

/// All waiting attempts of this worker.
#[derive(Default)]
pub(crate) struct Schedule {
    by_time: BTreeSet<(Micros, AttemptId)>,
    by_id: HashMap<AttemptId, (Micros, Running)>,
}

impl Schedule {
    /// Sets when an attempt is due, whatever was set before.
    pub(crate) fn put(&mut self, attempt_id: AttemptId, running: Running, due: Micros) {
        if let Some((before, _)) = self.by_id.insert(attempt_id, (due, running)) {
            self.by_time.remove(&(before, attempt_id));
        }
        self.by_time.insert((due, attempt_id));
    }

    /// Brings a known attempt forward; false when it is not known.
    pub(crate) fn hurry(&mut self, attempt_id: AttemptId, due: Micros) -> bool {
        let Some((known, _)) = self.by_id.get_mut(&attempt_id) else {
            return false;
        };
        if due < *known {
            self.by_time.remove(&(*known, attempt_id));
            *known = due;
            self.by_time.insert((due, attempt_id));
        }
        true
    }

    /// True when an attempt waits.
    pub(crate) fn contains(&self, attempt_id: AttemptId) -> bool {
        self.by_id.contains_key(&attempt_id)
    }

    /// Takes an attempt out; harmless when it is not there.
    pub(crate) fn forget(&mut self, attempt_id: AttemptId) {
        if let Some((due, _)) = self.by_id.remove(&attempt_id) {
            self.by_time.remove(&(due, attempt_id));
        }
    }

    /// Takes out all attempts that are not among `held`, and names them.
    pub(crate) fn forget_all_but(&mut self, held: &HashSet<AttemptId>) -> Vec<AttemptId> {
        let others = self.by_id.keys().filter(|id| !held.contains(id));
        let lost: Vec<AttemptId> = others.copied().collect();
        lost.iter().for_each(|id| self.forget(*id));
        lost
    }

    /// Takes out the earliest attempt if it is due.
    pub(crate) fn pop_due(&mut self, now: Micros) -> Option<Entry> {
        let (due, attempt_id) = *self.by_time.first()?;
        if due > now {
            return None;
        }
        self.by_time.remove(&(due, attempt_id));
        let (_, running) = self.by_id.remove(&attempt_id)?;
        Some(Entry { attempt_id, running })
    }

    /// What the attempts are for.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Running> {
        self.by_id.values().map(|(_, running)| running)
    }

    /// When the earliest is due.
    pub(crate) fn next_due(&self) -> Option<Micros> {
        self.by_time.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::{GenerationId, UserId};

    #[test]
    fn an_attempt_is_due_once_and_can_be_hurried() {
        let mut schedule = Schedule::default();
        let (a, b) = (AttemptId::new(), AttemptId::new());
        let running = Running {
            generation_id: GenerationId::new(),
            user_id: UserId::new(),
            provider: "p".into(),
        };
        schedule.put(a, running.clone(), Micros(100));
        schedule.put(b, running.clone(), Micros(50));
        schedule.put(a, running, Micros(200));
        assert_eq!(schedule.next_due(), Some(Micros(50)));
        assert!(schedule.pop_due(Micros(49)).is_none());
        assert_eq!(schedule.pop_due(Micros(60)).unwrap().attempt_id, b);
        assert!(schedule.pop_due(Micros(100)).is_none(), "it was moved to 200");
        assert!(schedule.hurry(a, Micros(10)));
        assert!(!schedule.hurry(b, Micros(10)), "it was taken out");
        assert_eq!(schedule.pop_due(Micros(10)).unwrap().attempt_id, a);
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn what_is_not_held_is_forgotten() {
        let mut schedule = Schedule::default();
        let (a, b) = (AttemptId::new(), AttemptId::new());
        for (id, due) in [(a, 100), (b, 50)] {
            let running = Running {
                generation_id: GenerationId::new(),
                user_id: UserId::new(),
                provider: "p".into(),
            };
            schedule.put(id, running, Micros(due));
        }
        assert_eq!(schedule.forget_all_but(&HashSet::from([a])), [b]);
        assert_eq!(schedule.next_due(), Some(Micros(100)));
        assert_eq!(schedule.running().count(), 1);
    }
}
