//! What lists and look-ups of the API are answered from. Of keys, of which there may be a million, the replica tells which there
//! are, in the order of their ids, so that all stores page alike; what is answered of them is read from the store
//! (`key_records.rs`). The other records are few: they are here, fed by pulls, and whoever has written waits until what was
//! written is here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::auth::scope::Scope;
use crate::manage::authority::{Held, View};
use crate::manage::{Stored, with_all_above};
use crate::replica::{Directory, KeysInOrder, Replica};
use crate::store::record::{BindingBody, Body, Kind, Record, RecordId, RoleBody, ScopeState, Subject, UserBody};
use crate::store::{Revision, Store, StoreError};

/// How long to wait after a pull that failed.
const BACKOFF: Duration = Duration::from_millis(500);

/// The kinds of which all records are here.
const FEW: [Kind; 4] = [Kind::Scope, Kind::Role, Kind::User, Kind::Binding];

/// The records, and where the keys are.
pub(super) struct Index {
    replica: Arc<Replica>,
    keys: Mutex<Directory>,
    state: RwLock<State>,
    /// The number of the revision that is here, if anything is.
    revision: watch::Sender<Option<u64>>,
    asked: Notify,
}

#[derive(Default)]
struct State {
    head: Option<Revision>,
    records: BTreeMap<RecordId, Entry>,
    /// The bindings of each subject, by their ids: they are looked for with each request.
    bound: HashMap<Subject, BTreeSet<Box<str>>>,
}

struct Entry {
    revision: u64,
    body: Box<str>,
}

impl State {
    fn take(&mut self, record: Record) {
        if let Some(old) = self.records.remove(&record.id)
            && let Some(subject) = subject_of(&record.id, &old.body)
            && let Some(bindings) = self.bound.get_mut(&subject)
        {
            bindings.remove(&record.id.id);
            if bindings.is_empty() {
                self.bound.remove(&subject);
            }
        }
        let Some(body) = record.body else { return };
        if let Some(subject) = subject_of(&record.id, &body) {
            self.bound.entry(subject).or_default().insert(record.id.id.clone());
        }
        self.records.insert(record.id, Entry { revision: record.revision, body });
    }
}

/// Who has a role by a record, if it is a binding.
fn subject_of(id: &RecordId, body: &str) -> Option<Subject> {
    if id.kind != Kind::Binding {
        return None;
    }
    match Body::parse(id, body) {
        Ok(Body::Binding(body)) => Some(body.subject),
        Ok(_) | Err(_) => None,
    }
}

