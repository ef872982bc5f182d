//! Who is calling: passwords, tokens, sessions.

/// Accounts and tokens of this installation.
pub struct Auth;
