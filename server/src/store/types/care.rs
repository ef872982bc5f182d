//! What people do with their own account: sessions, password, leaving.

use crate::clock::Micros;
use crate::id::{GenerationId, SessionId};

/// Where a sign-in came from, for its owner to recognise it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// What the program calls itself.
    pub user_agent: Option<String>,
    /// The address it called from.
    pub address: Option<String>,
}

/// A session that goes on.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// For ending it.
    pub id: SessionId,
    /// When somebody signed in.
    pub created_at: Micros,
    /// When its tokens were last renewed.
    pub last_used_at: Micros,
    /// From where, the last time.
    pub origin: Origin,
}

/// A part of what somebody who has left has left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Generations that have ended.
    pub ended: Vec<GenerationId>,
    /// Their files, which go first: afterwards nobody knows of them.
    pub files: Vec<String>,
    /// Generations that go on; they are erased after they have ended.
    pub unfinished: Vec<GenerationId>,
}
