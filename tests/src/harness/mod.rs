//! The harness of the black-box tests: the real binary in a folder of its own, and clients that speak to it over HTTP.
//!
//! - [`Server`] starts `velro`, kills it, restarts it, runs its sub-commands on the same data, and closes every test
//!   with the same assertions: it ends in an orderly way, `velro ledger verify` is clean and no hold is left open.
//! - [`Cluster`] does the same for several processes over one PostgreSQL and one Redis.
//! - [`Client`] is one person at one server; [`Reply`] is an answer whole; [`Stream`] reads server-sent events.
//! - [`token`] forges JWTs, [`media`] looks into delivered files, [`race()`] runs many calls at once.
//!
//! Everything here waits for conditions with a deadline; nothing sleeps and hopes.

#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a harness fails its test by panicking; every function here may"
)]

mod binary;
mod client;
mod cluster;
mod logs;
pub mod media;
mod options;
mod race;
mod reply;
mod server;
mod sse;
pub mod token;

pub use binary::binary;
pub use client::{Client, PASSWORD, SUBMIT, announce, id_of};
pub use cluster::{Cluster, ClusterOptions, OwnServices, Role};
pub use options::{FAL_KEY, JWT_SECRET, Options, models};
pub use race::{eventually, race};
pub use reply::{Reply, fields};
pub use server::{CliOutput, Server};
pub use sse::{Frame, Stream};

use std::time::Duration;

/// How long a test waits for something that is a matter of milliseconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);
