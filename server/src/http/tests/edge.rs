//! What every request meets: ids, headers, CORS, spellings, limits, errors.

use super::*;
use crate::http::hoops;
use salvo::http::Method;
use salvo::{Router, handler};

const ORIGIN: &str = "https://app.example.com";

#[tokio::test]
async fn both_spellings_of_every_route_are_the_same() {
    let house = house().await;
    let token = house.token("ada@example.com").await;
    for path in [
        "/api/v1/credits/balance",
        "/api/v1/projects",
        "/api/v1/auth/me",
        "/health",
        "/__version",
        "/metrics",
    ] {
        for spelling in [path.to_owned(), format!("{path}/")] {
            let answer = house.get(&spelling, &token).await;
            assert_eq!(answer.status, StatusCode::OK, "{spelling}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn head_is_get_without_a_body_and_other_methods_are_405_with_allow() {
    let house = house().await;
    let head = house.send(TestClient::head(url("/health"))).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    let missing = house.send(TestClient::head(url("/nothing"))).await;
    assert_eq!((missing.status, missing.text.as_str()), (StatusCode::NOT_FOUND, ""));

    let wrong = house.send(TestClient::delete(url("/api/v1/auth/login"))).await;
    wrong.problem(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), "POST");
    let options = house.send(TestClient::options(url("/health"))).await;
    options.problem(405, "method_not_allowed");
    assert_eq!(options.header("allow"), "GET");
    house
        .send(TestClient::get(url("/api/v1/nothing")))
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let house = house().await;
    let with = |id: &str| TestClient::get(url("/nothing")).add_header("x-request-id", id, true);
    assert_eq!(house.send(with("abc-123")).await.header("x-request-id"), "abc-123");
    for id in ["has space", &"x".repeat(129)] {
        let minted = house.send(with(id)).await.header("x-request-id").to_owned();
        assert!(uuid::Uuid::parse_str(&minted).is_ok(), "{minted}");
    }
    let answer = house.send(TestClient::get(url("/health"))).await;
    assert!(uuid::Uuid::parse_str(answer.header("x-request-id")).is_ok());
    assert!(answer.header("x-response-time").ends_with("ms"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("server-timing"), "");
}

#[tokio::test]
async fn only_allowed_origins_are_mirrored_on_errors_too() {
    let house = house().await;
    let preflight = |origin: &str| {
        TestClient::options(url("/api/v1/projects"))
            .add_header("origin", origin, true)
            .add_header("access-control-request-method", "POST", true)
            .add_header("access-control-request-headers", "authorization,content-type", true)
    };
    let allowed = house.send(preflight(ORIGIN)).await;
    assert_eq!(allowed.status, StatusCode::NO_CONTENT);
    assert_eq!(allowed.header("access-control-allow-origin"), ORIGIN);
    assert_eq!(allowed.header("access-control-allow-credentials"), "true");
    assert_eq!(allowed.header("access-control-max-age"), "86400");
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        "authorization,content-type"
    );
    for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
        assert!(
            allowed.header("access-control-allow-methods").contains(method),
            "{method}"
        );
    }
    let refused = house.send(preflight("https://evil.example")).await;
    assert_eq!(refused.header("access-control-allow-origin"), "");

    for (origin, mirrored) in [(ORIGIN, ORIGIN), ("https://evil.example", "")] {
        let request = TestClient::get(url("/api/v1/projects")).add_header("origin", origin, true);
        let answer = house.send(request).await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("access-control-allow-origin"), mirrored);
        assert!(answer.header("vary").to_ascii_lowercase().contains("origin"));
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"api\"");
    }
    let request = TestClient::get(url("/health")).add_header("origin", ORIGIN, true);
    let exposed = house
        .send(request)
        .await
        .header("access-control-expose-headers")
        .to_owned();
    for name in ["x-request-id", "retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(exposed.contains(name), "{name} in {exposed}");
    }
}

#[handler]
async fn breaks() {
    panic!("the secret is xyzzy");
}

#[tokio::test]
async fn a_panic_is_a_problem_that_says_nothing_of_it() {
    let house = house().await;
    let router = Router::with_path("breaks").get(breaks);
    let service = hoops::wrap(salvo::Service::new(router), Arc::clone(&house.services));
    let request = TestClient::get(url("/breaks")).add_header("origin", ORIGIN, true);
    let answer = Answer::of(request.send(&service).await).await;
    answer.problem(500, "internal_error");
    assert!(!answer.text.contains("xyzzy"), "{}", answer.text);
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
}

