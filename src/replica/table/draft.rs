//! What the one writer of a table does with news, and what only that one needs: how to find a key by its id.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use hashbrown::HashTable;

use super::roll::Page;
use super::rows::SecretRow;
use super::{
    KeyRow, NODE_ABSENT, NODE_ACTIVE, NODE_SUSPENDED, Names, Node, Restrictions, Table, USER_ABSENT, USER_GOOD,
    USER_SUSPENDED, USER_WITHOUT_ACCESS, User, place,
};
use crate::auth::address::Networks;
use crate::auth::digest::Digest;
use crate::auth::grant::{
    Access, Environment, KeyIndex, Lineage, ParentIndex, RestrictionsIndex, ScopeIndex, Standing, State, TallyIndex,
    Timestamp, UserIndex,
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

/// In which order news of one delta is applied, so that nothing is open meanwhile that was not before and is not afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::replica) enum Step {
    /// Something ends.
    Takes,
    /// There is a user, or a scope, that nothing has named yet: what is to be moved there is not refused for it.
    Founds,
    /// A key that works goes on otherwise: with more, with less, or elsewhere.
    Alters,
    /// Something works that did not.
    Gives,
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

/// A table and what only its writer needs: how to find a key by its id.
pub struct Draft {
    table: Arc<Table>,
    /// Keys by id, as places in `table.keys`: those that are there, and those that something names.
    keys: HashTable<u32>,
    hasher: RandomState,
    /// For each of these places, how many secrets name it.
    openers: Vec<u32>,
    /// Keys that are there.
    live: usize,
    /// Secrets that open one of them.
    opening: usize,
    /// Names that readers do not see yet; none once the table is in force.
    page: Option<Page>,
    scopes: HashMap<Scope, ScopeIndex>,
    restrictions: HashMap<Restrictions, RestrictionsIndex>,
    users: HashMap<Box<str>, UserIndex>,
    /// What this will take the place of, until it does.
    before: Option<Arc<Table>>,
    /// The first place where a secret is counted that was not in the table before.
    opened: Option<TallyIndex>,
}

impl Draft {
    /// An empty one, to take the place of a table whose meters and tallies go on.
    pub(in crate::replica) fn new(before: Option<Arc<Table>>) -> Self {
        let (meters, tallies) =
            before.as_ref().map(|table| (table.meters.clone(), table.tallies.clone())).unwrap_or_default();
        Self {
            table: Arc::new(Table { meters, tallies, ..Table::default() }),
            before,
            opened: None,
            keys: HashTable::new(),
            hasher: RandomState::new(),
            openers: Vec::new(),
            live: 0,
            opening: 0,
            page: Some(Page::default()),
            scopes: HashMap::new(),
            restrictions: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// All of it is there: readers may come. What is applied from now on, they see at once.
    pub(in crate::replica) fn finish(&mut self) {
        if let Some(mut page) = self.page.take() {
            self.table.roll.publish(&mut page);
        }
        self.table.keys.shrink();
        self.table.secrets.shrink();
        self.openers.shrink_to_fit();
    }

    /// It is in force.
    pub(in crate::replica) fn forget_before(&mut self) {
        self.before = None;
    }

    pub(in crate::replica) fn meters(&self) -> Arc<Meters> {
        self.table.meters.clone()
    }

    /// Whether a key has a limit, and can ever be used.
    pub(in crate::replica) fn is_limited(&self, id: &str) -> bool {
        let row = self.find_key(id).and_then(|place| self.table.keys.get(place));
        row.is_some_and(|row| row.is_limited && row.state.is_some_and(|state| state != State::Revoked))
    }

    pub(in crate::replica) fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    pub(in crate::replica) fn counts(&self) -> Counts {
        let users = self.table.users.iter().filter(|(_, user)| user.state.load(Relaxed) != USER_ABSENT);
        let present = self.table.scopes.iter().filter(|(_, node)| node.state.load(Relaxed) != NODE_ABSENT);
        Counts { scopes: present.count(), users: users.count(), keys: self.live, secrets: self.opening }
    }

    /// The news of a delta in the order in which it is to be applied.
    pub(in crate::replica) fn in_steps(&self, changes: impl IntoIterator<Item = Change>) -> Vec<(Step, Change)> {
        let mut steps: Vec<_> = changes.into_iter().map(|change| (self.step(&change), change)).collect();
        steps.sort_by_key(|(step, _)| *step);
        steps
    }

    /// What news does to what is there.
    fn step(&self, change: &Change) -> Step {
        let founds = |is_named| if is_named { Step::Gives } else { Step::Founds };
        match change {
            Change::ScopeGone(_) | Change::UserGone(_) | Change::KeyGone(_) | Change::SecretGone(_) => Step::Takes,
            Change::Scope { active: false, .. } => Step::Takes,
            Change::Scope { scope, active: true } => founds(self.scopes.contains_key(scope)),
            Change::User { standing: Standing::NoApiAccess | Standing::Suspended, .. } => Step::Takes,
            Change::User { id, standing: Standing::Good } => founds(self.users.contains_key(id)),
            Change::Key(_, facts) if facts.state != State::Active => Step::Takes,
            Change::Key(id, _) => {
                let old = self.find_key(id).and_then(|place| self.table.keys.get(place));
                if old.is_some_and(|old| old.state == Some(State::Active)) { Step::Alters } else { Step::Gives }
            }
            Change::Secret { digest, key, not_after } => {
                let old = self.table.secrets.get(digest).filter(|old| self.find_key(key) == Some(old.key));
                if old.is_some_and(|old| *not_after <= old.not_after) { Step::Takes } else { Step::Gives }
            }
        }
    }

    /// What takes away has been applied, and what gives is to come.
    pub(in crate::replica) fn turn(&self) {
        self.table.turn();
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
            Change::Secret { digest, key, not_after } => self.set_secret(digest, &key, not_after),
            Change::SecretGone(digest) => self.remove_secret(&digest),
        }
    }

    fn set_scope(&mut self, scope: &Scope, state: u8) {
        let index = self.scope_index(scope);
        if let Some(node) = self.table.node(index) {
            node.state.store(state, Release);
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
            user.state.store(state, Release);
        }
    }

    fn user_index(&mut self, id: &str) -> UserIndex {
        if let Some(index) = self.users.get(id) {
            return *index;
        }
        let user = User { id: id.into(), state: USER_ABSENT.into() };
        let index = UserIndex(beyond(self.table.users.push(user)));
        self.users.insert(id.into(), index);
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
        let place = self.place_of(names);
        let old = self.table.keys.get(place);
        let known = old.map(|old| old.names).filter(|index| self.names(*index) == names);
        let row = KeyRow {
            names: known.unwrap_or_else(|| self.table.roll.add(self.page.as_mut(), names)),
            scope: facts.scope.as_ref().map_or(ScopeIndex::EVERYWHERE, |scope| self.scope_index(scope)),
            restrictions: self.restrictions_index(&facts.networks, facts.limit),
            lineage: Lineage {
                owner: facts.owner.as_deref().map(|owner| self.user_index(owner)),
                parent: facts.parent.as_deref().map(|parent| ParentIndex(beyond(self.place_of_id(parent) as usize))),
            },
            expires_at: facts.expires_at,
            access: facts.access,
            environment: facts.environment,
            state: Some(facts.state),
            is_limited: facts.limit.is_some(),
        };
        if old.is_none_or(|old| old.state.is_none()) {
            self.live += 1;
            self.opening += self.openers[place as usize] as usize;
        }
        self.table.keys.set(place, row);
    }

    fn remove_key(&mut self, id: &str) {
        let Some(place) = self.find_key(id) else { return };
        let Some(row) = self.table.keys.get(place).filter(|row| row.state.is_some()) else { return };
        self.table.keys.set(place, KeyRow::absent(row.names));
        self.live -= 1;
        self.opening -= self.openers[place as usize] as usize;
    }

    /// The place of a key that something names. It may already be there, or come later, or never.
    fn place_of_id(&mut self, id: &str) -> u32 {
        self.place_of(Names { id, name: "", user: None })
    }

    /// The place of a key; a new one gets these names.
    fn place_of(&mut self, names: Names<'_>) -> u32 {
        if let Some(place) = self.find_key(names.id) {
            return place;
        }
        let place = index(self.openers.len());
        self.openers.push(0);
        self.table.keys.set(place, KeyRow::absent(self.table.roll.add(self.page.as_mut(), names)));
        // Only now: whoever looks at all of them finds a row in each place.
        self.table.places.store(place + 1, Release);
        let (table, page, hasher) = (&self.table, self.page.as_ref(), &self.hasher);
        let id = |place: &u32| table.keys.get(*place).map_or("", |row| table.roll.names_or_on(page, row.names).id);
        self.keys.insert_unique(hasher.hash_one(names.id), place, |place| hasher.hash_one(id(place)));
        place
    }

    fn find_key(&self, id: &str) -> Option<u32> {
        let is_it = |place: &u32| self.table.keys.get(*place).is_some_and(|row| self.names(row.names).id == id);
        self.keys.find(self.hasher.hash_one(id), is_it).copied()
    }

    fn names(&self, index: KeyIndex) -> Names<'_> {
        self.table.roll.names_or_on(self.page.as_ref(), index)
    }

    fn is_live(&self, place: u32) -> bool {
        self.table.keys.get(place).is_some_and(|row| row.state.is_some())
    }

    fn set_secret(&mut self, digest: Digest, key: &str, not_after: Timestamp) {
        let place = self.place_of_id(key);
        let old = self.table.secrets.get(&digest);
        let tally = match old {
            Some(old) => old.tally,
            None => self.tally_of(&digest),
        };
        self.table.secrets.set(digest, SecretRow { key: place, tally, not_after });
        if let Some(old) = old {
            self.closes(old.key);
        }
        self.openers[place as usize] += 1;
        self.opening += usize::from(self.is_live(place));
    }

    fn remove_secret(&mut self, digest: &Digest) {
        if let Some(old) = self.table.secrets.remove(digest) {
            self.closes(old.key);
        }
    }

    /// A secret does not name that key any more.
    fn closes(&mut self, place: u32) {
        self.openers[place as usize] -= 1;
        self.opening -= usize::from(self.is_live(place));
    }

    /// Where a secret is counted: as it was in the table before, if it was there.
    fn tally_of(&mut self, digest: &Digest) -> TallyIndex {
        let known = self.before.as_ref().and_then(|table| table.secrets.get(digest)).map(|secret| secret.tally);
        known.unwrap_or_else(|| {
            let tally = self.table.tallies.open();
            self.opened.get_or_insert(tally);
            tally
        })
    }
}

impl Drop for Draft {
    /// A pull that breaks off leaves nothing behind in what all tables share.
    fn drop(&mut self) {
        if let (Some(before), Some(first)) = (&self.before, self.opened) {
            before.tallies.take_back(first);
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
