//! Accounts at Supabase: the whole server against a stand-in of its account service that its official clients accept.

#![allow(clippy::unwrap_used, clippy::panic)]

mod care;
mod clients;
mod database;
mod errors;
mod known;
mod outages;
mod tokens;

use serde_json::{Value, json};
use tests::gotrue_sim::{GoTrueSim, PASSWORD, Settings};
use tests::harness::{Client, Reply, Server};
use uuid::Uuid;

const REGISTER: &str = "/api/v1/auth/register";
const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/auth/me";
/// A route that needs a token and no account service.
const BALANCE: &str = "/api/v1/credits/balance";

/// The account service and a server whose accounts are there.
async fn pair() -> (GoTrueSim, Server) {
    let sim = GoTrueSim::start(Settings::default()).await.unwrap();
    let server = Server::with(sim.options()).await;
    (sim, server)
}

fn credentials(email: &str) -> Value {
    json!({ "email": email, "password": PASSWORD, "full_name": "Ada Lovelace" })
}

/// Somebody who has signed in elsewhere and brings the token.
fn with(server: &Server, token: &str) -> Client {
    server.anonymous().with_token(token)
}

/// Somebody at the account service, with a token for the server.
fn person(sim: &GoTrueSim, server: &Server, email: &str) -> (Uuid, Client) {
    let id = sim.add_person(email);
    (id, with(server, &sim.token(id)))
}

async fn refresh(client: &Client, token: &str) -> Reply {
    client.post(REFRESH, &json!({ "refresh_token": token })).await
}
