//! Messages between replicas over one channel of Redis, at most once: what is lost costs time and nothing else.
//!
//! One task publishes what waits in a bounded channel, many messages per round trip; one task listens on a connection
//! of its own and makes a new one whenever it, or Redis, was away. Own messages are not delivered to their sender.

use futures_util::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Link, Part};

/// Messages that may wait to be published; more are dropped.
const WAITING: usize = 4096;

/// Messages published together.
const TOGETHER: usize = 256;

/// How long a subscription may take to be made.
const SUBSCRIBE: Duration = Duration::from_secs(1);

/// How long a process that ends waits for its last messages.
const FLUSH: Duration = Duration::from_millis(500);

/// How long to rest after a subscription that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// Length of the sender's id in front of every message.
const ORIGIN: usize = 16;

/// This process' place on a channel; ends with its last owner.
pub struct Bus {
    waiting: mpsc::Sender<Item>,
    origin: Uuid,
    link: Link,
    state: Arc<State>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What waits to be published.
enum Item {
    Message(Vec<u8>),
    /// Tells that all before it has been published, or lost.
    Mark(oneshot::Sender<()>),
}

#[derive(Default)]
struct State {
    is_listening: AtomicBool,
    gaps: AtomicU64,
}

impl Bus {
    /// Joins the channel `name`; `deliver` gets what others publish from then on. Needs a running runtime.
    pub fn join(link: &Link, name: &str, deliver: impl Fn(&[u8]) + Send + Sync + 'static) -> Bus {
        let (waiting, queue) = mpsc::channel(WAITING);
        let (channel, origin) = (link.key(name), Uuid::now_v7());
        let state = Arc::new(State::default());
        let listening = listen(link.clone(), channel.clone(), origin, Arc::clone(&state), deliver);
        Bus {
            waiting,
            origin,
            link: link.clone(),
            state,
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(publish(link.clone(), channel, queue))),
                AbortOnDropHandle::new(tokio::spawn(listening)),
            ],
        }
    }

    /// Puts a message on its way; it is dropped when Redis is down or too many wait.
    pub fn publish(&self, message: &[u8]) {
        let payload = [self.origin.as_bytes().as_slice(), message].concat();
        if self.waiting.try_send(Item::Message(payload)).is_err() {
            self.link.fell_back(Part::Live);
        }
    }

    /// Waits until what has been published so far is on its way, for a short while at most: before a process ends.
    pub async fn flush(&self) {
        let (mark, passed) = oneshot::channel();
        if self.waiting.try_send(Item::Mark(mark)).is_ok() {
            // What cannot be sent in time is lost, as it may be.
            let _ = timeout(FLUSH, passed).await;
        }
    }

    /// True while what others publish arrives.
    pub fn is_listening(&self) -> bool {
        self.state.is_listening.load(Ordering::Acquire)
    }

    /// Grows whenever messages of others may have been missed.
    pub fn gaps(&self) -> u64 {
        self.state.gaps.load(Ordering::Acquire)
    }
}

async fn publish(link: Link, channel: String, mut queue: mpsc::Receiver<Item>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while queue.recv_many(&mut batch, TOGETHER).await > 0 {
        let mut commands = redis::pipe();
        // Equal messages (wake-ups) say nothing more the second time.
        let mut said = HashSet::new();
        for item in &batch {
            if let Item::Message(message) = item
                && said.insert(message.as_slice())
            {
                commands.publish(&channel, message).ignore();
            }
        }
        if !said.is_empty() && link.pipe::<()>(&commands).await.is_err() {
            said.iter().for_each(|_| link.fell_back(Part::Live));
        }
        for item in batch.drain(..) {
            if let Item::Mark(mark) = item {
                // An error only says that nobody waits any more.
                let _ = mark.send(());
            }
        }
    }
}

async fn listen(link: Link, channel: String, origin: Uuid, state: Arc<State>, deliver: impl Fn(&[u8])) {
    let mut recoveries = link.recoveries();
    loop {
        recoveries.mark_unchanged();
        let subscribing = async {
            let mut subscription = link.0.client.get_async_pubsub().await?;
            subscription.subscribe(&channel).await?;
            Ok::<_, redis::RedisError>(subscription)
        };
        let Ok(Ok(mut subscription)) = timeout(SUBSCRIBE, subscribing).await else {
            sleep(AGAIN).await;
            continue;
        };
        state.is_listening.store(true, Ordering::Release);
        state.gaps.fetch_add(1, Ordering::AcqRel);
        {
            let mut messages = subscription.on_message();
            loop {
                tokio::select! {
                    message = messages.next() => match message {
                        Some(message) => match message.get_payload_bytes().split_at_checked(ORIGIN) {
                            Some((sender, message)) if sender != origin.as_bytes() => deliver(message),
                            _ => {}
                        },
                        None => break,
                    },
                    // A connection that Redis does not know any more stays silent for ever.
                    _ = recoveries.changed() => break,
                }
            }
        }
        state.is_listening.store(false, Ordering::Release);
    }
}
