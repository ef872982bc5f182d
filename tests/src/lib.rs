//! The harness of Velro's black-box, fault and conformance tests: simulators of the services Velro talks to, and
//! what is needed to run official clients against them.
//!
//! Nothing here depends on the `velro` crate: a simulator that shared code with the server could share its
//! misunderstandings too.

pub mod clients;
pub mod fal_sim;
pub mod tls;
