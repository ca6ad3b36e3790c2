//! The rows of keys and of secrets, in shards: readers copy a row under its shard's lock.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;

use super::DigestHasher;
use crate::auth::digest::Digest;
use crate::auth::grant::{
    Access, Environment, Grant, KeyIndex, Lineage, RestrictionsIndex, ScopeIndex, State, TallyIndex, Timestamp,
};

/// Enough for the workers of a large machine to keep out of each other's way.
const SHARDS: usize = 64;
/// Rows of keys that stand together in one shard: whoever looks at all of them locks once for each block, and meets them in the
/// order in which they and their names lie in memory.
const BLOCK: usize = 64;

/// What is known of a key.
#[derive(Clone, Copy)]
pub(super) struct KeyRow {
    pub(super) names: KeyIndex,
    pub(super) scope: ScopeIndex,
    pub(super) restrictions: RestrictionsIndex,
    pub(super) lineage: Lineage,
    pub(super) expires_at: Timestamp,
    pub(super) access: Access,
    pub(super) environment: Environment,
    /// Its state; of one that something names and that is not there, none.
    pub(super) state: Option<State>,
    pub(super) is_limited: bool,
}

impl KeyRow {
    /// One that is not there.
    pub(super) const fn absent(names: KeyIndex) -> Self {
        Self {
            names,
            scope: ScopeIndex::EVERYWHERE,
            restrictions: RestrictionsIndex::NONE,
            lineage: Lineage::NONE,
            expires_at: Timestamp::from_millis(0),
            access: Access::ReadOnly,
            environment: Environment::Test,
            state: None,
            is_limited: false,
        }
    }

    /// What a secret of it opens, if it is there.
    pub(super) fn grant(&self, tally: TallyIndex, not_after: Timestamp) -> Option<Grant> {
        let Self { names: key, scope, restrictions, lineage, expires_at, access, environment, state, is_limited } =
            *self;
        let state = state?;
        Some(Grant {
            key,
            scope,
            restrictions,
            lineage,
            tally,
            expires_at,
            not_after,
            access,
            environment,
            state,
            is_limited,
        })
    }
}

/// What is known of a secret.
#[derive(Clone, Copy)]
pub(super) struct SecretRow {
    /// The place of the key that it opens.
    pub(super) key: u32,
    pub(super) tally: TallyIndex,
    pub(super) not_after: Timestamp,
}

/// One of many locks, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Shard<T>(RwLock<T>);

impl<T> Shard<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        // Its rows are whole after every step.
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shards<T: Default>() -> Box<[Shard<T>]> {
    (0..SHARDS).map(|_| Shard::default()).collect()
}

/// The keys, by their places, which are counted from 0.
pub(super) struct KeyRows(Box<[Shard<Vec<KeyRow>>]>);

impl Default for KeyRows {
    fn default() -> Self {
        Self(shards())
    }
}

impl KeyRows {
    /// The shard of a place, and where in it the row is.
    fn shard(&self, place: u32) -> (&Shard<Vec<KeyRow>>, usize) {
        let (block, within) = (place as usize / BLOCK, place as usize % BLOCK);
        (&self.0[block % SHARDS], block / SHARDS * BLOCK + within)
    }

    /// A row.
    pub(super) fn get(&self, place: u32) -> Option<KeyRow> {
        let (shard, at) = self.shard(place);
        shard.read().get(at).copied()
    }

    /// Looks at all rows there are up to a place, in the order of their places. No lock is held meanwhile.
    pub(super) fn each(&self, places: u32, mut look: impl FnMut(u32, &KeyRow)) {
        let mut block = Vec::with_capacity(BLOCK);
        for first in (0..places).step_by(BLOCK) {
            let (shard, at) = self.shard(first);
            {
                let rows = shard.read();
                let end = rows.len().min(at + BLOCK);
                block.extend_from_slice(rows.get(at..end).unwrap_or_default());
            }
            (first..places).zip(&block).for_each(|(place, row)| look(place, row));
            block.clear();
        }
    }

    /// Puts a row in its place, which is one that was, or the next.
    pub(super) fn set(&self, place: u32, row: KeyRow) {
        let (shard, at) = self.shard(place);
        let mut rows = shard.write();
        match rows.get_mut(at) {
            Some(old) => *old = row,
            None => rows.push(row),
        }
    }

    /// Gives back the memory that rows to come would have had.
    pub(super) fn shrink(&self) {
        self.0.iter().for_each(|shard| shard.write().shrink_to_fit());
    }
}

/// The secrets, by their digests.
pub(super) struct SecretRows(Box<[Shard<Secrets>]>);

#[derive(Default)]
struct Secrets {
    index: HashTable<u32>,
    rows: Vec<(Digest, SecretRow)>,
}

impl Default for SecretRows {
    fn default() -> Self {
        Self(shards())
    }
}

fn hash(digest: &Digest) -> u64 {
    BuildHasherDefault::<DigestHasher>::default().hash_one(digest)
}