impl Index {
    /// Over the keys of a replica; nothing else is here yet.
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        let (keys, state, revision) = (Mutex::default(), RwLock::default(), watch::Sender::new(None));
        Self { replica, keys, state, revision, asked: Notify::new() }
    }

    /// Follows a store for ever: pulls when the replica has moved on, and when somebody asks. Until the first question it
    /// holds nothing: most processes are never asked.
    pub(super) async fn follow(self: Arc<Self>, store: impl Store, mut applied: watch::Receiver<Option<Revision>>) {
        self.asked.notified().await;
        loop {
            let pulled = self.pull(&store).await;
            if let Err(error) = &pulled {
                tracing::debug!(%error, "the index of the management API cannot be brought up to date");
            }
            tokio::select! {
                () = self.asked.notified() => {}
                changed = applied.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(BACKOFF), if pulled.is_err() => {}
            }
        }
    }

    async fn pull(&self, store: &impl Store) -> Result<(), StoreError> {
        let news = match self.read(|state| state.head) {
            Some(since) => Some(store.pull(Some(since)).await?).filter(|pull| !pull.full),
            None => None,
        };
        let revision = match news {
            Some(pull) => {
                let records = pull.records.collect().await?;
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                let few = records.into_iter().filter(|record| FEW.contains(&record.id.kind));
                few.for_each(|record| state.take(record));
                state.head = Some(pull.revision);
                pull.revision
            }
            None => {
                let (revision, records) = store.of_kinds(&FEW).await?;
                let mut new = State { head: Some(revision), ..State::default() };
                records.into_iter().for_each(|record| new.take(record));
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = new;
                revision
            }
        };
        self.revision.send_replace(Some(revision.number));
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves once a revision is here.
    pub(super) async fn reached(&self, number: u64) {
        let mut revision = self.revision.subscribe();
        let is_there = |here: &Option<u64>| here.is_some_and(|here| here >= number);
        if !is_there(&revision.borrow_and_update()) {
            self.asked.notify_one();
            let _ = revision.wait_for(is_there).await;
        }
    }

    /// One user.
    pub(super) fn stored_user(&self, id: &str) -> Option<Stored<UserBody>> {
        match self.body(&RecordId::new(Kind::User, id))? {
            (revision, Body::User(body)) => Some(Stored { id: id.into(), revision, body }),
            _ => None,
        }
    }

    /// One record, if it can be read.
    pub(super) fn body(&self, id: &RecordId) -> Option<(u64, Body)> {
        let (revision, json) =
            self.read(|state| state.records.get(id).map(|entry| (entry.revision, entry.body.clone())))?;
        Some((revision, Body::parse(id, &json).ok()?))
    }

    /// Looks at the keys.
    pub(super) fn with_keys<T>(&self, look: impl FnOnce(&KeysInOrder<'_>) -> T) -> T {
        let mut directory = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        look(&self.replica.keys(&mut directory))
    }

    /// Whether keys were made below that one.
    pub(super) fn has_keys_below(&self, key: &str) -> bool {
        self.with_keys(|keys| keys.has_below(key))
    }

    /// Up to `limit` records of a kind with ids after `after` that `wanted` makes something of, and whether there are more.
    pub(super) fn page<T>(
        &self,
        kind: Kind,
        after: &str,
        limit: usize,
        mut wanted: impl FnMut(&str, u64, Body) -> Option<T>,
    ) -> (Vec<T>, bool) {
        self.read(|state| {
            let mut found = Vec::new();
            let start = RecordId { kind, id: after.into() };
            for (id, entry) in state.records.range((Bound::Excluded(start), Bound::Unbounded)) {
                if id.kind != kind {
                    break;
                }
                let Some(item) =
                    Body::parse(id, &entry.body).ok().and_then(|body| wanted(&id.id, entry.revision, body))
                else {
                    continue;
                };
                if found.len() == limit {
                    return (found, true);
                }
                found.push(item);
            }
            (found, false)
        })
    }
}

/// Authority is read from here.
impl View for Index {
    fn user(&self, id: &str) -> Option<UserBody> {
        self.stored_user(id).map(|user| user.body)
    }

    fn key(&self, id: &str) -> Option<Held> {
        self.with_keys(|keys| {
            keys.find(id).map(|key| Held {
                scope: key.scope.cloned(),
                access: key.access,
                state: key.state,
                expires_at: key.expires_at,
                owner: key.owner.map(Box::from),
                parent: key.parent.map(Box::from),
            })
        })
    }

    fn role(&self, name: &str) -> Option<RoleBody> {
        match self.body(&RecordId::new(Kind::Role, name))? {
            (_, Body::Role(body)) => Some(body),
            _ => None,
        }
    }

    fn bindings(&self, subject: &Subject) -> Vec<BindingBody> {
        let ids = self.read(|state| state.bound.get(subject).cloned().unwrap_or_default());
        let binding = |id: Box<str>| match self.body(&RecordId { kind: Kind::Binding, id })? {
            // What was bound to somebody else a moment ago is not theirs.
            (_, Body::Binding(binding)) if binding.subject == *subject => Some(binding),
            _ => None,
        };
        ids.into_iter().filter_map(binding).collect()
    }

    fn is_active(&self, scope: &Scope) -> bool {
        with_all_above(scope).iter().all(|scope| {
            let found = self.body(&RecordId::scope(scope));
            matches!(found, Some((_, Body::Scope(_, body))) if body.state == ScopeState::Active)
        })
    }
}

#[cfg(test)]
mod tests;
