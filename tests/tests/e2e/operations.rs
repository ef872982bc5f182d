//! What an operator needs on the first day: health, version, documentation, metrics, configuration that refuses nonsense.

use serde_json::json;
use tests::harness::{JWT_SECRET, Options, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_version_documentation_and_metrics() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    let health = nobody.get("/health").await.ok();
    assert_eq!(health["status"], "healthy");
    assert!(health["timestamp"].as_f64().unwrap() > 1.7e9);
    let named = nobody.get("/__health").await.ok();
    assert_eq!(
        (&named["status"], &named["service"]),
        (&json!("healthy"), &json!("velro"))
    );
    let version = nobody.get("/__version").await.ok();
    for member in [
        "service",
        "version",
        "commit",
        "deployment_id",
        "environment",
        "timestamp",
        "configuration",
        "features",
    ] {
        assert!(version.get(member).is_some(), "{member}");
    }
    assert_eq!(version["environment"], "development");
    let config = nobody.get("/api/v1/health/config").await.ok();
    assert_eq!(config["features"]["auth_enabled"], true);

    let docs = nobody.get("/docs/").await.expect(200);
    assert!(docs.header("content-type").starts_with("text/html"));
    for outside in ["cdn.", "unpkg.com", "jsdelivr", "googleapis"] {
        assert!(!docs.text().contains(outside), "the documentation needs {outside}");
    }
    let served = nobody.get("/openapi.json").await.ok();
    let printed: serde_json::Value = serde_json::from_str(&server.velro(&["openapi"]).ok()).unwrap();
    assert_eq!(served, printed);

    let ada = server.register("ada").await;
    let id = ada.submit_quick("x").await;
    ada.wait_for(&id, "completed").await;
    let metrics = nobody.get("/metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let text = metrics.text();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .fold(name, |n, s| n.strip_suffix(s).unwrap_or(n));
        assert!(text.contains(&format!("# HELP {family} ")), "{family} has no help text");
        assert!(
            !line.contains(&id) && !line.contains("ada@"),
            "an id in a label: {line}"
        );
    }
    server.velro(&["healthcheck"]).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_refuses_to_start_without_a_good_secret() {
    let production = || {
        Options::new()
            .env("ENVIRONMENT", "production")
            .without_env("JWT_SECRET")
    };
    for options in [
        production(),
        production().env("JWT_SECRET", "too-short"),
        production().env("JWT_SECRET_KEY", "x"),
    ] {
        let error = Server::try_with(options).await.unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains("JWT_SECRET") && said.contains("32"), "{said}");
        assert!(!said.contains("too-short"), "{said}");
    }
    let server = Server::with(production().env("JWT_SECRET_KEY", JWT_SECRET)).await;
    let answer = server.anonymous().get("/health").await;
    assert!(answer.header("strict-transport-security").contains("max-age"));
    assert_eq!(
        server.anonymous().get("/__version").await.ok()["environment"],
        "production"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_configuration_are_told_all_at_once() {
    let options = Options::new()
        .env("DEFAULT_USER_CREDITS", "many")
        .env("RATE_LIMIT_ENABLED", "perhaps")
        .env("LOG_FORMAT", "yaml");
    let error = Server::try_with(options).await.unwrap_err();
    let said = format!("{error:#}");
    for name in ["DEFAULT_USER_CREDITS", "RATE_LIMIT_ENABLED", "LOG_FORMAT"] {
        assert!(said.contains(name), "{name} is not in: {said}");
    }
    let server = Server::start().await;
    std::fs::write(server.path().join("velro.toml"), "[server]\nprot = 8000\n").unwrap();
    let said = server.velro(&["check"]).fails();
    assert!(said.contains("prot") && said.contains("velro.toml"), "{said}");
    std::fs::remove_file(server.path().join("velro.toml")).unwrap();
    let shown = server.velro(&["check"]).ok();
    assert!(
        shown.contains("sandbox/image") && !shown.contains(JWT_SECRET),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_data_is_refused() {
    let server = Server::start().await;
    let said = server.velro(&["serve", "--port", "0"]).fails();
    assert!(said.contains("data"), "{said}");
    server.velro(&["healthcheck"]).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_what_runs() {
    let mut server = Server::start().await;
    let ada = server.register("ada").await;
    let parameters = json!({"latency_ms": 60_000, "image_size": "square"});
    let id = ada.submit("sandbox/image", "long", parameters).await;
    ada.wait_for(&id, "processing").await;
    let started = std::time::Instant::now();
    server.terminate();
    assert!(
        started.elapsed().as_secs() < 10,
        "a job that waits does not hold up the stop"
    );
    server.restart().await;
    assert_eq!(ada.status(&id).await["status"], "processing");
    assert_eq!(ada.cancel(&id).await.ok()["cancelled"], true);
    assert_eq!(ada.balance().await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_takes_no_longer_than_the_grace() {
    let mut server = Server::with(Options::new().env("VELRO_SHUTDOWN_GRACE_SECONDS", "2")).await;
    let ada = server.register("ada").await;
    let address = server.base_url.strip_prefix("http://").unwrap();
    let mut endless = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/generations/quote HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
        ada.token.as_ref().unwrap()
    );
    endless.write_all(head.as_bytes()).await.unwrap();
    // The handler reads now, and nothing comes.
    let mut answer = [0; 12];
    endless.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    let started = std::time::Instant::now();
    server.terminate();
    let took = started.elapsed();
    assert!(took.as_secs_f64() < 3.0, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_server_on_sqlite_does_not_start_and_says_what_to_do() {
    for role in ["api", "worker"] {
        let error = Server::try_with(Options::new().env("VELRO_ROLE", role))
            .await
            .unwrap_err();
        let said = format!("{error:#}");
        assert!(
            said.contains("VELRO_ROLE") && said.contains("PostgreSQL") && said.contains("role all"),
            "{said}"
        );
    }
    let server = Server::start().await;
    assert!(server.log_text().contains("role       all"), "{}", server.log_text());
    let said = server.velro(&["check", "--role", "both"]).fails();
    assert!(said.contains("--role") && said.contains("all, api or worker"), "{said}");
}
