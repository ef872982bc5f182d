//! Which tokens pass, and that no other does.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use tests::gotrue_sim::{ANON_KEY, GoTrueSim, Kind, PASSWORD, SECRET, SERVICE_KEY, Settings};
use tests::harness::{Client, JWT_SECRET, Options, SOON, Server, eventually, race, token};
use uuid::Uuid;

use super::*;

const JWKS: &str = "/.well-known/jwks.json";

/// A token with a header of one's own, signed with HMAC.
fn hmac(header: &Value, claims: &Value, secret: &[u8]) -> String {
    use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
    let [header, claims] = [header, claims].map(|part| BASE64.encode(part.to_string()));
    let text = format!("{header}.{claims}");
    let signature = BASE64.encode(sign(&Key::new(HMAC_SHA256, secret), text.as_bytes()));
    format!("{text}.{signature}")
}

async fn refused(server: &Server, what: &str, token: &str) {
    let answer = with(server, token).get(BALANCE).await;
    assert_eq!(answer.status.as_u16(), 401, "{what}: {}", answer.text());
    answer.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_key_works_with_every_route() {
    for kind in [Kind::Es256, Kind::Rs256, Kind::EdDsa, Kind::Hs256] {
        let settings = Settings {
            kind,
            ..Settings::default()
        };
        let sim = GoTrueSim::start(settings).await.unwrap();
        let server = Server::with(sim.options().env("SUPABASE_JWT_SECRET", SECRET)).await;
        let (id, ada) = person(&sim, &server, "ada@example.com");
        assert_eq!(ada.get(ME).await.ok()["id"], json!(id), "{kind:?}");
        assert_eq!(ada.get("/api/v1/user/info").await.ok()["email"], "ada@example.com");
        // A job with its stream, by header and by the token for URLs.
        let job = ada.submit_quick("x").await;
        ada.wait_for(&job, "completed").await;
        let body = json!({ "generation_id": job });
        let stream = ada.post("/api/v1/auth/stream-token", &body).await.ok();
        let path = format!(
            "/api/v1/generations/async/{job}/stream?token={}",
            stream["token"].as_str().unwrap()
        );
        assert!(
            ada.without_token()
                .get(&path)
                .await
                .expect(200)
                .text()
                .contains("completed")
        );
        assert_eq!(ada.get(BALANCE).await.ok()["balance"], 995, "{kind:?}");
        // An audience may be a list, and a session id may be missing.
        let mut claims = sim.claims(id);
        claims["aud"] = json!(["other", "authenticated"]);
        claims.as_object_mut().unwrap().remove("session_id");
        with(&server, &sim.sign(&claims)).get(BALANCE).await.ok();
        assert!(sim.asked(JWKS) <= 1, "{kind:?}: no call for a token");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_token_is_refused() {
    let (sim, server) = pair().await;
    let (id, ada) = person(&sim, &server, "ada@example.com");
    ada.get(BALANCE).await.ok();
    let now_s = sim.claims(id)["iat"].as_i64().unwrap();

    for (claim, value) in [
        ("exp", json!(now_s - 60)),
        ("exp", json!("never")),
        ("nbf", json!(now_s + 600)),
        ("aud", json!("other")),
        ("aud", json!(["anon"])),
        ("iss", json!("https://other.supabase.co/auth/v1")),
        ("iss", json!("supabase")),
        ("iss", json!("velro")),
        ("role", json!("anon")),
        ("role", json!("service_role")),
        ("role", json!("supabase_admin")),
        ("is_anonymous", json!(true)),
        ("sub", json!("")),
        ("sub", json!("7")),
        ("sub", json!(Uuid::nil())),
    ] {
        let mut claims = sim.claims(id);
        claims[claim] = value.clone();
        refused(&server, &format!("{claim} = {value}"), &sim.sign(&claims)).await;
    }
    for claim in ["exp", "aud", "iss", "role", "sub"] {
        let mut claims = sim.claims(id);
        claims.as_object_mut().unwrap().remove(claim);
        refused(&server, &format!("without {claim}"), &sim.sign(&claims)).await;
    }

    // Signatures that are none, or of something else.
    let claims = sim.claims(id);
    let (kid, jwk) = sim.signing_key();
    refused(&server, "alg none", &token::none(&claims)).await;
    let none = json!({ "alg": "none", "typ": "JWT", "kid": kid });
    refused(&server, "alg none with the key's id", &hmac(&none, &claims, b"")).await;
    let mut point = vec![4];
    for part in ["x", "y"] {
        point.extend(BASE64.decode(jwk[part].as_str().unwrap()).unwrap());
    }
    let hs256 = |kid: &str| json!({ "alg": "HS256", "typ": "JWT", "kid": kid });
    for (what, secret) in [
        ("the public point", point.clone()),
        ("its x", point[1..33].to_vec()),
        ("the JWK", jwk.to_string().into_bytes()),
        ("the public API key", ANON_KEY.into()),
        ("nothing", Vec::new()),
    ] {
        for kid in [kid.as_str(), "unknown"] {
            refused(
                &server,
                &format!("HS256 with {what}, {kid}"),
                &hmac(&hs256(kid), &claims, &secret),
            )
            .await;
        }
    }
    let lying = json!({ "alg": "ES256", "typ": "JWT", "kid": kid });
    refused(&server, "HMAC that says ES256", &hmac(&lying, &claims, &point)).await;
    for algorithm in ["RS256", "ES384", "PS256", "HS512", "EdDSA"] {
        let header = json!({ "alg": algorithm, "typ": "JWT", "kid": kid });
        refused(&server, algorithm, &hmac(&header, &claims, &point)).await;
    }
    let other = GoTrueSim::start(Settings::default()).await.unwrap();
    refused(&server, "another project's key", &other.sign(&claims)).await;
    let good = sim.sign(&claims);
    let parts: Vec<&str> = good.split('.').collect();
    let mut changed = claims.clone();
    changed["sub"] = json!(Uuid::new_v4());
    let swapped = format!("{}.{}.{}", parts[0], BASE64.encode(changed.to_string()), parts[2]);
    refused(&server, "a changed payload", &swapped).await;

    // The project's API keys, old and new, and a token of a local installation.
    let api_key =
        |role: &str| json!({ "iss": "supabase", "ref": "abc", "role": role, "iat": now_s, "exp": now_s + 600 });
    for (what, token) in [
        ("anon key", token::sign(&api_key("anon"), SECRET)),
        ("service_role key", token::sign(&api_key("service_role"), SECRET)),
        ("publishable key", ANON_KEY.to_owned()),
        ("secret key", SERVICE_KEY.to_owned()),
        ("no JWT", "abc.def".to_owned()),
    ] {
        refused(&server, what, &token).await;
    }
    let local = json!({
        "sub": id, "aud": "authenticated", "iss": "velro", "iat": now_s, "exp": now_s + 600, "email": "ada@example.com",
        "role": "authenticated", "session_id": Uuid::new_v4(), "token_type": "access",
    });
    refused(&server, "a local token", &token::sign(&local, JWT_SECRET)).await;
    with(&server, &good).get(BALANCE).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_legacy_secret_its_api_keys_and_published_keys_stay_what_they_are() {
    let settings = Settings {
        kind: Kind::Hs256,
        ..Settings::default()
    };
    let sim = GoTrueSim::start(settings).await.unwrap();
    let server = Server::with(sim.options().env("SUPABASE_JWT_SECRET", SECRET)).await;
    let (id, ada) = person(&sim, &server, "ada@example.com");
    ada.get(BALANCE).await.ok();
    let now_s = sim.claims(id)["iat"].as_i64().unwrap();
    for role in ["anon", "service_role", "authenticated"] {
        let key = json!({ "iss": "supabase", "ref": "abc", "role": role, "iat": now_s, "exp": now_s + 600 });
        refused(&server, role, &token::sign(&key, SECRET)).await;
    }
    refused(&server, "another secret", &token::sign(&sim.claims(id), JWT_SECRET)).await;
    let decoded = BASE64.decode(SECRET.replace('-', "")).unwrap_or_default();
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    refused(
        &server,
        "the secret, decoded",
        &hmac(&header, &sim.claims(id), &decoded),
    )
    .await;
    // The project moves on to keys that it publishes: both work, and neither stands in for the other.
    let kid = sim.rotate(Kind::Es256);
    with(&server, &sim.token(id)).get(BALANCE).await.ok();
    let header = json!({ "alg": "HS256", "typ": "JWT", "kid": kid });
    refused(
        &server,
        "the secret under a published id",
        &hmac(&header, &sim.claims(id), SECRET.as_bytes()),
    )
    .await;
    ada.get(BALANCE).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_installation_takes_no_tokens_of_a_project() {
    let sim = GoTrueSim::start(Settings::default()).await.unwrap();
    let id = sim.add_person("ada@example.com");
    // The keys without the URL change nothing.
    let options = Options::new()
        .env("SUPABASE_ANON_KEY", ANON_KEY)
        .env("SUPABASE_SERVICE_ROLE_KEY", SERVICE_KEY)
        .env("SUPABASE_JWT_SECRET", SECRET);
    let server = Server::with(options).await;
    let bob = server.register("bob").await;
    bob.get(BALANCE).await.ok();
    refused(&server, "a project's token", &sim.token(id)).await;
    refused(&server, "one of the secret", &token::sign(&sim.claims(id), SECRET)).await;
    let health = server.anonymous().get("/api/v1/auth/health").await.ok();
    assert_eq!(
        (&health["provider"], &health["supabase_url"]),
        (&json!("local"), &Value::Null)
    );
    assert_eq!(sim.asked(JWKS), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_turn_without_a_restart() {
    let (sim, server) = pair().await;
    let (id, ada) = person(&sim, &server, "ada@example.com");
    ada.get(BALANCE).await.ok();
    let (first, _) = sim.signing_key();
    sim.rotate(Kind::Rs256);
    // A hundred with the new key share one look at what is published; those with the old one notice nothing.
    let turned = with(&server, &sim.token(id));
    let answers = race(100, |n| {
        let client = if n % 2 == 0 { &turned } else { &ada };
        client.get(BALANCE)
    });
    for answer in answers.await {
        answer.ok();
    }
    assert_eq!(sim.asked(JWKS), 2);
    // A key that is not published any more is forgotten with the next look.
    sim.retire(&first);
    sim.rotate(Kind::EdDsa);
    with(&server, &sim.token(id)).get(BALANCE).await.ok();
    refused(&server, "a retired key", ada.token()).await;
    turned.get(BALANCE).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_keys_costs_one_look_every_few_seconds_and_nobody_else_notices() {
    let (sim, server) = pair().await;
    let (id, ada) = person(&sim, &server, "ada@example.com");
    ada.get(BALANCE).await.ok();
    let claims = sim.claims(id);
    let forged = |n: usize| {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": format!("forged-{n}") });
        hmac(&header, &claims, b"x")
    };
    let began = Instant::now();
    let forgers = race(400, |n| {
        let client = with(&server, &forged(n));
        async move { client.get(BALANCE).await.status.as_u16() }
    });
    let customer = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let asked = Instant::now();
            ada.get(BALANCE).await.ok();
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (statuses, slowest) = tokio::join!(forgers, customer);
    assert!(statuses.iter().all(|s| *s == 401), "{statuses:?}");
    assert!(
        slowest < Duration::from_millis(2500),
        "a valid token waited {slowest:?}"
    );
    let looks = sim.asked(JWKS) as u64;
    assert!(
        looks <= 2 + began.elapsed().as_secs() / 3,
        "{looks} in {:?}",
        began.elapsed()
    );
    // And a key that is really new is found.
    sim.rotate(Kind::Es256);
    with(&server, &sim.token(id)).get(BALANCE).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_ended_is_over_here_at_once_and_after_a_restart() {
    let (sim, mut server) = pair().await;
    sim.add_person("ada@example.com");
    let nobody = server.anonymous();
    let session = async |nobody: &Client| {
        let mut ada = nobody.clone();
        ada.adopt(&nobody.post(LOGIN, &credentials("ada@example.com")).await.ok());
        ada
    };
    let (first, second) = (session(&nobody).await, session(&nobody).await);
    let done = first.post_empty(LOGOUT).await.ok();
    assert_eq!(done["message"], "Logged out successfully");
    refused(&server, "after logout", first.token()).await;
    refresh(&nobody, &first.refresh_token)
        .await
        .problem(401, "unauthorized");
    second.get(BALANCE).await.ok();

    // Ended at the account service: found out when it is asked, and by every route from then on.
    let third = session(&nobody).await;
    let id = third.user_id.parse().unwrap();
    sim.end_sessions(id);
    third.get(ME).await.problem(401, "unauthorized");
    refused(&server, "ended elsewhere", third.token()).await;

    server.kill9();
    server.restart().await;
    refused(&server, "after a restart", first.token()).await;
    refused(&server, "after a restart", third.token()).await;
    second.get(BALANCE).await.ok();

    // It cannot be told: over here all the same.
    let fourth = session(&nobody).await;
    sim.fault("/logout", tests::gotrue_sim::Fault::Gateway(502, "bad gateway"));
    assert_eq!(fourth.post_empty(LOGOUT).await.ok()["message"], "Logged out");
    refused(&server, "the service was away", fourth.token()).await;
    let text = eventually("the log", SOON, || async { Some(server.log_text()) }).await;
    for secret in [first.token(), &first.refresh_token, PASSWORD, "ada@example.com"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}
