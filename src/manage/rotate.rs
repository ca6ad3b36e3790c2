//! A new value beside those that a key has, and an end for these if wanted. Id, name and history stay.

use serde_json::json;

use super::key::change::refuse_revoked;
use super::key::target;
use super::{ATTEMPTS, Failure, Session, Stored, StoredSecret};
use crate::auth::grant::Timestamp;
use crate::auth::key::Secret;
use crate::store::record::{KeyBody, RecordId, SecretBody, to_json};
use crate::store::{Change, Commit, Expect, Store};

/// A key with a new value.
pub struct Rotated {
    /// The key as it is now.
    pub key: Stored<KeyBody>,
    /// The new value, which nobody will see again.
    pub secret: Secret,
    /// How many of the values that it had before still worked.
    pub others: usize,
}

impl<S: Store> Session<S> {
    /// Gives a key a new value; its others end at `end`, if not before, and go on for ever without.
    ///
    /// # Errors
    /// When there is no such key, it is revoked, others keep changing it, or the store cannot be written.
    pub async fn rotate_key(&self, id: &str, end: Option<Timestamp>) -> Result<Rotated, Failure> {
        let mut attempt = 1;
        loop {
            let key = self.key(id).await?;
            let others = self.secrets_of(id).await?;
            match self.rotate_key_beside(key, &others, end).await {
                Err(Failure::Outrun(_)) if attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }

    /// The same for a key, and all of its values, that have been read already.
    ///
    /// # Errors
    /// When it is revoked, it or one of them has changed since, or the store cannot be written.
    pub async fn rotate_key_beside(
        &self,
        mut key: Stored<KeyBody>,
        others: &[StoredSecret],
        end: Option<Timestamp>,
    ) -> Result<Rotated, Failure> {
        refuse_revoked(&key.id, &key.body)?;
        key.body.updated_by = Some(self.who().to_owned());
        key.body.updated_time = self.now;
        let secret = self.locksmith.format.generate(key.body.env)?;
        let revision = self.store.commit(self.rotation(&key, &secret, others, end)?).await?;
        let others = others.iter().filter(|other| other.body.not_after.is_none_or(|end| end > self.now)).count();
        Ok(Rotated { key: Stored { revision: revision.number, ..key }, secret, others })
    }

    /// The commit of a rotation. It touches the key too, so that it fails if the key is revoked at the same time.
    fn rotation(
        &self,
        key: &Stored<KeyBody>,
        secret: &Secret,
        others: &[StoredSecret],
        end: Option<Timestamp>,
    ) -> Result<Commit, Failure> {
        let ending = |other: &StoredSecret| {
            let not_after = end.filter(|end| other.body.not_after.is_none_or(|already| already > *end))?;
            let body = SecretBody { not_after: Some(not_after), ..other.body.clone() };
            let (id, expect) = (RecordId::secret(other.digest), Expect::At(other.revision));
            Some(Change { id, expect, body: Some(to_json(&body)) })
        };
        let hint = self.locksmith.format.hint(secret.reveal()).map(str::to_owned);
        let created_time = self.now;
        let body = SecretBody { key: key.id.to_string(), hint, shape: None, not_after: None, created_time };
        let mut changes = vec![
            Change { id: RecordId::key(&key.id), expect: Expect::At(key.revision), body: Some(to_json(&key.body)) },
            Change {
                id: RecordId::secret(secret.digest(&self.locksmith.pepper)),
                expect: Expect::Absent,
                body: Some(to_json(&body)),
            },
        ];
        changes.extend(others.iter().filter_map(ending));
        let detail = json!({ "target": target(&key.id), "retired": changes.len() - 2, "retire_at": end });
        if key.body.recoverable {
            changes.push(self.sealing(&key.id, secret)?);
        }
        Ok(self.entry("key.rotate", [&key.body.scope], detail, changes))
    }
}
