//! Persons and sessions.

use crate::clock::Micros;
use crate::id::{SessionId, UserId};
use crate::ledger::Credits;
use crate::store::Origin;

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Own things only.
    User,
    /// Also what concerns the whole installation.
    Operator,
}

impl Role {
    /// The database form.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Operator => "operator",
        }
    }

    /// Parses the database form.
    pub fn parse(text: &str) -> Option<Role> {
        [Role::User, Role::Operator].into_iter().find(|r| r.as_str() == text)
    }
}

/// A person.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)]
pub struct User {
    pub id: UserId,
    /// Lower case.
    pub email: String,
    /// PHC string; never shown, never logged.
    pub password_hash: Option<String>,
    pub full_name: Option<String>,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
    pub role: Role,
    pub plan: String,
    pub created_at: Micros,
    pub updated_at: Micros,
    pub last_sign_in_at: Option<Micros>,
    /// Since when the person may look and spend nothing.
    pub suspended_at: Option<Micros>,
    /// For the person and the operators.
    pub suspended_reason: Option<String>,
    /// Since when the row is only there for the books.
    pub deleted_at: Option<Micros>,
}

/// What stands behind the id in the stored e-mail of somebody who has none. `.invalid` belongs to nobody (RFC 2606).
pub const NO_EMAIL_DOMAIN: &str = "@users.invalid";

/// The same of somebody whose e-mail belongs to another account by now.
pub const FORMER_EMAIL_DOMAIN: &str = "@former.invalid";

/// The same of somebody who has left.
pub const DELETED_EMAIL_DOMAIN: &str = "@deleted.invalid";

impl User {
    /// The e-mail, or an empty text for somebody who has none.
    pub fn shown_email(&self) -> &str {
        let made_up = [NO_EMAIL_DOMAIN, FORMER_EMAIL_DOMAIN, DELETED_EMAIL_DOMAIN];
        match made_up.iter().any(|domain| self.email.ends_with(domain)) {
            true => "",
            false => &self.email,
        }
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// To create a person with an account.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct NewUser {
    pub id: UserId,
    /// Lower case.
    pub email: String,
    pub password_hash: Option<String>,
    pub full_name: Option<String>,
    pub role: Role,
    /// Booked once as a bonus transfer from the platform's grants.
    pub start_credits: Credits,
    pub now: Micros,
}

/// Somebody whose account is kept by another service, as a proof of theirs says.
#[derive(Clone)]
pub struct Arrival {
    /// The same there and here.
    pub id: UserId,
    /// Lower case; empty for none.
    pub email: String,
    /// `None` leaves what is stored.
    pub full_name: Option<String>,
    /// An operator stays one; a user who is one already too.
    pub role: Role,
    /// The proof says how it is now; an older one, such as a token, makes a row but changes none.
    pub fresh: bool,
    /// They have just signed in.
    pub signed_in: bool,
    /// Booked once as a bonus transfer from the platform's grants.
    pub start_credits: Credits,
    /// When it is.
    pub now: Micros,
}

impl Arrival {
    /// The e-mail as it is stored.
    pub(in crate::store) fn stored_email(&self) -> String {
        match self.email.is_empty() {
            true => format!("{}{NO_EMAIL_DOMAIN}", self.id),
            false => self.email.clone(),
        }
    }

    /// Whether the row of somebody who is known says something else.
    pub fn differs_from(&self, user: &User) -> bool {
        self.stored_email() != user.email
            || self
                .full_name
                .as_ref()
                .is_some_and(|name| Some(name) != user.full_name.as_ref())
            || (self.role == Role::Operator && user.role != Role::Operator)
    }
}

/// Whether something that must be unique was created.
#[derive(Debug, Clone, PartialEq)]
pub enum Created<T> {
    /// It was.
    New(T),
    /// Somebody was there before; nothing was changed.
    Taken,
}

/// `Some` changes, `None` leaves. An inner `None` clears.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ProfileChange {
    pub full_name: Option<Option<String>>,
    pub display_name: Option<Option<String>>,
    pub avatar_url: Option<Option<String>>,
}

/// To open a session.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct NewSession {
    pub id: SessionId,
    pub user_id: UserId,
    /// SHA-256 of the refresh token, hex; the token itself is never stored.
    pub refresh_hash: String,
    pub refresh_expires_at: Micros,
    /// The password that was proved: should it be another one by now, there is no session.
    pub password_hash: Option<String>,
    pub origin: Origin,
    pub now: Micros,
}

/// To exchange a refresh token.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Rotation {
    pub old_hash: String,
    pub new_hash: String,
    pub new_expires_at: Micros,
    pub origin: Origin,
    pub now: Micros,
}

/// What became of a rotation.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and it is taken apart at once")]
pub enum Rotated {
    /// The new token is valid, the old one is used up.
    Ok {
        /// Whose session.
        user: User,
        /// Which session.
        session: SessionId,
    },
    /// The token had been used before: the session is revoked now.
    Reused {
        /// Which session.
        session: SessionId,
    },
    /// Unknown, expired, or of a revoked session.
    Invalid,
}
