//! What the commands read from a store and write to it: records with their bodies read, scopes with all above them, and
//! changes of keys that start over when somebody else was quicker.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::exit::Failure;
use super::key::escalation;
use crate::auth::Locksmith;
use crate::auth::digest::Digest;
use crate::auth::grant::Timestamp;
use crate::auth::scope::Scope;
use crate::store::record::{Body, KeyBody, Record, RecordId, ScopeBody, ScopeState, SecretBody, to_json};
use crate::store::{Change, Commit, CommitError, Expect, Pull, Revision, Store};

/// How often a change is tried when others change the same record.
pub(crate) const ATTEMPTS: usize = 3;

/// What a command works with.
pub(crate) struct Session<S> {
    /// Where the records are.
    pub(crate) store: S,
    /// How secrets are made and digested.
    pub(crate) locksmith: Arc<Locksmith>,
    /// Who the audit will say it was.
    pub(crate) actor: String,
    /// When the command was given.
    pub(crate) now: Timestamp,
}

/// A record of one kind, its body read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stored<B> {
    /// Its id within its kind.
    pub(crate) id: Box<str>,
    /// The revision that last touched it.
    pub(crate) revision: u64,
    /// What it is.
    #[serde(flatten)]
    pub(crate) body: B,
}

/// Everything in a store that a command may want to show.
pub(crate) struct Everything {
    /// The head that all of it is consistent with.
    pub(crate) revision: Revision,
    /// The keys, in the order of their ids.
    pub(crate) keys: Vec<Stored<KeyBody>>,
    /// The scopes, those above before those below.
    pub(crate) scopes: BTreeMap<Scope, Stored<ScopeBody>>,
    /// How many secrets there are.
    pub(crate) secrets: usize,
    /// What could not be read, and why.
    pub(crate) unreadable: Vec<String>,
}

impl Everything {
    /// Whether a key without a scope, or within this one, can work at all.
    pub(crate) fn is_active(&self, scope: Option<&Scope>) -> bool {
        let works = |scope: &Scope| self.scopes.get(scope).is_some_and(|s| s.body.state == ScopeState::Active);
        scope.is_none_or(|scope| with_all_above(scope).iter().all(works))
    }

    fn take(&mut self, record: Record) {
        let Some(json) = record.body else { return };
        match Body::parse(&record.id, &json) {
            Ok(Body::Key(body)) => self.keys.push(Stored { id: record.id.id, revision: record.revision, body }),
            Ok(Body::Scope(scope, body)) => {
                self.scopes.insert(scope, Stored { id: record.id.id, revision: record.revision, body });
            }
            Ok(Body::Secret(..)) => self.secrets += 1,
            Err(unreadable) => self.unreadable.push(unreadable.to_string()),
        }
    }
}

/// A value that opens a key, with what is needed to change its record.
pub(crate) struct StoredSecret {
    /// What its record is known by; never shown.
    pub(crate) digest: Digest,
    /// The revision that last touched it.
    pub(crate) revision: u64,
    /// What may be shown of it.
    pub(crate) body: SecretBody,
}

/// What became of a change.
pub(crate) enum Changed {
    /// It was made.
    Yes {
        /// The key as it is now.
        key: Stored<KeyBody>,
        /// The fields that changed, as they are now.
        fields: Map<String, Value>,
    },
    /// The key was like that already.
    No(Stored<KeyBody>),
}

impl Changed {
    /// The key as it is now.
    pub(crate) fn key(&self) -> &Stored<KeyBody> {
        match self {
            Self::Yes { key, .. } | Self::No(key) => key,
        }
    }
}

impl<S: Store> Session<S> {
    /// All that lives in the store.
    pub(crate) async fn everything(&self) -> Result<Everything, Failure> {
        let Pull { revision, mut records, .. } = self.store.pull(None).await?;
        let (keys, scopes, unreadable) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut everything = Everything { revision, keys, scopes, secrets: 0, unreadable };
        while let Some(batch) = records.next().await? {
            batch.into_iter().for_each(|record| everything.take(record));
        }
        everything.keys.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(everything)
    }

    /// One key.
    pub(crate) async fn key(&self, id: &str) -> Result<Stored<KeyBody>, Failure> {
        let (_, record) = self.store.get(&RecordId::key(id)).await?;
        let missing = || match self.locksmith.format.parse(id.as_bytes()) {
            None => Failure::NotFound(format!("no key {id}; `keyward key list` shows all")),
            // A value on the command line is bad enough; it is not repeated in a log of errors.
            Some(_) => {
                Failure::NotFound("no such key, and the id looks like a value; `keyward key list` shows ids".into())
            }
        };
        let record = record.ok_or_else(missing)?;
        match Body::parse(&record.id, record.body.as_deref().ok_or_else(missing)?) {
            Ok(Body::Key(body)) => Ok(Stored { id: record.id.id, revision: record.revision, body }),
            Ok(Body::Scope(..) | Body::Secret(..)) => Err(missing()),
            Err(unreadable) => Err(Failure::Failed(unreadable.to_string())),
        }
    }

