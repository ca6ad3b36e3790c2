//! What a commit left: a list of the records that it touched, each with the hash of its body. It is kept beside the audit entry,
//! whose hash chain covers it, so that the records can be held against it later. A list has ids of secrets in it and is shown to
//! nobody.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;

use super::chain;
use super::record::{Kind, RecordId};
use super::{Change, Commit};

/// The hash of a record that lives.
pub(super) type Hash = [u8; 32];

/// The entry of the first line, which tells of a store without records, and its list.
pub(super) const FIRST_ENTRY: &str = r#"{"action":"store.create","records":0}"#;
pub(super) const NOTHING: &str = "[]";

/// What a commit adds to the audit.
pub(super) struct Written {
    /// The entry, byte for byte as it is kept.
    pub(super) entry: String,
    /// What it left.
    pub(super) list: String,
    /// The hash of that, for the chain.
    pub(super) content: Hash,
}

/// What a commit adds to the audit. The entry says how many records it left: a list cannot just be taken away.
pub(super) fn written(commit: &Commit) -> Written {
    let Commit { actor, action, detail, changes } = commit;
    // The last one of several changes of a record is what was left of it.
    let left: BTreeMap<&RecordId, &Change> = changes.iter().map(|change| (&change.id, change)).collect();
    let entry = json!({ "actor": actor, "action": action, "detail": detail, "records": left.len() }).to_string();
    let of = |(id, change): (&RecordId, &Change)| {
        let hash = change.body.as_deref().map(|body| URL_SAFE_NO_PAD.encode(chain::record(id, body)));
        json!([id.kind.label(), id.id, hash])
    };
    let list = serde_json::Value::from_iter(left.into_iter().map(of)).to_string();
    let content = chain::list(&list);
    Written { entry, list, content }
}

/// Of a record, what a list says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Which record.
    pub(super) id: RecordId,
    /// What it was left as; `None` if it was deleted.
    pub(super) hash: Option<Hash>,
}

/// Reads a list. Kinds that only a later version knows are passed over, as everywhere.
pub(super) fn read(list: &str) -> Option<Vec<Left>> {
    let listed: Vec<(String, Box<str>, Option<String>)> = serde_json::from_str(list).ok()?;
    let known = listed.into_iter().filter_map(|(kind, id, hash)| Some((Kind::parse(&kind)?, id, hash)));
    let left = |(kind, id, hash): (Kind, Box<str>, Option<String>)| {
        let hash = hash.map(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok());
        match hash {
            Some(None) => None,
            Some(Some(hash)) => Some(Left { id: RecordId { kind, id }, hash: Some(hash) }),
            None => Some(Left { id: RecordId { kind, id }, hash: None }),
        }
    };
    known.map(left).collect()
}

/// Whether an entry is of a version that writes lists.
pub(super) fn is_listed(entry: &str) -> bool {
    #[derive(Deserialize)]
    struct Entry {
        records: Option<u64>,
    }
    serde_json::from_str::<Entry>(entry).is_ok_and(|entry| entry.records.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expect;

    #[test]
    fn a_list_has_every_record_once_as_it_was_left() {
        let change = |id: &str, body: Option<&str>| Change {
            id: RecordId::key(id),
            expect: Expect::Any,
            body: body.map(Into::into),
        };
        let commit = |changes| Commit { actor: "ann".into(), action: "test", detail: json!({"a": 1}), changes };
        let changes = vec![change("k2", None), change("k1", Some("one")), change("k1", Some("two"))];
        let Written { entry, list, content } = written(&commit(changes));
        assert!(is_listed(&entry) && !is_listed(r#"{"action":"x","detail":{"records":1}}"#) && !is_listed("{"));
        let hash = Some(chain::record(&RecordId::key("k1"), "two"));
        let expected = vec![Left { id: RecordId::key("k1"), hash }, Left { id: RecordId::key("k2"), hash: None }];
        assert_eq!(read(&list), Some(expected));
        assert_eq!(content, chain::list(&list));
        assert_eq!(written(&commit(vec![])).list, "[]");
        assert_eq!(read(r#"[["planet","p1",null]]"#), Some(vec![]));
        for broken in ["", "[1]", r#"[["key","k1","x"]]"#, r#"[["key","k1"]]"#] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }
}