impl SecretRows {
    /// The index takes its bits from both ends of a hash.
    fn shard(&self, hash: u64) -> &Shard<Secrets> {
        &self.0[(hash >> 32) as usize % SHARDS]
    }

    /// A row.
    pub(super) fn get(&self, digest: &Digest) -> Option<SecretRow> {
        let hash = hash(digest);
        let shard = self.shard(hash).read();
        let at = shard.index.find(hash, |at| shard.rows[*at as usize].0 == *digest)?;
        Some(shard.rows[*at as usize].1)
    }

    /// Those that name certain keys, by the places of these.
    pub(super) fn naming(&self, is_such: impl Fn(u32) -> bool) -> Vec<Digest> {
        let mut found = Vec::new();
        for shard in &self.0 {
            let shard = shard.read();
            found.extend(shard.rows.iter().filter(|(_, row)| is_such(row.key)).map(|(digest, _)| *digest));
        }
        found
    }

    /// Puts a row, over the one that is there: a live key is not unknown for a moment.
    pub(super) fn set(&self, digest: Digest, row: SecretRow) {
        let hash_of_it = hash(&digest);
        let mut shard = self.shard(hash_of_it).write();
        let Secrets { index, rows } = &mut *shard;
        match index.find(hash_of_it, |at| rows[*at as usize].0 == digest) {
            Some(at) => rows[*at as usize].1 = row,
            None => {
                let at = u32::try_from(rows.len()).expect("a table holds fewer than 2^32 secrets");
                rows.push((digest, row));
                index.insert_unique(hash_of_it, at, |at| hash(&rows[*at as usize].0));
            }
        }
    }

    /// Takes a row away, and gives it.
    pub(super) fn remove(&self, digest: &Digest) -> Option<SecretRow> {
        let hash_of_it = hash(digest);
        let mut shard = self.shard(hash_of_it).write();
        let Secrets { index, rows } = &mut *shard;
        let found = index.find_entry(hash_of_it, |at| rows[*at as usize].0 == *digest).ok()?;
        let (at, _) = found.remove();
        // The last row takes its place.
        let last = u32::try_from(rows.len() - 1).unwrap_or(u32::MAX);
        if at != last
            && let Some(moved) = index.find_mut(hash(&rows[last as usize].0), |other| *other == last)
        {
            *moved = at;
        }
        Some(rows.swap_remove(at as usize).1)
    }

    /// Gives back the memory that rows to come would have had.
    pub(super) fn shrink(&self) {
        self.0.iter().for_each(|shard| shard.write().rows.shrink_to_fit());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_small() {
        assert_eq!(size_of::<KeyRow>(), 32, "a million keys have a million of them");
        assert_eq!(size_of::<(Digest, SecretRow)>(), 32);
    }

    #[test]
    fn all_rows_of_keys_are_met_in_the_order_of_their_places() {
        let rows = KeyRows::default();
        for places in [0, 1, 63, 64, 65, 5_000, 70_000_u32] {
            let there = u32::try_from(rows.0.iter().map(|shard| shard.read().len()).sum::<usize>()).unwrap();
            (there..places).for_each(|n| rows.set(n, KeyRow::absent(KeyIndex(n + 7))));
            let mut met = Vec::new();
            rows.each(places, |place, row| met.push((place, row.names.0)));
            assert!(met.iter().copied().eq((0..places).map(|n| (n, n + 7))), "{places}");
            assert!((0..places).all(|n| rows.get(n).is_some_and(|row| row.names.0 == n + 7)));
            assert!(rows.get(places).is_none());
        }
        rows.set(4_097, KeyRow::absent(KeyIndex(0)));
        assert_eq!([4_096, 4_097, 4_098].map(|n| rows.get(n).unwrap().names.0), [4_103, 0, 4_105]);
    }

    #[test]
    fn secrets_are_found_whatever_was_removed_before() {
        let digest =
            |n: u32| Digest::from_record_id(&format!("{:032x}", u128::from(n) * 0x9e37_79b9_7f4a_7c15_f39c)).unwrap();
        let row = |n| SecretRow { key: n, tally: TallyIndex(n), not_after: Timestamp::NEVER };
        let rows = SecretRows::default();
        (0..2_000).for_each(|n| rows.set(digest(n), row(n)));
        for n in (0..2_000).step_by(3) {
            assert_eq!(rows.remove(&digest(n)).map(|row| row.key), Some(n));
            assert!(rows.remove(&digest(n)).is_none());
        }
        rows.shrink();
        (0..2_000).step_by(6).for_each(|n| rows.set(digest(n), row(n + 1)));
        for n in 0..2_000 {
            let expected = [Some(n + 1), Some(n), Some(n), None, Some(n), Some(n)][n as usize % 6];
            assert_eq!(rows.get(&digest(n)).map(|row| row.key), expected, "{n}");
        }
    }
}
