//! What replicas share over Redis: bounded calls on a small pool, one circuit breaker, one bus of messages.
//!
//! The layer below everything that uses Redis ([`queue`](crate::queue), the rate limits). Nothing here is the truth, so
//! nothing here waits: a call is bounded by [`CONNECT`] and [`RESPONSE`], and once one has failed all others fail at
//! once, until a probe in the background has had an answer. A key is made by [`Link::key`] and carries the
//! installation's prefix and the version of its layout, so that two versions of the program never misread each other.

pub mod bus;

use bb8::{ManageConnection, Pool, RunError};
use bb8_redis::RedisConnectionManager;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, ScriptInvocation};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long a call may wait for a connection, with the time it takes to make one.
const CONNECT: Duration = Duration::from_millis(400);

/// How long a call may wait for its answer.
const RESPONSE: Duration = Duration::from_millis(400);

/// How often Redis is asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Why Redis gave no answer. The caller goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It did not answer a moment ago; this call was not tried.
    #[error("Redis is down")]
    Down,
    /// It did not answer this call in time, or not as it should.
    #[error("Redis failed: {0}")]
    Failed(String),
}

/// Who had to go on without Redis, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The worker claimed from the store.
    Queue,
    /// A request was counted by this process alone.
    Limits,
    /// An event, a nudge or a wake-up reached this process only.
    Live,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 3] = [Part::Queue, Part::Limits, Part::Live];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Queue => "queue",
            Part::Limits => "limits",
            Part::Live => "live",
        }
    }
}

/// The way to Redis; clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    pool: Pool<Manager>,
    client: redis::Client,
    prefix: String,
    is_up: AtomicBool,
    /// Counts the times Redis went down; connections of an earlier era are not used again.
    era: Arc<AtomicU64>,
    /// The era in which it came back last.
    recovered: watch::Sender<u64>,
    fallbacks: [AtomicU64; Part::ALL.len()],
}

impl Link {
    /// A way to the Redis at `url` (`redis://` or `rediss://`, with user, password and database number) for keys that
    /// begin with `prefix`. Connects when it is used first.
    ///
    /// # Errors
    /// If the URL cannot be read. The message does not repeat it.
    pub fn open(url: &str, prefix: &str, connections: u32) -> anyhow::Result<Link> {
        // The cause may repeat the URL with its password.
        let unreadable =
            |_: RedisError| anyhow::anyhow!("REDIS_URL cannot be read; write redis://:PASSWORD@HOST:PORT/DB");
        let era = Arc::new(AtomicU64::new(0));
        let manager = Manager {
            inner: RedisConnectionManager::new(url).map_err(unreadable)?,
            era: Arc::clone(&era),
        };
        let pool = Pool::builder()
            .max_size(connections)
            .connection_timeout(CONNECT)
            .retry_connection(false)
            .max_lifetime(None)
            .build_unchecked(manager);
        Ok(Link(Arc::new(Inner {
            pool,
            client: redis::Client::open(url).map_err(unreadable)?,
            prefix: prefix.to_owned(),
            is_up: AtomicBool::new(true),
            era,
            recovered: watch::Sender::new(0),
            fallbacks: Default::default(),
        })))
    }

    /// A key of this installation.
    pub fn key(&self, name: impl Display) -> String {
        format!("{}{name}", self.0.prefix)
    }

    /// False from a call that failed until a probe that did not.
    pub fn is_up(&self) -> bool {
        self.0.is_up.load(Ordering::Relaxed)
    }

    /// Changes whenever Redis has come back; connections made before are not to be trusted.
    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.0.recovered.subscribe()
    }

    /// How often Redis has come back, as a number that changes whenever it does.
    pub fn recovered(&self) -> u64 {
        *self.0.recovered.borrow()
    }

    /// A part went on without Redis.
    pub fn fell_back(&self, part: Part) {
        self.0.fallbacks[part as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often a part went on without Redis.
    pub fn fallbacks(&self, part: Part) -> u64 {
        self.0.fallbacks[part as usize].load(Ordering::Relaxed)
    }

    /// Runs a script; loads it when Redis does not have it (any more).
    ///
    /// # Errors
    /// [`LinkError`]; whether the script ran is not known.
    pub async fn script<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, LinkError> {
        let mut connection = self.connection().await?;
        let answer = timeout(RESPONSE, call.invoke_async(&mut connection)).await;
        self.answered(answer)
    }

    /// Runs commands in one round trip.
    ///
    /// # Errors
    /// [`LinkError`]; whether any of them ran is not known.
    pub async fn pipe<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, LinkError> {
        let mut connection = self.connection().await?;
        let answer = timeout(RESPONSE, commands.query_async(&mut connection)).await;
        self.answered(answer)
    }

    /// One of the pool's connections. They are multiplexed, so it is not kept from others while it is used, and many
    /// slow calls at once do not look like a Redis that is away.
    async fn connection(&self) -> Result<MultiplexedConnection, LinkError> {
        if !self.is_up() {
            return Err(LinkError::Down);
        }
        match self.0.pool.get().await {
            Ok(connection) => Ok(connection.inner.clone()),
            Err(RunError::User(error)) => Err(self.failed(error)),
            Err(RunError::TimedOut) => Err(self.failed("no connection in time")),
        }
    }

    fn answered<T>(&self, answer: Result<RedisResult<T>, tokio::time::error::Elapsed>) -> Result<T, LinkError> {
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => Err(self.failed("no answer in time")),
        }
    }

    /// Opens the breaker and begins to probe, once however many calls fail together.
    fn failed(&self, error: impl Display) -> LinkError {
        let error = error.to_string();
        if self.0.is_up.swap(false, Ordering::AcqRel) {
            self.0.era.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(error, "Redis does not answer; going on without it");
            tokio::spawn(probe(Arc::downgrade(&self.0)));
        }
        LinkError::Failed(error)
    }
}

/// Asks once a second until Redis takes a write; a replica or a server that still loads its data does not count.
async fn probe(link: Weak<Inner>) {
    loop {
        sleep(PROBE_EVERY).await;
        let Some(inner) = link.upgrade() else { return };
        let asked = timeout(CONNECT + RESPONSE, async {
            let mut connection = inner.client.get_multiplexed_async_connection().await?;
            redis::cmd("SET")
                .arg(format!("{}probe", inner.prefix))
                .arg(1)
                .arg("PX")
                .arg(1000)
                .query_async::<()>(&mut connection)
                .await
        });
        if matches!(asked.await, Ok(Ok(()))) {
            tracing::info!("Redis is back");
            inner.is_up.store(true, Ordering::Release);
            inner.recovered.send_replace(inner.era.load(Ordering::Acquire));
            return;
        }
    }
}

/// A pooled connection with the era it was made in.
struct Connection {
    inner: MultiplexedConnection,
    era: u64,
}

/// bb8-redis' manager, for connections that do not outlive their era: what was made before Redis went away is dropped
/// without asking it, so that a check costs no round trip.
struct Manager {
    inner: RedisConnectionManager,
    era: Arc<AtomicU64>,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    async fn connect(&self) -> RedisResult<Connection> {
        let era = self.era.load(Ordering::Acquire);
        let inner = self.inner.connect().await?;
        Ok(Connection { inner, era })
    }

    async fn is_valid(&self, connection: &mut Connection) -> RedisResult<()> {
        match self.has_broken(connection) {
            true => Err((redis::ErrorKind::Io, "of an earlier era").into()),
            false => Ok(()),
        }
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.era != self.era.load(Ordering::Acquire)
    }
}
