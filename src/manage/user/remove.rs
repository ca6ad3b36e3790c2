//! What goes when a user or a key goes: the keys below, the values that open them, and the roles that were bound to them.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use super::{address, target};
use crate::manage::{Failure, Session};
use crate::store::record::{Body, Kind, Record, RecordId, Subject};
use crate::store::{Change, Commit, Expect, Store};

/// Whose a key is, and below which one it stands.
type Lineage = (Option<Box<str>>, Option<Box<str>>);

/// Keys that go, and all that belongs to them.
#[derive(Default)]
struct Removal {
    /// Of the keys that are owned or stand below others.
    lineage: HashMap<Box<str>, Lineage>,
    keys: HashSet<Box<str>>,
    changes: Vec<Change>,
}

impl Removal {
    /// Takes note of a record of a full pull, in which keys come before what belongs to them.
    fn take(&mut self, record: &Record, user: Option<&str>) {
        let Some(json) = record.body.as_deref() else { return };
        match record.id.kind {
            // Of a million keys few are owned or stand below another: only those are worth reading.
            Kind::Key if json.contains("\"owner\":") || json.contains("\"parent\":") => {
                if let Ok(Body::Key(body)) = Body::parse(&record.id, json) {
                    self.lineage.insert(record.id.id.clone(), (body.owner, body.parent));
                }
            }
            Kind::Secret if key_named(json).is_none_or(|key| self.keys.contains(key)) => {
                if let Ok(Body::Secret(_, body)) = Body::parse(&record.id, json)
                    && self.keys.contains(body.key.as_str())
                {
                    self.changes.push(gone(record));
                }
            }
            Kind::Binding => {
                let Ok(Body::Binding(body)) = Body::parse(&record.id, json) else { return };
                let is_theirs = match &body.subject {
                    Subject::User(id) => user == Some(&**id),
                    Subject::Key(id) => self.keys.contains(id),
                };
                if is_theirs {
                    self.changes.push(gone(record));
                }
            }
            Kind::Scope | Kind::Role | Kind::User | Kind::Key | Kind::Secret => {}
            Kind::Password | Kind::Sealed | Kind::Unique => {}
        }
    }

    /// All keys are known: those of the user, and what stands below them, go.
    fn settle(&mut self, user: Option<&str>) {
        let owned = self.lineage.iter().filter(|(_, (owner, _))| user.is_some() && owner.as_deref() == user);
        self.keys.extend(owned.map(|(id, _)| id.clone()).collect::<Vec<_>>());
        loop {
            let is_below = |parent: &Option<Box<str>>| parent.as_ref().is_some_and(|parent| self.keys.contains(parent));
            let more = self.lineage.iter().filter(|(id, (_, parent))| is_below(parent) && !self.keys.contains(*id));
            let more: Vec<Box<str>> = more.map(|(id, _)| id.clone()).collect();
            if more.is_empty() {
                return;
            }
            self.keys.extend(more);
        }
    }
}

/// The key that the text of a value's record names, where that is seen at once: of a million values few are worth reading.
fn key_named(json: &str) -> Option<&str> {
    let (_, rest) = json.split_once("\"key\":\"")?;
    rest.split_once('"').map(|(key, _)| key).filter(|key| !key.contains('\\'))
}

fn gone(record: &Record) -> Change {
    Change { id: record.id.clone(), expect: Expect::At(record.revision), body: None }
}

impl<S: Store> Session<S> {
    /// What goes with a key, or with a user and all keys of theirs.
    async fn removal(&self, key: Option<&str>, user: Option<&str>) -> Result<Removal, Failure> {
        let mut removal = Removal { keys: key.map(Into::into).into_iter().collect(), ..Removal::default() };
        let (mut records, mut settled) = (self.store.pull(None).await?.records, false);
        while let Some(batch) = records.next().await? {
            for record in batch {
                if !settled && record.id.kind > Kind::Key {
                    removal.settle(user);
                    settled = true;
                }
                removal.take(&record, user);
            }
        }
        if !settled {
            removal.settle(user);
        }
        for key in &removal.keys {
            for id in [RecordId::key(key), RecordId::new(Kind::Sealed, key)] {
                removal.changes.push(Change { id, expect: Expect::Any, body: None });
            }
        }
        Ok(removal)
    }

    /// Deletes a key with its values and roles; the keys below it too, or not at all.
    ///
    /// # Errors
    /// When there is no such key, others stand below it and shall not go too, or the store cannot be written.
    pub async fn delete_key(
        &self,
        id: &str,
        (cascade, reason): (bool, Option<&str>),
        expected: Option<u64>,
    ) -> Result<Vec<Box<str>>, Failure> {
        let key = self.key(id).await?.if_seen_at(&RecordId::key(id), expected)?;
        let mut removal = self.removal(Some(id), None).await?;
        if removal.keys.len() > 1 && !cascade {
            return Err(Failure::HasKeysBelow(RecordId::key(id), removal.keys.len() - 1));
        }
        // So that it fails if the key is changed at the same time.
        for change in removal.changes.iter_mut().filter(|change| change.id == RecordId::key(id)) {
            change.expect = Expect::At(key.revision);
        }
        let mut keys: Vec<Box<str>> = removal.keys.into_iter().collect();
        keys.sort_unstable();
        let detail =
            json!({ "target": { "kind": "key", "id": id }, "keys": keys, "before": key.body, "reason": reason });
        let (actor, changes) = (self.actor.clone(), removal.changes);
        self.store.commit(Commit { actor, action: "key.delete", detail, changes }).await?;
        Ok(keys)
    }

    /// Deletes a user with all keys of theirs, and the keys below those.
    ///
    /// # Errors
    /// When there is no such user, or the store cannot be written.
    pub async fn delete_user(&self, id: &str, expected: Option<u64>) -> Result<Vec<Box<str>>, Failure> {
        let user = self.user(id).await?.if_seen_at(&RecordId::new(Kind::User, id), expected)?;
        let Removal { keys, mut changes, .. } = self.removal(None, Some(id)).await?;
        let (record_id, expect) = (RecordId::new(Kind::User, id), Expect::At(user.revision));
        changes.push(Change { id: record_id, expect, body: None });
        for id in [address(&user.body.email), RecordId::new(Kind::Password, id)] {
            changes.push(Change { id, expect: Expect::Any, body: None });
        }
        let mut keys: Vec<Box<str>> = keys.into_iter().collect();
        keys.sort_unstable();
        let detail = json!({ "target": target(id), "before": user.body, "keys": keys });
        self.store.commit(Commit { actor: self.actor.clone(), action: "user.delete", detail, changes }).await?;
        Ok(keys)
    }
}
