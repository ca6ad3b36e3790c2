//! Whether the records are those that the lines of the audit say were left.
//!
//! Of each record its name is kept as a hash, so that a million keys need a hundred bytes each, however long their ids are.

use std::collections::HashMap;

use super::Break;
use crate::store::chain;
use crate::store::left::{Hash, Left};
use crate::store::record::{Body, Record, RecordId};

/// The hash of a record's name.
pub(super) type Name = u128;

/// What the lines say, and how far the records were held against it.
#[derive(Default)]
pub(super) struct Expected {
    left: HashMap<Name, Last>,
    /// Revisions whose lines do not say what they left, from and to.
    silent: Vec<(u64, u64)>,
    /// How many records were looked at that are not deleted.
    pub(super) records: u64,
    /// Of how many of them the last line to touch them does not say what it left.
    pub(super) unvouched: u64,
}

/// What the last line that touched a record says.
struct Last {
    revision: u64,
    hash: Option<Hash>,
    is_there: bool,
}

impl Expected {
    /// A line says what it left.
    pub(super) fn line(&mut self, revision: u64, left: Vec<Left>) {
        for Left { id, hash } in left {
            self.left.insert(name(&id), Last { revision, hash, is_there: false });
        }
    }

    /// Nothing is known of what these revisions left.
    pub(super) fn silent(&mut self, first: u64, last: u64) {
        match self.silent.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            Some(_) | None => self.silent.push((first, last)),
        }
    }

    /// Holds a record against what was said of it.
    pub(super) fn compare(&mut self, record: &Record) -> Option<Break> {
        let Record { id, revision, body } = record;
        self.records += u64::from(body.is_some());
        let after = self.silent.partition_point(|(first, _)| first <= revision);
        let is_silent = after.checked_sub(1).is_some_and(|at| self.silent[at].1 >= *revision);
        let what = || describe(record);
        match self.left.get_mut(&name(id)) {
            Some(last) if is_silent && *revision > last.revision => last.is_there = true,
            Some(last) => {
                last.is_there = true;
                let hash = body.as_deref().map(|body| chain::record(id, body));
                if (*revision, hash) == (last.revision, last.hash) {
                    return None;
                }
                return Some(Break::Edited { what: what(), line: last.revision });
            }
            None if is_silent => {}
            None => return Some(Break::Added { what: what() }),
        }
        self.unvouched += u64::from(body.is_some());
        None
    }

    /// Those that are not there and were not deleted, each with the line that left it.
    pub(super) fn lost(self) -> Vec<(u64, Name)> {
        let lost = self.left.into_iter().filter(|(_, last)| !last.is_there && last.hash.is_some());
        let mut lost: Vec<_> = lost.map(|(name, last)| (last.revision, name)).collect();
        lost.sort_unstable();
        lost
    }
}

/// What a record is known by here.
pub(super) fn name(id: &RecordId) -> Name {
    u128::from_be_bytes(*chain::record(id, "").first_chunk().unwrap_or(&[0; 16]))
}

/// As people know it. A secret has no name that may be shown but that of its key.
fn describe(record: &Record) -> String {
    let body = record.body.as_deref().map(|json| Body::parse(&record.id, json));
    match body {
        Some(Ok(Body::Secret(_, secret))) => format!("{} of key {}", record.id, secret.key),
        Some(_) | None => record.id.to_string(),
    }
}
