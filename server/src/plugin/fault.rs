//! Why a library is not loaded.

use std::fmt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What is wrong with a library, where, and what to do about it. Displayed as `path: what; remedy`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {what}; {remedy}", path.display())]
pub struct LoadFault {
    /// The file as it was named.
    pub path: PathBuf,
    /// The class of the problem; stable, for programs.
    pub problem: LoadProblem,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Classes of problems, in the order in which a library meets the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadProblem {
    /// There is no such file, or it cannot be read.
    Unreadable,
    /// It is not below the plugin folder.
    Outside,
    /// Somebody else may change it.
    Rights,
    /// It is not the pinned content.
    Hash,
    /// The private copy could not be made.
    Staging,
    /// It is no shared library for this machine.
    Format,
    /// It does not say which version of the boundary it speaks.
    NoNote,
    /// What it says is damaged.
    Magic,
    /// It speaks another major version.
    Major,
    /// It needs a newer host.
    Minor,
    /// It has no entry.
    NoEntry,
    /// The dynamic loader refuses it.
    Link,
    /// Its entry refuses this host.
    Refused,
    /// Its function table lacks something.
    Table,
    /// It does not accept its configuration.
    Create,
    /// It cannot describe itself, or describes itself wrongly.
    Manifest,
    /// It wants to talk to a host that the operator did not allow.
    Host,
    /// A secret that it needs is not set.
    Secret,
    /// It does not answer.
    Stuck,
}

impl LoadFault {
    /// A fault with all its parts.
    pub fn new(path: &Path, problem: LoadProblem, what: impl fmt::Display, remedy: impl Into<String>) -> Self {
        LoadFault {
            path: path.to_owned(),
            problem,
            what: what.to_string(),
            remedy: remedy.into(),
        }
    }
}
