//! Keys: made, changed, and stopped, each in one commit with its audit entry.

pub(super) mod change;
mod create;
pub(super) mod holder;
mod parent;

use serde_json::{Value, json};

pub use self::change::{Changed, Patch};
pub use self::create::{Created, Draft, NewKey};

/// What an audit entry says it is about.
pub(super) fn target(id: &str) -> Value {
    json!({ "kind": "key", "id": id })
}
