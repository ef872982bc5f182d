//! Who sent the request, as far as the token says.

use salvo::Depot;

use super::problem::{Code, Problem, Result};
use crate::id::{SessionId, UserId};

/// The owner of a valid token. The authentication hoop puts it into the depot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Caller {
    pub user_id: UserId,
    pub session_id: SessionId,
    /// As of the token.
    pub email: String,
}

impl Caller {
    /// The caller of this request; every route behind the authentication hoop has one.
    pub fn of(depot: &Depot) -> Result<&Caller> {
        depot
            .get_typed::<Caller>()
            .map_err(|_| Problem::new(Code::Unauthorized, "Missing authentication token"))
    }
}
