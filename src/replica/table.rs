//! The tables behind the replica: grants by digest, and what grants name by index.
//!
//! Ids, names, scopes and restrictions stand in append-only tables, so that a reader needs no lock and an index, once handed
//! out, stays good. A key that is renamed gets a new place; the old one, some fifty bytes, stays until the next full pull.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Instant;

use dashmap::DashMap;
use hashbrown::HashTable;

use super::meters::Meters;
use crate::auth::address::Networks;
use crate::auth::digest::Digest;
use crate::auth::grant::{Access, Environment, Grant, KeyIndex, RestrictionsIndex, ScopeIndex, State, Timestamp};
use crate::auth::limit::{Exhausted, Limit};
use crate::auth::scope::{Scope, Step};

/// A digest is its own hash.
#[derive(Default)]
pub(super) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    /// Digests hash as one `u64`; anything else is mixed in plainly, and correctly.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

/// What readers see.
#[derive(Default)]
pub(super) struct Table {
    grants: DashMap<Digest, Grant, BuildHasherDefault<DigestHasher>>,
    names: boxcar::Vec<PackedNames>,
    scopes: boxcar::Vec<Node>,
    /// Where the nodes are whose last step this is: usually one.
    steps: DashMap<Step, Vec<ScopeIndex>>,
    restrictions: boxcar::Vec<Restrictions>,
    meters: Arc<Meters>,
}

/// Where a key may be used from, and how often.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Restrictions {
    networks: Networks,
    limit: Option<Limit>,
}

/// Id, name and user in one allocation.
struct PackedNames {
    text: Box<str>,
    id: u8,
    name: u8,
}

/// What a key is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'t> {
    /// Its id.
    pub id: &'t str,
    /// Its name.
    pub name: &'t str,
    /// The user it was handed to.
    pub user: Option<&'t str>,
}

/// A scope, whether its record has been seen or only something that names it.
struct Node {
    scope: Scope,
    parent: ScopeIndex,
    state: AtomicU8,
}

const NODE_ABSENT: u8 = 0;
const NODE_ACTIVE: u8 = 1;
const NODE_SUSPENDED: u8 = 2;

impl Table {
    pub(super) fn grant(&self, digest: &Digest) -> Option<Grant> {
        self.grants.get(digest).map(|grant| *grant)
    }

    pub(super) fn names(&self, key: KeyIndex) -> Names<'_> {
        let none = Names { id: "", name: "", user: None };
        self.names.get(key.0 as usize).map_or(none, PackedNames::unpack)
    }

    pub(super) fn scope(&self, index: ScopeIndex) -> Option<&Scope> {
        self.node(index).map(|node| &node.scope)
    }

    pub(super) fn scope_of_step(&self, step: &Step) -> Option<&Scope> {
        let places = self.steps.get(step)?.clone();
        let mut present =
            places.into_iter().filter_map(|i| self.node(i)).filter(|node| node.state.load(Relaxed) != NODE_ABSENT);
        let one = present.next()?;
        present.next().is_none().then_some(&one.scope)
    }

    /// A scope works if it and everything above it is there and active. A dangling reference grants nothing.
    pub(super) fn is_active(&self, mut index: ScopeIndex) -> bool {
        while index != ScopeIndex::EVERYWHERE {
            match self.node(index) {
                Some(node) if node.state.load(Relaxed) == NODE_ACTIVE => index = node.parent,
                Some(_) | None => return false,
            }
        }
        true
    }

    pub(super) fn allows(&self, restrictions: RestrictionsIndex, address: Option<IpAddr>) -> bool {
        let list = || self.restrictions.get(restrictions.0 as usize).map(|restrictions| &restrictions.networks);
        let has_it = |list: &Networks| list.is_empty() || address.is_some_and(|address| list.contains(address));
        restrictions == RestrictionsIndex::NONE || list().is_some_and(has_it)
    }

    pub(super) fn take(&self, grant: &Grant, now: Instant) -> Result<(), Exhausted> {
        let limit = self.restrictions.get(grant.restrictions.0 as usize).and_then(|restrictions| restrictions.limit);
        limit.map_or(Ok(()), |limit| self.meters.take(self.names(grant.key).id, limit, now))
    }

    fn node(&self, index: ScopeIndex) -> Option<&Node> {
        self.scopes.get(index.0 as usize)
    }
}

