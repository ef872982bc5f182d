//! Providers as dynamic libraries: from a file to something that implements [`velro_plugin::Provider`].
//!
//! ```text
//! file     inside the plugin folder, safe rights, the pinned SHA-256, a private copy     no code of it has run
//! note     architecture, exports, version of the boundary, read from the bytes           no code of it has run
//! library  dlopen, entry, function table; once per content, never unloaded
//! foreign  an instance: `create`, the manifest, then `step` and the others, on threads of its own
//! ```
//!
//! Invariants:
//! - Nothing of a library runs before its bytes are the pinned ones; what is mapped is a private copy of those bytes.
//! - Whatever a library answers is copied, bounded and checked before anybody sees it. What does not pass is a
//!   [`velro_plugin::Fault`].
//! - A library that does not return keeps a thread of its own and nobody else's.
//! - `unsafe` is here and in the SDK, nowhere else.
//!
//! A native library has the rights of the process. All this protects from mistakes, not from malice: `PLUGINS.md`.

mod answer;
pub mod check;
mod fault;
mod file;
mod foreign;
mod host;
mod lane;
mod library;
mod note;
pub mod scaffold;

pub use fault::{LoadFault, LoadProblem};
pub use file::{Verified, read, verify};
pub use foreign::Foreign;
pub use lane::{aside, did_not_return};
pub use library::{Library, Plugins};
pub use note::{Note, read_note};
