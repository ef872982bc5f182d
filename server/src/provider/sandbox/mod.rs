//! The built-in `sandbox` provider: real results, drawn on this machine, without keys or a network.

pub mod art;
