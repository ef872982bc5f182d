//! Providers: what turns a generation into a result.

pub mod sandbox;
