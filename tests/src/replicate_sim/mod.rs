//! Replicate's predictions API, as its official clients see it.
//!
//! Predictions of official models, of versions and of deployments; blocking creates (`Prefer: wait`), deadlines
//! (`Cancel-After`), cancel, the list with its cursor, models and versions, and webhooks signed by Standard Webhooks. A
//! prediction is `starting` and then `processing` for the times in [`Settings`]. Marks in its prompt change that:
//!
//! | mark | |
//! |---|---|
//! | `[sim:hold]` | starts, and ends, when told: [`ReplicateSim::nudge`], or `POST /_sim/predictions/ID/nudge` |
//! | `[sim:fail]`, `[sim:nsfw]`, `[sim:memory]` | fails, with the text of that |
//! | `[sim:canceled]` | somebody else cancels it |
//! | `[sim:early]` | a blocking create answers with the output and still `processing`, as Python's client knows it |
//! | `[sim:throttled]` | the first create with this prompt is refused with 429 |
//! | `[sim:broke]` | refused with 402 |
//! | `[sim:lost]` | created, but answered with a 502 that says nothing |

mod api;
mod life;
mod models;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use salvo::conn::tcp::TcpAcceptor;
use salvo::{Router, Server};
use serde_json::{Map, Value};
use tokio::sync::watch;

pub use life::Status;
pub use models::VERSION;
pub use webhook::sign;

/// The token that is accepted by default.
pub const TOKEN: &str = "r8_simulated";

/// The secret that signs webhooks by default.
pub const SECRET: &str = "whsec_c2ltdWxhdGVkLXJlcGxpY2F0ZS1zZWNyZXQ=";

/// How the simulator behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only token that is accepted.
    pub token: String,
    /// Signs webhooks: `whsec_` and base64.
    pub secret: String,
    /// How long a prediction is `starting`.
    pub start: Duration,
    /// How long it is `processing`.
    pub run: Duration,
    /// Predictions on one page of the list.
    pub page: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            token: TOKEN.to_owned(),
            secret: SECRET.to_owned(),
            start: Duration::from_millis(100),
            run: Duration::from_millis(200),
            page: 100,
        }
    }
}

/// A prediction that was bought, and what happened to it.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// Its id.
    pub id: String,
    /// Path of the request that created it.
    pub path: String,
    /// Headers of that request, by their lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The input, as it was sent.
    pub input: Map<String, Value>,
    /// Where webhooks go.
    pub webhook: Option<String>,
    /// The events they are wanted for; all, when empty.
    pub events: Vec<String>,
    /// How far it is.
    pub status: Status,
    /// How often it was asked for.
    pub polls: u32,
    /// How often it was to be cancelled.
    pub cancels: u32,
    /// Webhooks that were sent.
    pub deliveries: Vec<Delivery>,
    model: &'static models::Model,
    version: &'static str,
    times: life::Times,
    nudges: u32,
    output: Value,
    error: Option<&'static str>,
    logs: String,
    removed: bool,
}

impl Prediction {
    /// The prompt, or nothing.
    #[must_use]
    pub fn prompt(&self) -> &str {
        self.input.get("prompt").and_then(Value::as_str).unwrap_or_default()
    }

    fn marked(&self, mark: &str) -> bool {
        self.prompt().contains(&format!("[sim:{mark}]"))
    }
}

/// One try to deliver a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `start` or `completed`.
    pub event: &'static str,
    /// The status it was answered with, if it was.
    pub answered: Option<u16>,
}

/// What everything shares.
struct Inner {
    settings: Settings,
    public_url: Mutex<String>,
    book: Mutex<Book>,
    changed: watch::Sender<()>,
    http: reqwest::Client,
}

#[derive(Default)]
struct Book {
    predictions: Vec<Prediction>,
    refused: Vec<u16>,
    /// Prompts that were refused with 429.
    throttled: BTreeSet<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Changes or reads a prediction, and wakes who waits for a change.
    fn with<T>(&self, id: &str, work: impl FnOnce(&mut Prediction) -> T) -> Option<T> {
        let done = lock(&self.book).predictions.iter_mut().find(|p| p.id == id).map(work);
        self.changed.send_replace(());
        done
    }

    /// Waits until a prediction is so; for ever when there is none.
    async fn until(&self, id: &str, wanted: impl Fn(&Prediction) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if lock(&self.book).predictions.iter().any(|p| p.id == id && wanted(p)) {
                return;
            }
            // The sender lives as long as this does.
            drop(changed.changed().await);
        }
    }

    fn public_url(&self) -> String {
        lock(&self.public_url).clone()
    }
}

/// The simulator; it ends with the runtime of its test.
pub struct ReplicateSim {
    /// `http://127.0.0.1:PORT`; the API is below `/v1`.
    pub base_url: String,
    /// The same as an address.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

impl ReplicateSim {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(settings: Settings) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let base_url = format!("http://{address}");
        let inner = Arc::new(Inner {
            settings,
            public_url: Mutex::new(base_url.clone()),
            book: Mutex::default(),
            changed: watch::Sender::new(()),
            // Replicate follows no redirects. Every delivery has a connection of its own.
            http: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(10))
                .build()?,
        });
        let router = Router::with_path("{**path}").goal(api::Api(Arc::clone(&inner)));
        tokio::spawn(Server::new(TcpAcceptor::try_from(listener)?).serve(router));
        Ok(ReplicateSim {
            base_url,
            address,
            inner,
        })
    }

    /// What URLs in answers begin with, when there is something in front.
    pub fn set_public_url(&self, url: impl Into<String>) {
        *lock(&self.inner.public_url) = url.into();
    }

    /// Every prediction that was bought, in order.
    #[must_use]
    pub fn bought(&self) -> Vec<Prediction> {
        lock(&self.inner.book).predictions.clone()
    }

    /// Statuses of the creates that were refused, in order.
    #[must_use]
    pub fn refused(&self) -> Vec<u16> {
        lock(&self.inner.book).refused.clone()
    }

    /// Inputs that were bought more than once at the same place.
    #[must_use]
    pub fn bought_twice(&self) -> Vec<String> {
        let mut counts = BTreeMap::<String, u32>::new();
        for one in self.bought() {
            let what = format!("{} {}", one.path, Value::Object(one.input));
            *counts.entry(what).or_default() += 1;
        }
        counts.retain(|_, count| *count > 1);
        counts.into_keys().collect()
    }

    /// Lets a held prediction take its next step: start, then end.
    pub fn nudge(&self, id: &str) {
        self.inner.with(id, |p| p.nudges += 1);
    }

    /// Removes a prediction's data, as Replicate does after an hour.
    pub fn forget(&self, id: &str) {
        self.inner.with(id, Prediction::forget);
    }

    /// Waits until the purchases are so, and gives them.
    ///
    /// # Errors
    /// After `patience`.
    pub async fn wait_for(
        &self,
        patience: Duration,
        wanted: impl Fn(&[Prediction]) -> bool,
    ) -> Result<Vec<Prediction>> {
        let mut changed = self.inner.changed.subscribe();
        let found = tokio::time::timeout(patience, async {
            loop {
                changed.mark_unchanged();
                let bought = self.bought();
                if wanted(&bought) {
                    return bought;
                }
                drop(changed.changed().await);
            }
        });
        found
            .await
            .map_err(|_| anyhow::anyhow!("after {patience:?}: {:#?}", self.bought()))
    }
}
