//! Writes `plugins/sdk/include/velro_plugin.h`.

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let path = tests::header::path();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::write(&path, tests::header::generate()?).with_context(|| path.display().to_string())
}
