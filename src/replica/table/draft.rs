//! What the one writer of a table does with news, and what only that one needs: how to find the grants of a key.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashTable;

use super::names::Unpublished;
use super::{
    NODE_ABSENT, NODE_ACTIVE, NODE_SUSPENDED, Names, Node, Restrictions, Table, USER_ABSENT, USER_GOOD, USER_SUSPENDED,
    USER_WITHOUT_ACCESS, place,
};
use crate::auth::address::Networks;
use crate::auth::digest::Digest;
use crate::auth::grant::{
    Access, Environment, Grant, KeyIndex, Lineage, ParentIndex, RestrictionsIndex, ScopeIndex, Standing, State,
    TallyIndex, Timestamp, UserIndex,
};
use crate::auth::limit::Limit;
use crate::auth::scope::Scope;
use crate::replica::meters::Meters;

/// What the replica needs of a key.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// Its name.
    pub name: String,
    /// The user it was handed to.
    pub user: Option<String>,
    /// The user whose account it is bound to.
    pub owner: Option<Box<str>>,
    /// The key above it.
    pub parent: Option<Box<str>>,
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
    /// A user is there.
    User {
        /// Which.
        id: Box<str>,
        /// What the user's keys may count on.
        standing: Standing,
    },
    /// A user is gone.
    UserGone(Box<str>),
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

impl Change {
    /// Whether somebody may do less by it than before, as far as it tells.
    pub fn takes_away(&self) -> bool {
        match self {
            Self::ScopeGone(_) | Self::UserGone(_) | Self::KeyGone(_) | Self::SecretGone(_) => true,
            Self::Scope { active, .. } => !active,
            Self::User { standing, .. } => *standing != Standing::Good,
            Self::Key(_, facts) => facts.state != State::Active,
            Self::Secret { not_after, .. } => *not_after != Timestamp::NEVER,
        }
    }
}

/// How many records of each kind are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Scopes.
    pub scopes: usize,
    /// Users.
    pub users: usize,
    /// Keys.
    pub keys: usize,
    /// Secrets that open one of them.
    pub secrets: usize,
}

/// A table and what only its writer needs: how to find the grants of a key.
pub struct Draft {
    table: Arc<Table>,
    /// Names that are not in the table yet; none as soon as it is in force.
    unpublished: Unpublished,
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
    users: HashMap<Box<str>, UserIndex>,
    /// Keys that others name as their parent, whether they are there or not.
    parents: HashMap<Box<str>, ParentIndex>,
    /// What this will take the place of, until it does.
    before: Option<Arc<Table>>,
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
    /// An empty one, to take the place of a table whose meters and tallies go on.
    pub(in crate::replica) fn new(before: Option<Arc<Table>>) -> Self {
        let (meters, tallies) =
            before.as_ref().map(|table| (table.meters.clone(), table.tallies.clone())).unwrap_or_default();
        Self {
            table: Arc::new(Table { meters, tallies, ..Table::default() }),
            before,
            unpublished: Unpublished::default(),
            keys: HashTable::new(),
            hasher: RandomState::new(),
            secrets: Vec::new(),
            idle: HashMap::new(),
            orphans: HashMap::new(),
            orphaned: HashMap::new(),
            scopes: HashMap::new(),
            restrictions: HashMap::new(),
            users: HashMap::new(),
            parents: HashMap::new(),
        }
    }

    /// It is in force.
    pub(in crate::replica) fn forget_before(&mut self) {
        self.before = None;
    }

    /// Nobody sees the table of a draft until it takes the place of another.
    fn is_in_force(&self) -> bool {
        self.before.is_none()
    }

    pub(in crate::replica) fn meters(&self) -> Arc<Meters> {
        self.table.meters.clone()
    }

    /// Whether a key has a limit, and can ever be used.
    pub(in crate::replica) fn is_limited(&self, id: &str) -> bool {
        self.grant_of(id).is_some_and(|grant| grant.is_limited && grant.state != State::Revoked)
    }

    /// What a key may do, whichever of its secrets opens it.
    fn grant_of(&self, id: &str) -> Option<Grant> {
        let place = self.find_key(id)?;
        let secret = self.secrets[place as usize].as_slice().first();
        let grant = secret.and_then(|secret| self.table.grant(secret)).or_else(|| self.idle.get(&place).copied());
        grant.map(|grant| Grant { not_after: Timestamp::NEVER, ..grant })
    }

    /// The table, with all that was applied.
    pub(in crate::replica) fn table(&mut self) -> Arc<Table> {
        self.table.names.publish(&mut self.unpublished);
        self.table.clone()
    }

    pub(in crate::replica) fn counts(&self) -> Counts {
        let users = self.table.users.iter().filter(|(_, user)| user.load(Relaxed) != USER_ABSENT);
        let present = self.table.scopes.iter().filter(|(_, node)| node.state.load(Relaxed) != NODE_ABSENT);
        Counts {
            scopes: present.count(),
            users: users.count(),
            keys: self.keys.len(),
            secrets: self.table.grants.len(),
        }
    }

