//! Storms: many people, both providers, faults at FAL, and everything underneath that breaks again and again, from one
//! seed. What must hold afterwards is in [`judge`].
//!
//! The test of one process (`tests/faults/storm.rs`) and those of replicas (`tests/replicas`) share this, and the program
//! `storm` runs the long version of the latter.

#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "like the harness, it fails its test by panicking"
)]

mod dice;
mod judgement;
mod load;
mod outage;
mod plan;
mod replicas;

pub use dice::Dice;
pub use judgement::{Tally, judge};
pub use load::{Job, answers, call, crowd, submit};
pub use outage::{Outage, postgres_outage, redis_outage};
pub use plan::{Blow, Plan, Stop};
pub use replicas::Storm;