    /// The values that open a key, in the order in which they were made.
    pub(crate) async fn secrets_of(&self, id: &str) -> Result<Vec<StoredSecret>, Failure> {
        let mut records = self.store.pull(None).await?.records;
        let mut secrets = Vec::new();
        while let Some(batch) = records.next().await? {
            for record in batch {
                // Of a million secrets few are this key's; only those that name it are worth reading.
                let Some(json) = record.body.filter(|json| json.contains(id)) else { continue };
                if let Ok(Body::Secret(digest, body)) = Body::parse(&record.id, &json)
                    && body.key == id
                {
                    secrets.push(StoredSecret { digest, revision: record.revision, body });
                }
            }
        }
        secrets.sort_by_key(|secret| secret.body.created_time);
        Ok(secrets)
    }

    /// Those of a scope and all above it that are not in the store, from the top down.
    pub(crate) async fn missing_scopes(&self, scope: Option<&Scope>) -> Result<Vec<Scope>, Failure> {
        let mut missing = Vec::new();
        for scope in scope.map(with_all_above).unwrap_or_default() {
            let (_, record) = self.store.get(&RecordId::scope(&scope)).await?;
            if record.is_none_or(|record| record.body.is_none()) {
                missing.push(scope);
            }
        }
        Ok(missing)
    }

    /// The change that makes a scope.
    pub(crate) fn new_scope(&self, scope: &Scope) -> Change {
        let body = ScopeBody { state: ScopeState::Active, created_time: self.now };
        Change { id: RecordId::scope(scope), expect: Expect::Absent, body: Some(to_json(&body)) }
    }

    /// Changes a key: reads it, edits it, and writes it if nobody was quicker, else starts over.
    pub(crate) async fn change_key(
        &self,
        id: &str,
        (action, reason): (&'static str, Option<&str>),
        edit: impl Fn(&mut KeyBody) -> Result<(), Failure>,
    ) -> Result<Changed, Failure> {
        let mut attempt = 1;
        loop {
            let before = self.key(id).await?;
            let mut body = before.body.clone();
            edit(&mut body)?;
            if body == before.body {
                return Ok(Changed::No(before));
            }
            body.updated_by = Some(self.actor.clone());
            body.updated_time = self.now;
            let (detail, fields) = audit_of(&before, &body, reason);
            let changes = self.changes_of(&before, &body).await?;
            match self.store.commit(Commit { actor: self.actor.clone(), action, detail, changes }).await {
                Ok(revision) => {
                    let key = Stored { id: before.id, revision: revision.number, body };
                    return Ok(Changed::Yes { key, fields });
                }
                Err(CommitError::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The changes that give a key another body, and make its scope if that is new.
    async fn changes_of(&self, before: &Stored<KeyBody>, body: &KeyBody) -> Result<Vec<Change>, Failure> {
        let moved = body.scope.as_ref().filter(|scope| before.body.scope.as_ref() != Some(scope));
        let scopes = self.missing_scopes(moved).await?;
        let mut changes: Vec<Change> = scopes.iter().map(|scope| self.new_scope(scope)).collect();
        let (id, expect) = (RecordId::key(&before.id), Expect::At(before.revision));
        changes.push(Change { id, expect, body: Some(to_json(body)) });
        Ok(changes)
    }
}

/// What the audit says of a change, and the fields that changed as they will be.
fn audit_of(before: &Stored<KeyBody>, after: &KeyBody, reason: Option<&str>) -> (Value, Map<String, Value>) {
    let (old, new) = difference(&before.body, after);
    let mut detail = json!({ "target": target(&before.id), "before": old, "after": new });
    if escalation::widens(&before.body, after) {
        detail["escalation"] = Value::Bool(true);
    }
    if let Some(reason) = reason {
        detail["reason"] = reason.into();
    }
    (detail, new)
}

/// What an audit entry says it is about.
pub(crate) fn target(id: &str) -> Value {
    json!({ "kind": "key", "id": id })
}

/// A scope and all above it, from the top down.
pub(crate) fn with_all_above(scope: &Scope) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = std::iter::successors(Some(scope.clone()), Scope::parent).collect();
    scopes.reverse();
    scopes
}

/// The fields in which two bodies differ, as they were and as they will be; who and when is in the audit anyway.
fn difference(before: &KeyBody, after: &KeyBody) -> (Map<String, Value>, Map<String, Value>) {
    let fields = |body| match serde_json::to_value(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    let names = before.keys().chain(after.keys()).filter(|name| !name.starts_with("updated_"));
    let changed = names.filter(|name| before.get(*name) != after.get(*name));
    let get = |fields: &Map<String, Value>, name: &String| fields.get(name).cloned().unwrap_or(Value::Null);
    changed.map(|name| ((name.clone(), get(&before, name)), (name.clone(), get(&after, name)))).unzip()
}
