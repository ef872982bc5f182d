//! The harness of Velro's black-box, fault and conformance tests: simulators of the services Velro talks to, and
//! what is needed to run official clients against them.
//!
//! The simulators do not depend on the `velro` crate: one that shared code with the server could share its
//! misunderstandings too.

pub mod clients;
pub mod fal_sim;
pub mod harness;
pub mod process;
pub mod queue_suite;
pub mod redis;
pub mod store_suite;
pub mod tls;
