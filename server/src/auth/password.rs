//! Argon2id with OWASP's parameters, off the async threads and only a few at once.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AuthError;

/// Shortest password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 8;
/// Longest password, in characters.
pub const MAX_PASSWORD_CHARS: usize = 128;

/// Memory of one hash, in KiB; passes over it; lanes (OWASP password storage cheat sheet).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// How long a login waits for its turn; the existing frontend gives up after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// Stands in for the hash of an unknown e-mail, so that the answer takes as long. No password is known to match it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmUhIQ$bm8gcGFzc3dvcmQgaXMga25vd24gdG8gbWF0Y2ggaXQ";

/// Hashes and checks passwords. Each hash takes 19 MiB while it runs, so the permits bound the memory.
pub(super) struct Passwords {
    permits: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Passwords {
            permits: Arc::new(Semaphore::new(cores.clamp(2, 8))),
        }
    }

    /// The PHC string of a password under a fresh salt.
    pub(super) async fn hash(&self, password: String) -> Result<String, AuthError> {
        self.off_thread(move || {
            let hash: PasswordHash = argon2()?.hash_password(password.as_bytes())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password belongs to the PHC string. Without one the same work is done in vain.
    pub(super) async fn verify(&self, password: String, phc: Option<String>) -> Result<bool, AuthError> {
        self.off_thread(move || {
            let known = phc.is_some();
            let phc = phc.unwrap_or_else(|| NOBODY.to_owned());
            let hash = PasswordHash::new(&phc)?;
            let matches = match argon2()?.verify_password(password.as_bytes(), &hash) {
                Ok(()) => true,
                Err(argon2::password_hash::Error::PasswordInvalid) => false,
                Err(error) => return Err(error.into()),
            };
            Ok(known && matches)
        })
        .await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, AuthError> {
        let turn = Arc::clone(&self.permits).acquire_owned();
        let permit: OwnedSemaphorePermit = match tokio::time::timeout(PATIENCE, turn).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(closed)) => return Err(AuthError::Internal(closed.into())),
            Err(_) => return Err(AuthError::Busy),
        };
        let done = tokio::task::spawn_blocking(move || {
            // The permit belongs to the work: a client that hangs up does not make room before the memory is free.
            let _permit = permit;
            work()
        });
        match done.await {
            Ok(result) => result.map_err(AuthError::Internal),
            Err(panicked) => Err(AuthError::Internal(panicked.into())),
        }
    }
}

fn argon2() -> anyhow::Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| anyhow::anyhow!("argon2 parameters: {e}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(
            passwords
                .verify("correct horse".into(), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(!passwords.verify("correct horse ".into(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_s_hash_is_well_formed_and_costs_the_same() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let params = Params::try_from(&nobody).unwrap();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (MEMORY_KIB, PASSES, LANES)
        );
        assert!(!Passwords::new().verify("nobody is here!!".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_damaged_hash_is_our_error_and_not_a_wrong_password() {
        let result = Passwords::new().verify("x".into(), Some("plain".into())).await;
        assert!(matches!(result, Err(AuthError::Internal(_))));
    }
}
