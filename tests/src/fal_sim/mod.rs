//! A simulator of FAL.ai that behaves as documented, misbehaves on demand, and remembers what was bought.
//!
//! It runs in the test's process ([`FalSim::start`]) or as the binary `fal-sim`. One base URL serves everything:
//!
//! | FAL | here |
//! |---|---|
//! | `https://queue.fal.run/{endpoint}` and `/{owner}/{alias}/requests/{id}[/status[/stream]\|/response\|/cancel]` | `{base}/...` |
//! | `https://fal.run/{endpoint}` (direct run) | `{base}/run/{endpoint}` |
//! | `https://rest.fal.ai/storage/...`, `/.well-known/jwks.json` | `{base}/...` |
//! | `https://v3.fal.media/files/upload` and delivered media | `{base}/files/...`, `{base}/media/...` |
//!
//! So Velro gets `FAL_QUEUE_URL={base}`, `FAL_RUN_URL={base}/run`, `FAL_REST_URL={base}`; the Python client gets
//! `FAL_QUEUE_RUN_HOST={host}` and `FAL_RUN_HOST={host}/run` behind a TLS front.
//!
//! # Invariants
//!
//! - Inputs are checked strictly; as with the real queue, a bad input is *accepted* and fails: the request completes
//!   and its result URL answers 422.
//! - Whatever was accepted is in the ledger, whether or not the client learnt of it.
//! - A failed or cancelled request costs nothing; a delivered one costs what `X-Fal-Billable-Units` says.
//!
//! # Faults
//!
//! A [`Rule`] says at which point what happens, how often, and for which prompts. Three ways to set one:
//! [`SimHandle::add_rule`]; `POST /_sim/faults`; words in the prompt: `[sim:POINT=ACTION*TIMES]`, or `[sim:ACTION]`
//! for the point `job`. `*TIMES` is optional. Faults at `submit` and `run` named in a prompt count over all submits of
//! that prompt; the others count per job. A misspelt word is a 400, so that no test passes by accident.
//!
//! Points: `submit`, `run`, `status`, `stream`, `result`, `cancel`, `media`, `webhook`, `job`.
//!
//! | action | points | effect |
//! |---|---|---|
//! | `503` (any status) | all HTTP points | answer that, do nothing (429 and 503 with `Retry-After: 1`) |
//! | `cut`, `hang` | all HTTP points | close without a byte, or never answer; do nothing |
//! | `accept_then_503`, `accept_then_cut`, `accept_then_hang` | all HTTP points | do it, then the same: on `submit` the job is bought and the client cannot know |
//! | `half`, `garbage`, `wrong_type` | all HTTP points but `stream` | do it; half a body, broken JSON, an HTML page |
//! | `slow:MS` | all | wait first; `media`: a kilobyte per wait |
//! | `oversized:BYTES` | `media` | so many bytes, length not announced |
//! | `fail`, `policy`, `runner`, `error:TYPE` | `job` | ends as `internal_server_error`, `content_policy_violation`, `runner_server_error`, or any documented type |
//! | `never`, `queue_ms:MS`, `run_ms:MS` | `job` | never ends; takes so long |
//! | `fewer`, `no_media` | `job` | one image less than asked; none at all |
//! | `duplicate`, `lie`, `drop`, `bad_signature`, `stale` | `webhook` | three times; `OK` while still running; never; forged; an hour old |
//!
//! Connections refused: [`SimHandle::refuse_connections`], or `refuse_for_ms` over HTTP. What holds for the whole
//! simulator (times, exhausted balance, ignored cancels, hidden errors) is in [`Settings`].
//!
//! # Control over HTTP
//!
//! - `GET /_sim/requests`: `{"requests": [..], "refused": [..], "bought_twice": [..]}`
//! - `GET`, `DELETE /_sim/faults`
//! - `POST /_sim/faults`: `{"clear": true, "rules": [{"at": "submit", "action": "accept_then_cut", "times": 1,
//!   "skip": 0, "endpoint": "..", "prompt": ".."}], "settings": {"run_ms": 5000}, "refuse_for_ms": 300}`, all optional
//! - `POST /_sim/jobs/{id}/start|finish|fail?type=..`: manual steps

mod api;
mod control;
mod errors;
mod faults;
mod handle;
mod job;
mod media;
mod media_api;
mod models;
mod outputs;
mod reply;
mod schema;
mod server;
mod state;
mod storage;
mod submit;
mod webhook;

use std::net::SocketAddr;
use std::ops::Deref;

pub use errors::Failure;
pub use faults::{Action, Point, Rule, rules_in_prompt};
pub use handle::{DoublePurchase, SimHandle};
pub use job::{Counts, Delivery, Phase, RequestRecord, Via};
pub use models::{MODELS, Model, Output};
pub use state::{Refusal, Settings};
pub use webhook::{Signer, USER_ID};

/// How to start a simulator.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// TCP port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Behaviour from the start.
    pub settings: Settings,
}

/// A running simulator; stops, with all its connections and deliveries, when dropped.
#[derive(Debug)]
pub struct FalSim {
    /// `http://127.0.0.1:PORT`, without a trailing slash.
    pub base_url: String,
    /// Where it listens.
    pub address: SocketAddr,
    handle: SimHandle,
}

impl FalSim {
    /// Starts a simulator on the current runtime.
    ///
    /// # Errors
    /// If the port cannot be bound.
    #[allow(clippy::unused_async, reason = "starting needs a runtime; async says so")]
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let inner = state::Inner::new(options.settings)?;
        let address = server::start(&inner, options.port)?;
        Ok(Self {
            base_url: format!("http://{address}"),
            address,
            handle: SimHandle(inner),
        })
    }

    /// Base of direct runs, for `FAL_RUN_URL`.
    #[must_use]
    pub fn run_url(&self) -> String {
        format!("{}/run", self.base_url)
    }

    /// A handle that outlives this value (but not the simulator).
    #[must_use]
    pub fn handle(&self) -> SimHandle {
        self.handle.clone()
    }
}

impl Deref for FalSim {
    type Target = SimHandle;
    fn deref(&self) -> &SimHandle {
        &self.handle
    }
}

impl Drop for FalSim {
    fn drop(&mut self) {
        self.handle.0.stop.cancel();
    }
}
