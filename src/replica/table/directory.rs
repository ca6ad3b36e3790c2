//! The keys in the order of their ids, for those who list and search them: four bytes a key beside what requests need anyway,
//! and nothing before somebody asks.

use std::collections::{BinaryHeap, HashSet};
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Weak};

use super::{KeyRow, Names, Table, place};
use crate::auth::digest::Digest;
use crate::auth::grant::{Access, ParentIndex, ScopeIndex, State, Timestamp, UserIndex};
use crate::auth::scope::Scope;

/// The places of the keys of one table, in the order of their ids.
#[derive(Default)]
pub struct Directory {
    table: Weak<Table>,
    order: Vec<u32>,
}

/// More new keys than these are sorted in together.
const FEW: usize = 64;
/// So many ids are looked up at once to be sorted: all of them would take six times the memory of what comes of it, for good.
const TOGETHER: usize = 1 << 15;
/// Of so many keys for each that is wanted, and a few more, a page is made by looking at one after the other.
const NEAR: usize = 4;
const NEAR_AT_LEAST: usize = 2_000;

impl Directory {
    /// The keys of a table, as they are now.
    pub(in crate::replica) fn of(&mut self, table: Arc<Table>) -> Keys<'_> {
        if self.table.as_ptr() != Arc::as_ptr(&table) {
            *self = Self { table: Arc::downgrade(&table), order: Vec::new() };
        }
        // Places only come, and what is in one keeps its id.
        let (seen, places) = (self.order.len(), table.places.load(Acquire));
        let new = u32::try_from(seen).unwrap_or(u32::MAX)..places;
        if new.len() > FEW {
            self.sort_in(&table, places);
        } else {
            for place in new {
                let id = table.id_at(place);
                let at = self.order.partition_point(|other| table.id_at(*other) < id);
                self.order.insert(at, place);
            }
        }
        Keys { table, order: &self.order }
    }

    /// Sorts all places there are. Stores give keys in the order of their ids, or nearly: what is looked at together is mostly in
    /// order, and so is the whole.
    fn sort_in(&mut self, table: &Table, places: u32) {
        let (mut order, mut together) = (Vec::with_capacity(places as usize), Vec::with_capacity(TOGETHER));
        let (mut last, mut is_sorted) = ("", true);
        table.keys.each(places, |place, row| {
            together.push((table.names(row.names).id, place));
            if together.len() == TOGETHER || place + 1 == places {
                together.sort_by_key(|(id, _)| *id);
                is_sorted &= together.first().is_none_or(|(id, _)| last <= *id);
                last = together.last().map_or(last, |(id, _)| *id);
                order.extend(together.drain(..).map(|(_, place)| place));
            }
        });
        if !is_sorted {
            order.sort_by(|a, b| table.id_at(*a).cmp(table.id_at(*b)));
        }
        self.order = order;
    }
}

/// What the replica knows of a key.
#[derive(Clone, Copy, Debug)]
pub struct KeyEntry<'t> {
    /// Its id.
    pub id: &'t str,
    /// Its name.
    pub name: &'t str,
    /// Where it acts; everywhere if absent.
    pub scope: Option<&'t Scope>,
    /// What it may do.
    pub access: Access,
    /// Its state.
    pub state: State,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The user whose account it is bound to.
    pub owner: Option<&'t str>,
    /// The key above it.
    pub parent: Option<&'t str>,
}

/// The keys at one moment.
pub struct Keys<'d> {
    table: Arc<Table>,
    order: &'d [u32],
}

