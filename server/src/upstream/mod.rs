//! Performs HTTP for providers.