#[tokio::test]
async fn wrong_passwords_spend_the_account_s_quota_and_right_ones_do_not() {
    let house = house_with(&[("RATE_LIMIT_ENABLED", "true")]).await;
    house.join("ada@example.com").await;
    let login = async |password: &str| {
        let body = json!({"email": "ada@example.com", "password": password});
        house.post("/api/v1/auth/login", body).await
    };
    for _ in 0..7 {
        login(PASSWORD).await.ok();
    }
    for _ in 0..5 {
        login("wrong").await.problem(401, "invalid_credentials");
    }
    let spent = login(PASSWORD).await;
    spent.problem(429, "rate_limited");
    let seconds: u64 = spent.header("retry-after").parse().unwrap();
    assert!((1..=12).contains(&seconds), "{seconds}");
    assert_eq!(spent.header("ratelimit-policy"), "\"login-account\";q=5;w=60");
    assert!(
        spent.header("ratelimit").starts_with("\"login-account\";r=0;t="),
        "{}",
        spent.header("ratelimit")
    );
    house.join("bob@example.com").await;
}

#[tokio::test]
async fn one_user_s_quota_is_not_another_s() {
    let house = house_with(&[("RATE_LIMIT_ENABLED", "true")]).await;
    let ada = house.token("ada@example.com").await;
    let bob = house.token("bob@example.com").await;
    let first = house.get("/api/v1/user/info", &ada).await;
    assert_eq!(first.header("ratelimit"), "\"api\";r=299;t=1");
    let mut spent = false;
    for _ in 0..400 {
        let answer = house.get("/api/v1/user/info", &ada).await;
        spent |= answer.status == StatusCode::TOO_MANY_REQUESTS;
    }
    assert!(spent, "the quota was never spent");
    house.get("/api/v1/user/info", &bob).await.ok();
    house.send(TestClient::get(url("/health"))).await.ok();
}

#[tokio::test]
async fn the_system_routes_answer_without_a_token_and_without_secrets() {
    let house = house().await;
    for path in [
        "/",
        "/health",
        "/__health",
        "/__version",
        "/api/v1/health/config",
        "/api/v1/auth/health",
    ] {
        house.send(TestClient::get(url(path))).await.ok();
    }
    for path in ["/api/v1/credits/_ping", "/api/v1/projects/_ping"] {
        assert_eq!(house.send(TestClient::get(url(path))).await.ok()["ok"], true);
    }
    // The registry of this house is empty, so it lives but is not ready.
    let ready = house.send(TestClient::get(url("/health/ready"))).await;
    let problem = ready.problem(503, "service_unavailable");
    assert_eq!(problem["detail"], "Not ready: the registry has no models");

    let version = house.send(TestClient::get(url("/__version"))).await;
    assert_eq!(version.ok()["configuration"]["auth_mode"], "local");
    assert!(!version.text.contains(house.services.config.jwt_secret.expose()));

    let metrics = house.send(TestClient::get(url("/metrics"))).await;
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let line = r#"velro_http_requests_total{method="GET",route="api/v1/credits/_ping",status="2xx"} 1"#;
    assert!(metrics.text.contains(line), "{}", metrics.text);
}

#[tokio::test]
async fn a_closed_database_is_a_503_and_not_a_plausible_answer() {
    let house = house().await;
    let token = house.token("ada@example.com").await;
    house.services.store.close().await;
    let balance = house.get("/api/v1/credits/balance", &token).await;
    balance.problem(503, "service_unavailable");
    assert!(!balance.header("retry-after").is_empty());
    house.send(TestClient::get(url("/health"))).await.ok();
    house
        .send(TestClient::get(url("/health/ready")))
        .await
        .problem(503, "service_unavailable");
    house
        .send(TestClient::get(url("/api/v1/auth/health")))
        .await
        .problem(503, "service_unavailable");
}

#[tokio::test]
async fn unknown_methods_and_paths_do_not_make_new_metric_labels() {
    let house = house().await;
    for path in ["/a", "/b", "/api/v1/projects/x/y/z"] {
        house.send(TestClient::get(url(path))).await.problem(404, "not_found");
    }
    let odd = RequestBuilder::new(url("/health"), Method::from_bytes(b"BREW").unwrap());
    house.send(odd).await.problem(405, "method_not_allowed");
    let metrics = house.send(TestClient::get(url("/metrics"))).await.text;
    assert!(
        metrics.contains(r#"{method="GET",route="unmatched",status="4xx"} 3"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"{method="other",route="unmatched",status="4xx"} 1"#),
        "{metrics}"
    );
}
