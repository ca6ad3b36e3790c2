//! The hash chain over a store's history.
//!
//! Every revision's head covers the one before it, its own audit entry and the records that it left, so whoever
//! remembers a head notices when what led to it was rewritten. Every part is preceded by its length: no two
//! different histories are the same bytes.

use sha2::{Digest, Sha256};

use super::record::RecordId;

/// The hash of some records, in the order in which they are given.
pub(super) fn content<'a>(records: impl IntoIterator<Item = (&'a RecordId, Option<&'a str>)>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    part(&mut hasher, b"keyward records");
    for (id, body) in records {
        part(&mut hasher, id.kind.label().as_bytes());
        part(&mut hasher, id.id.as_bytes());
        hasher.update([u8::from(body.is_some())]);
        part(&mut hasher, body.unwrap_or_default().as_bytes());
    }
    hasher.finalize().into()
}

/// The hash of one record that lives.
pub(super) fn record(id: &RecordId, body: &str) -> [u8; 32] {
    content([(id, Some(body))])
}

/// The hash of a list of what a commit left.
pub(super) fn list(list: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    part(&mut hasher, b"keyward list");
    part(&mut hasher, list.as_bytes());
    hasher.finalize().into()
}

/// One link of the chain: what a commit adds to the history before it.
pub(super) struct Link<'a> {
    /// The head before it.
    pub(super) previous: [u8; 32],
    /// The number of the revision that it makes.
    pub(super) number: u64,
    /// When, as the audit writes it.
    pub(super) at: &'a str,
    /// The audit entry, byte for byte as it is kept.
    pub(super) entry: &'a str,
    /// [`list`] of what the commit left; [`content`] of it in entries that have no list.
    pub(super) content: [u8; 32],
}

impl Link<'_> {
    /// The head after it.
    pub(super) fn head(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        part(&mut hasher, b"keyward commit");
        hasher.update(self.previous);
        hasher.update(self.number.to_be_bytes());
        part(&mut hasher, self.at.as_bytes());
        part(&mut hasher, self.entry.as_bytes());
        hasher.update(self.content);
        hasher.finalize().into()
    }
}

fn part(hasher: &mut Sha256, bytes: &[u8]) {
    // A usize has at most 64 bits wherever this runs.
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_in_the_records_changes_their_hash() {
        let [a, b] = ["a", "b"].map(RecordId::key);
        let hashes = [
            content([]),
            content([(&a, None)]),
            content([(&a, Some(""))]),
            content([(&a, Some("b"))]),
            content([(&b, Some("b"))]),
            content([(&a, Some("b")), (&b, Some(""))]),
            content([(&b, Some("")), (&a, Some("b"))]),
            content([(&a, Some("")), (&b, Some("b"))]),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}");
        }
    }

    #[test]
    fn every_part_of_a_link_is_in_its_head() {
        let link = || Link { previous: [1; 32], number: 1, at: "now", entry: "{}", content: [2; 32] };
        let heads = [
            link().head(),
            Link { previous: [0; 32], ..link() }.head(),
            Link { number: 2, ..link() }.head(),
            Link { at: "now{", entry: "}", ..link() }.head(),
            Link { entry: "{ }", ..link() }.head(),
            Link { content: [3; 32], ..link() }.head(),
        ];
        for (index, head) in heads.iter().enumerate() {
            assert!(!heads[..index].contains(head), "{index}");
        }
    }
}
