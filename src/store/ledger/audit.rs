//! The audit: one line for each revision, written in the transaction of the change that it tells of.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Ledger, LedgerError};
use crate::auth::grant::Timestamp;

/// How many lines are read at a time.
const PAGE: u32 = 500;

/// A page whose lists have come to so many bytes has no more lines.
pub(in crate::store) const LARGEST_PAGE: usize = 8 << 20;

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From which end.
    pub order: Order,
    /// Only what comes after the line of this revision, in that order.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: u32,
    /// Whether the lists of what each commit left are wanted too: there are fewer lines then, but one at least if there is any.
    pub lists: bool,
}

/// From which end lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they were written.
    OldestFirst,
    /// The last one first.
    NewestFirst,
}

/// A line as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The revision that it tells of.
    pub revision: u64,
    /// When, as RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// What happened, as JSON, byte for byte.
    pub entry: String,
    /// The hash of the records that the commit left.
    pub content: Vec<u8>,
    /// The head of the hash chain after it.
    pub chain: Vec<u8>,
    /// What the commit left, if that was wanted and is kept. It is shown to nobody.
    pub list: Option<String>,
}

/// A line as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The revision that it tells of.
    pub revision: u64,
    /// When.
    pub at: String,
    /// Who; the first line has nobody.
    pub actor: Option<String>,
    /// What, such as `key.create`.
    pub action: String,
    /// What it was done to, and how that was before and after.
    pub detail: Value,
}

impl Line {
    /// What it says. A line that was edited may say anything: what is no text is shown as it stands.
    pub fn read(&self) -> Entry {
        let mut entry = serde_json::from_str(&self.entry).unwrap_or_else(|_| Value::from(self.entry.as_str()));
        let mut take = |name: &str| entry.get_mut(name).map(Value::take);
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let (actor, action) = (take("actor").map(text), take("action").map(text).unwrap_or_default());
        let detail = take("detail").unwrap_or_default();
        Entry { revision: self.revision, at: self.at.clone(), actor, action, detail }
    }
}

impl Line {
    /// What it says, with what the chain is made of, so that others can verify it too.
    pub fn exported(&self) -> Value {
        let mut exported = serde_json::to_value(self.read()).unwrap_or_default();
        exported["entry"] = self.entry.as_str().into();
        exported["content"] = hex(&self.content).into();
        exported["chain"] = hex(&self.chain).into();
        exported
    }
}

/// In hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Entry {
    /// The id of what it was done to.
    pub fn target(&self) -> Option<&str> {
        self.detail.get("target")?.get("id")?.as_str()
    }
}

/// Which entries are wanted: those for which everything holds that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Done by this one.
    pub actor: Option<String>,
    /// This action, or all that begin with it and a dot: `key`, `key.revoke`.
    pub action: Option<String>,
    /// Done to what has this id.
    pub target: Option<String>,
    /// Not before then.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether an entry is among them.
    pub fn wants(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, given: Option<&str>| wanted.is_none() || wanted.as_deref() == given;
        let begins =
            |group: &String| entry.action.strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('.'));
        is(&self.actor, entry.actor.as_deref())
            && is(&self.target, entry.target())
            && (is(&self.action, Some(&entry.action)) || self.action.as_ref().is_some_and(begins))
            && Timestamp::parse(&entry.at).is_none_or(|at| {
                self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
            })
    }
}

/// Reads through the audit, and hands out what is wanted until `take` has enough. Commits meanwhile are seen or not.
///
/// # Errors
/// When the store cannot be read or keeps no audit, or `take` fails.
pub async fn read<E: From<LedgerError>>(
    ledger: &impl Ledger,
    order: Order,
    after: Option<u64>,
    filter: &Filter,
    mut take: impl FnMut(Entry, &Line) -> Result<bool, E>,
) -> Result<(), E> {
    let mut page = Page { order, after, limit: PAGE, lists: false };
    loop {
        let lines = ledger.lines(page).await?;
        for line in &lines {
            let entry = line.read();
            // Clocks may go back a little, so times tell nothing of the lines that follow.
            if filter.wants(&entry) && !take(entry, line)? {
                return Ok(());
            }
        }
        match lines.last() {
            Some(last) if lines.len() == PAGE as usize => page.after = Some(last.revision),
            Some(_) | None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(entry: &str) -> Line {
        let at = "2026-11-22T12:00:00.000Z".to_owned();
        Line { revision: 7, at, entry: entry.to_owned(), content: vec![], chain: vec![], list: None }
    }

    #[test]
    fn a_line_is_read_whatever_it_says() {
        let whole =
            line(r#"{"action":"key.revoke","actor":"cli:ann","detail":{"target":{"id":"k1","kind":"key"}}}"#).read();
        assert_eq!(
            (whole.actor.as_deref(), &*whole.action, whole.target()),
            (Some("cli:ann"), "key.revoke", Some("k1"))
        );
        let first = line(r#"{"action":"store.create"}"#).read();
        assert_eq!((first.actor, &*first.action, first.detail), (None, "store.create", Value::Null));
        for entry in ["", "{", "[1]", "\"text\"", r#"{"actor":5,"action":null,"detail":1}"#] {
            assert_eq!(line(entry).read().target(), None, "{entry}");
        }
    }

    #[test]
    fn everything_that_is_given_must_hold() {
        let entry =
            line(r#"{"action":"key.revoke","actor":"cli:ann","detail":{"target":{"id":"k1","kind":"key"}}}"#).read();
        let some = |text: &str| Some(text.to_owned());
        let time = |text: &str| Some(Timestamp::parse(text).unwrap());
        for (filter, wanted) in [
            (Filter::default(), true),
            (
                Filter { actor: some("cli:ann"), action: some("key.revoke"), target: some("k1"), ..Filter::default() },
                true,
            ),
            (Filter { actor: some("cli:ann"), action: some("key.create"), ..Filter::default() }, false),
            (Filter { action: some("key"), ..Filter::default() }, true),
            (Filter { action: some("ke"), ..Filter::default() }, false),
            (Filter { action: some("key.revoke.x"), ..Filter::default() }, false),
            (Filter { target: some("k2"), ..Filter::default() }, false),
            (Filter { actor: some("ann"), ..Filter::default() }, false),
            (
                Filter {
                    since: time("2026-11-22T12:00:00Z"),
                    until: time("2026-11-22T12:00:01Z"),
                    ..Filter::default()
                },
                true,
            ),
            (Filter { since: time("2026-11-22T12:00:01Z"), ..Filter::default() }, false),
            (Filter { until: time("2026-11-22T12:00:00Z"), ..Filter::default() }, false),
        ] {
            assert_eq!(filter.wants(&entry), wanted, "{filter:?}");
        }
    }
}
