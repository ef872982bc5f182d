//! What the process says about itself: metrics for Prometheus, logs for people and collectors.
//!
//! Invariants: labels have few values (route templates, provider names, fixed words), never ids or what a client sent;
//! no e-mail, token, prompt or query string is logged at `info` or above.

mod logs;
mod metrics;

pub use logs::init;
pub use metrics::{CONTENT_TYPE as METRICS_CONTENT_TYPE, Metrics, StreamGuard};
