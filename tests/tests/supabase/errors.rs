//! What the account service refuses, in the words of our own errors.

use serde_json::{Value, json};
use tests::gotrue_sim::{Fault, GoTrueSim, PASSWORD, Settings};
use tests::harness::{Reply, Server};

use super::*;

const PASSWORD_GRANT: &str = "/token?grant_type=password";
const REFRESH_GRANT: &str = "/token?grant_type=refresh_token";

/// Words that only the account service uses.
const ITS_WORDS: [&str; 4] = ["says GoTrue", "GoTrue", "Invalid login", "registered (it says)"];

/// A problem with this status and code that holds nothing of the service's text.
fn told(reply: Reply, status: u16, code: &str) -> Value {
    let text = reply.text();
    let retry_after = reply.header("retry-after").to_owned();
    let problem = reply.problem(status, code);
    assert!(ITS_WORDS.iter().all(|word| !text.contains(word)), "{text}");
    assert_eq!(
        !retry_after.is_empty(),
        matches!(status, 429 | 503 | 504),
        "{status} {retry_after}"
    );
    problem
}

/// Both styles of error bodies.
async fn in_both_styles() -> [(GoTrueSim, Server); 2] {
    let mut pairs = Vec::new();
    for legacy_errors in [false, true] {
        let settings = Settings {
            legacy_errors,
            min_password_chars: 10,
            strict_characters: true,
            ..Settings::default()
        };
        let sim = GoTrueSim::start(settings).await.unwrap();
        let server = Server::with(sim.options()).await;
        pairs.push((sim, server));
    }
    pairs.try_into().unwrap_or_else(|_| panic!("two pairs"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_people_have_their_own_words() {
    for (sim, server) in in_both_styles().await {
        let nobody = server.anonymous();
        let login = async |email: &str, password: &str| {
            let body = json!({ "email": email, "password": password });
            nobody.post(LOGIN, &body).await
        };
        let id = sim.add_person("ada@example.com");
        let wrong = told(login("ada@example.com", "wrong").await, 401, "invalid_credentials");
        assert_eq!(wrong["detail"], "Invalid email or password");
        let unknown = told(login("nobody@example.com", "wrong").await, 401, "invalid_credentials");
        assert_eq!(wrong["detail"], unknown["detail"]);
        sim.change(id, |p| p.confirmed = false);
        told(login("ada@example.com", PASSWORD).await, 403, "email_not_confirmed");
        sim.change(id, |p| (p.confirmed, p.banned) = (true, true));
        told(login("ada@example.com", PASSWORD).await, 403, "account_banned");
        sim.change(id, |p| p.banned = false);

        let taken = told(
            nobody.post(REGISTER, &credentials("ada@example.com")).await,
            409,
            "email_taken",
        );
        assert_eq!(taken["detail"], "Email already registered");
        for (password, rules) in [
            ("Sh0rt-pw", vec!["must be longer"]),
            ("all lower case", vec!["must have more kinds of characters"]),
            (
                "leaked12",
                vec![
                    "must be longer",
                    "must have more kinds",
                    "is in a list of leaked passwords",
                ],
            ),
            (&"Long-1".repeat(13), vec!["must have at most 72 bytes"]),
        ] {
            let body = json!({ "email": "bob@example.com", "password": password });
            let problem = told(nobody.post(REGISTER, &body).await, 422, "validation_failed");
            let errors = problem["errors"].as_array().unwrap();
            assert_eq!(errors.len(), rules.len(), "{problem}");
            for (error, rule) in errors.iter().zip(rules) {
                assert_eq!(error["loc"], json!(["body", "password"]));
                assert!(error["msg"].as_str().unwrap().starts_with(rule), "{problem}");
            }
        }
        assert!(sim.person("bob@example.com").is_none());
        sim.set(|s| s.disable_signup = true);
        // What the project allows was asked a moment ago; a server that starts now knows.
        let second = Server::with(sim.options()).await;
        let closed = second.anonymous().post(REGISTER, &credentials("bob@example.com")).await;
        told(closed, 403, "registration_closed");
        assert!(
            sim.person("bob@example.com").is_none(),
            "the admin route would not have asked"
        );

        // Refresh: everything that is held against the token is one thing.
        let session = login("ada@example.com", PASSWORD).await.ok();
        let first = session["refresh_token"].as_str().unwrap();
        let next = refresh(&nobody, first).await.ok();
        for token in [first, next["refresh_token"].as_str().unwrap(), "unknown-token", "x", ""] {
            let problem = told(refresh(&nobody, token).await, 401, "unauthorized");
            assert_eq!(problem["detail"], "Invalid refresh token", "{token}");
        }
        let session = login("ada@example.com", PASSWORD).await.ok();
        sim.change(id, |p| p.banned = true);
        let token = session["refresh_token"].as_str().unwrap();
        told(refresh(&nobody, token).await, 403, "account_banned");
        let banned = with(&server, session["access_token"].as_str().unwrap());
        told(banned.get(ME).await, 403, "account_banned");
        let log = server.log_text();
        for secret in [PASSWORD, token, "ada@example.com", "says GoTrue"] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
    }
}

/// What a fault of one route becomes: our route, status, code.
type Case = (&'static str, Fault, u16, &'static str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_account_service_has_one_answer() {
    let cases: Vec<Case> = vec![
        // First: what it says is believed for a minute.
        ("/settings", Fault::Gateway(500, "{}"), 503, "service_unavailable"),
        (PASSWORD_GRANT, Fault::Throttled(7), 429, "rate_limited"),
        (
            PASSWORD_GRANT,
            Fault::Error(429, "over_request_rate_limit", "slow"),
            429,
            "rate_limited",
        ),
        (
            PASSWORD_GRANT,
            Fault::Error(500, "unexpected_failure", "GoTrue"),
            503,
            "service_unavailable",
        ),
        (
            PASSWORD_GRANT,
            Fault::Gateway(502, "<html>bad gateway</html>"),
            503,
            "service_unavailable",
        ),
        (PASSWORD_GRANT, Fault::Gateway(504, "{}"), 504, "gateway_timeout"),
        (
            PASSWORD_GRANT,
            Fault::Error(504, "request_timeout", "GoTrue"),
            504,
            "gateway_timeout",
        ),
        (
            PASSWORD_GRANT,
            Fault::Gateway(401, "{\"message\":\"Invalid API key\"}"),
            503,
            "service_unavailable",
        ),
        (
            PASSWORD_GRANT,
            Fault::Gateway(404, "404 page not found"),
            503,
            "service_unavailable",
        ),
        (PASSWORD_GRANT, Fault::Gateway(302, ""), 503, "service_unavailable"),
        (
            PASSWORD_GRANT,
            Fault::Gateway(200, "not JSON"),
            503,
            "service_unavailable",
        ),
        (
            PASSWORD_GRANT,
            Fault::Gateway(200, "{\"access_token\":\"GoTrue\"}"),
            503,
            "service_unavailable",
        ),
        (
            PASSWORD_GRANT,
            Fault::Error(422, "email_provider_disabled", "GoTrue"),
            403,
            "login_closed",
        ),
        (
            PASSWORD_GRANT,
            Fault::Error(400, "captcha_failed", "GoTrue"),
            403,
            "login_closed",
        ),
        (
            PASSWORD_GRANT,
            Fault::Error(403, "user_banned", "GoTrue"),
            403,
            "account_banned",
        ),
        (
            PASSWORD_GRANT,
            Fault::Error(400, "validation_failed", "GoTrue"),
            401,
            "invalid_credentials",
        ),
        // Of versions without codes.
        (
            PASSWORD_GRANT,
            Fault::Gateway(
                400,
                "{\"error\":\"invalid_grant\",\"error_description\":\"Invalid login credentials\"}",
            ),
            401,
            "invalid_credentials",
        ),
        (
            PASSWORD_GRANT,
            Fault::Gateway(
                400,
                "{\"error\":\"invalid_grant\",\"error_description\":\"Email not confirmed\"}",
            ),
            403,
            "email_not_confirmed",
        ),
        (REFRESH_GRANT, Fault::Throttled(7), 429, "rate_limited"),
        (
            REFRESH_GRANT,
            Fault::Error(500, "unexpected_failure", "GoTrue"),
            503,
            "service_unavailable",
        ),
        (REFRESH_GRANT, Fault::Gateway(503, "{}"), 503, "service_unavailable"),
        (
            REFRESH_GRANT,
            Fault::Error(409, "conflict", "GoTrue"),
            503,
            "service_unavailable",
        ),
        (
            REFRESH_GRANT,
            Fault::Gateway(401, "{\"message\":\"Invalid API key\"}"),
            503,
            "service_unavailable",
        ),
        (
            REFRESH_GRANT,
            Fault::Error(400, "session_expired", "GoTrue"),
            401,
            "unauthorized",
        ),
        (
            REFRESH_GRANT,
            Fault::Error(400, "session_not_found", "GoTrue"),
            401,
            "unauthorized",
        ),
        (
            REFRESH_GRANT,
            Fault::Error(403, "user_not_found", "GoTrue"),
            401,
            "unauthorized",
        ),
        (
            REFRESH_GRANT,
            Fault::Gateway(400, "{\"error\":\"invalid_grant\"}"),
            401,
            "unauthorized",
        ),
        ("/admin/users", Fault::Throttled(7), 429, "rate_limited"),
        (
            "/admin/users",
            Fault::Error(500, "unexpected_failure", "GoTrue"),
            503,
            "service_unavailable",
        ),
        (
            "/admin/users",
            Fault::Error(401, "no_authorization", "GoTrue"),
            503,
            "service_unavailable",
        ),
        (
            "/admin/users",
            Fault::Error(403, "not_admin", "GoTrue"),
            503,
            "service_unavailable",
        ),
        (
            "/admin/users",
            Fault::Error(422, "user_already_exists", "registered (it says)"),
            409,
            "email_taken",
        ),
        (
            "/admin/users",
            Fault::Gateway(
                400,
                "{\"code\":400,\"msg\":\"A user with this email has already been registered\"}",
            ),
            409,
            "email_taken",
        ),
        (
            "/admin/users",
            Fault::Error(422, "signup_disabled", "GoTrue"),
            403,
            "registration_closed",
        ),
        (
            "/admin/users",
            Fault::Error(422, "email_provider_disabled", "GoTrue"),
            403,
            "registration_closed",
        ),
        (
            "/admin/users",
            Fault::Error(400, "email_address_invalid", "GoTrue"),
            422,
            "validation_failed",
        ),
        ("/health", Fault::Gateway(500, "{}"), 503, "service_unavailable"),
    ];
    let (sim, server) = pair().await;
    sim.add_person("ada@example.com");
    let nobody = server.anonymous();
    for (route, fault, status, code) in cases {
        sim.fault(route, fault.clone());
        let before = sim.asked(route);
        let reply = match route {
            PASSWORD_GRANT => nobody.post(LOGIN, &credentials("ada@example.com")).await,
            REFRESH_GRANT => refresh(&nobody, "a-refresh-token").await,
            "/health" => nobody.get("/api/v1/auth/health").await,
            _ => nobody.post(REGISTER, &credentials("new@example.com")).await,
        };
        let retry_after = reply.header("retry-after").to_owned();
        assert_eq!(reply.status.as_u16(), status, "{route} {fault:?}: {}", reply.text());
        told(reply, status, code);
        if let Fault::Throttled(seconds) = fault {
            assert_eq!(retry_after, seconds.to_string(), "{route}");
        }
        assert_eq!(
            sim.asked(route),
            before + 1,
            "{route} {fault:?}: asked once, never again"
        );
        sim.heal();
    }
    // Nothing of it has left anything behind.
    nobody.post(LOGIN, &credentials("ada@example.com")).await.ok();
    nobody.post(REGISTER, &credentials("new@example.com")).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_no_route_would_take_are_told_at_login() {
    let sim = GoTrueSim::start(Settings::default()).await.unwrap();
    let server = Server::with(
        sim.options()
            .env("SUPABASE_JWT_ISSUER", "https://other.example/auth/v1"),
    )
    .await;
    sim.add_person("ada@example.com");
    let reply = server.anonymous().post(LOGIN, &credentials("ada@example.com")).await;
    told(reply, 503, "service_unavailable");
    let log = server.log_text();
    assert!(log.contains("SUPABASE_JWT_ISSUER"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_whose_first_login_failed_is_there() {
    let (sim, server) = pair().await;
    let nobody = server.anonymous();
    sim.fault(PASSWORD_GRANT, Fault::Gateway(502, "{}"));
    let reply = nobody.post(REGISTER, &credentials("ada@example.com")).await;
    told(reply, 503, "service_unavailable");
    sim.heal();
    told(
        nobody.post(REGISTER, &credentials("ada@example.com")).await,
        409,
        "email_taken",
    );
    let session = nobody.post(LOGIN, &credentials("ada@example.com")).await.ok();
    assert_eq!(session["user"]["credits_balance"], 1000);
}