impl Keys<'_> {
    /// The first ids after one, of keys that are wanted: so many at most.
    pub fn page(&self, after: &str, most: usize, wanted: impl Fn(&KeyEntry<'_>) -> bool) -> Vec<&str> {
        let start = self.order.partition_point(|place| self.table.id_at(*place) <= after);
        let (near, far) = self.order[start..]
            .split_at_checked(most.saturating_mul(NEAR).max(NEAR_AT_LEAST))
            .unwrap_or((&self.order[start..], &[]));
        let entries = near.iter().filter_map(|place| self.table.entry(&self.table.keys.get(*place)?));
        let mut found: Vec<&str> = entries.filter(&wanted).map(|entry| entry.id).take(most).collect();
        if let (Some(last), [_, ..]) = (near.last(), far)
            && found.len() < most
        {
            found.extend(self.among_all(self.table.id_at(*last), most - found.len(), wanted));
        }
        found
    }

    /// The same, where few are wanted: looks at all there are, as they lie in memory, which is much faster than in their order.
    fn among_all(&self, after: &str, most: usize, wanted: impl Fn(&KeyEntry<'_>) -> bool) -> Vec<&str> {
        let mut found = BinaryHeap::with_capacity(most + 1);
        self.table.keys.each(self.places(), |_, row| {
            let names = self.table.names(row.names);
            let is_late = || found.len() == most && found.peek().is_some_and(|last| *last <= names.id);
            if names.id > after && !is_late() && self.table.named(row, names).is_some_and(|entry| wanted(&entry)) {
                found.push(names.id);
                if found.len() > most {
                    found.pop();
                }
            }
        });
        found.into_sorted_vec()
    }

    /// One of them.
    pub fn find(&self, id: &str) -> Option<KeyEntry<'_>> {
        self.table.entry(&self.table.keys.get(self.place(id)?)?)
    }

    /// The secrets that name some keys. Looks at all there are.
    pub fn secrets_of(&self, ids: &HashSet<&str>) -> Vec<Digest> {
        let mut places: Vec<u32> = ids.iter().filter_map(|id| self.place(id)).collect();
        places.sort_unstable();
        match places[..] {
            [] => Vec::new(),
            [place] => self.table.secrets.naming(|key| key == place),
            _ => self.table.secrets.naming(|key| places.binary_search(&key).is_ok()),
        }
    }

    /// The keys that some users own. Looks at all there are.
    pub fn owned_by(&self, users: &HashSet<&str>) -> Vec<&str> {
        let theirs = self.table.users.iter().filter(|(_, user)| users.contains(&*user.id)).map(|(at, _)| at);
        let theirs: HashSet<usize> = theirs.collect();
        let mut found = Vec::new();
        self.table.keys.each(self.places(), |_, row| {
            let owner = row.lineage.owner.map(|UserIndex(owner)| place(owner));
            if row.state.is_some() && owner.is_some_and(|owner| theirs.contains(&owner)) {
                found.push(self.table.names(row.names).id);
            }
        });
        found
    }

    /// Whether others were made below one. Looks at all there are.
    pub fn has_below(&self, id: &str) -> bool {
        let above = self.place(id).map(|above| above as usize);
        let mut found = false;
        self.table.keys.each(self.places(), |_, row| {
            let parent = row.lineage.parent.map(|ParentIndex(parent)| place(parent));
            found |= row.state.is_some() && parent.is_some() && parent == above;
        });
        found
    }

    fn places(&self) -> u32 {
        self.table.places.load(Acquire)
    }

    fn place(&self, id: &str) -> Option<u32> {
        let found = self.order.binary_search_by(|place| self.table.id_at(*place).cmp(id));
        found.ok().and_then(|at| self.order.get(at).copied())
    }
}

impl Table {
    fn id_at(&self, place: u32) -> &str {
        self.keys.get(place).map_or("", |row| self.names(row.names).id)
    }

    fn entry(&self, row: &KeyRow) -> Option<KeyEntry<'_>> {
        self.named(row, self.names(row.names))
    }

    fn named<'t>(&'t self, row: &KeyRow, names: Names<'t>) -> Option<KeyEntry<'t>> {
        let state = row.state?;
        let parent = |ParentIndex(parent)| self.id_at(u32::try_from(place(parent)).unwrap_or(u32::MAX));
        // A scope that cannot be found is none of those that anybody may see, but not everywhere either; nor is a key whose owner
        // cannot be found nobody's.
        let scope = match row.scope {
            ScopeIndex::EVERYWHERE => None,
            index => Some(self.scope(index)?),
        };
        let owner = match row.lineage.owner {
            None => None,
            Some(UserIndex(owner)) => Some(&*self.users.get(place(owner))?.id),
        };
        Some(KeyEntry {
            id: names.id,
            name: names.name,
            scope,
            access: row.access,
            state,
            expires_at: row.expires_at,
            owner,
            parent: row.lineage.parent.map(parent),
        })
    }
}
