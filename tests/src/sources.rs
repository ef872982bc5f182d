//! The sources as text, for tests that compare them with what is written about them.

use std::io::Result;
use std::path::Path;

/// Every Rust file below `folder`, one after the other.
///
/// # Errors
/// When one cannot be read.
pub fn rust_below(folder: &Path) -> Result<String> {
    let mut sources = String::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources.push_str(&rust_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(sources)
}
