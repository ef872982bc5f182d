//! Live events in this process: one source per generation, however many people watch.
//!
//! Publishers call [`Live::publish`] after their commit. Watchers subscribe first and then read what is stored, so
//! nothing falls between; a watcher that lags reads the rest from the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

use crate::generation::Event;
use crate::id::{AttemptId, GenerationId};

/// Events a slow watcher may be behind before it has to read from the store.
const BUFFER: usize = 64;

/// Nudges that may wait for a busy worker; more make it look at the store instead.
const NUDGES: usize = 1024;

/// The hub.
pub struct Live {
    channels: Mutex<HashMap<GenerationId, broadcast::Sender<Arc<Event>>>>,
    nudges: broadcast::Sender<AttemptId>,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            channels: Mutex::default(),
            nudges: broadcast::channel(NUDGES).0,
        }
    }
}

impl Live {
    /// Tells the workers that an attempt is due now (a cancel, a webhook). Losing a nudge only costs time.
    pub fn nudge(&self, attempt: AttemptId) {
        // An error only says that no worker listens in this process.
        let _ = self.nudges.send(attempt);
    }

    /// The worker's end of [`Live::nudge`].
    pub fn nudges(&self) -> broadcast::Receiver<AttemptId> {
        self.nudges.subscribe()
    }

    /// A subscription to what is published from now on.
    pub fn watch(self: &Arc<Self>, id: GenerationId) -> Watch {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = channels
            .entry(id)
            .or_insert_with(|| broadcast::channel(BUFFER).0)
            .subscribe();
        Watch {
            id,
            receiver: Some(receiver),
            hub: Arc::clone(self),
        }
    }

    /// Shows committed events to whoever watches; costs one look-up when nobody does.
    pub fn publish(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            if let Some(channel) = channels.get(&event.generation_id) {
                // An error only says that the last watcher has just left.
                let _ = channel.send(Arc::new(event.clone()));
            }
        }
    }

    /// Generations somebody watches.
    pub fn watched(&self) -> usize {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A subscription; the channel goes with its last one.
pub struct Watch {
    id: GenerationId,
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
    hub: Arc<Live>,
}

/// What a watcher gets.
#[derive(Debug, Clone)]
pub enum Seen {
    /// The next event.
    Event(Arc<Event>),
    /// Events were missed: read them from the store.
    Lagged,
    /// The hub is gone.
    Closed,
}

impl Watch {
    /// Waits for the next event.
    pub async fn next(&mut self) -> Seen {
        let Some(receiver) = self.receiver.as_mut() else {
            return Seen::Closed;
        };
        match receiver.recv().await {
            Ok(event) => Seen::Event(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Seen::Lagged,
            Err(broadcast::error::RecvError::Closed) => Seen::Closed,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut channels = self.hub.channels.lock().unwrap_or_else(PoisonError::into_inner);
        self.receiver = None;
        if channels.get(&self.id).is_some_and(|c| c.receiver_count() == 0) {
            channels.remove(&self.id);
        }
    }
}
