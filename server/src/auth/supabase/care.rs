//! What people do with an account that is kept there: password, sessions, leaving.

use tokio::time::Instant;

use super::Supabase;
use super::gotrue::PATIENCE;
use crate::auth::{AuthError, Caller};
use crate::id::UserId;

impl Supabase {
    pub(in crate::auth) async fn end_others(&self, token: &str) -> Result<(), AuthError> {
        self.gotrue.logout_others(token, Instant::now() + PATIENCE).await
    }

    /// Whether the caller knows the password of the account.
    pub(in crate::auth) async fn prove(&self, caller: &Caller, password: &str) -> Result<(), AuthError> {
        self.sign_in(caller, password, Instant::now() + PATIENCE).await
    }

    async fn sign_in(&self, caller: &Caller, password: &str, until: Instant) -> Result<(), AuthError> {
        let fresh = self.gotrue.password(&caller.email, password, until).await?;
        match fresh.user.id == caller.user_id {
            true => Ok(()),
            // The address is somebody else's by now.
            false => Err(AuthError::InvalidCredentials),
        }
    }

    /// The current password is proved by a sign-in, so that nobody changes it with a stolen token alone.
    pub(in crate::auth) async fn change_password(
        &self,
        caller: &Caller,
        token: &str,
        current: &str,
        new: &str,
    ) -> Result<(), AuthError> {
        let until = Instant::now() + PATIENCE;
        self.sign_in(caller, current, until).await?;
        // By the caller's own session: the service ends all others with it, that of the proof too.
        self.gotrue.set_password(token, new, until).await
    }

    pub(in crate::auth) async fn erase(&self, user: UserId) -> Result<(), AuthError> {
        self.gotrue.delete(user, Instant::now() + PATIENCE).await
    }
}
