//! Copies of delivered files in storage that we control.

/// The storage of outputs and uploads.
pub struct Outputs;

impl Outputs {
    /// Placeholder of branch `gen` until `provider` is merged.
    pub fn sign(&self, key: &str, _now: crate::clock::Micros) -> String {
        key.to_owned()
    }
}
