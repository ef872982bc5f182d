//! What goes into the store's use cases and what comes out.

mod attempts;
mod care;
mod codes;
mod credits;
mod desk;
mod generations;
mod keys;
mod operations;
mod orders;
mod people;
mod projects;

pub use attempts::*;
pub use care::*;
pub use codes::*;
pub use credits::*;
pub use desk::*;
pub use generations::*;
pub use keys::*;
pub use operations::*;
pub use orders::*;
pub use people::*;
pub use projects::*;
