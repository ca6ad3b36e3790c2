//! What a store holds already, in some forty bytes for each value: enough to see that a row is unchanged without asking
//! for two records by name. A file that is imported again is thus read at about the speed of the first time.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use super::row::{Row, Settings, default_name};
use crate::auth::digest::Digest;
use crate::manage::Failure;
use crate::store::record::{Body, KeyBody};
use crate::store::{Pull, Store};

/// The values in a store and the settings of their keys.
#[derive(Default)]
pub(super) struct Known {
    /// Every value, and where the outline of its key is.
    values: HashMap<Digest, u32>,
    outlines: Vec<Outline>,
    hasher: RandomState,
}

/// A key in hashes with a seed of their own: two keys that differ have the same one time in 2⁶³.
struct Outline {
    id: u64,
    name: u64,
    /// The other settings, and in the last bit whether its name is its id.
    rest: u64,
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
                        // Beyond four billion keys, values would be asked for by name again.
                        let Ok(index) = u32::try_from(known.outlines.len()) else { continue };
                        keys.insert(known.hash(&*record.id.id), index);
                        known.outlines.push(known.outline(&record.id.id, body));
                    }
                    Ok(Body::Secret(digest, body)) => {
                        let index = keys.get(&known.hash(&*body.key));
                        known.values.extend(index.map(|index| (digest, *index)));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(known)
    }

    /// Whether the value of a row is there, with the settings of the row.
    pub(super) fn has(&self, row: &Row) -> bool {
        let outline = self.values.get(&row.digest).and_then(|index| self.outlines.get(*index as usize));
        outline.is_some_and(|outline| {
            let id = row.id.as_deref().is_none_or(|id| self.hash(id) == outline.id);
            let name = row.name.as_deref().map_or(outline.rest & 1 == 1, |name| self.hash(name) == outline.name);
            id && name && self.hash(&row.settings) | 1 == outline.rest | 1
        })
    }

    fn outline(&self, id: &str, body: KeyBody) -> Outline {
        let is_called_by_id = u64::from(body.name == default_name(id));
        let (id, name) = (self.hash(id), self.hash(&*body.name));
        Outline { id, name, rest: self.hash(&Settings::of(body)) & !1 | is_called_by_id }
    }

    fn hash<T: Hash + ?Sized>(&self, value: &T) -> u64 {
        self.hasher.hash_one(value)
    }
}
