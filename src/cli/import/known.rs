//! What a store holds already, in some forty bytes for each value: enough to see that a row is unchanged without asking
//! for two records by name. A file that is imported again is thus read at about the speed of the first time.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use super::row::{Row, Settings, default_name};
use crate::auth::digest::Digest;
use crate::cli::exit::Failure;
use crate::store::record::{Body, KeyBody};
use crate::store::{Pull, Store};

/// The values in a store and the settings of their keys.
#[derive(Default)]
pub(super) struct Known {
    values: HashMap<Digest, Outline>,
    hasher: RandomState,
}

/// A key in hashes with a seed of their own: two keys that differ have the same one time in 2⁶⁴.
#[derive(Clone, Copy)]
struct Outline {
    id: u64,
    name: u64,
    rest: u64,
    is_called_by_id: bool,
}

impl Known {
    /// Reads a whole store.
    pub(super) async fn read(store: &impl Store) -> Result<Self, Failure> {
        let Pull { mut records, .. } = store.pull(None).await?;
        let (mut known, mut keys) = (Self::default(), HashMap::new());
        while let Some(batch) = records.next().await? {
            for record in batch {
                let Some(json) = record.body else { continue };
                // Owners come before what they own. What cannot be read is left to those who ask for it by name.
                match Body::parse(&record.id, &json) {
                    Ok(Body::Key(body)) => {
                        let outline = known.outline(&record.id.id, body);
                        keys.insert(outline.id, outline);
                    }
                    Ok(Body::Secret(digest, body)) => {
                        let outline = keys.get(&known.hash(&*body.key));
                        known.values.extend(outline.map(|outline| (digest, *outline)));
                    }
                    Ok(Body::Scope(..)) | Err(_) => {}
                }
            }
        }
        Ok(known)
    }

    /// Whether the value of a row is there, with the settings of the row.
    pub(super) fn has(&self, row: &Row) -> bool {
        self.values.get(&row.digest).is_some_and(|outline| {
            let id = row.id.as_deref().is_none_or(|id| self.hash(id) == outline.id);
            let name = row.name.as_deref().map_or(outline.is_called_by_id, |name| self.hash(name) == outline.name);
            id && name && self.hash(&row.settings) == outline.rest
        })
    }

    fn outline(&self, id: &str, body: KeyBody) -> Outline {
        Outline {
            id: self.hash(id),
            name: self.hash(&*body.name),
            is_called_by_id: body.name == default_name(id),
            rest: self.hash(&Settings::of(body)),
        }
    }

    fn hash<T: Hash + ?Sized>(&self, value: &T) -> u64 {
        self.hasher.hash_one(value)
    }
}
