//! What lists and look-ups of the API are answered from: every record that is replicated, in the order of its id, so that all
//! stores page alike. It is fed by pulls, and whoever has written waits until it has what was written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::auth::digest::Digest;
use crate::auth::scope::Scope;
use crate::manage::authority::View;
use crate::manage::{Stored, StoredSecret, with_all_above};
use crate::store::record::{
    BindingBody, Body, KeyBody, Kind, Record, RecordId, RoleBody, ScopeState, Subject, UserBody,
};
use crate::store::{Revision, Store, StoreError};

/// How long to wait after a pull that failed.
const BACKOFF: Duration = Duration::from_millis(500);

/// The records.
pub(super) struct Index {
    state: RwLock<State>,
    /// The number of the revision that is here, if anything is.
    revision: watch::Sender<Option<u64>>,
    asked: Notify,
}

impl Default for Index {
    fn default() -> Self {
        Self { state: RwLock::default(), revision: watch::Sender::new(None), asked: Notify::new() }
    }
}

#[derive(Default)]
struct State {
    head: Option<Revision>,
    records: BTreeMap<RecordId, Entry>,
    /// The digests of each key, as ids of their records.
    secrets: HashMap<Box<str>, Vec<Box<str>>>,
    /// The keys of each user, by their ids.
    owned: HashMap<Box<str>, BTreeSet<Box<str>>>,
}

struct Entry {
    revision: u64,
    body: Box<str>,
}

impl State {
    fn take(&mut self, record: Record) {
        if let Some(old) = self.records.remove(&record.id) {
            if record.id.kind == Kind::Secret
                && let Some(key) = key_of(&record.id, &old.body)
                && let Some(secrets) = self.secrets.get_mut(&key)
            {
                secrets.retain(|secret| *secret != record.id.id);
            }
            if let Some(owner) = owner_of(&record.id, &old.body)
                && let Some(keys) = self.owned.get_mut(&owner)
            {
                keys.remove(&record.id.id);
            }
        }
        let Some(body) = record.body else { return };
        if let Some(owner) = owner_of(&record.id, &body) {
            self.owned.entry(owner).or_default().insert(record.id.id.clone());
        }
        if record.id.kind == Kind::Secret
            && let Some(key) = key_of(&record.id, &body)
        {
            self.secrets.entry(key).or_default().push(record.id.id.clone());
        }
        self.records.insert(record.id, Entry { revision: record.revision, body });
    }
}

fn key_of(id: &RecordId, body: &str) -> Option<Box<str>> {
    match Body::parse(id, body) {
        Ok(Body::Secret(_, body)) => Some(body.key.into()),
        Ok(_) | Err(_) => None,
    }
}

/// The user whose a key is. Few keys are anybody's: looking for the field is cheaper than reading all of them.
fn owner_of(id: &RecordId, body: &str) -> Option<Box<str>> {
    if id.kind != Kind::Key || !body.contains("\"owner\":") {
        return None;
    }
    match Body::parse(id, body) {
        Ok(Body::Key(body)) => body.owner,
        Ok(_) | Err(_) => None,
    }
}

impl Index {
    /// Follows a store for ever: pulls when the replica has moved on, and when somebody asks. Until the first question it
    /// holds nothing: whole records are three times what the replica needs, and most processes are never asked.
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
        let since = self.read(|state| state.head);
        let pull = store.pull(since).await?;
        let (revision, full) = (pull.revision, pull.full);
        let mut new = State::default();
        let mut records = pull.records;
        let mut delta = Vec::new();
        while let Some(batch) = records.next().await? {
            if full {
                batch.into_iter().for_each(|record| new.take(record));
                tokio::task::yield_now().await;
            } else {
                delta.extend(batch);
            }
        }
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if full {
                *state = new;
            }
            delta.into_iter().for_each(|record| state.take(record));
            state.head = Some(revision);
        }
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

    /// Makes sure that what others have written meanwhile is seen.
    pub(super) async fn refresh(&self) {
        let mut revision = self.revision.subscribe();
        revision.mark_unchanged();
        self.asked.notify_one();
        let _ = revision.changed().await;
    }

    /// One key.
    pub(super) fn key(&self, id: &str) -> Option<Stored<KeyBody>> {
        match self.body(&RecordId::key(id))? {
            (revision, Body::Key(body)) => Some(Stored { id: id.into(), revision, body }),
            _ => None,
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

    /// The values of a key, in the order in which they were made.
    pub(super) fn secrets_of(&self, key: &str) -> Vec<StoredSecret> {
        let ids = self.read(|state| state.secrets.get(key).cloned().unwrap_or_default());
        let secret = |id: Box<str>| match self.body(&RecordId { kind: Kind::Secret, id })? {
            (revision, Body::Secret(digest, body)) => Some(StoredSecret { digest, revision, body }),
            _ => None,
        };
        let mut secrets: Vec<StoredSecret> = ids.into_iter().filter_map(secret).collect();
        secrets.sort_by_key(|secret| secret.body.created_time);
        secrets
    }

    /// The keys of a user.
    pub(super) fn keys_of(&self, user: &str) -> Vec<Stored<KeyBody>> {
        let ids = self.read(|state| state.owned.get(user).cloned().unwrap_or_default());
        ids.iter().filter_map(|id| self.key(id)).collect()
    }

    /// Whether keys were made below that one.
    pub(super) fn has_keys_below(&self, key: &str) -> bool {
        // Bodies are our own JSON, and few have the field: looking for its text is a tenth of reading a million of them.
        let needle = format!("\"parent\":{}", serde_json::Value::from(key));
        let keys = (Bound::Included(RecordId::new(Kind::Key, "")), Bound::Unbounded);
        self.read(|state| {
            let mut keys = state.records.range(keys).take_while(|(id, _)| id.kind == Kind::Key);
            keys.any(|(_, entry)| entry.body.contains(&needle))
        })
    }

    /// The id of the key that a value opens.
    pub(super) fn key_of(&self, digest: Digest) -> Option<Box<str>> {
        match self.body(&RecordId::secret(digest))? {
            (_, Body::Secret(_, body)) => Some(body.key.into()),
            _ => None,
        }
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

    fn key(&self, id: &str) -> Option<KeyBody> {
        self.key(id).map(|key| key.body)
    }

    fn role(&self, name: &str) -> Option<RoleBody> {
        match self.body(&RecordId::new(Kind::Role, name))? {
            (_, Body::Role(body)) => Some(body),
            _ => None,
        }
    }

    fn bindings(&self, subject: &Subject) -> Vec<BindingBody> {
        let bound = |_: &str, _: u64, body: Body| match body {
            Body::Binding(binding) if binding.subject == *subject => Some(binding),
            _ => None,
        };
        self.page(Kind::Binding, "", usize::MAX, bound).0
    }

    fn is_active(&self, scope: &Scope) -> bool {
        with_all_above(scope).iter().all(|scope| {
            let found = self.body(&RecordId::scope(scope));
            matches!(found, Some((_, Body::Scope(_, body))) if body.state == ScopeState::Active)
        })
    }
}
