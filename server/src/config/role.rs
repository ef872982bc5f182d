//! Which half of the server a process is.

/// What a process does; see `app::run` for the pieces of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, the default.
    All,
    /// The whole REST surface, no work on generations.
    Api,
    /// The work on generations; over HTTP only what probes and scrapes ask.
    Worker,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Role::All, Role::Api, Role::Worker];

    /// The form in settings, answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Api => "api",
            Role::Worker => "worker",
        }
    }

    /// Back from [`Role::as_str`].
    pub(super) fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// True when it serves the REST surface.
    pub fn serves_api(self) -> bool {
        self != Role::Worker
    }

    /// True when it works on generations.
    pub fn works(self) -> bool {
        self != Role::Api
    }
}
