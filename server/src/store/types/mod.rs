//! What goes into the store's use cases and what comes out.

mod attempts;
mod credits;
mod generations;
mod orders;
mod people;
mod projects;

pub use attempts::*;
pub use credits::*;
pub use generations::*;
pub use orders::*;
pub use people::*;
pub use projects::*;
