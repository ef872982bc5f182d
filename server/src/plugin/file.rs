//! From a path to bytes that are the pinned ones, in a private file that is named after its content.

use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::fault::{LoadFault, LoadProblem};

/// Largest library, in bytes.
const MAX_BYTES: u64 = 512 << 20;

/// The content of a library that may be loaded.
#[derive(Debug)]
pub struct Verified {
    /// The file as it was named.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Lower-case hex.
    pub sha256: String,
}

/// Reads a library that an operator names on the command line: no folder, no pin.
pub fn read(path: &Path) -> Result<Verified, LoadFault> {
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    read_all(path, file)
}

/// Reads the library that a registry names: below `folder`, in safe hands, and with the pinned content.
pub fn verify(folder: &Path, path: &Path, sha256: &str) -> Result<Verified, LoadFault> {
    let named = folder.join(path);
    // The links are followed first: what counts is where the file is.
    let real = fs::canonicalize(&named).map_err(|e| unreadable(&named, &e))?;
    let inside = fs::canonicalize(folder).map_err(|e| unreadable(folder, &e))?;
    if !real.starts_with(&inside) {
        let what = format!("resolves outside the plugin folder {}", inside.display());
        let remedy = "put the file itself there (links are followed), or set VELRO_PLUGIN_DIR";
        return Err(LoadFault::new(&named, LoadProblem::Outside, what, remedy));
    }
    let file = File::open(&real).map_err(|e| unreadable(&named, &e))?;
    check_rights(&named, &file)?;
    let verified = read_all(&named, file)?;
    if verified.sha256 != sha256 {
        let what = format!(
            "is not the pinned library: its SHA-256 is {}, `sha256` says {sha256}",
            verified.sha256
        );
        let remedy = "if you replaced it on purpose, write the new hash into the registry";
        return Err(LoadFault::new(&named, LoadProblem::Hash, what, remedy));
    }
    Ok(verified)
}

fn unreadable(path: &Path, error: &std::io::Error) -> LoadFault {
    let what = format!("cannot be read ({error})");
    LoadFault::new(
        path,
        LoadProblem::Unreadable,
        what,
        "correct `path` or the rights of the file",
    )
}

fn check_rights(path: &Path, file: &File) -> Result<(), LoadFault> {
    let meta = file.metadata().map_err(|e| unreadable(path, &e))?;
    let fault = |what: String, remedy: &str| Err(LoadFault::new(path, LoadProblem::Rights, what, remedy));
    if !meta.is_file() {
        return fault("is not a regular file".into(), "name the library itself");
    }
    let ours = fs::metadata("/proc/self").map_or(0, |me| me.uid());
    if meta.uid() != 0 && meta.uid() != ours {
        let what = format!("belongs to user {}, and this process is user {ours}", meta.uid());
        return fault(what, "make root or the user of the server its owner");
    }
    if meta.mode() & 0o022 != 0 {
        let what = format!("can be written by others (mode {:o})", meta.mode() & 0o7777);
        return fault(what, "take the right away: chmod go-w FILE");
    }
    Ok(())
}

fn read_all(path: &Path, file: File) -> Result<Verified, LoadFault> {
    let size = file.metadata().map_err(|e| unreadable(path, &e))?.len();
    let mut bytes = Vec::with_capacity(size.min(MAX_BYTES) as usize);
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > MAX_BYTES {
        let what = format!("is larger than {} MiB", MAX_BYTES >> 20);
        return Err(LoadFault::new(path, LoadProblem::Format, what, "is it the right file?"));
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    Ok(Verified {
        path: path.to_owned(),
        bytes,
        sha256,
    })
}

/// A private copy under the name of its content. The dynamic loader takes two libraries under one path for the same, so
/// the path changes with the content; and a copy that nobody else writes to cannot change under a mapping.
pub(super) fn stage(verified: &Verified, folder: &Path) -> Result<PathBuf, LoadFault> {
    let fault = |e: std::io::Error| {
        let what = format!("cannot be copied to {} ({e})", folder.display());
        LoadFault::new(
            &verified.path,
            LoadProblem::Staging,
            what,
            "make the data folder writable",
        )
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(fault)?;
    let target = folder.join(format!("{}.so", verified.sha256));
    if fs::read(&target).is_ok_and(|bytes| bytes == verified.bytes) {
        return Ok(target);
    }
    // A file of its own for every try, and a rename: what may be mapped is never written to.
    let aside = folder.join(format!("{}.{}", verified.sha256, uuid::Uuid::new_v4()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o500)
        .open(&aside)
        .map_err(fault)?;
    file.write_all(&verified.bytes)
        .and_then(|()| file.sync_all())
        .map_err(fault)?;
    fs::rename(&aside, &target).map_err(fault)?;
    Ok(target)
}
