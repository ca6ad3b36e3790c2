//! The tables behind the replica: grants by digest, and what grants name by index.
//!
//! A secret's row names the place of its key's row, and both are looked up at each request: one change of a key counts for all
//! secrets at once, and a secret whose key is not there opens nothing. Ids, names, scopes and restrictions stand in append-only
//! tables, so that a reader needs no lock and an index, once handed out, stays good. A key that is renamed gets new names; the
//! old ones, some fifty bytes, stay until the next full pull.

mod directory;
mod draft;
mod roll;
mod rows;

use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::Instant;

use dashmap::DashMap;

pub use self::directory::{Directory, KeyEntry, Keys};
pub use self::draft::{Change, Counts, Draft, KeyFacts};
pub use self::roll::Names;
use self::roll::Roll;
use self::rows::{KeyRow, KeyRows, SecretRows};
use super::meters::Meters;
use super::usage::Tallies;
use crate::auth::address::Networks;
use crate::auth::digest::Digest;
use crate::auth::grant::{
    Grant, KeyIndex, ParentIndex, RestrictionsIndex, ScopeIndex, Standing, TallyIndex, Timestamp, UserIndex,
};
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
    secrets: SecretRows,
    keys: KeyRows,
    roll: Roll,
    scopes: boxcar::Vec<Node>,
    /// Where the nodes are whose last step this is: usually one.
    steps: DashMap<Step, Vec<ScopeIndex>>,
    restrictions: boxcar::Vec<Restrictions>,
    users: boxcar::Vec<User>,
    /// How many places of keys there are.
    places: AtomicU32,
    meters: Arc<Meters>,
    pub(super) tallies: Arc<Tallies>,
    turns: AtomicU64,
}

/// Where a key may be used from, and how often.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Restrictions {
    networks: Networks,
    limit: Option<Limit>,
}

/// A user, whether the record has been seen or only something that names it.
struct User {
    id: Box<str>,
    state: AtomicU8,
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

const USER_ABSENT: u8 = 0;
const USER_SUSPENDED: u8 = 1;
const USER_WITHOUT_ACCESS: u8 = 2;
const USER_GOOD: u8 = 3;

impl Table {
    pub(super) fn grant(&self, digest: &Digest) -> Option<Grant> {
        let secret = self.secrets.get(digest)?;
        self.keys.get(secret.key)?.grant(secret.tally, secret.not_after)
    }

    /// How often the writer has turned from what takes away to what gives. Whoever has seen something of what is given knows of
    /// the turn before it: rows are read under locks, and the rest is published like this is.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Acquire)
    }

    fn turn(&self) {
        self.turns.fetch_add(1, AcqRel);
    }

    pub(super) fn names(&self, key: KeyIndex) -> Names<'_> {
        self.roll.names(key)
    }

    pub(super) fn scope(&self, index: ScopeIndex) -> Option<&Scope> {
        self.node(index).map(|node| &node.scope)
    }

    pub(super) fn scope_of_step(&self, step: &Step) -> Option<&Scope> {
        let places = self.steps.get(step)?.clone();
        let mut present =
            places.into_iter().filter_map(|i| self.node(i)).filter(|node| node.state.load(Acquire) != NODE_ABSENT);
        let one = present.next()?;
        present.next().is_none().then_some(&one.scope)
    }

    /// A scope works if it and everything above it is there and active. A dangling reference grants nothing.
    pub(super) fn is_active(&self, mut index: ScopeIndex) -> bool {
        while index != ScopeIndex::EVERYWHERE {
            match self.node(index) {
                Some(node) if node.state.load(Acquire) == NODE_ACTIVE => index = node.parent,
                Some(_) | None => return false,
            }
        }
        true
    }

    /// A user who is not there may as little as one who is suspended.
    pub(super) fn standing(&self, user: UserIndex) -> Standing {
        match self.users.get(place(user.0)).map(|user| user.state.load(Acquire)) {
            Some(USER_GOOD) => Standing::Good,
            Some(USER_WITHOUT_ACCESS) => Standing::NoApiAccess,
            Some(_) | None => Standing::Suspended,
        }
    }

    pub(super) fn parent(&self, index: ParentIndex) -> Option<Grant> {
        self.keys.get(index.0.get() - 1)?.grant(TallyIndex::NONE, Timestamp::NEVER)
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

/// Users are counted from one: zero stands for none.
fn place(beyond: NonZero<u32>) -> usize {
    beyond.get() as usize - 1
}
