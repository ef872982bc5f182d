//! Redeem codes over HTTP: once is once, whoever comes at the same moment, and guessing is slow.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tests::harness::{Client, Options, Reply, Server, race};

const REDEEM: &str = "/api/v1/credits/redeem";

/// A fresh code, made on the command line.
fn code(server: &Server, args: &[&str]) -> String {
    let args = [&["codes", "create", "50", "--note", "test", "--json"], args].concat();
    let made: Value = serde_json::from_str(&server.velro(&args).ok()).unwrap();
    made["code"].as_str().unwrap().to_owned()
}

async fn redeem(client: &Client, code: &str) -> Reply {
    client.post(REDEEM, &json!({"code": code})).await
}

fn count(replies: &[Reply], status: u16) -> usize {
    replies.iter().filter(|reply| reply.status.as_u16() == status).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_for_one_use_is_used_once_by_fifty_people_and_by_one_fifty_times() {
    let server = Server::start().await;
    let names: Vec<String> = (0..50).map(|n| format!("person{n}")).collect();
    // A few at a time: passwords are expensive to hash.
    let people = stream::iter(&names).map(|name| server.register(name)).buffered(4);
    let people: Vec<Client> = people.collect().await;
    let once = code(&server, &[]);
    let replies = race(50, |n| redeem(&people[n], &once)).await;
    assert_eq!((count(&replies, 200), count(&replies, 410)), (1, 49));
    let winner = replies.iter().position(|reply| reply.status.as_u16() == 200).unwrap();
    assert_eq!(people[winner].balance().await, 1050);
    replies[(winner + 1) % 50].clone().problem(410, "code_used_up");
    assert_eq!(people[winner].statement().await, ["bonus +1000", "bonus +50"]);

    let many = code(&server, &["--uses", "1000"]);
    let ada = &people[(winner + 1) % 50];
    let replies = race(50, |_| redeem(ada, &many)).await;
    assert_eq!((count(&replies, 200), count(&replies, 409)), (1, 49));
    redeem(ada, &many).await.problem(409, "code_already_redeemed");
    assert_eq!(ada.balance().await, 1050);
    redeem(&people[winner], &many.to_lowercase().replace('-', " "))
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_slow_and_what_is_no_guess_does_not_count() {
    let server = Server::with(Options::new().env("RATE_LIMIT_ENABLED", "true")).await;
    let [ada, bob] = [server.register("ada").await, server.register("bob").await];
    let good = code(&server, &["--uses", "2"]);
    redeem(&ada, &good).await.ok();
    for _ in 0..15 {
        redeem(&ada, &good).await.problem(409, "code_already_redeemed");
    }
    // A code that was disabled is as unknown as one that never was.
    let ended: Value =
        serde_json::from_str(&server.velro(&["codes", "create", "5", "--note", "x", "--json"]).ok()).unwrap();
    let ended_code = ended["code"].as_str().unwrap();
    server
        .velro(&["codes", "disable", ended["id"].as_str().unwrap(), "--reason", "x"])
        .ok();
    let mut details = Vec::new();
    for n in 0..10 {
        let wrong = if n == 0 {
            ended_code.to_owned()
        } else {
            format!("WRONG-CODE-{n}")
        };
        details.push(redeem(&ada, &wrong).await.problem(404, "not_found")["detail"].clone());
    }
    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    redeem(&ada, "WRONG-CODE-11").await.problem(429, "rate_limited");
    redeem(&bob, &good).await.ok();
    for bad in [
        json!({}),
        json!({"code": ""}),
        json!({"code": "-- --"}),
        json!({"code": "x".repeat(201)}),
        json!({"code": 5}),
    ] {
        let status = bob.post(REDEEM, &bad).await.status.as_u16();
        assert_eq!(status, 422, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_end_and_suspended_people_get_nothing() {
    let server = Server::start().await;
    let ada = server.register("ada").await;
    let good = code(&server, &[]);
    server
        .velro(&["users", "suspend", "ada@example.com", "--reason", "x"])
        .ok();
    redeem(&ada, &good).await.problem(403, "account_suspended");
    server
        .velro(&["users", "unsuspend", "ada@example.com", "--reason", "x"])
        .ok();
    let brief = code(&server, &["--expires-in", "1s"]);
    let over = tests::harness::eventually("it expires", tests::harness::SOON, || async {
        let shown: Value = serde_json::from_str(&server.velro(&["codes", "list", "--json"]).ok()).unwrap();
        let ends = shown["items"][0]["expires_at"].as_str().unwrap().to_owned();
        let now = time::OffsetDateTime::now_utc();
        let ends = time::OffsetDateTime::parse(&ends, &time::format_description::well_known::Rfc3339).unwrap();
        (now > ends).then_some(())
    });
    over.await;
    redeem(&ada, &brief).await.problem(410, "code_expired");
    redeem(&ada, &good).await.ok();
    assert_eq!(ada.balance().await, 1050);
}
