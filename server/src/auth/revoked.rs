//! Sessions that were ended while access tokens of theirs may still be in date. API keys that were revoked and people who have
//! left are among them, as sessions with their ids.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::clock::Micros;
use crate::id::SessionId;

/// How much the clocks of replicas may differ, and how late a commit may become visible.
const OVERLAP: Duration = Duration::from_secs(60);

/// The set; a look-up takes one read lock.
pub(super) struct Revoked {
    /// When each session was ended.
    sessions: RwLock<HashMap<SessionId, Micros>>,
    /// A token outlives the end of its session by this much at most; then the entry can go.
    longest_token: Duration,
    /// When the store was last read with success; 0 is never.
    read_at: AtomicI64,
}

impl Revoked {
    pub(super) fn new(longest_token: Duration) -> Self {
        Revoked {
            read_at: AtomicI64::new(0),
            sessions: RwLock::default(),
            longest_token: longest_token + OVERLAP,
        }
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&session)
    }

    pub(super) fn add(&self, session: SessionId, at: Micros) {
        self.sessions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session, at);
    }

    /// From when on endings must be read: as far back as matters at first, since the last reading afterwards.
    pub(super) fn since(&self, now: Micros) -> Micros {
        let read_at = Micros(self.read_at.load(Ordering::Relaxed));
        read_at.minus(OVERLAP).max(now.minus(self.longest_token))
    }

    /// Adds what was read at `now` and drops what no token can carry any more.
    pub(super) fn merge(&self, rows: Vec<(SessionId, Micros)>, now: Micros) {
        let oldest = now.minus(self.longest_token);
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.extend(rows);
        sessions.retain(|_, at| *at >= oldest);
        self.read_at.store(now.0, Ordering::Relaxed);
    }
}
