//! Buying credits, black box: the real binary against a stand-in for Stripe that Stripe's own libraries accept.
//!
//! Every server closes with the usual assertions: the books are in order, no secret is in the log.

#![allow(clippy::unwrap_used, clippy::panic)]

mod checkout;
mod clients;
mod kills;
mod reconcile;
mod sandbox;
mod webhook;

use reqwest::Method;
use serde_json::{Value, json};
use tests::harness::{Client, Options, Reply, Server};
use tests::stripe_sim::{SECRET_KEY, StripeSim, WEBHOOK_SECRET, now, sign};

const PURCHASE: &str = "/api/v1/credits/purchase";
const HOOK: &str = "/api/v1/webhooks/stripe";

/// Amounts that divide without a rest: a cent is a credit.
const PACKAGES: &str = r#"[
    {"id": "hundred", "name": "A hundred credits", "credits": 100, "price": "1.00", "currency": "usd"},
    {"id": "thousand", "name": "A thousand", "credits": 1000, "price": "9.99", "currency": "usd"},
    {"id": "thousand-eur", "name": "A thousand", "credits": 1000, "price": "9.49", "currency": "eur"},
    {"id": "yen", "name": "In yen", "credits": 70, "price": "500", "currency": "jpy"}
]"#;

/// A server that sells through the simulator.
fn selling(sim: &StripeSim) -> Options {
    Options::new()
        .env("STRIPE_SECRET_KEY", SECRET_KEY)
        .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
        .env("STRIPE_API_URL", &sim.base_url)
        .env("CREDIT_PACKAGES", PACKAGES)
        .env("DEFAULT_USER_CREDITS", "0")
}

/// A shop and a customer with nothing.
async fn shop() -> (StripeSim, Server, Client) {
    let sim = StripeSim::start().await.unwrap();
    let server = Server::with(selling(&sim)).await;
    let ada = server.register("ada").await;
    (sim, server, ada)
}

/// Orders a package.
async fn buy(client: &Client, package: &str) -> Value {
    client.post(PURCHASE, &json!({"package_id": package})).await.ok()
}

fn order_of(purchase: &Value) -> String {
    purchase["order_id"].as_str().unwrap().to_owned()
}

/// An order, and its session at Stripe.
async fn session(sim: &StripeSim, client: &Client, package: &str) -> (String, String) {
    let order = order_of(&buy(client, package).await);
    let session = sim.session_of(&order).unwrap();
    (order, session)
}

/// Sends an event as Stripe does, signed just now.
async fn deliver(server: &Server, event: &Value) -> Reply {
    let body = event.to_string();
    let header = sign(&body, WEBHOOK_SECRET, now());
    deliver_raw(server, body, &header).await
}

async fn deliver_raw(server: &Server, body: impl Into<reqwest::Body>, header: &str) -> Reply {
    let nobody = server.anonymous();
    let request = nobody.request(Method::POST, HOOK).body(body);
    nobody.send(request.header("Stripe-Signature", header)).await
}

/// What became of an event.
async fn told(server: &Server, event: &Value) -> String {
    deliver(server, event).await.ok()["status"].as_str().unwrap().to_owned()
}

async fn status(client: &Client, order: &str) -> String {
    let order = client.get(&format!("/api/v1/credits/orders/{order}")).await.ok();
    order["status"].as_str().unwrap().to_owned()
}

/// All orders of `0..n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    match n {
        0 => vec![vec![]],
        _ => permutations(n - 1)
            .into_iter()
            .flat_map(|shorter| {
                (0..n).map(move |at| {
                    let mut longer = shorter.clone();
                    longer.insert(at, n - 1);
                    longer
                })
            })
            .collect(),
    }
}
