//! What goes into the store's use cases and what comes out.

mod attempts;
mod care;
mod credits;
mod generations;
mod keys;
mod orders;
mod people;
mod projects;

pub use attempts::*;
pub use care::*;
pub use credits::*;
pub use generations::*;
pub use keys::*;
pub use orders::*;
pub use people::*;
pub use projects::*;
