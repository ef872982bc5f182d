//! What holds for every route: both spellings of a path, request ids, CORS, headers, HEAD.

use reqwest::Method;
use serde_json::json;
use tests::harness::{Reply, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailing_slash_makes_no_difference() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let id = ada.submit_quick("x").await;
    ada.wait_for(&id, "completed").await;
    for path in [
        "/health",
        "/__version",
        "/api/v1/auth/me",
        "/api/v1/auth/whoami",
        "/api/v1/credits/balance",
        "/api/v1/credits/stats",
        "/api/v1/credits/transactions",
        "/api/v1/credits/packages",
        "/api/v1/credits/orders",
        "/api/v1/user/profile",
        "/api/v1/user/info",
        "/api/v1/projects",
        "/api/v1/models",
        "/api/v1/models/supported",
        "/api/v1/generations/models/supported",
        "/api/v1/generations/async/models/available",
        "/api/v1/generations/async/user/history",
    ] {
        let answers = [ada.get(path).await, ada.get(&format!("{path}/")).await];
        let [mut plain, mut slashed] = answers.map(Reply::ok);
        for answer in [&mut plain, &mut slashed] {
            if let Some(object) = answer.as_object_mut() {
                object.remove("timestamp");
            }
        }
        if !path.contains("history") {
            assert_eq!(plain, slashed, "{path}");
        }
    }
    for path in [
        "/api/v1/auth/login",
        "/api/v1/auth/login/",
        "/api/v1/auth/register/",
        "/api/v1/auth/refresh/",
    ] {
        ada.post(path, &json!({})).await.expect(422);
    }
    let status = format!("/api/v1/generations/async/{id}/status/");
    assert_eq!(ada.get(&status).await.ok()["status"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_carries_a_request_id_and_safe_headers() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    for path in [
        "/health",
        "/nope",
        "/api/v1/auth/me",
        "/api/v1/models",
        "/docs/",
        "/metrics",
    ] {
        let answer = nobody.get(path).await;
        assert!(!answer.header("x-request-id").is_empty(), "{path}");
        assert!(answer.header("x-response-time").ends_with("ms"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert!(
            answer.header("server").is_empty() || !answer.header("server").contains('/'),
            "{path}"
        );
    }
    let mine = nobody
        .request(Method::GET, "/api/v1/auth/me")
        .header("X-Request-ID", "my-own-id");
    let problem = nobody.send(mine).await.problem(401, "unauthorized");
    assert_eq!(problem["request_id"], "my-own-id");
    // An id that would break a log line or a header is replaced.
    let long = "x".repeat(1000);
    for bad in ["a b", long.as_str()] {
        let request = nobody.request(Method::GET, "/health").header("X-Request-ID", bad);
        let answer = nobody.send(request).await;
        assert_ne!(answer.header("x-request-id"), bad);
    }
    let head = nobody.send(nobody.request(Method::HEAD, "/health")).await.expect(200);
    assert!(head.bytes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_of_known_origins_may_call() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    let preflight = |origin: &'static str| {
        let request = nobody
            .request(Method::OPTIONS, "/api/v1/projects")
            .header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "POST");
        nobody.send(request.header(
            "Access-Control-Request-Headers",
            "authorization,content-type,idempotency-key",
        ))
    };
    let good = preflight("https://velro.ai").await;
    assert!([200, 204].contains(&good.status.as_u16()), "{good:?}");
    assert_eq!(good.header("access-control-allow-origin"), "https://velro.ai");
    assert_eq!(good.header("access-control-allow-credentials"), "true");
    assert_eq!(good.header("access-control-max-age"), "86400");
    let allowed = good.header("access-control-allow-headers").to_lowercase();
    assert!(
        allowed.contains("authorization") && allowed.contains("idempotency-key"),
        "{allowed}"
    );
    for method in ["GET", "POST", "PUT", "DELETE"] {
        assert!(good.header("access-control-allow-methods").contains(method), "{method}");
    }
    let bad = preflight("https://evil.example").await;
    assert_eq!(bad.header("access-control-allow-origin"), "");

    // Errors are readable for the page too, and never reflect a stranger.
    for (origin, allowed) in [
        ("http://localhost:3000", "http://localhost:3000"),
        ("https://evil.example", ""),
    ] {
        for path in ["/api/v1/projects", "/nope", "/health"] {
            let answer = nobody
                .send(nobody.request(Method::GET, path).header("Origin", origin))
                .await;
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{path}");
        }
    }
    let exposed = nobody
        .send(
            nobody
                .request(Method::GET, "/health")
                .header("Origin", "https://velro.ai"),
        )
        .await;
    let exposed = exposed.header("access-control-expose-headers").to_lowercase();
    assert!(
        exposed.contains("x-request-id") && exposed.contains("retry-after"),
        "{exposed}"
    );
}
