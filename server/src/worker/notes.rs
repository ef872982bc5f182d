//! What this process remembers of attempts between two steps. Losing it costs a repeated cancel or a repeated line, and a
//! restart goes on with the newest code of a provider.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Micros;
use crate::id::AttemptId;
use crate::provider::LoadedProvider;

/// Notes on the attempts of this process; an entry goes with its attempt.
#[derive(Default)]
pub struct Notes(Mutex<HashMap<AttemptId, Note>>);

#[derive(Default)]
struct Note {
    asked_to_stop: bool,
    message: Option<String>,
    /// The provider it began with.
    provider: Option<Arc<LoadedProvider>>,
    /// When its provider's last word was heard here.
    verdict_at: Option<Micros>,
    /// This process keeps it waiting because of its provider's breaker.
    held_off: bool,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, HashMap<AttemptId, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the provider has been asked to stop.
    pub(super) fn was_asked_to_stop(&self, id: AttemptId) -> bool {
        self.lock().get(&id).is_some_and(|note| note.asked_to_stop)
    }

    /// The provider has been asked to stop.
    pub(super) fn asked_to_stop(&self, id: AttemptId) {
        self.lock().entry(id).or_default().asked_to_stop = true;
    }

    /// True when this is not what the provider said last; providers repeat their newest line with every answer.
    pub(super) fn is_news(&self, id: AttemptId, message: &str) -> bool {
        let mut notes = self.lock();
        let note = notes.entry(id).or_default();
        let news = note.message.as_deref() != Some(message);
        if news {
            note.message = Some(message.to_owned());
        }
        news
    }

    /// The attempt goes on with this provider, whatever is loaded later.
    pub(super) fn pin(&self, id: AttemptId, provider: &Arc<LoadedProvider>) {
        self.lock().entry(id).or_default().provider = Some(Arc::clone(provider));
    }

    /// The provider it began with.
    pub(super) fn pinned(&self, id: AttemptId) -> Option<Arc<LoadedProvider>> {
        self.lock().get(&id)?.provider.clone()
    }

    /// Its code failed: the newest is as good.
    pub(super) fn unpin(&self, id: AttemptId) {
        if let Some(note) = self.lock().get_mut(&id) {
            note.provider = None;
        }
    }

    /// The provider's last word is heard now; false when it was heard before.
    pub(super) fn hear_verdict(&self, id: AttemptId, now: Micros) -> bool {
        let mut notes = self.lock();
        let verdict_at = &mut notes.entry(id).or_default().verdict_at;
        let first = verdict_at.is_none();
        verdict_at.get_or_insert(now);
        first
    }

    /// When it was heard here.
    pub(super) fn verdict_at(&self, id: AttemptId) -> Option<Micros> {
        self.lock().get(&id)?.verdict_at
    }

    /// True while this process keeps the attempt waiting because of its provider's breaker.
    pub(super) fn was_held_off(&self, id: AttemptId) -> bool {
        self.lock().get(&id).is_some_and(|note| note.held_off)
    }

    /// It is kept waiting, or not.
    pub(super) fn is_held_off(&self, id: AttemptId, held_off: bool) {
        self.lock().entry(id).or_default().held_off = held_off;
    }

    /// The attempt is over, or somebody else's.
    pub(super) fn forget(&self, id: AttemptId) {
        self.lock().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_line_is_no_news() {
        let (notes, id) = (Notes::default(), AttemptId::new());
        assert!(notes.is_news(id, "loading"));
        assert!(!notes.is_news(id, "loading"));
        assert!(notes.is_news(id, "drawing"));
        assert!(notes.is_news(AttemptId::new(), "drawing"), "another attempt");
        notes.asked_to_stop(id);
        assert!(notes.was_asked_to_stop(id) && !notes.is_news(id, "drawing"));
        notes.forget(id);
        assert!(!notes.was_asked_to_stop(id) && notes.is_news(id, "drawing"));
    }
}
