//! Live events: one source per generation, however many people watch, in this process and over all replicas.
//!
//! Publishers call [`Live::publish`] after their commit. Watchers subscribe first and then read what is stored, so
//! nothing falls between; a watcher that lags reads the rest from the store. With [`Live::join`] what is published here
//! is seen by the other replicas too, and theirs here. Delivery inside the process never waits for Redis; what does not
//! arrive from elsewhere is found in the store, a little later.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::clock::Micros;
use crate::generation::{Event, EventKind};
use crate::id::{AttemptId, GenerationId};
use crate::shared::Link;
use crate::shared::bus::Bus;

/// Events a slow watcher may be behind before it has to read from the store.
const BUFFER: usize = 64;

/// Signals that may wait for a busy worker; more make it look at the store instead.
const SIGNALS: usize = 1024;

/// The channel between replicas, with the version of its messages.
const CHANNEL: &str = "live1";

type Channels = HashMap<GenerationId, broadcast::Sender<Arc<Event>>>;

/// What workers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// This attempt is due now (a cancel, a webhook).
    Due(AttemptId),
    /// Attempts have become free, or jobs may begin that could not: look at the store.
    Look,
    /// An operator has stopped something or let it run: read what.
    Pauses,
}

/// The hub.
pub struct Live {
    channels: Mutex<Channels>,
    signals: broadcast::Sender<Signal>,
    woken: Notify,
    bus: OnceLock<Bus>,
}

impl Default for Live {
    fn default() -> Self {
        Live {
            channels: Mutex::default(),
            signals: broadcast::channel(SIGNALS).0,
            woken: Notify::new(),
            bus: OnceLock::new(),
        }
    }
}

impl Live {
    /// Shares everything with the other replicas from now on. Needs a running runtime.
    pub fn join(self: &Arc<Self>, link: &Link) {
        self.bus.get_or_init(|| {
            let hub = Arc::downgrade(self);
            Bus::join(link, CHANNEL, move |message| {
                if let (Some(hub), Some(message)) = (hub.upgrade(), Message::read(message)) {
                    hub.deliver(message);
                }
            })
        });
    }

    /// False while what other replicas publish does not arrive: then the store has to be asked more often.
    pub fn hears_all(&self) -> bool {
        self.bus.get().is_none_or(Bus::is_listening)
    }

    /// Grows whenever events of other replicas may have been missed: then what is watched has to be read again.
    pub fn gaps(&self) -> u64 {
        self.bus.get().map_or(0, Bus::gaps)
    }

    /// Tells the workers of all replicas that an attempt is due now. Losing it only costs time.
    pub fn nudge(&self, attempt: AttemptId) {
        self.signal(Signal::Due(attempt));
        self.send(&Message::Due(attempt));
    }

    /// Tells the workers of the other replicas that attempts have become free.
    pub fn look_at_the_store(&self) {
        self.send(&Message::Look);
    }

    /// Tells the worker of this process to look what it may begin.
    pub fn look_here(&self) {
        self.signal(Signal::Look);
    }

    /// Tells this process and the other replicas that an operator has stopped something or let it run.
    pub fn pauses_changed(&self) {
        self.signal(Signal::Pauses);
        self.send(&Message::Pauses);
    }

    /// Waits until the other replicas have been sent what was said so far; for a process that is about to end.
    pub async fn flush(&self) {
        if let Some(bus) = self.bus.get() {
            bus.flush().await;
        }
    }

    /// The worker's end of [`Live::nudge`] and [`Live::look_at_the_store`].
    pub fn signals(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    /// Something may be claimable that was not before: tells the worker here and those of other replicas.
    pub fn wake(&self) {
        self.wake_here();
        self.send(&Message::Wake);
    }

    /// As [`Live::wake`], for this process only.
    pub fn wake_here(&self) {
        self.woken.notify_one();
    }

    /// Resolves at the next wake-up, or at once when there was one since; for one worker.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// A subscription to what is published from now on.
    pub fn watch(self: &Arc<Self>, id: GenerationId) -> Watch {
        let receiver = self
            .channels()
            .entry(id)
            .or_insert_with(|| broadcast::channel(BUFFER).0)
            .subscribe();
        Watch {
            id,
            receiver: Some(receiver),
            hub: Arc::clone(self),
        }
    }

    /// Shows committed events to whoever watches, here and elsewhere.
    pub fn publish(&self, events: &[Event]) {
        self.show(events);
        for event in events {
            self.send(&Message::Event(event));
        }
    }

    /// Shows committed events to whoever watches in this process; costs one look-up when nobody does.
    pub fn show(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let channels = self.channels();
        for event in events {
            if let Some(channel) = channels.get(&event.generation_id) {
                // An error only says that the last watcher has just left.
                let _ = channel.send(Arc::new(event.clone()));
            }
        }
    }

    /// Generations somebody watches.
    pub fn watched(&self) -> usize {
        self.channels().len()
    }

    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        // An error only says that no worker listens in this process.
        let _ = self.signals.send(signal);
    }

