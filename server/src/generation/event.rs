//! What happened to a generation, in order; what a stream shows and resumes from.

use serde_json::Value;

use crate::clock::Micros;
use crate::id::GenerationId;

/// A stored event. `seq` grows over the whole installation and is the `id:` of the SSE frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position in the log.
    pub seq: i64,
    /// What it is about.
    pub generation_id: GenerationId,
    /// The contract's event name.
    pub kind: EventKind,
    /// The contract's `data` object, without output URLs: those are signed when they are shown.
    pub data: Value,
    /// When.
    pub created_at: Micros,
}

/// The contract's event names (contract §4.3), with `cancelled` for what the original never told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Waiting; `data` may carry `position`.
    Queued,
    /// Running; `data` may carry `progress` (0..1) and `message`.
    Processing,
    /// Delivered.
    Completed,
    /// Failed; the contract calls this event `error`.
    Error,
    /// Stopped by the user.
    Cancelled,
}

impl EventKind {
    /// The wire and database form.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Queued => "queued",
            EventKind::Processing => "processing",
            EventKind::Completed => "completed",
            EventKind::Error => "error",
            EventKind::Cancelled => "cancelled",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<EventKind> {
        use EventKind::*;
        [Queued, Processing, Completed, Error, Cancelled]
            .into_iter()
            .find(|k| k.as_str() == text)
    }

    /// True when nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, EventKind::Completed | EventKind::Error | EventKind::Cancelled)
    }
}
