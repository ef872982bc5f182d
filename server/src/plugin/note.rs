//! What a library says about itself before any of its code runs: read from the bytes of the file.

use ::velro_plugin::abi::{VELRO_ABI_MAJOR, VELRO_ABI_MINOR, VELRO_MAGIC};
use object::{Architecture, BinaryFormat, Endianness, Object as _, ObjectKind, ObjectSection as _, ObjectSymbol as _};

use super::fault::{LoadFault, LoadProblem};
use super::file::Verified;

const NOTE: &str = "velro_plugin_abi_v1";
const ENTRY: &str = "velro_plugin_entry_v1";
const NOTE_BYTES: u64 = 24;

/// Which version of the boundary a library was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Note {
    pub major: u32,
    pub minor: u32,
    /// The oldest minor of the host it can live with.
    pub min_host_minor: u32,
}

/// Reads the note of a library and checks that this host can load it. There is one major so far; with a second one, this
/// is the place that accepts the present and the previous.
pub fn read_note(library: &Verified) -> Result<Note, LoadFault> {
    let fault = |problem, what: String, remedy: &str| LoadFault::new(&library.path, problem, what, remedy);
    let format = |what: String| {
        let remedy = format!(
            "build it for {}-linux as a shared library (`crate-type = [\"cdylib\"]`)",
            std::env::consts::ARCH
        );
        LoadFault::new(&library.path, LoadProblem::Format, what, remedy)
    };
    let file =
        object::File::parse(library.bytes.as_slice()).map_err(|e| format(format!("is not a shared library ({e})")))?;
    if file.format() != BinaryFormat::Elf || file.kind() != ObjectKind::Dynamic {
        return Err(format(format!(
            "is not a shared library but {:?} {:?}",
            file.format(),
            file.kind()
        )));
    }
    let ours = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        _ => file.architecture(),
    };
    if file.architecture() != ours || file.endianness() != native() {
        return Err(format(format!(
            "is for {:?}, this machine is {ours:?}",
            file.architecture()
        )));
    }
    let ours: Vec<(&str, u64)> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .filter_map(|symbol| Some((symbol.name().ok()?, symbol.address())))
        .filter(|(name, _)| name.starts_with("velro_plugin_"))
        .collect();
    let find = |name: &str| {
        ours.iter()
            .find(|(symbol, _)| *symbol == name)
            .map(|(_, address)| *address)
    };
    let Some(address) = find(NOTE) else {
        if let Some((name, _)) = ours.iter().find(|(name, _)| name.starts_with("velro_plugin_abi_v")) {
            let major = name.trim_start_matches("velro_plugin_abi_v");
            let what = format!("is built for plugin ABI {major}.x, this host speaks {VELRO_ABI_MAJOR}.x");
            return Err(fault(
                LoadProblem::Major,
                what,
                "update the host, or build the library for this one",
            ));
        }
        let found = match ours.is_empty() {
            true => "no velro_plugin_* symbol".to_owned(),
            false => ours.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        };
        let what = format!("does not export `{NOTE}` (found: {found})");
        let remedy = "build it with export_provider! or velro_plugin.h; is it a provider library?";
        return Err(fault(LoadProblem::NoNote, what, remedy));
    };
    let bytes = file
        .sections()
        .find_map(|section| section.data_range(address, NOTE_BYTES).ok().flatten());
    let note = bytes.filter(|bytes| bytes.starts_with(&VELRO_MAGIC)).ok_or_else(|| {
        let what = format!("`{NOTE}` does not begin with VELROPLG");
        fault(
            LoadProblem::Magic,
            what,
            "the file is damaged, or it is no provider library; build it again",
        )
    })?;
    let word = |at: usize| {
        let bytes = note.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    let note = Note {
        major: word(8),
        minor: word(12),
        min_host_minor: word(16),
    };
    if note.major != VELRO_ABI_MAJOR {
        let what = format!(
            "is built for plugin ABI {}.x, this host speaks {VELRO_ABI_MAJOR}.x",
            note.major
        );
        return Err(fault(
            LoadProblem::Major,
            what,
            "update the host, or build the library for this one",
        ));
    }
    if note.min_host_minor > VELRO_ABI_MINOR {
        let what = format!(
            "needs plugin ABI {}.{} or later, this host speaks {VELRO_ABI_MAJOR}.{VELRO_ABI_MINOR}",
            note.major, note.min_host_minor
        );
        return Err(fault(LoadProblem::Minor, what, "update the host"));
    }
    if find(ENTRY).is_none() {
        let what = format!("does not export `{ENTRY}`");
        return Err(fault(
            LoadProblem::NoEntry,
            what,
            "build it with export_provider! or velro_plugin.h",
        ));
    }
    Ok(note)
}

fn native() -> Endianness {
    match cfg!(target_endian = "big") {
        true => Endianness::Big,
        false => Endianness::Little,
    }
}
