//! What must hold of a key above a new one. Whatever it may, the new one may no more: that is looked at with each request. Here
//! those are refused that could never work.

use crate::auth::grant::State;
use crate::auth::lineage::DEEPEST;
use crate::manage::{Failure, Mistake, Session};
use crate::store::Store;
use crate::store::record::{KeyBody, RecordId};

/// What cannot be meant.
pub(super) fn mistake(field: &str, why: &str) -> Failure {
    Failure::Invalid(vec![Mistake { field: field.to_owned(), why: why.to_owned() }])
}

impl<S: Store> Session<S> {
    /// Whether a key could work below the one that it names.
    pub(super) async fn check_parent(&self, key: &KeyBody) -> Result<(), Failure> {
        let Some(id) = &key.parent else { return Ok(()) };
        let wrong = |why: &str| mistake("parent", why);
        let mut parent = self.key(id).await?.body;
        if parent.state == State::Revoked {
            return Err(Failure::Revoked(RecordId::key(id)));
        }
        if parent.env != key.env {
            return Err(wrong("a key below another is of the same environment"));
        }
        let apart = match (&parent.scope, &key.scope) {
            (Some(above), Some(own)) => !above.covers(own) && !own.covers(above),
            (None, _) | (_, None) => false,
        };
        if apart {
            return Err(wrong("it acts in another part of the tree, and so the new key could do nothing"));
        }
        let mut depth = 1;
        while let Some(above) = &parent.parent {
            depth += 1;
            if depth > DEEPEST {
                return Err(wrong("there are too many keys above it already"));
            }
            parent = self.key(above).await?.body;
        }
        Ok(())
    }
}
