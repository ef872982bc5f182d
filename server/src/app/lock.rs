//! One process per data folder: two would lead two queues over one database, and a copy of a database that somebody still
//! writes would miss the end.

use anyhow::{Context, Result};
use std::fs::File;
use std::path::Path;

/// Takes the folder for this process, as long as the file is kept.
pub(super) fn take(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create the data folder {}", folder.display()))?;
    let path = folder.join("velro.lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another velro serves from {}; stop it, or choose another folder with --data",
            folder.display()
        )
    })?;
    Ok(file)
}
