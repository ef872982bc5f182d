//! API keys: what programs call with instead of a person's session.

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::id::{ApiKeyId, UserId};
use crate::ledger::Credits;

/// What a key may do. No key may do what concerns the account itself or the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Submit generations, watch, cancel and delete them, and change projects.
    Generate,
    /// See generations, projects and the profile, and change nothing.
    Read,
    /// See balance, statement and orders, buy and redeem.
    Billing,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 3] = [Scope::Generate, Scope::Read, Scope::Billing];

    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Generate => "generate",
            Scope::Read => "read",
            Scope::Billing => "billing",
        }
    }

    /// Parses the wire form.
    pub fn parse(text: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// A key as its owner sees it; the key itself is shown once and not stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// For revoking and renaming it.
    pub id: ApiKeyId,
    /// Who answers for it and pays.
    pub user_id: UserId,
    /// As given by its owner.
    pub name: String,
    /// Its first characters.
    pub hint: String,
    /// What it may do, sorted.
    pub scopes: Vec<Scope>,
    /// Models it may use; `None` for all.
    pub models: Option<Vec<String>>,
    /// What it may spend in its life; `None` without a limit.
    pub spending_cap: Option<Credits>,
    /// What its generations hold or have captured.
    pub spent: Credits,
    /// When it was made.
    pub created_at: Micros,
    /// When it was last changed by its owner.
    pub updated_at: Micros,
    /// From when on it is refused.
    pub expires_at: Option<Micros>,
    /// Since when it is refused for good.
    pub revoked_at: Option<Micros>,
    /// To within a minute.
    pub last_used_at: Option<Micros>,
}

/// To make a key.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewApiKey {
    pub id: ApiKeyId,
    pub user_id: UserId,
    pub name: String,
    /// SHA-256 of the key, hex.
    pub hash: String,
    pub hint: String,
    pub scopes: Vec<Scope>,
    pub models: Option<Vec<String>>,
    pub spending_cap: Option<Credits>,
    pub expires_at: Option<Micros>,
    /// How many keys that are not over the owner may have. Two that are made at the same moment may both pass.
    pub most: u32,
    pub now: Micros,
}

/// `Some` changes, `None` leaves. An inner `None` clears.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ApiKeyChange {
    pub name: Option<String>,
    pub scopes: Option<Vec<Scope>>,
    pub models: Option<Option<Vec<String>>>,
    pub spending_cap: Option<Option<Credits>>,
    pub expires_at: Option<Option<Micros>>,
}

/// A key with what a request made with it needs to know of its owner.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct KeyHolder {
    pub key: ApiKey,
    pub email: String,
}
