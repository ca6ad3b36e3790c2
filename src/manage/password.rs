//! Passwords: Argon2id, on threads that may wait, and few at a time.
//!
//! 19 MiB and two passes are what OWASP gives as the least for Argon2id; they take some 30 ms. More would be better against
//! those who have stolen the store, but they lack the pepper, which goes in too; and each attempt to sign in costs a sidecar
//! that much memory, of which it has little. No more than two are worked on at a time.

use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::Failure;
use super::values::NotAValue;
use crate::auth::Locksmith;
use crate::auth::digest::Purpose;
use crate::store::record::PasswordHash;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Memory for two, whoever asks.
static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(2)));

/// A password as somebody has typed it. It is never printed, and wiped when dropped.
pub struct Password(Zeroizing<String>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl FromStr for Password {
    type Err = NotAValue;

    /// Reads one that is to be set: long enough, since nothing else makes a password hard to guess.
    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let fits = text.chars().count() >= 12 && text.len() <= 1024 && !text.contains(char::is_control);
        fits.then(|| Self::typed(text))
            .ok_or(NotAValue::new("a password has 12 characters or more, 1024 bytes at most"))
    }
}

impl Password {
    /// The text of it, to be sent on where it is set.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// One that is tried, whatever it is.
    pub fn typed(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

/// Hashes a password to be stored.
///
/// # Errors
/// When there are no random numbers, or not enough memory.
pub async fn hash(password: Password, locksmith: &Arc<Locksmith>) -> Result<PasswordHash, Failure> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let work = move |argon: &Argon2<'_>| argon.hash_password_with_salt(password.0.as_bytes(), &salt);
    let hash = blocking(locksmith, work).await?;
    hash.map(|hash| PasswordHash(hash.to_string())).map_err(|_| Failure::OutOfMemory)
}

/// Whether a password is the one. It takes as long where there is none: nobody learns who has an account.
///
/// # Errors
/// When it cannot be found out.
pub async fn verify(
    password: Password,
    stored: Option<PasswordHash>,
    locksmith: &Arc<Locksmith>,
) -> Result<bool, Failure> {
    let work = move |argon: &Argon2<'_>| match stored {
        Some(hash) => argon.verify_password(password.0.as_bytes(), hash.0.as_str()).is_ok(),
        None => {
            // The result is of no interest, only the time that it takes.
            let _ = argon.hash_password_with_salt(password.0.as_bytes(), &[0; 16]);
            false
        }
    };
    blocking(locksmith, work).await
}

async fn blocking<T: Send + 'static>(
    locksmith: &Arc<Locksmith>,
    work: impl FnOnce(&Argon2<'_>) -> T + Send + 'static,
) -> Result<T, Failure> {
    // It is never closed.
    let turn = Arc::clone(&TURNS).acquire_owned().await;
    let locksmith = Arc::clone(locksmith);
    let done = spawn_blocking(move || {
        let _turn = turn;
        let secret = locksmith.pepper.key_for(Purpose::Passwords);
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
        let argon = Argon2::new_with_secret(&*secret, Algorithm::Argon2id, Version::V0x13, params).ok()?;
        Some(work(&argon))
    });
    done.await.ok().flatten().ok_or(Failure::OutOfMemory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::testing::locksmith;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_by_nothing_else() {
        let locksmith = Arc::new(locksmith());
        let [a, b] =
            [hash(Password::typed("correct horse"), &locksmith), hash(Password::typed("correct horse"), &locksmith)];
        let (a, b) = (a.await.unwrap(), b.await.unwrap());
        assert!(a.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", a.0);
        assert_ne!(a, b, "each has a salt of its own");
        for (typed, stored, expected) in [
            ("correct horse", Some(a.clone()), true),
            ("correct house", Some(a.clone()), false),
            ("", Some(a), false),
            ("correct horse", None, false),
            ("correct horse", Some(PasswordHash("what is this".to_owned())), false),
        ] {
            assert_eq!(verify(Password::typed(typed), stored, &locksmith).await.unwrap(), expected, "{typed}");
        }
    }

    #[test]
    fn a_new_password_is_long_and_never_printed() {
        assert!(Password::from_str("eleven char").is_err() && Password::from_str("twelve chars").is_ok());
        assert!(Password::from_str(&"x".repeat(1025)).is_err());
        assert_eq!(format!("{:?}", Password::typed("secret")), "Password");
    }
}
