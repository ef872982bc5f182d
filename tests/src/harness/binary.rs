//! Finds the binary under test.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The `velro` binary: `VELRO_BIN`, else the one in the build folder this program was built into.
///
/// # Errors
/// When there is none: tests never build it themselves, so that what is tested is what was built on purpose.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VELRO_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "VELRO_BIN is {}, which is no file", path.display());
        return Ok(path);
    }
    let own = std::env::current_exe().context("where is this program?")?;
    // A test is <target>/<profile>/deps/<test>, a program lies beside velro in <target>/<profile>.
    let folder = own.parent().context("a program lies in a folder")?;
    let profile = match folder.file_name().is_some_and(|name| name == "deps") {
        true => folder.parent().context("`deps` lies in a build folder")?,
        false => folder,
    };
    let path = profile.join("velro");
    ensure!(
        path.is_file(),
        "there is no {}: run `make build` first (or set VELRO_BIN)",
        path.display()
    );
    Ok(path)
}
