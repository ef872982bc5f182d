//! Copies of delivered files in storage that we control.

/// The storage of outputs and uploads.
pub struct Outputs;