impl PackedNames {
    fn pack(names: Names<'_>) -> Self {
        // Ids have at most 64 bytes and names at most 50 characters; a longer name is cut where it still is text.
        let end = names
            .name
            .char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|end| *end <= 255)
            .last()
            .unwrap_or(0);
        let text = [names.id, &names.name[..end], names.user.unwrap_or_default()].concat();
        let length = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
        Self { text: text.into(), id: length(names.id.len()), name: length(end) }
    }

    fn unpack(&self) -> Names<'_> {
        let (id, rest) = self.text.split_at(self.id.into());
        let (name, user) = rest.split_at(self.name.into());
        Names { id, name, user: (!user.is_empty()).then_some(user) }
    }
}

/// What the replica needs of a key.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// Its name.
    pub name: String,
    /// The user it was handed to.
    pub user: Option<String>,
    /// Where it acts; everywhere if `None`.
    pub scope: Option<Scope>,
    /// Its world.
    pub environment: Environment,
    /// What it may do.
    pub access: Access,
    /// The addresses it may come from; any if empty.
    pub networks: Networks,
    /// How often it may be used.
    pub limit: Option<Limit>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Its state.
    pub state: State,
}

/// One record's news.
#[derive(Clone, Debug)]
pub enum Change {
    /// A scope is there.
    Scope {
        /// Which.
        scope: Scope,
        /// Whether keys in it work.
        active: bool,
    },
    /// A scope is gone.
    ScopeGone(Scope),
    /// A key is there.
    Key(Box<str>, KeyFacts),
    /// A key is gone.
    KeyGone(Box<str>),
    /// A secret is there.
    Secret {
        /// What it is looked up by.
        digest: Digest,
        /// The key it opens.
        key: Box<str>,
        /// When it ends.
        not_after: Timestamp,
    },
    /// A secret is gone.
    SecretGone(Digest),
}

/// How many records of each kind are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Scopes.
    pub scopes: usize,
    /// Keys.
    pub keys: usize,
    /// Secrets that open one of them.
    pub secrets: usize,
}

/// A table and what only its writer needs: how to find the grants of a key.
pub struct Draft {
    table: Arc<Table>,
    /// Keys by id, as places in `table.names`.
    keys: HashTable<u32>,
    hasher: RandomState,
    /// For each place in `table.names`, the secrets of that key.
    secrets: Vec<Secrets>,
    /// What secrets of a key without any would be granted.
    idle: HashMap<u32, Grant>,
    /// Secrets whose key is not there (yet), by its id.
    orphans: HashMap<Box<str>, Vec<(Digest, Timestamp)>>,
    /// The same the other way round.
    orphaned: HashMap<Digest, Box<str>>,
    scopes: HashMap<Scope, ScopeIndex>,
    restrictions: HashMap<Restrictions, RestrictionsIndex>,
}

/// The secrets of a key: nearly always one, so that one needs no allocation.
#[derive(Default)]
enum Secrets {
    #[default]
    None,
    One(Digest),
    Many(Vec<Digest>),
}

impl Draft {
    /// An empty one, whose keys have these meters.
    pub(super) fn new(meters: Arc<Meters>) -> Self {
        Self {
            table: Arc::new(Table { meters, ..Table::default() }),
            keys: HashTable::new(),
            hasher: RandomState::new(),
            secrets: Vec::new(),
            idle: HashMap::new(),
            orphans: HashMap::new(),
            orphaned: HashMap::new(),
            scopes: HashMap::new(),
            restrictions: HashMap::new(),
        }
    }

    pub(super) fn meters(&self) -> Arc<Meters> {
        self.table.meters.clone()
    }