    fn send(&self, message: &Message<'_>) {
        if let Some(bus) = self.bus.get() {
            bus.publish(&message.written());
        }
    }

    fn deliver(&self, message: Message<'_>) {
        match message {
            Message::Due(attempt) => self.signal(Signal::Due(attempt)),
            Message::Look => self.signal(Signal::Look),
            Message::Pauses => self.signal(Signal::Pauses),
            Message::Wake => self.wake_here(),
            Message::Event(event) => self.show(std::slice::from_ref(event)),
            // Most events of the installation are watched elsewhere or nowhere: not worth being parsed.
            Message::Unread(id, json) if self.channels().contains_key(&id) => {
                if let Some(event) = Message::event(id, json) {
                    self.show(&[event]);
                }
            }
            Message::Unread(..) => {}
        }
    }
}

/// What replicas tell each other: a letter, then an id where there is one, then an event's rest as JSON.
#[derive(Debug)]
enum Message<'a> {
    Due(AttemptId),
    Look,
    Pauses,
    Wake,
    Event(&'a Event),
    Unread(GenerationId, &'a [u8]),
}

/// An event without its generation's id.
#[derive(Serialize, Deserialize)]
struct Rest<'a> {
    seq: i64,
    kind: &'a str,
    data: serde_json::Value,
    created_at: i64,
}

impl<'a> Message<'a> {
    fn written(&self) -> Vec<u8> {
        match self {
            Message::Due(attempt) => [b"D".as_slice(), attempt.uuid().as_bytes()].concat(),
            Message::Look => b"L".to_vec(),
            Message::Pauses => b"P".to_vec(),
            Message::Wake => b"W".to_vec(),
            Message::Event(event) => {
                let rest = Rest {
                    seq: event.seq,
                    kind: event.kind.as_str(),
                    data: event.data.clone(),
                    created_at: event.created_at.0,
                };
                let json = serde_json::to_vec(&rest).unwrap_or_default();
                [b"E".as_slice(), event.generation_id.uuid().as_bytes(), &json].concat()
            }
            Message::Unread(id, json) => [b"E".as_slice(), id.uuid().as_bytes(), json].concat(),
        }
    }

    /// `None` for what only another version can read.
    fn read(bytes: &'a [u8]) -> Option<Message<'a>> {
        let (letter, rest) = bytes.split_first()?;
        match letter {
            b'L' => Some(Message::Look),
            b'P' => Some(Message::Pauses),
            b'W' => Some(Message::Wake),
            b'D' => Some(Message::Due(Uuid::from_slice(rest).ok()?.into())),
            b'E' => {
                let (id, json) = rest.split_at_checked(16)?;
                Some(Message::Unread(Uuid::from_slice(id).ok()?.into(), json))
            }
            _ => None,
        }
    }

    fn event(generation_id: GenerationId, json: &[u8]) -> Option<Event> {
        let rest: Rest<'_> = serde_json::from_slice(json).ok()?;
        Some(Event {
            seq: rest.seq,
            generation_id,
            kind: EventKind::parse(rest.kind)?,
            data: rest.data,
            created_at: Micros(rest.created_at),
        })
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
        let mut channels = self.hub.channels();
        self.receiver = None;
        if channels.get(&self.id).is_some_and(|c| c.receiver_count() == 0) {
            channels.remove(&self.id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let event = Event {
            seq: 7,
            generation_id: GenerationId::new(),
            kind: EventKind::Processing,
            data: serde_json::json!({ "progress": 0.5, "message": "öl\n" }),
            created_at: Micros(123),
        };
        let written = Message::Event(&event).written();
        let Some(Message::Unread(id, json)) = Message::read(&written) else {
            panic!("not an event");
        };
        assert_eq!(Message::event(id, json).unwrap(), event);
        let attempt = AttemptId::new();
        assert!(matches!(
            Message::read(&Message::Due(attempt).written()),
            Some(Message::Due(read)) if read == attempt
        ));
        for nonsense in [b"".as_slice(), b"X", b"D123", b"E123"] {
            assert!(Message::read(nonsense).is_none(), "{nonsense:?}");
        }
        assert!(Message::event(id, b"{}").is_none());
    }
}
