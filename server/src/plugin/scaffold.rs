//! `velro plugin new`: a crate that builds, passes its tests and is accepted by `velro plugin check`, before its author has
//! written a line. The SDK comes with it, so that it builds wherever it is.

use std::fs;
use std::io;
use std::path::Path;

/// A file of a new crate.
type File = (&'static str, &'static str);

const CRATE: &[File] = &[
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("README.md", include_str!("template/README.md.txt")),
    (".gitignore", "/target\n"),
    ("src/lib.rs", include_str!("template/lib.rs.txt")),
    ("fixtures/picture.json", include_str!("template/fixtures/picture.json")),
    ("fixtures/refused.json", include_str!("template/fixtures/refused.json")),
    ("fixtures/lost.json", include_str!("template/fixtures/lost.json")),
    (
        "fixtures/cancelled.json",
        include_str!("template/fixtures/cancelled.json"),
    ),
];

/// Source files of the SDK, as they were when this program was built.
macro_rules! sdk {
    ($($file:literal),+ $(,)?) => {
        &[$((concat!("src/", $file), include_str!(concat!("../../../plugins/sdk/src/", $file)))),+]
    };
}

const SDK: &[File] = sdk![
    "abi.rs",
    "base_url.rs",
    "config.rs",
    "export.rs",
    "fault.rs",
    "form.rs",
    "job.rs",
    "lib.rs",
    "manifest.rs",
    "numbers.rs",
    "step.rs",
    "testkit.rs",
    "testkit/storm.rs",
    "versioned.rs",
];

/// The SDK's own manifest without what it has from the workspace.
const SDK_MANIFEST: &str = "\
[package]
name = \"velro-plugin\"
description = \"The Provider trait: how a Velro provider turns a job into requests and answers into outputs\"
version = \"{{version}}\"
edition = \"2024\"
license = \"Apache-2.0\"
publish = false

[features]
testkit = []

[dependencies]
base64 = \"0.22\"
percent-encoding = \"2\"
serde = { version = \"1\", features = [\"derive\"] }
serde_json = { version = \"1\", features = [\"raw_value\"] }
serde_path_to_error = \"0.1\"
";

/// True for a name that a crate and an entry of the registry can both have.
pub fn is_name(name: &str) -> bool {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    plain && name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-') && name.len() <= 40
}

/// The file that the crate is built into.
pub fn library_name(name: &str) -> String {
    format!("lib{}.so", name.replace('-', "_"))
}

/// Writes the crate `name` into `folder`, which must not be there yet.
pub fn write(folder: &Path, name: &str) -> io::Result<()> {
    if folder.exists() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is there already; nothing was written",
        ));
    }
    let files = CRATE
        .iter()
        .map(|(path, text)| ((*path).to_owned(), filled(text, name)))
        .chain(
            SDK.iter()
                .map(|(path, text)| (format!("velro-plugin/{path}"), (*text).to_owned())),
        )
        .chain([("velro-plugin/Cargo.toml".to_owned(), filled(SDK_MANIFEST, name))]);
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

fn filled(text: &str, name: &str) -> String {
    let snake = name.replace('-', "_");
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    text.replace("{{name}}", name)
        .replace("{{type}}", &words.collect::<String>())
        .replace("{{upper}}", &snake.to_ascii_uppercase())
        .replace("{{snake}}", &snake)
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_sdk_comes_along() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/sdk/src");
        let mut there = Vec::new();
        let mut folders = vec![Path::new(folder).to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => there.push(format!("src/{}", path.strip_prefix(folder).unwrap().display())),
                }
            }
        }
        there.sort();
        assert_eq!(
            SDK.iter().map(|(path, _)| (*path).to_owned()).collect::<Vec<_>>(),
            there
        );
    }

    #[test]
    fn names_are_those_of_crates() {
        for good in ["acme", "acme-2", "a"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "Acme", "2acme", "acme_x", "-a", "a-", "a/b", "../a"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
