//! Messages between replicas over one channel of Redis, at most once: what is lost costs time and nothing else.
//!
//! One task publishes what waits in a bounded channel, many messages per round trip; one task listens on a connection
//! of its own and makes a new one whenever it, or Redis, was away. Own messages are not delivered to their sender, but
//! they come back: a pulse every few seconds shows that the subscription is alive, because a connection that something
//! on the way has forgotten is silent for ever.

use futures_util::StreamExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
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

/// How often every process publishes something, if only an empty message.
const PULSE: Duration = Duration::from_secs(5);

/// Pulses that may be missing before a subscription counts as broken.
const MISSING: u32 = 3;

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

/// What both tasks need.
#[derive(Clone)]
struct Place {
    link: Link,
    channel: String,
    origin: Uuid,
    pulse: Duration,
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
        Bus::with_pulse(link, name, PULSE, deliver)
    }

    /// As [`Bus::join`], with another pulse.
    pub fn with_pulse(
        link: &Link,
        name: &str,
        pulse: Duration,
        deliver: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> Bus {
        let (waiting, queue) = mpsc::channel(WAITING);
        let (channel, origin) = (link.key(name), Uuid::now_v7());
        let state = Arc::new(State::default());
        let place = Place {
            link: link.clone(),
            channel,
            origin,
            pulse,
        };
        let listening = listen(place.clone(), Arc::clone(&state), deliver);
        Bus {
            waiting,
            origin,
            link: link.clone(),
            state,
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(publish(place, queue))),
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

    /// True while what others publish arrives. While Redis does not answer nobody can publish, so nothing does.
    pub fn is_listening(&self) -> bool {
        self.link.is_up() && self.state.is_listening.load(Ordering::Acquire)
    }

    /// Grows whenever messages of others may have been missed.
    pub fn gaps(&self) -> u64 {
        self.state.gaps.load(Ordering::Acquire)
    }
}

async fn publish(place: Place, mut queue: mpsc::Receiver<Item>) {
    let Place { link, channel, .. } = &place;
    let mut pulse = interval(place.pulse);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(TOGETHER);
    loop {
        tokio::select! {
            count = queue.recv_many(&mut batch, TOGETHER) => if count == 0 { return },
            _ = pulse.tick() => {
                // Nobody misses it when Redis is away.
                let _ = link.pipe::<()>(redis::pipe().publish(channel, place.origin.as_bytes().as_slice()).ignore()).await;
                continue;
            }
        }
        let mut commands = redis::pipe();
        // Equal messages (wake-ups) say nothing more the second time.
        let mut said = HashSet::new();
        for item in &batch {
            if let Item::Message(message) = item
                && said.insert(message.as_slice())
            {
                commands.publish(channel, message).ignore();
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

async fn listen(place: Place, state: Arc<State>, deliver: impl Fn(&[u8])) {
    let Place { link, channel, .. } = &place;
    let mut recoveries = link.recoveries();
    loop {
        recoveries.mark_unchanged();
        let subscribing = async {
            let mut subscription = link.0.client.get_async_pubsub().await?;
            subscription.subscribe(channel).await?;
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
                    message = timeout(place.pulse * MISSING, messages.next()) => match message {
                        Ok(Some(message)) => match message.get_payload_bytes().split_at_checked(ORIGIN) {
                            // A pulse says nothing but that it came.
                            Some((_, [])) => {}
                            Some((sender, message)) if sender != place.origin.as_bytes() => deliver(message),
                            _ => {}
                        },
                        Ok(None) | Err(_) => break,
                    },
                    // A connection that Redis does not know any more stays silent for ever.
                    _ = recoveries.changed() => break,
                }
            }
        }
        state.is_listening.store(false, Ordering::Release);
    }
}
