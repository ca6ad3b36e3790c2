//! What a change of records is, once for the command line and the management API: both say what they want, here it becomes
//! one commit with its audit entry, or a [`Failure`] that says why not. Nothing here knows of terminals or of HTTP.

pub mod authority;
pub mod escalation;
mod failure;
pub mod import;
pub mod key;
pub mod password;
mod read;
pub mod role;
pub mod rotate;
pub mod scope;
mod sealed;
pub mod sweep;
#[cfg(test)]
pub(crate) mod testing;
pub mod usage;
pub mod user;
pub mod values;
pub mod wait;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

pub use self::failure::{Failure, Mistake};
pub use self::read::{Everything, StoredSecret, with_all_above};
use crate::auth::Locksmith;
use crate::auth::grant::Timestamp;
use crate::auth::scope::Scope;
use crate::store::record::{Body, Record, RecordId};
use crate::store::{Change, Commit};

/// How often a change is tried when others change the same record.
pub const ATTEMPTS: usize = 3;

/// What a change works with.
pub struct Session<S> {
    /// Where the records are.
    pub store: S,
    /// How secrets are made and digested.
    pub locksmith: Arc<Locksmith>,
    /// Who the audit will say it was.
    pub actor: String,
    /// When the change was asked for.
    pub now: Timestamp,
}

impl<S> Session<S> {
    /// As records say who made or changed them: by id alone where it is a user or a key (V17).
    pub fn who(&self) -> &str {
        who(&self.actor)
    }
}

impl<S> Session<S> {
    /// A commit with its audit entry. It concerns these scopes, and is read by those who may read the audit of all of them: where
    /// what it is about was before, and where it is after; `None` is the whole domain.
    fn entry<'s>(
        &self,
        action: &'static str,
        concerned: impl IntoIterator<Item = &'s Option<Scope>>,
        mut detail: Value,
        changes: Vec<Change>,
    ) -> Commit {
        let scopes: BTreeSet<&Option<Scope>> = concerned.into_iter().collect();
        detail["scopes"] = json!(scopes);
        Commit { actor: self.actor.clone(), action, detail, changes }
    }
}

/// Of an actor such as `key:ID`, the id.
fn who(actor: &str) -> &str {
    ["key:", "user:"].into_iter().find_map(|kind| actor.strip_prefix(kind)).unwrap_or(actor)
}

/// The fields in which two bodies differ, as they were and as they will be; who and when is in the audit anyway.
fn difference<B: Serialize>(before: &B, after: &B) -> (Map<String, Value>, Map<String, Value>) {
    let fields = |body: &B| match serde_json::to_value(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    let (before, after) = (fields(before), fields(after));
    let names = before.keys().chain(after.keys()).filter(|name| !name.starts_with("updated_"));
    let changed = names.filter(|name| before.get(*name) != after.get(*name));
    let get = |fields: &Map<String, Value>, name: &String| fields.get(name).cloned().unwrap_or(Value::Null);
    changed.map(|name| ((name.clone(), get(&before, name)), (name.clone(), get(&after, name)))).unzip()
}

/// A record of one kind, its body read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stored<B> {
    /// Its id within its kind.
    pub id: Box<str>,
    /// The revision that last touched it.
    pub revision: u64,
    /// What it is.
    #[serde(flatten)]
    pub body: B,
}

/// A record as one of a kind, if it is one and can be read.
fn stored<B>(record: Record, body: impl Fn(Body) -> Option<B>) -> Option<Stored<B>> {
    let body = body(Body::parse(&record.id, record.body.as_deref()?).ok()?)?;
    Some(Stored { id: record.id.id, revision: record.revision, body })
}

impl<B> Stored<B> {
    /// Itself, if nobody has changed it since a revision that somebody has seen. What is written then expects it to be as it is
    /// here, so that it holds for the commit too.
    fn if_seen_at(self, id: &RecordId, seen: Option<u64>) -> Result<Self, Failure> {
        match seen {
            Some(seen) if seen != self.revision => Err(Failure::Outrun(id.clone())),
            Some(_) | None => Ok(self),
        }
    }
}