    /// Whether a key has a limit, and can ever be used.
    pub(super) fn is_limited(&self, id: &str) -> bool {
        let Some(place) = self.find_key(id) else { return false };
        let secret = self.secrets[place as usize].as_slice().first();
        let grant = secret.and_then(|secret| self.table.grant(secret)).or_else(|| self.idle.get(&place).copied());
        grant.is_some_and(|grant| grant.is_limited && grant.state != State::Revoked)
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        let present = self.table.scopes.iter().filter(|(_, node)| node.state.load(Relaxed) != NODE_ABSENT);
        Counts { scopes: present.count(), keys: self.keys.len(), secrets: self.table.grants.len() }
    }

    /// Applies one record's news. What it owns may come in any order, but what is not owned yet grants nothing.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Scope { scope, active } => {
                self.set_scope(&scope, if active { NODE_ACTIVE } else { NODE_SUSPENDED });
            }
            Change::ScopeGone(scope) => self.set_scope(&scope, NODE_ABSENT),
            Change::Key(id, facts) => self.set_key(&id, &facts),
            Change::KeyGone(id) => self.remove_key(&id),
            Change::Secret { digest, key, not_after } => self.set_secret(digest, key, not_after),
            Change::SecretGone(digest) => self.remove_secret(&digest),
        }
    }

    fn set_scope(&mut self, scope: &Scope, state: u8) {
        let index = self.scope_index(scope);
        if let Some(node) = self.table.node(index) {
            node.state.store(state, Relaxed);
        }
    }

    fn scope_index(&mut self, scope: &Scope) -> ScopeIndex {
        if let Some(index) = self.scopes.get(scope) {
            return *index;
        }
        let parent = scope.parent().map_or(ScopeIndex::EVERYWHERE, |above| self.scope_index(&above));
        let index =
            ScopeIndex(index(self.table.scopes.push(Node { scope: scope.clone(), parent, state: NODE_ABSENT.into() })));
        self.table.steps.entry(scope.step().clone()).or_default().push(index);
        self.scopes.insert(scope.clone(), index);
        index
    }

    fn restrictions_index(&mut self, networks: &Networks, limit: Option<Limit>) -> RestrictionsIndex {
        if networks.is_empty() && limit.is_none() {
            return RestrictionsIndex::NONE;
        }
        let restrictions = Restrictions { networks: networks.clone(), limit };
        let known = self.restrictions.get(&restrictions).copied();
        known.unwrap_or_else(|| {
            let index = RestrictionsIndex(index(self.table.restrictions.push(restrictions.clone())));
            self.restrictions.insert(restrictions, index);
            index
        })
    }

    fn set_key(&mut self, id: &str, facts: &KeyFacts) {
        let names = Names { id, name: &facts.name, user: facts.user.as_deref() };
        let key = self.place_key(names);
        let grant = Grant {
            key: KeyIndex(key),
            scope: facts.scope.as_ref().map_or(ScopeIndex::EVERYWHERE, |scope| self.scope_index(scope)),
            restrictions: self.restrictions_index(&facts.networks, facts.limit),
            expires_at: facts.expires_at,
            not_after: Timestamp::NEVER,
            access: facts.access,
            environment: facts.environment,
            state: facts.state,
            is_limited: facts.limit.is_some(),
        };
        for digest in self.secrets[key as usize].as_slice() {
            self.table.grants.alter(digest, |_, old| Grant { not_after: old.not_after, ..grant });
        }
        if self.secrets[key as usize].as_slice().is_empty() {
            self.idle.insert(key, grant);
        }
        for (digest, not_after) in self.orphans.remove(id).unwrap_or_default() {
            self.orphaned.remove(&digest);
            self.set_secret(digest, id.into(), not_after);
        }
    }

    /// The place of a key's names; a new one, with its secrets moved there, when they are new.
    fn place_key(&mut self, names: Names<'_>) -> u32 {
        let old = self.find_key(names.id);
        if let Some(place) = old.filter(|place| self.table.names(KeyIndex(*place)) == names) {
            return place;
        }
        let moved = old.map(|place| self.forget_key(place)).unwrap_or_default();
        let place = index(self.table.names.push(PackedNames::pack(names)));
        self.secrets.resize_with(place as usize, Secrets::default);
        self.secrets.push(moved);
        let (table, hasher) = (&self.table, &self.hasher);
        let rehash = |place: &u32| hasher.hash_one(table.names(KeyIndex(*place)).id);
        self.keys.insert_unique(self.hasher.hash_one(names.id), place, rehash);
        place
    }

    fn find_key(&self, id: &str) -> Option<u32> {
        let is_it = |place: &u32| self.table.names(KeyIndex(*place)).id == id;
        self.keys.find(self.hasher.hash_one(id), is_it).copied()
    }

    /// Takes a key out of the index and hands over its secrets.
    fn forget_key(&mut self, place: u32) -> Secrets {
        let hash = self.hasher.hash_one(self.table.names(KeyIndex(place)).id);
        if let Ok(entry) = self.keys.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.idle.remove(&place);
        std::mem::take(&mut self.secrets[place as usize])
    }

    fn remove_key(&mut self, id: &str) {
        let Some(place) = self.find_key(id) else { return };
        for digest in self.forget_key(place).as_slice() {
            if let Some((digest, grant)) = self.table.grants.remove(digest) {
                self.orphaned.insert(digest, id.into());
                self.orphans.entry(id.into()).or_default().push((digest, grant.not_after));
            }
        }
    }

    fn set_secret(&mut self, digest: Digest, key: Box<str>, not_after: Timestamp) {
        let place = self.find_key(&key);
        let present = self.table.grant(&digest);
        if let Some(grant) = present.filter(|grant| Some(grant.key.0) == place) {
            // Overwritten, not removed and inserted again: a live key must not be unknown for a moment.
            self.table.grants.insert(digest, Grant { not_after, ..grant });
            return;
        }
        self.remove_secret(&digest);
        let Some(place) = place else {
            self.orphaned.insert(digest, key.clone());
            self.orphans.entry(key).or_default().push((digest, not_after));
            return;
        };
        let sibling = self.secrets[place as usize].as_slice().first().and_then(|sibling| self.table.grant(sibling));
        if let Some(grant) = sibling.or_else(|| self.idle.remove(&place)) {
            self.table.grants.insert(digest, Grant { not_after, ..grant });
            self.secrets[place as usize].add(digest);
        }
    }

    fn remove_secret(&mut self, digest: &Digest) {
        if let Some(key) = self.orphaned.remove(digest)
            && let Some(secrets) = self.orphans.get_mut(&key)
        {
            secrets.retain(|(other, _)| other != digest);
        }
        let Some((_, grant)) = self.table.grants.remove(digest) else { return };
        let secrets = &mut self.secrets[grant.key.0 as usize];
        secrets.remove(digest);
        if secrets.as_slice().is_empty() {
            self.idle.insert(grant.key.0, Grant { not_after: Timestamp::NEVER, ..grant });
        }
    }
}

impl Secrets {
    fn as_slice(&self) -> &[Digest] {
        match self {
            Self::None => &[],
            Self::One(digest) => std::slice::from_ref(digest),
            Self::Many(digests) => digests,
        }
    }

    fn add(&mut self, digest: Digest) {
        match self {
            Self::None => *self = Self::One(digest),
            Self::One(first) => *self = Self::Many(vec![*first, digest]),
            Self::Many(digests) => digests.push(digest),
        }
    }

    fn remove(&mut self, digest: &Digest) {
        match self {
            Self::None => {}
            Self::One(only) if only == digest => *self = Self::None,
            Self::One(_) => {}
            Self::Many(digests) => digests.retain(|other| other != digest),
        }
    }
}

/// Places fit into 32 bits: four billion names would need a hundred times the memory that a table may have.
fn index(place: usize) -> u32 {
    u32::try_from(place).expect("a table holds fewer than 2^32 entries")
}
