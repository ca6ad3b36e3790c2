//! Records of keys and of their values, as they are in the store now. Which there are, the replica tells, a moment late; what a
//! caller may see of them is decided by what was read, and where it cannot be read, that is the answer.

use std::collections::{HashMap, HashSet};

use super::api::Request;
use super::envelope::Trouble;
use crate::auth::digest::Digest;
use crate::auth::grant::State;
use crate::auth::scope::Scope;
use crate::manage::{Failure, Stored, StoredSecret};
use crate::replica::KeyEntry;
use crate::store::Store as _;
use crate::store::record::{Body, KeyBody, Record, RecordId};

/// What keys are chosen by, as the replica knows it and as the store has it.
pub(super) struct Traits<'k> {
    /// What people call it.
    pub(super) name: &'k str,
    /// Where it acts; everywhere if absent.
    pub(super) scope: Option<&'k Scope>,
    /// Its state.
    pub(super) state: State,
}

impl<'k> From<&KeyEntry<'k>> for Traits<'k> {
    fn from(key: &KeyEntry<'k>) -> Self {
        Self { name: key.name, scope: key.scope, state: key.state }
    }
}

impl<'k> From<&'k KeyBody> for Traits<'k> {
    fn from(key: &'k KeyBody) -> Self {
        Self { name: &key.name, scope: key.scope.as_ref(), state: key.state }
    }
}

/// A page of keys.
pub(super) struct KeyPage {
    /// The keys, by their ids.
    pub(super) keys: Vec<Stored<KeyBody>>,
    /// Where the next page begins, if there is one.
    pub(super) next: Option<Box<str>>,
}

impl Request<'_> {
    /// A key.
    pub(super) async fn key(&self, id: &str) -> Result<Option<Stored<KeyBody>>, Trouble> {
        let (_, record) = self.api.store.get(&RecordId::key(id)).await.map_err(Failure::Store)?;
        Ok(record.and_then(as_key))
    }

    /// The key that a value opens.
    pub(super) async fn key_of(&self, digest: Digest) -> Result<Option<Stored<KeyBody>>, Trouble> {
        let (_, record) = self.api.store.get(&RecordId::secret(digest)).await.map_err(Failure::Store)?;
        match record.and_then(as_secret) {
            Some(secret) => self.key(&secret.body.key).await,
            None => Ok(None),
        }
    }

    /// Up to `limit` keys with ids after `after` that are wanted.
    pub(super) async fn keys(
        &self,
        (after, limit): (&str, usize),
        wanted: impl Fn(&Traits<'_>) -> bool,
    ) -> Result<KeyPage, Trouble> {
        let mut ids: Vec<RecordId> = self.api.index.with_keys(|keys| {
            let ids = keys.page(after, limit.saturating_add(1), |key| wanted(&key.into()));
            ids.into_iter().map(RecordId::key).collect()
        });
        let more = ids.len() > limit;
        ids.truncate(limit);
        let mut keys = self.keys_by(&ids).await?;
        keys.retain(|key| wanted(&(&key.body).into()));
        Ok(KeyPage { keys, next: ids.pop().filter(|_| more).map(|last| last.id) })
    }

    async fn keys_by(&self, ids: &[RecordId]) -> Result<Vec<Stored<KeyBody>>, Trouble> {
        let records = self.api.store.get_all(ids).await.map_err(Failure::Store)?;
        let mut keys: Vec<Stored<KeyBody>> = records.into_iter().filter_map(as_key).collect();
        keys.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(keys)
    }

    /// The values of a key, in the order in which they were made.
    pub(super) async fn secrets_of(&self, key: &str) -> Result<Vec<StoredSecret>, Trouble> {
        let secrets = self.secrets_by_key(&HashSet::from([key])).await?;
        Ok(secrets.into_values().next().unwrap_or_default())
    }

    /// The values of some keys, each in the order in which they were made.
    pub(super) async fn secrets_by_key(
        &self,
        keys: &HashSet<&str>,
    ) -> Result<HashMap<Box<str>, Vec<StoredSecret>>, Trouble> {
        let ids: Vec<RecordId> =
            self.api.index.with_keys(|index| index.secrets_of(keys).into_iter().map(RecordId::secret).collect());
        let records = self.api.store.get_all(&ids).await.map_err(Failure::Store)?;
        let mut found: HashMap<Box<str>, Vec<StoredSecret>> = HashMap::new();
        for secret in records.into_iter().filter_map(as_secret) {
            if keys.contains(secret.body.key.as_str()) {
                found.entry(secret.body.key.as_str().into()).or_default().push(secret);
            }
        }
        found.values_mut().for_each(|secrets| secrets.sort_by_key(|secret| secret.body.created_time));
        Ok(found)
    }

    /// The keys that some users own, by their ids.
    pub(super) async fn keys_owned_by(&self, users: &HashSet<&str>) -> Result<Vec<Stored<KeyBody>>, Trouble> {
        let ids: Vec<RecordId> =
            self.api.index.with_keys(|keys| keys.owned_by(users).into_iter().map(RecordId::key).collect());
        let mut keys = self.keys_by(&ids).await?;
        keys.retain(|key| key.body.owner.as_deref().is_some_and(|owner| users.contains(owner)));
        Ok(keys)
    }
}

/// A record as a key, if it is one that can be read.
fn as_key(record: Record) -> Option<Stored<KeyBody>> {
    let body = Body::parse(&record.id, record.body.as_deref()?).ok()?.key()?;
    Some(Stored { id: record.id.id, revision: record.revision, body })
}

/// A record as a value that opens a key, if it is one that can be read.
fn as_secret(record: Record) -> Option<StoredSecret> {
    let (digest, body) = Body::parse(&record.id, record.body.as_deref()?).ok()?.secret()?;
    Some(StoredSecret { digest, revision: record.revision, body })
}

#[cfg(test)]
mod tests;
