//! The harness of Velro's black-box, fault and conformance tests: simulators of the providers Velro talks to, what
//! is needed to run official clients against them, and PostgreSQL, PgBouncer and Redis of this machine.
//!
//! The simulators do not depend on the `velro` crate: one that shared code with the server could share its
//! misunderstandings too.

pub mod clients;
pub mod collector;
pub mod fal_bench;
pub mod fal_sim;
pub mod gotrue_sim;
pub mod harness;
pub mod header;
pub mod libraries;
pub mod ports;
pub mod process;
pub mod queue_sim;
pub mod queue_suite;
pub mod redis;
pub mod replicate_sim;
pub mod services;
pub mod sources;
pub mod store_suite;
pub mod storm;
pub mod stripe_sim;
pub mod tls;
