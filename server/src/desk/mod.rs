//! What operators do, for the command line and the API alike: looking for problems, fetching what a provider delivered,
//! making redeem codes, stopping lanes. What is one transaction is in the store.

pub mod code;
mod deliver;
mod lanes;
mod levels;
mod problems;

pub use deliver::{Undelivered, deliver};
pub use lanes::{LanesError, load_pauses};
pub use levels::{holding, load_log_level};
pub use problems::{Finding, Found, Kind, Seeker};
