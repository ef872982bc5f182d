//! When which attempt is due: sorted by time, found by id.

use std::collections::{BTreeSet, HashMap};

use crate::clock::Micros;
use crate::id::{AttemptId, GenerationId};

/// An attempt that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) attempt_id: AttemptId,
    pub(crate) generation_id: GenerationId,
}

/// All waiting attempts of this worker.
#[derive(Default)]
pub(crate) struct Schedule {
    by_time: BTreeSet<(Micros, AttemptId)>,
    by_id: HashMap<AttemptId, (Micros, GenerationId)>,
}

impl Schedule {
    /// Sets when an attempt is due, whatever was set before.
    pub(crate) fn put(&mut self, attempt_id: AttemptId, generation_id: GenerationId, due: Micros) {
        if let Some((before, _)) = self.by_id.insert(attempt_id, (due, generation_id)) {
            self.by_time.remove(&(before, attempt_id));
        }
        self.by_time.insert((due, attempt_id));
    }

    /// Brings a known attempt forward; false when it is not known.
    pub(crate) fn hurry(&mut self, attempt_id: AttemptId, due: Micros) -> bool {
        let Some((before, generation_id)) = self.by_id.get(&attempt_id).copied() else {
            return false;
        };
        if due < before {
            self.put(attempt_id, generation_id, due);
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

    /// Takes out the earliest attempt if it is due.
    pub(crate) fn pop_due(&mut self, now: Micros) -> Option<Entry> {
        let (due, attempt_id) = *self.by_time.first()?;
        if due > now {
            return None;
        }
        self.by_time.remove(&(due, attempt_id));
        let (_, generation_id) = self.by_id.remove(&attempt_id)?;
        Some(Entry {
            attempt_id,
            generation_id,
        })
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

    #[test]
    fn an_attempt_is_due_once_and_can_be_hurried() {
        let mut schedule = Schedule::default();
        let (a, b, g) = (AttemptId::new(), AttemptId::new(), GenerationId::new());
        schedule.put(a, g, Micros(100));
        schedule.put(b, g, Micros(50));
        schedule.put(a, g, Micros(200));
        assert_eq!(schedule.next_due(), Some(Micros(50)));
        assert!(schedule.pop_due(Micros(49)).is_none());
        assert_eq!(schedule.pop_due(Micros(60)).unwrap().attempt_id, b);
        assert!(schedule.pop_due(Micros(100)).is_none(), "it was moved to 200");
        assert!(schedule.hurry(a, Micros(10)));
        assert!(!schedule.hurry(b, Micros(10)), "it was taken out");
        assert_eq!(schedule.pop_due(Micros(10)).unwrap().attempt_id, a);
        assert_eq!(schedule.next_due(), None);
    }
}
