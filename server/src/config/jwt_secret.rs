//! The signing secret: given by the operator, or in development generated once and kept.

use aws_lc_rs::rand;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Shortest accepted secret, in characters: the strength of HS256's key.
pub(super) const MIN_CHARACTERS: usize = 32;

/// Name of the file in the data folder.
pub(super) const FILE: &str = "jwt_secret";

/// The kept secret of a data folder, if there is one.
pub(super) fn kept(data_dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(data_dir.join(FILE)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A new random secret: 64 hex digits.
pub(super) fn generate() -> io::Result<String> {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(hex::encode(bytes))
}

/// The kept secret, or a new one that is kept from now on. Two processes that start at once agree on one: the file
/// appears complete and only once, readable by its owner alone.
pub(super) fn keep(data_dir: &Path) -> io::Result<String> {
    if let Some(secret) = kept(data_dir)? {
        return Ok(secret);
    }
    fs::create_dir_all(data_dir)?;
    let secret = generate()?;
    let draft = data_dir.join(format!("{FILE}.{}-{}", std::process::id(), &secret[..8]));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&draft).and_then(|mut file| {
        // The draft is not the key itself but carries it: same rules.
        file.write_all(secret.as_bytes())?;
        file.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&draft, data_dir.join(FILE)));
    fs::remove_file(&draft).ok();
    match linked {
        Ok(()) => Ok(secret),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            kept(data_dir)?.ok_or_else(|| io::Error::other("the kept secret vanished while it was read"))
        }
        Err(e) => Err(e),
    }
}
