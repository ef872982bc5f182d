//! What can be generated, at what price, and how a client's call becomes the provider's input. Pure.
//!
//! A [`Registry`] is the validated form of `providers.toml`; it is replaced as a whole ([`Shelf`]) when the file
//! changes, and jobs in flight keep the one they began with.

mod call;
#[cfg(test)]
mod call_tests;
pub mod declaration;
pub mod file;
mod listing;
mod model;
pub mod names;
mod params;
mod registry;
#[cfg(test)]
mod shipped_tests;

pub use call::{ClientCall, ParamFault, ValidCall};
pub use file::RegistryErrors;
pub use listing::by_type_then_credits;
pub use model::{Fallback, Feature, InputRule, Model, ModelStatus, Param, ParamType};
pub use params::{Refusal, key_text};
pub use registry::{PluginSource, ProviderEntry, ProviderKind, Registry, Shelf};
