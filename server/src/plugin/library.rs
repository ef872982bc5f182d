//! A library in the address space: opened once per content, never unloaded.
//!
//! Unloading Rust libraries is not sound in practice, and what is unmapped under a thread that still runs in it ends the
//! process. A replaced library costs some ten kilobytes that are the process's own; `velro_plugin_libraries` counts.

#![allow(unsafe_code)]

use ::velro_plugin::abi::{VELRO_F_SERIAL, read_prefix, velro_host, velro_plugin as RawTable};
use libloading::os::unix::{Library as Dl, RTLD_LOCAL, RTLD_NOW};
use std::collections::HashMap;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fault::{LoadFault, LoadProblem};
use super::file::{self, Verified};
use super::host::HOST;
use super::lane::aside;
use super::note::{Note, read_note};

/// Keeps the mapping for ever, whoever closes it (`dlopen(3)`).
const RTLD_NODELETE: c_int = 0x1000;

/// How long constructors and the entry of a library may take.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

type Entry = unsafe extern "C" fn(*const velro_host) -> *const RawTable;

/// A library that is loaded.
#[derive(Debug)]
pub struct Library {
    /// Where the operator has it.
    pub path: PathBuf,
    /// Lower-case hex of its content.
    pub sha256: String,
    /// What it is called, as it says.
    pub name: String,
    /// Its version, as it says.
    pub version: String,
    /// The boundary it was built with.
    pub note: Note,
    pub(super) table: Table,
}

/// The functions of a library, as much of them as it and we know.
#[derive(Clone, Copy)]
pub(super) struct Table(pub(super) RawTable);

// SAFETY: functions and static texts of a library that is never unloaded; which functions may be called at the same time
// is the lanes' business.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

impl Table {
    /// The library wants one call at a time.
    pub(super) fn is_serial(&self) -> bool {
        self.0.flags & VELRO_F_SERIAL != 0
    }
}

/// All libraries of this process.
#[derive(Debug)]
pub struct Plugins {
    staging: PathBuf,
    loaded: Mutex<HashMap<String, Arc<Library>>>,
}

impl Plugins {
    /// None yet; private copies go to `staging`.
    pub fn new(staging: impl Into<PathBuf>) -> Self {
        Plugins {
            staging: staging.into(),
            loaded: Mutex::default(),
        }
    }

    /// How many libraries have been loaded since the start; none is ever unloaded.
    pub fn loaded(&self) -> usize {
        self.lock().len()
    }

    /// Loads verified bytes, or finds them loaded.
    pub fn load(&self, verified: &Verified) -> Result<Arc<Library>, LoadFault> {
        if let Some(library) = self.lock().get(&verified.sha256) {
            return Ok(Arc::clone(library));
        }
        let note = read_note(verified)?;
        let staged = file::stage(verified, &self.staging)?;
        let library = Arc::new(open(verified, &staged, note)?);
        Ok(Arc::clone(
            self.lock().entry(verified.sha256.clone()).or_insert(library),
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Library>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps the library and asks for its functions, on a thread that may be given up: from here on its code runs.
fn open(verified: &Verified, staged: &Path, note: Note) -> Result<Library, LoadFault> {
    let (answer, answered) = sync_channel(1);
    let (named, path) = (verified.path.clone(), staged.to_owned());
    let opener = std::thread::Builder::new().name("plugin-open".into()).spawn(move || {
        // Nobody listens any more when it took too long.
        drop(answer.send(open_here(&named, &path)));
    });
    let stuck = |what: &str| {
        let remedy = "its constructors and its entry must return at once; restart the server to be rid of it";
        LoadFault::new(&verified.path, LoadProblem::Stuck, what, remedy)
    };
    opener.map_err(|e| stuck(&format!("cannot be given a thread ({e})")))?;
    let table = aside(|| answered.recv_timeout(LOAD_LIMIT)).map_err(|e| match e {
        RecvTimeoutError::Timeout => stuck(&format!("was not loaded within {} s", LOAD_LIMIT.as_secs())),
        RecvTimeoutError::Disconnected => stuck("ended the thread that loaded it"),
    })??;
    // SAFETY: static texts of the library, as the header asks for; bounded below.
    let (name, version) = unsafe { (table.0.name.bytes(), table.0.version.bytes()) };
    let text = |bytes: Option<&[u8]>| {
        let bytes = bytes.unwrap_or_default();
        super::answer::printable(&bytes[..bytes.len().min(100)])
    };
    Ok(Library {
        path: verified.path.clone(),
        sha256: verified.sha256.clone(),
        name: text(name),
        version: text(version),
        note,
        table,
    })
}

fn open_here(named: &Path, staged: &Path) -> Result<Table, LoadFault> {
    let fault = |problem, what: String, remedy: &str| LoadFault::new(named, problem, what, remedy);
    let link = |e: libloading::Error| {
        let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        fault(
            LoadProblem::Link,
            format!("cannot be linked ({cause})"),
            "build it on a system no newer than this one, with all it needs; and keep the data folder (for commands, the folder of \
             temporary files) where programs may be mapped: not on a `noexec` mount",
        )
    };
    // SAFETY: runs the constructors of a library whose content the operator has pinned.
    let library = unsafe { Dl::open(Some(staged), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) }.map_err(link)?;
    // SAFETY: the header gives the symbol this type, and the note says that the library was built with it.
    let entry = *unsafe { library.get::<Entry>(b"velro_plugin_entry_v1\0") }.map_err(link)?;
    // Never unloaded: its functions and texts are static from here on.
    std::mem::forget(library);
    // SAFETY: as above; the host's table is static.
    let table = unsafe { entry(&raw const HOST) };
    if table.is_null() {
        let what = format!("its entry refuses this host ({})", env!("CARGO_PKG_VERSION"));
        return Err(fault(
            LoadProblem::Refused,
            what,
            "read its documentation; it may need a newer host",
        ));
    }
    if !table.is_aligned() {
        let what = "its entry answers with a pointer that is not one".to_owned();
        return Err(fault(LoadProblem::Table, what, "it is broken; build it again"));
    }
    // SAFETY: not null, aligned, and as long as it says.
    let table = unsafe { read_prefix(table) };
    let missing = match table {
        RawTable { step: None, .. } => "`step`",
        RawTable { manifest: None, .. } => "`manifest`",
        RawTable {
            create: Some(_),
            destroy: None,
            ..
        } => "`destroy`, but has `create`",
        _ => return Ok(Table(table)),
    };
    let what = format!("its function table ({} bytes) lacks {missing}", table.struct_size);
    Err(fault(
        LoadProblem::Table,
        what,
        "build it with export_provider!, or fill in the table of velro_plugin.h",
    ))
}
