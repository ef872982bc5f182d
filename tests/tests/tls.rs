//! TLS to PostgreSQL and Redis: the right authority is believed, a wrong one is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::io::Write as _;
use std::time::Duration;

use tests::harness::{Options, Server, eventually};
use tests::services::{Persistence, Postgres, PostgresOptions, Redis, shared};
use tests::tls::{Identity, TlsFront};
use velro::store::sql::{OpenOptions, SqlStore};
use velro::store::{Store, StoreError};

const NEW: OpenOptions = OpenOptions {
    create: true,
    migrate: true,
};

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_verified_by_its_authority_and_name() {
    let mut server = Postgres::start(PostgresOptions::quick()).await.unwrap();
    let identity = Identity::generate().unwrap();
    server.speak_tls(&identity).await.unwrap();
    let (right, wrong) = (file(&identity.ca), file(&Identity::generate().unwrap().ca));
    let database = server.create_database().await.unwrap();
    let url = |mode: &str, ca: &tempfile::NamedTempFile| {
        let ca = ca.path().display();
        format!("{}?sslmode={mode}&sslrootcert={ca}", server.url(&database))
    };
    for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
        let store = SqlStore::open(&url(mode, &right), NEW).await;
        let store = store.unwrap_or_else(|error| panic!("{mode}: {error:?}"));
        store.ping().await.unwrap();
        store.close().await;
    }
    for mode in ["verify-ca", "verify-full"] {
        let refused = SqlStore::open(&url(mode, &wrong), NEW).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{mode}: a stranger was believed"));
        assert!(matches!(refused, StoreError::Unavailable(_)), "{mode}: {refused:?}");
    }
}

/// 1 when Velro speaks to Redis, 0 when it does not.
async fn redis_up(server: &Server) -> Option<String> {
    let metrics = server.anonymous().get("/metrics").await.text();
    let line = metrics.lines().find(|line| line.starts_with("velro_redis_up"))?;
    Some(line.rsplit(' ').next()?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_verified_by_its_authority() {
    let redis = Redis::start(Persistence::None).await.unwrap();
    let front = TlsFront::start(([127, 0, 0, 1], redis.port()).into()).await.unwrap();
    let prefix = shared().unwrap().redis_prefix();
    let options = |ca: &std::path::Path| {
        Options::new()
            .env("REDIS_URL", format!("rediss://localhost:{}/", front.address.port()))
            .env("VELRO_REDIS_PREFIX", &prefix)
            .env("SSL_CERT_FILE", ca.display().to_string())
    };
    let server = Server::with(options(front.ca_file())).await;
    eventually("Redis is reached over TLS", Duration::from_secs(20), || async {
        (redis_up(&server).await? == "1").then_some(())
    })
    .await;
    let ada = server.register("ada").await;
    let id = ada.submit_quick("over TLS").await;
    ada.wait_for(&id, "completed").await;

    let stranger = file(&Identity::generate().unwrap().ca);
    let suspicious = Server::with(options(stranger.path())).await;
    eventually("a stranger is not believed", Duration::from_secs(20), || async {
        (redis_up(&suspicious).await? == "0").then_some(())
    })
    .await;
}
