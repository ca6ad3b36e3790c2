//! A user's own key, and a new value for it (B12): proposed first, and in force once it is brought back (B13). Until then nothing is
//! stored, so there is nothing to cancel. Afterwards the old values are refused (B14).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::ticket::{is_mark, mark};
use crate::auth::grant::{Access, State, Timestamp};
use crate::auth::key::Secret;
use crate::manage::key::change::refuse_revoked;
use crate::manage::key::{Draft, NewKey};
use crate::manage::values::{KeyId, KeyName, UserName};
use crate::manage::{Failure, Session, Stored};
use crate::store::record::{KeyBody, Kind, RecordId, SecretBody, Subject, UserBody, to_json};
use crate::store::{Change, Expect, Store};

/// How long somebody may think about it.
const THINKING: Duration = Duration::from_secs(15 * 60);

const STALE: Failure =
    Failure::BadTicket("this is no value that was proposed for the key as it is now; ask for another and confirm that");

/// A value that is not in force yet.
pub struct Proposal {
    /// The value.
    pub secret: Secret,
    /// What to bring back with it.
    pub confirmation: String,
    /// Until when.
    pub expires_at: Timestamp,
}

impl<S: Store> Session<S> {
    /// The key of a user's own, and its value, which they may look up again (B9).
    pub(super) fn own_key(&self, id: &str, user: &UserBody) -> Result<(Vec<Change>, Secret), Failure> {
        let name = KeyName(user.email.chars().take(50).collect());
        let new = NewKey {
            id: Some(KeyId(id.to_owned())),
            user: Some(UserName(user.email.clone())),
            owner: Some(id.into()),
            scope: user.scope.clone(),
            recoverable: true,
            ..NewKey::named(name, Access::ReadWrite)
        };
        let draft = Draft::new(new, &self.locksmith, &self.actor, self.now)?;
        let changes = self.changes_of_draft(&draft, &[])?;
        Ok((changes, draft.secret))
    }

    /// The same for a user who has none, or whose was revoked. Of that one nothing comes back: its values have ended, and stay
    /// known so that nobody brings them in again, and its roles are gone.
    pub(super) async fn own_key_if_lacking(
        &self,
        id: &str,
        user: &UserBody,
    ) -> Result<Option<(Vec<Change>, Secret)>, Failure> {
        let old = match self.key(id).await {
            Ok(key) if key.body.state == State::Revoked => Some(key),
            Ok(_) => return Ok(None),
            Err(Failure::NotFound(_) | Failure::LooksLikeValue) => None,
            Err(failure) => return Err(failure),
        };
        let (mut changes, secret) = self.own_key(id, user)?;
        let Some(old) = old else { return Ok(Some((changes, secret))) };
        for change in changes.iter_mut().filter(|change| change.id == RecordId::key(id)) {
            change.expect = Expect::At(old.revision);
        }
        for other in self.secrets_of(id).await? {
            let not_after = Some(other.body.not_after.map_or(self.now, |end| end.min(self.now)));
            let (id, body) = (RecordId::secret(other.digest), SecretBody { not_after, ..other.body });
            changes.push(Change { id, expect: Expect::At(other.revision), body: Some(to_json(&body)) });
        }
        let bindings = self.bindings().await?.into_iter();
        for binding in bindings.filter(|binding| binding.body.subject == Subject::Key(id.into())) {
            let (id, expect) = (RecordId::new(Kind::Binding, &binding.id), Expect::At(binding.revision));
            changes.push(Change { id, expect, body: None });
        }
        Ok(Some((changes, secret)))
    }

    /// Proposes a new value for a key.
    ///
    /// # Errors
    /// When there is no such key, or it is revoked.
    pub async fn propose_value(&self, key: &str) -> Result<Proposal, Failure> {
        let stored = self.key(key).await?;
        refuse_revoked(key, &stored.body)?;
        let secret = self.locksmith.format.generate(stored.body.env)?;
        let expires_at = self.now.plus(THINKING);
        let end = expires_at.millis().to_be_bytes();
        let tag = mark(&self.locksmith, &parts(&stored, &stored.revision.to_be_bytes(), secret.reveal(), &end));
        let confirmation = URL_SAFE_NO_PAD.encode([&end[..], tag.as_ref()].concat());
        Ok(Proposal { secret, confirmation, expires_at })
    }

    /// Puts a proposed value in force, in place of all that the key had.
    ///
    /// # Errors
    /// When it was not proposed, or too long ago, or the key was changed since; or the store cannot be written.
    pub async fn confirm_value(&self, key: &str, value: &str, confirmation: &str) -> Result<Stored<KeyBody>, Failure> {
        let mut stored = self.key(key).await?;
        refuse_revoked(key, &stored.body)?;
        let bytes = URL_SAFE_NO_PAD.decode(confirmation).map_err(|_| STALE)?;
        let (end, tag) = bytes.split_first_chunk::<8>().ok_or(STALE)?;
        let is_ours = is_mark(&self.locksmith, &parts(&stored, &stored.revision.to_be_bytes(), value, end), tag);
        if !is_ours || Timestamp::from_millis(u64::from_be_bytes(*end)) <= self.now {
            return Err(STALE);
        }
        let secret = Secret::returned(value);
        stored.body.updated_by = Some(self.who().to_owned());
        stored.body.updated_time = self.now;
        let (id, expect) = (RecordId::key(key), Expect::At(stored.revision));
        let mut changes = vec![Change { id, expect, body: Some(to_json(&stored.body)) }];
        for other in self.secrets_of(key).await? {
            let (id, expect) = (RecordId::secret(other.digest), Expect::At(other.revision));
            changes.push(Change { id, expect, body: None });
        }
        let hint = self.locksmith.format.hint(value).map(str::to_owned);
        let body = SecretBody { key: key.to_owned(), hint, shape: None, not_after: None, created_time: self.now };
        let id = RecordId::secret(secret.digest(&self.locksmith.pepper));
        changes.push(Change { id, expect: Expect::Absent, body: Some(to_json(&body)) });
        if stored.body.recoverable {
            changes.push(self.sealing(key, &secret)?);
        }
        let detail = json!({ "target": { "kind": "key", "id": key } });
        let commit = self.entry("key.regenerate", [&stored.body.scope], detail, changes);
        let revision = self.store.commit(commit).await?.number;
        Ok(Stored { revision, ..stored })
    }
}

/// What marks a value as proposed for a key as it is at one revision.
fn parts<'p>(key: &'p Stored<KeyBody>, revision: &'p [u8; 8], value: &'p str, end: &'p [u8; 8]) -> [&'p [u8]; 5] {
    [b"value", key.id.as_bytes(), revision, value.as_bytes(), end]
}
