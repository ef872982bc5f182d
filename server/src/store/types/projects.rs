//! Projects.

use serde_json::{Map, Value};

use crate::clock::Micros;
use crate::id::{ProjectId, UserId};

/// Who may see a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Visibility {
    Private,
    TeamOnly,
    Public,
}

impl Visibility {
    /// All of them, for filters and their error messages.
    pub const ALL: [Visibility; 3] = [Visibility::Private, Visibility::TeamOnly, Visibility::Public];

    /// The wire and database form.
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::TeamOnly => "team-only",
            Visibility::Public => "public",
        }
    }

    /// Parses the wire form.
    pub fn parse(text: &str) -> Option<Visibility> {
        Visibility::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

/// A project as stored, with its generations counted.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Project {
    pub id: ProjectId,
    pub user_id: UserId,
    pub name: String,
    pub description: Option<String>,
    pub visibility: Visibility,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub generation_count: u64,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// To create a project.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewProject {
    pub id: ProjectId,
    pub user_id: UserId,
    pub name: String,
    pub description: Option<String>,
    pub visibility: Visibility,
    pub tags: Vec<String>,
    pub metadata: Map<String, Value>,
    pub now: Micros,
}

/// `Some` changes, `None` leaves.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ProjectChange {
    pub name: Option<String>,
    pub description: Option<String>,
    pub visibility: Option<Visibility>,
    pub tags: Option<Vec<String>>,
    pub metadata: Option<Map<String, Value>>,
}

/// Which projects. Without a visibility: the viewer's own. `Public`: everybody's public ones. Else the viewer's own
/// of that kind (contract §16, rulings 10 and 11).
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ProjectFilter {
    pub visibility: Option<Visibility>,
    pub skip: u64,
    pub limit: u32,
}
