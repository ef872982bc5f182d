//! Accounts, sessions and tokens (contract §3).

use serde_json::{Value, json};
use tests::harness::{Client, JWT_SECRET, Options, PASSWORD, Reply, SOON, Server, eventually, race, token};

use crate::{assert_time, keys};

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const ME: &str = "/api/v1/auth/me";

async fn refresh(client: &Client, refresh_token: &str) -> Reply {
    client.post(REFRESH, &json!({"refresh_token": refresh_token})).await
}

fn assert_session(session: &Value) {
    assert_eq!(
        keys(session),
        ["access_token", "expires_in", "refresh_token", "token_type", "user"]
    );
    assert_eq!(session["token_type"], "Bearer");
    assert_eq!(session["expires_in"], 3600);
    let user = &session["user"];
    assert_eq!(
        (&user["aud"], &user["role"]),
        (&json!("authenticated"), &json!("authenticated"))
    );
    assert_eq!(user["email"], "ada@example.com");
    assert_eq!(user["credits_balance"], 1000);
    assert_eq!(user["user_metadata"]["full_name"], "Ada Lovelace");
    assert_eq!(user["app_metadata"]["provider"], "email");
    assert_time(&user["created_at"]);
    for absent in ["password", "password_hash", "is_operator"] {
        assert!(user.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn register_login_me_and_whoami_answer_as_the_contract_says() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    let body = json!({
        "email": "Ada@Example.com", "password": PASSWORD, "full_name": "Ada Lovelace",
        "confirm_password": "ignored", "remember_me": true,
    });
    assert_session(&nobody.post(REGISTER, &body).await.ok());
    nobody.post(REGISTER, &body).await.problem(409, "email_taken");

    let login = json!({"email": "ada@example.com", "password": PASSWORD, "remember_me": true});
    let session = nobody.post(LOGIN, &login).await.ok();
    assert_session(&session);
    let mut ada = nobody.clone();
    ada.adopt(&session);

    let me = ada.get(ME).await.ok();
    for (member, value) in [
        ("id", json!(ada.user_id)),
        ("email", json!("ada@example.com")),
        ("full_name", json!("Ada Lovelace")),
        ("credits_balance", json!(1000)),
        ("role", json!("authenticated")),
        ("avatar_url", Value::Null),
    ] {
        assert_eq!(me[member], value, "{member}");
    }
    assert!(me.get("display_name").is_some());
    assert_time(&me["created_at"]);
    assert_time(&me["updated_at"]);
    let who = ada.get("/api/v1/auth/whoami").await.ok();
    assert_eq!(keys(&who), ["created_at", "email", "id", "metadata", "role"]);

    // The same refusal for a wrong password and for nobody, and none of it in the answer.
    let wrong = json!({"email": "ada@example.com", "password": "not the password"});
    let unknown = json!({"email": "nobody@example.com", "password": "not the password"});
    let [wrong, unknown] = [
        nobody.post(LOGIN, &wrong).await.problem(401, "invalid_credentials"),
        nobody.post(LOGIN, &unknown).await.problem(401, "invalid_credentials"),
    ];
    assert_eq!(wrong["detail"], unknown["detail"]);

    let check = |email: &'static str| {
        let nobody = &nobody;
        async move {
            nobody
                .post_empty(&format!("/api/v1/auth/check-email?email={email}"))
                .await
        }
    };
    assert_eq!(check("ada@example.com").await.ok(), json!({"available": false}));
    assert_eq!(check("new@example.com").await.ok(), json!({"available": true}));
    check("nonsense").await.invalid("query.email");
    let health = nobody.get("/api/v1/auth/health").await.ok();
    assert_eq!(
        (&health["status"], &health["service"]),
        (&json!("healthy"), &json!("auth"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registration_refuses_bad_fields_and_creates_one_account_in_a_race() {
    let server = Server::start().await;
    let nobody = server.anonymous();
    for (body, field) in [
        (json!({"password": PASSWORD}), "body.email"),
        (json!({"email": "ada@example.com"}), "body.password"),
        (json!({"email": "ada", "password": PASSWORD}), "body.email"),
        (json!({"email": "a b@example.com", "password": PASSWORD}), "body.email"),
        (json!({"email": 7, "password": PASSWORD}), "body.email"),
        (
            json!({"email": "ada@example.com", "password": "1234567"}),
            "body.password",
        ),
        (
            json!({"email": "ada@example.com", "password": "x".repeat(5000)}),
            "body.password",
        ),
        (
            json!({"email": "ada@example.com", "password": PASSWORD, "full_name": 7}),
            "body.full_name",
        ),
    ] {
        nobody.post(REGISTER, &body).await.invalid(field);
    }
    let two = nobody.post(REGISTER, &json!({"email": "x", "password": "y"})).await;
    let two = two.invalid("body.email");
    assert_eq!(two["errors"].as_array().unwrap().len(), 2, "all faults at once: {two}");

    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let answers = race(4, |_| nobody.post(REGISTER, &body)).await;
    let created: Vec<_> = answers.iter().filter(|a| a.status == 200).collect();
    assert_eq!(created.len(), 1);
    assert!(answers.iter().all(|a| a.status == 200 || a.status == 409));
    let mut ada = nobody.clone();
    ada.adopt(&created[0].json());
    assert_eq!(ada.statement().await, ["bonus +1000"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_rotates_and_reuse_revokes_the_family() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let nobody = server.anonymous();
    let second = refresh(&nobody, &ada.refresh_token).await.ok();
    assert_ne!(second["refresh_token"], ada.refresh_token.as_str());
    let mut renewed = ada.clone();
    renewed.adopt(&second);
    renewed.get(ME).await.ok();

    // The first token again: a thief has it, or had it. Everything of this session ends.
    refresh(&nobody, &ada.refresh_token).await.problem(401, "unauthorized");
    refresh(&nobody, &renewed.refresh_token)
        .await
        .problem(401, "unauthorized");
    eventually("the access tokens of the family are dead", SOON, || async {
        (renewed.get(ME).await.status == 401 && ada.get(ME).await.status == 401).then_some(())
    })
    .await;

    // Another session of the same person is not touched by it.
    let mut other = ada.clone();
    other.login(PASSWORD).await;
    other.get(ME).await.ok();
    for nonsense in ["", "nonsense", other.token()] {
        let answer = refresh(&nobody, nonsense).await;
        assert!(
            answer.status == 401 || (nonsense.is_empty() && answer.status == 422),
            "{answer:?}"
        );
    }
    nobody.post(REFRESH, &json!({})).await.invalid("body.refresh_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_refreshes_at_once_never_give_two_living_sessions() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let answers = race(6, |_| refresh(&ada, &ada.refresh_token)).await;
    let good: Vec<_> = answers.iter().filter(|a| a.status == 200).collect();
    assert!(good.len() <= 1, "{} rotations of one token", good.len());
    for answer in good {
        let token = answer.json()["refresh_token"].as_str().unwrap().to_owned();
        refresh(&ada, &token).await.problem(401, "unauthorized");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_ends_the_access_token_at_once_also_after_a_restart() {
    let mut server = Server::start().await;
    let ada = server.register("ada").await;
    let mut other = ada.clone();
    other.login(PASSWORD).await;
    let request = ada
        .request(reqwest::Method::POST, "/api/v1/auth/logout")
        .json(&json!({}));
    let answer = ada.send(request).await.ok();
    assert_eq!(answer, json!({"message": "Logged out successfully"}));
    ada.get(ME).await.problem(401, "unauthorized");
    refresh(&ada, &ada.refresh_token).await.problem(401, "unauthorized");
    other.get(ME).await.ok();

    server.kill9();
    server.restart().await;
    ada.get(ME).await.problem(401, "unauthorized");
    other.get(ME).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_stale_tokens_open_nothing() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let claims = token::claims(ada.token());
    assert_eq!(
        (&claims["aud"], &claims["sub"]),
        (&json!("authenticated"), &json!(ada.user_id))
    );
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        changed
    };
    let without = |name: &str| {
        let mut changed = claims.clone();
        changed.as_object_mut().unwrap().remove(name);
        changed
    };
    let long_ago = claims["iat"].as_i64().unwrap() - 7200;
    let mut bad = vec![
        String::new(),
        "nonsense".into(),
        "a.b.c".into(),
        token::none(&claims),
        token::sign(&claims, "another secret of the same length as ours"),
        token::sign_as("HS512", &claims, JWT_SECRET),
        token::sign_as("RS256", &claims, JWT_SECRET),
        token::sign_as("none", &claims, JWT_SECRET),
        token::sign(&with("exp", json!(long_ago)), JWT_SECRET),
        token::sign(&with("aud", json!("somebody")), JWT_SECRET),
        token::sign(&with("iss", json!("somebody")), JWT_SECRET),
        token::sign(&with("sub", json!("not a uuid")), JWT_SECRET),
        token::sign(&without("exp"), JWT_SECRET),
        token::sign(&without("aud"), JWT_SECRET),
        token::sign(&without("sub"), JWT_SECRET),
        format!("{}x", ada.token()),
    ];
    // A token for streams is signed with the same key and must open nothing else.
    let stream = ada.post_empty("/api/v1/auth/stream-token").await.ok();
    bad.push(stream["token"].as_str().unwrap().to_owned());
    for forged in &bad {
        let problem = ada.with_token(forged).get(ME).await.problem(401, "unauthorized");
        assert!(!problem.to_string().contains("JWT"), "{problem}");
    }
    // The contract's texts, and no other way in than the header.
    let missing = ada.without_token().get(ME).await.problem(401, "unauthorized");
    assert_eq!(missing["detail"], "Missing authentication token");
    let expired = ada.with_token(&bad[8]).get(ME).await.problem(401, "unauthorized");
    assert_eq!(expired["detail"], "Invalid or expired token");
    let path = format!("{ME}?token={0}&access_token={0}", ada.token());
    ada.without_token().get(&path).await.problem(401, "unauthorized");
    let cookie = ada.without_token().request(reqwest::Method::GET, ME);
    let cookie = cookie.header("Cookie", format!("access_token={}", ada.token()));
    ada.send(cookie).await.problem(401, "unauthorized");
    let basic = ada
        .without_token()
        .request(reqwest::Method::GET, ME)
        .basic_auth("ada", Some("x"));
    ada.send(basic).await.problem(401, "unauthorized");
    // And a control: the claims as they are, signed by the right key, are good.
    ada.with_token(&token::sign(&claims, JWT_SECRET)).get(ME).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_passwords_is_limited_by_account_and_says_when_to_come_back() {
    let server = Server::with(Options::new().without_env("RATE_LIMIT_ENABLED")).await;
    let ada = server.register("ada").await;
    let wrong = json!({"email": "ada@example.com", "password": "wrong password"});
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(ada.post(LOGIN, &wrong).await);
    }
    let limited: Vec<Reply> = answers.iter().filter(|a| a.status == 429).cloned().collect();
    assert!(!limited.is_empty(), "{answers:?}");
    assert_eq!(answers[0].status, 401);
    for answer in limited {
        answer.problem(429, "rate_limited");
    }
    // Somebody else at the same address is not locked out by it.
    server.register("bob").await.get(ME).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submits_are_limited_per_user() {
    let server = Server::with(Options::new().without_env("RATE_LIMIT_ENABLED")).await;
    let ada = server.register("ada").await;
    let bob = server.register("bob").await;
    let answers = race(110, |_| ada.try_submit("no/such-model", "x", json!({}))).await;
    let limited = answers.iter().filter(|a| a.status == 429).count();
    assert!(
        (8..=11).contains(&limited),
        "100 a minute: {limited} of 110 were refused"
    );
    let refused = answers.into_iter().find(|a| a.status == 429).unwrap();
    refused.problem(429, "rate_limited");
    bob.try_submit("no/such-model", "x", json!({}))
        .await
        .problem(422, "unknown_model");
}
