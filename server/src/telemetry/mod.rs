//! What the process says about itself: metrics for Prometheus, logs for people and collectors, traces.
//!
//! Invariants: labels have few values (route templates, provider names, fixed words), never ids or what a client sent;
//! no e-mail, token, prompt or query string is logged at `info` or above, and none is in a trace.

mod logs;
mod metrics;
pub mod trace;

pub use logs::{LogLevels, UNTRACED, init, run_time_filter};
pub use metrics::{CONTENT_TYPE as METRICS_CONTENT_TYPE, Metrics, StreamGuard};
