//! What goes into the store's use cases and what comes out.

mod attempts;
mod codes;
mod credits;
mod desk;
mod generations;
mod people;
mod projects;

pub use attempts::*;
pub use codes::*;
pub use credits::*;
pub use desk::*;
pub use generations::*;
pub use people::*;
pub use projects::*;
