//! What goes when a user or a key goes: all keys below, too. They are revoked in one commit, which is final, and stay: for the
//! audit, and so that their values cannot be brought in again.

use std::collections::BTreeMap;

use serde_json::json;

use super::{address, target};
use crate::auth::grant::State;
use crate::manage::{Failure, Session, Stored, stored};
use crate::store::record::{Body, KeyBody, Kind, Record, RecordId, Subject, to_json};
use crate::store::{Change, Expect, Store};

/// Keys by their ids.
type Keys = BTreeMap<Box<str>, Stored<KeyBody>>;

/// A key that is owned or stands below another. Of a million few are: only those are worth reading.
fn related(record: Record) -> Option<Stored<KeyBody>> {
    record.body.as_deref().filter(|json| json.contains("\"owner\":") || json.contains("\"parent\":"))?;
    stored(record, Body::key)
}

impl<S: Store> Session<S> {
    /// What goes with a key, or with a user: keys of theirs, and whatever stands below one that goes. What is revoked stays as it
    /// is.
    async fn family(&self, key: Option<&Stored<KeyBody>>, user: Option<&str>) -> Result<Keys, Failure> {
        let mut going: Keys = key.map(|key| (key.id.clone(), key.clone())).into_iter().collect();
        let mut staying = self.of_kind(Kind::Key, related).await?;
        loop {
            let goes = |key: &Stored<KeyBody>| {
                let is_theirs = user.is_some() && key.body.owner.as_deref() == user;
                is_theirs || key.body.parent.as_ref().is_some_and(|parent| going.contains_key(parent))
            };
            let (more, rest): (Vec<_>, Vec<_>) = staying.into_iter().partition(goes);
            if more.is_empty() {
                going.retain(|_, key| key.body.state != State::Revoked);
                return Ok(going);
            }
            going.extend(more.into_iter().map(|key| (key.id.clone(), key)));
            staying = rest;
        }
    }

    /// The keys of a user that are not revoked.
    pub(super) async fn keys_of(&self, user: &str) -> Result<Vec<Stored<KeyBody>>, Failure> {
        let mut keys = self.of_kind(Kind::Key, related).await?;
        keys.retain(|key| key.body.owner.as_deref() == Some(user) && key.body.state != State::Revoked);
        Ok(keys)
    }

    /// The changes that revoke keys. Values that may be looked up again go.
    fn revocations(&self, keys: &Keys) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, key) in keys {
            let updated_by = Some(self.who().to_owned());
            let body = KeyBody { state: State::Revoked, updated_by, updated_time: self.now, ..key.body.clone() };
            let expect = Expect::At(key.revision);
            changes.push(Change { id: RecordId::key(id), expect, body: Some(to_json(&body)) });
            if key.body.recoverable {
                changes.push(Change { id: RecordId::new(Kind::Sealed, id), expect: Expect::Any, body: None });
            }
        }
        changes
    }

    /// Deletes a key: revokes it, and the keys below it, or nothing if these shall stay. Gives the ids of what was revoked.
    ///
    /// # Errors
    /// When there is no such key, or it is revoked already, others stand below it and shall not go too, or the store cannot be written.
    pub async fn delete_key(
        &self,
        id: &str,
        (cascade, reason): (bool, Option<&str>),
        expected: Option<u64>,
    ) -> Result<Vec<Box<str>>, Failure> {
        let key = self.key(id).await?.if_seen_at(&RecordId::key(id), expected)?;
        let family = self.family(Some(&key), None).await?;
        let below = family.keys().filter(|other| ***other != *id).count();
        if below > 0 && !cascade {
            return Err(Failure::HasKeysBelow(RecordId::key(id), below));
        }
        if family.is_empty() {
            return Err(Failure::NotFound(RecordId::key(id)));
        }
        let keys: Vec<&str> = family.keys().map(|id| &**id).collect();
        let target = json!({ "kind": "key", "id": id });
        let detail = json!({ "target": target, "keys": keys, "before": key.body, "reason": reason });
        let scopes = family.values().map(|key| &key.body.scope);
        self.store.commit(self.entry("key.delete", scopes, detail, self.revocations(&family))).await?;
        Ok(family.into_keys().collect())
    }

    /// Deletes a user; revokes all keys of theirs, and the keys below those. Gives the ids of these.
    ///
    /// # Errors
    /// When there is no such user, or the store cannot be written.
    pub async fn delete_user(&self, id: &str, expected: Option<u64>) -> Result<Vec<Box<str>>, Failure> {
        let user = self.user(id).await?.if_seen_at(&RecordId::new(Kind::User, id), expected)?;
        let family = self.family(None, Some(id)).await?;
        let mut changes = self.revocations(&family);
        let (record_id, expect) = (RecordId::new(Kind::User, id), Expect::At(user.revision));
        changes.push(Change { id: record_id, expect, body: None });
        let bindings = self.bindings().await?.into_iter();
        for binding in bindings.filter(|binding| binding.body.subject == Subject::User(id.into())) {
            let (id, expect) = (RecordId::new(Kind::Binding, &binding.id), Expect::At(binding.revision));
            changes.push(Change { id, expect, body: None });
        }
        for id in [address(&user.body.email), RecordId::new(Kind::Password, id)] {
            changes.push(Change { id, expect: Expect::Any, body: None });
        }
        let keys: Vec<&str> = family.keys().map(|id| &**id).collect();
        let detail = json!({ "target": target(id), "before": user.body, "keys": keys });
        self.store.commit(self.entry("user.delete", [&user.body.scope], detail, changes)).await?;
        Ok(family.into_keys().collect())
    }
}

#[cfg(test)]
mod tests;
