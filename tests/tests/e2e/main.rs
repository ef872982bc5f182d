//! Black-box tests: the real binary over HTTP, on the embedded default, with FAL's simulator where a provider is needed.
//!
//! Every test has a server of its own, and every server closes with the same assertions (see [`tests::harness::Server`]):
//! an orderly stop, a ledger that verifies, no open hold, no secret in the log.

#![allow(clippy::unwrap_used, clippy::panic)]

mod account;
mod bad_input;
mod cancel;
mod credits;
mod declared;
mod desk;
mod failover;
mod fal;
mod fal_trouble;
mod first_run;
mod idempotency;
mod identity;
mod keys;
mod listings;
mod money;
mod odd_input;
mod operations;
mod operator_api;
mod ownership;
mod pauses;
mod projects;
mod redeem;
mod registry;
mod routes;
mod running;
mod streams;
mod sync_routes;
mod user;
mod webhooks;

use serde_json::Value;

/// The members of an object, sorted.
fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("no object: {object}"));
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// The texts of one member of every object in a list.
fn column<'v>(list: &'v Value, member: &str) -> Vec<&'v str> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter()
        .map(|row| row[member].as_str().unwrap_or_default())
        .collect()
}

/// Asserts an ISO time with microseconds and an offset, as the contract wants it.
#[track_caller]
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00");
    assert!(time::PrimitiveDateTime::parse(text, format).is_ok(), "{text}");
}