    /// Applies one record's news. What it owns may come in any order, but what is not owned yet grants nothing.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Scope { scope, active } => {
                self.set_scope(&scope, if active { NODE_ACTIVE } else { NODE_SUSPENDED });
            }
            Change::ScopeGone(scope) => self.set_scope(&scope, NODE_ABSENT),
            Change::User { id, standing: Standing::Good } => self.set_user(&id, USER_GOOD),
            Change::User { id, standing: Standing::NoApiAccess } => self.set_user(&id, USER_WITHOUT_ACCESS),
            Change::User { id, standing: Standing::Suspended } => self.set_user(&id, USER_SUSPENDED),
            Change::UserGone(id) => self.set_user(&id, USER_ABSENT),
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

    fn set_user(&mut self, id: &str, state: u8) {
        let index = self.user_index(id);
        if let Some(user) = self.table.users.get(place(index.0)) {
            user.store(state, Relaxed);
        }
    }

    fn user_index(&mut self, id: &str) -> UserIndex {
        if let Some(index) = self.users.get(id) {
            return *index;
        }
        let index = UserIndex(beyond(self.table.users.push(USER_ABSENT.into())));
        self.users.insert(id.into(), index);
        index
    }

    /// The place of a key that another names as its parent. It may already be there, or come later, or never.
    fn parent_index(&mut self, id: &str) -> ParentIndex {
        if let Some(index) = self.parents.get(id) {
            return *index;
        }
        let index = ParentIndex(beyond(self.parents.len()));
        if let Some(grant) = self.grant_of(id) {
            self.table.parents.insert(index.0.get(), grant);
        }
        self.parents.insert(id.into(), index);
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
            lineage: Lineage {
                owner: facts.owner.as_deref().map(|owner| self.user_index(owner)),
                parent: facts.parent.as_deref().map(|parent| self.parent_index(parent)),
            },
            tally: TallyIndex::NONE,
            expires_at: facts.expires_at,
            not_after: Timestamp::NEVER,
            access: facts.access,
            environment: facts.environment,
            state: facts.state,
            is_limited: facts.limit.is_some(),
        };
        if let Some(index) = self.parents.get(id) {
            self.table.parents.insert(index.0.get(), grant);
        }
        for digest in self.secrets[key as usize].as_slice() {
            self.table.grants.alter(digest, |_, old| Grant { not_after: old.not_after, tally: old.tally, ..grant });
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
        if let Some(place) = old.filter(|place| self.names(*place) == names) {
            return place;
        }
        let moved = old.map(|place| self.forget_key(place)).unwrap_or_default();
        let place = index(self.table.names.add(&mut self.unpublished, names));
        if self.is_in_force() {
            // Before the first grant that leads to them.
            self.table.names.publish(&mut self.unpublished);
        }
        self.secrets.resize_with(place as usize, Secrets::default);
        self.secrets.push(moved);
        let (table, unpublished, hasher) = (&self.table.names, &self.unpublished, &self.hasher);
        let rehash = |place: &u32| hasher.hash_one(table.get_with(unpublished, *place).id);
        self.keys.insert_unique(self.hasher.hash_one(names.id), place, rehash);
        place
    }

    fn names(&self, place: u32) -> Names<'_> {
        self.table.names.get_with(&self.unpublished, place)
    }

    fn find_key(&self, id: &str) -> Option<u32> {
        let is_it = |place: &u32| self.names(*place).id == id;
        self.keys.find(self.hasher.hash_one(id), is_it).copied()
    }

    /// Takes a key out of the index and hands over its secrets.
    fn forget_key(&mut self, place: u32) -> Secrets {
        let hash = self.hasher.hash_one(self.names(place).id);
        if let Ok(entry) = self.keys.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.idle.remove(&place);
        std::mem::take(&mut self.secrets[place as usize])
    }

    fn remove_key(&mut self, id: &str) {
        let Some(place) = self.find_key(id) else { return };
        if let Some(index) = self.parents.get(id) {
            self.table.parents.remove(&index.0.get());
        }
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
            let tally = self.tally_of(&digest);
            self.table.grants.insert(digest, Grant { not_after, tally, ..grant });
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
            let idle = Grant { not_after: Timestamp::NEVER, tally: TallyIndex::NONE, ..grant };
            self.idle.insert(grant.key.0, idle);
        }
    }

    /// Where a secret is counted: as it was in the table before, if it was there.
    fn tally_of(&self, digest: &Digest) -> TallyIndex {
        let known = self.before.as_ref().and_then(|table| table.grant(digest)).map(|grant| grant.tally);
        known.unwrap_or_else(|| self.table.tallies.open())
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

/// A place, counted from one: zero stands for none.
fn beyond(place: usize) -> NonZero<u32> {
    NonZero::<u32>::MIN.saturating_add(index(place))
}

/// Places fit into 32 bits: four billion names would need a hundred times the memory that a table may have.
fn index(place: usize) -> u32 {
    u32::try_from(place).expect("a table holds fewer than 2^32 entries")
}
