//! The REST surface through its service, on the embedded store.
#![allow(clippy::unwrap_used, clippy::panic)]

mod account;
mod away;
mod edge;
mod generations;
mod stopped;
mod streams;
mod tenancy;

use salvo::http::StatusCode;
use salvo::http::header::HeaderMap;
use salvo::test::{RequestBuilder, ResponseExt, TestClient};
use salvo::{Response, Service};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::{RateLimiter, Services};
use crate::auth::Auth;
use crate::catalog::{Registry, Shelf};
use crate::config::watch::RegistryHealth;
use crate::config::{Config, Overrides};
use crate::intake::Intake;
use crate::outputs::Outputs;
use crate::pause::Pauses;
use crate::payments::Payments;
use crate::provider::ProviderShelf;
use crate::queue::Queue;
use crate::queue::live::Live;
use crate::queue::memory::MemoryQueue;
use crate::store::Store;
use crate::store::sql::{OpenOptions, SqlStore};
use crate::telemetry::{LogLevels, Metrics};
use crate::upstream::{Upstream, WebhookVerifier};

const PASSWORD: &str = "correct horse";

/// A whole surface over a database of its own.
pub(super) struct House {
    _folder: tempfile::TempDir,
    pub(super) services: Arc<Services>,
    pub(super) service: Service,
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) async fn of(mut response: Response) -> Answer {
        Answer {
            status: response.status_code.unwrap(),
            headers: response.headers().clone(),
            text: response.take_string().await.unwrap_or_default(),
        }
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The body of a success.
    #[track_caller]
    pub(super) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// Asserts a whole problem document with this status and code.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], json!(status));
        assert_eq!(body["code"], json!(code), "{body}");
        assert!(body["detail"].as_str().is_some_and(|d| !d.is_empty()), "{body}");
        assert_eq!(body["request_id"], json!(self.header("x-request-id")));
        body
    }
}

pub(super) async fn house() -> House {
    house_with(&[]).await
}

pub(super) async fn house_with(settings: &[(&str, &str)]) -> House {
    house_over(settings, |store| store).await
}

/// With something between the surface and its store.
pub(super) async fn house_over(
    settings: &[(&str, &str)],
    around: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) -> House {
    let folder = tempfile::tempdir().unwrap();
    let mut env = BTreeMap::from([
        ("VELRO_DATA".to_owned(), folder.path().display().to_string()),
        ("RATE_LIMIT_ENABLED".to_owned(), "false".to_owned()),
        ("CORS_ORIGINS".to_owned(), "https://app.example.com".to_owned()),
        ("OPERATOR_EMAILS".to_owned(), "boss@example.com".to_owned()),
    ]);
    env.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let (config, _) = Config::load(&Overrides::default(), &env).unwrap_or_else(|e| panic!("{e}"));
    let config = Arc::new(config);
    let options = OpenOptions {
        create: true,
        migrate: true,
    };
    let path = folder.path().join("velro.db").display().to_string();
    let store = around(Arc::new(SqlStore::open(&path, options).await.unwrap()));
    let shelf = Arc::new(Shelf::new(Registry::default()));
    let providers = Arc::new(ProviderShelf::new(&config));
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::default());
    let live = Arc::new(Live::default());
    let metrics = Arc::new(Metrics::new().unwrap());
    let pauses = Arc::new(Pauses::default());
    let upstream = Upstream::new(&config).unwrap();
    let services = Arc::new(Services {
        auth: Arc::new(Auth::new(&config, Arc::clone(&store))),
        intake: Arc::new(Intake {
            store: Arc::clone(&store),
            shelf: Arc::clone(&shelf),
            providers: Arc::clone(&providers),
            queue: Arc::clone(&queue),
            live: Arc::clone(&live),
            pauses: Arc::clone(&pauses),
            metrics: Arc::clone(&metrics),
        }),
        outputs: Arc::new(Outputs::new(&config).unwrap()),
        payments: Arc::new(Payments::new(&config, Arc::clone(&store), Arc::clone(&metrics)).unwrap()),
        metrics,
        limiter: Arc::new(RateLimiter::new(config.rate_limit_enabled, None)),
        link: None,
        listings: Default::default(),
        webhooks: Arc::new(WebhookVerifier::new(upstream.clone())),
        upstream: Arc::new(upstream),
        pauses,
        registry_health: Arc::new(RegistryHealth::new(&shelf.get())),
        levels: Arc::new(LogLevels::silent()),
        leaving: CancellationToken::new(),
        shutdown: CancellationToken::new(),
        config,
        store,
        shelf,
        providers,
        queue,
        live,
    });
    House {
        _folder: folder,
        service: super::service(Arc::clone(&services)),
        services,
    }
}

/// The full URL of a path.
pub(super) fn url(path: &str) -> String {
    format!("http://velro.test{path}")
}

impl House {
    pub(super) async fn send(&self, request: RequestBuilder) -> Answer {
        Answer::of(request.send(&self.service).await).await
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(TestClient::get(url(path)).bearer_auth(token)).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(TestClient::post(url(path)).json(&body)).await
    }

    /// Registers and answers the session.
    pub(super) async fn join(&self, email: &str) -> Value {
        let body = json!({"email": email, "password": PASSWORD, "full_name": "Ada Lovelace"});
        self.post("/api/v1/auth/register", body).await.ok()
    }

    /// Registers and answers the access token.
    pub(super) async fn token(&self, email: &str) -> String {
        self.join(email).await["access_token"].as_str().unwrap().to_owned()
    }
}
