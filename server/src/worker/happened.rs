//! What a step of an attempt is told, owned by the task that steps it.

use velro_plugin::Transport;

use crate::upstream::Answer;

/// What happened since the last step, owned.
pub(super) enum Happened {
    Start,
    Answer(Answer),
    Failed(Transport),
    Timer,
    Webhook(Vec<u8>),
    Cancel,
    Interrupted,
}

impl Happened {
    /// True when a paid request had no answer that says whether it arrived.
    pub(super) fn is_ambiguous(&self) -> bool {
        matches!(self, Happened::Interrupted) || matches!(self, Happened::Failed(t) if !t.not_sent())
    }
}
