//! What people do with their own account: its sessions, its password, and how it is left.

use super::{Accounts, Auth, AuthError, Caller};
use crate::clock;
use crate::id::{SessionId, UserId};
use crate::store::{OpenSession, StoreError};

impl Auth {
    /// The caller's sessions that go on; `None` where another service keeps them.
    pub async fn sessions(&self, caller: &Caller) -> Result<Option<Vec<OpenSession>>, AuthError> {
        match &self.accounts {
            Accounts::Local => Ok(Some(self.store.sessions(caller.user_id, clock::now()).await?)),
            Accounts::Supabase(_) => Ok(None),
        }
    }

    /// Ends one session of the caller. False when it is not theirs or is over.
    pub async fn end_session(&self, caller: &Caller, session: SessionId) -> Result<bool, AuthError> {
        Ok(!self.end(caller.user_id, Some(session), None).await?.is_empty())
    }

    /// Ends every session of the caller but the present one.
    pub async fn end_other_sessions(&self, caller: &Caller, token: &str) -> Result<(), AuthError> {
        if let Accounts::Supabase(there) = &self.accounts {
            return there.end_others(token).await;
        }
        self.end(caller.user_id, None, Some(caller.session_id)).await?;
        Ok(())
    }

    async fn end(
        &self,
        user: UserId,
        only: Option<SessionId>,
        except: Option<SessionId>,
    ) -> Result<Vec<SessionId>, StoreError> {
        let now = clock::now();
        let ended = self.store.end_sessions(user, only, except, now).await?;
        for session in &ended {
            self.revoked.add(*session, now);
        }
        Ok(ended)
    }

    /// Sets another password and ends all other sessions. The new one has been measured; the current one is checked here.
    pub async fn change_password(
        &self,
        caller: &Caller,
        token: &str,
        current: String,
        new: String,
    ) -> Result<(), AuthError> {
        if let Accounts::Supabase(there) = &self.accounts {
            return there.change_password(caller, token, &current, &new).await;
        }
        let old_hash = self.prove(caller, current).await?;
        let new_hash = self.passwords.hash(new).await?;
        let now = clock::now();
        let ended = self
            .store
            .change_password(caller.user_id, old_hash, new_hash, caller.session_id, now)
            .await?;
        // Somebody else has changed it in between.
        for session in ended.ok_or(AuthError::InvalidCredentials)? {
            self.revoked.add(session, now);
        }
        Ok(())
    }

    /// The hash of the account's password, which the caller knows.
    async fn prove(&self, caller: &Caller, password: String) -> Result<Option<String>, AuthError> {
        let user = self.store.user(caller.user_id).await?.ok_or(AuthError::InvalidToken)?;
        match self.passwords.verify(password, user.password_hash.clone()).await? {
            true => Ok(user.password_hash),
            false => Err(AuthError::InvalidCredentials),
        }
    }

    /// Makes the account nobody's, at once and for good; what it has left is erased afterwards. Harmless when it is done
    /// twice. Where another service keeps passwords, the token is proof enough for somebody who has none.
    pub async fn delete_account(&self, caller: &Caller, password: Option<String>) -> Result<(), AuthError> {
        match (&self.accounts, password) {
            (Accounts::Local, password) => drop(self.prove(caller, password.unwrap_or_default()).await?),
            (Accounts::Supabase(there), Some(password)) => there.prove(caller, &password).await?,
            (Accounts::Supabase(_), None) => {}
        }
        let now = clock::now();
        self.store.delete_user(caller.user_id, now).await?;
        // Every token and key of theirs; other processes read it from the store.
        self.revoked.add(SessionId::from(caller.user_id.uuid()), now);
        self.keys.forget();
        Ok(())
    }

    /// Has the service that keeps the account of somebody who has left delete it too. Harmless when it is done twice.
    pub async fn erase_elsewhere(&self, user: UserId) -> Result<(), AuthError> {
        match &self.accounts {
            Accounts::Local => Ok(()),
            Accounts::Supabase(there) => there.erase(user).await,
        }
    }
}
