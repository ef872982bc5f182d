//! Metrics and logs.

/// Every metric of the process.
pub struct Metrics;
