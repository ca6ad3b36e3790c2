//! What changes are made of: records with their bodies read, and scopes with all above them.

use std::collections::BTreeMap;

use super::{Failure, Session, Stored};
use crate::auth::digest::Digest;
use crate::auth::scope::Scope;
use crate::store::record::{Body, KeyBody, Kind, Record, RecordId, ScopeBody, ScopeState, SecretBody, to_json};
use crate::store::{Change, Expect, Pull, Revision, Store};

/// Everything in a store that a command may want to show.
pub struct Everything {
    /// The head that all of it is consistent with.
    pub revision: Revision,
    /// The keys, in the order of their ids.
    pub keys: Vec<Stored<KeyBody>>,
    /// The scopes, those above before those below.
    pub scopes: BTreeMap<Scope, Stored<ScopeBody>>,
    /// How many secrets there are.
    pub secrets: usize,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

impl Everything {
    fn take(&mut self, record: Record) {
        let Some(json) = record.body else { return };
        match Body::parse(&record.id, &json) {
            Ok(Body::Key(body)) => self.keys.push(Stored { id: record.id.id, revision: record.revision, body }),
            Ok(Body::Scope(scope, body)) => {
                self.scopes.insert(scope, Stored { id: record.id.id, revision: record.revision, body });
            }
            Ok(Body::Secret(..)) => self.secrets += 1,
            Ok(_) => {}
            Err(unreadable) => self.unreadable.push(unreadable.to_string()),
        }
    }
}

/// A value that opens a key, with what is needed to change its record.
pub struct StoredSecret {
    /// What its record is known by; never shown.
    pub digest: Digest,
    /// The revision that last touched it.
    pub revision: u64,
    /// What may be shown of it.
    pub body: SecretBody,
}

impl<S: Store> Session<S> {
    /// All that lives in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn everything(&self) -> Result<Everything, Failure> {
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
    ///
    /// # Errors
    /// When there is none, or its record or the store cannot be read.
    pub async fn key(&self, id: &str) -> Result<Stored<KeyBody>, Failure> {
        let (_, record) = self.store.get(&RecordId::key(id)).await?;
        let missing = || match self.locksmith.format.parse(id.as_bytes()) {
            None => Failure::NotFound(RecordId::key(id)),
            // A value where an id belongs is bad enough; it is not repeated in a log of errors.
            Some(_) => Failure::LooksLikeValue,
        };
        let record = record.ok_or_else(missing)?;
        let Body::Key(body) = Body::parse(&record.id, record.body.as_deref().ok_or_else(missing)?)? else {
            return Err(missing());
        };
        Ok(Stored { id: record.id.id, revision: record.revision, body })
    }

    /// The values that open a key, in the order in which they were made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn secrets_of(&self, id: &str) -> Result<Vec<StoredSecret>, Failure> {
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

    /// All records of a kind that can be read, in the order of their ids.
    pub(super) async fn of_kind<B>(
        &self,
        kind: Kind,
        parsed: impl Fn(Record) -> Option<Stored<B>>,
    ) -> Result<Vec<Stored<B>>, Failure> {
        let mut records = self.store.pull(None).await?.records;
        let mut found = Vec::new();
        while let Some(batch) = records.next().await? {
            found.extend(batch.into_iter().filter(|record| record.id.kind == kind).filter_map(&parsed));
        }
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Those of a scope and all above it that are not in the store, from the top down.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn missing_scopes(&self, scope: Option<&Scope>) -> Result<Vec<Scope>, Failure> {
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
    pub fn new_scope(&self, scope: &Scope) -> Change {
        let body = ScopeBody { state: ScopeState::Active, created_time: self.now };
        Change { id: RecordId::scope(scope), expect: Expect::Absent, body: Some(to_json(&body)) }
    }
}

/// A scope and all above it, from the top down.
pub fn with_all_above(scope: &Scope) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = std::iter::successors(Some(scope.clone()), Scope::parent).collect();
    scopes.reverse();
    scopes
}
