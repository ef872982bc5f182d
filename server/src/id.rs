//! Typed identifiers: lower-case UUIDs on the wire, version 7 so that they sort by creation time.

use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::{fmt, str::FromStr};
use uuid::{ContextV7, Timestamp, Uuid};

use crate::clock;

/// Keeps ids of one moment apart and in order, and those after a correction of the clock later than those before.
static CONTEXT: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// By the clock that all processes follow: ids of several machines sort by time as well.
fn fresh() -> Uuid {
    let now_us = clock::now().0.max(0).unsigned_abs();
    let nanos = (now_us % 1_000_000) as u32 * 1000;
    Uuid::new_v7(Timestamp::from_unix(&CONTEXT, now_us / 1_000_000, nanos))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id, later than every one made before by this process.
            #[allow(clippy::new_without_default, reason = "a default id would hide that ids are unique")]
            pub fn new() -> Self {
                Self(fresh())
            }

            /// The UUID behind it.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    )+};
}

ids! {
    /// A registered person.
    UserId,
    /// A login; the family of refresh tokens that began with it.
    SessionId,
    /// A folder of generations.
    ProjectId,
    /// What a customer asked for.
    GenerationId,
    /// One submission of a generation to a provider.
    AttemptId,
    /// A movement of credits between two accounts.
    TransferId,
    /// A line of a user's credit statement.
    StatementLineId,
    /// A key with which a program calls instead of a person.
    ApiKeyId,
    /// A purchase of credits, whatever became of it.
    OrderId,
    /// A code that gives credits.
    RedeemCodeId,
}
