//! Whether the audit is the one that was written: every line follows from the one before it, none is missing, and the last
//! one is where the store says that it stands. And whether the records are those that its lines say were left.
//!
//! Whoever can write the database can also write a whole new history and a head that fits. That is found by those who
//! remember a head from before: sidecars do, and whoever keeps what this prints.

use std::fmt;

mod records;

use self::records::{Expected, Name, name};
use super::audit::{Line, Order, Page};
use super::{Ledger, LedgerError};
use crate::store::chain::{self, Link};
use crate::store::left::{self, Left};
use crate::store::{Records, Revision};

/// How many lines are read at a time.
const PAGE: u32 = 1000;

/// More than this are not told of: the first ones say enough.
const MOST: usize = 20;

/// What verifying came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where the store says that its history stands.
    pub head: Revision,
    /// How many lines were read.
    pub lines: u64,
    /// How many records were, deleted ones apart.
    pub records: u64,
    /// Of how many of them nothing can be said: the line that left them is of an older version, or not as it was written.
    pub unvouched: u64,
    /// What is wrong; nothing, if all is well.
    pub breaks: Vec<Break>,
    /// How much more is wrong that is not told of.
    pub more: u64,
}

/// A place where the audit is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Break {
    /// There are no lines of these revisions.
    Missing(u64, u64),
    /// The line of a revision is not what the chain says, or does not follow from the one before it.
    Altered(u64),
    /// The last line is there, but the store stands elsewhere.
    OtherHead(u64),
    /// The history does not have a revision that it once had.
    Forgotten(u64),
    /// A record is not as the last line that touched it says.
    Edited {
        /// Which record.
        what: String,
        /// Which line.
        line: u64,
    },
    /// A record that a line has left is not there.
    Lost {
        /// Which record.
        what: String,
        /// Which line.
        line: u64,
    },
    /// A record is there that no line tells of.
    Added {
        /// Which record.
        what: String,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(first, last) if first == last => write!(f, "line {first} is missing"),
            Self::Missing(first, last) => write!(f, "lines {first} to {last} are missing"),
            Self::Altered(line) => {
                write!(f, "line {line} is not as it was written, or does not follow from the one before it")
            }
            Self::OtherHead(line) => write!(f, "the store's head is not the one that line {line} leads to"),
            Self::Forgotten(line) => write!(f, "the history has another line {line} than the one that is remembered"),
            Self::Edited { what, line } => write!(f, "{what} is not as line {line} left it"),
            Self::Lost { what, line } => write!(f, "{what}, which line {line} left, is missing"),
            Self::Added { what } => write!(f, "{what} is there, and no line tells of it"),
        }
    }
}

/// Reads the whole audit and all records, and tells what is wrong with them. Commits may be made meanwhile; with `remembered`,
/// the history must have that revision.
///
/// # Errors
/// When the store cannot be read, or keeps no audit.
pub async fn verify(ledger: &impl Ledger, remembered: Option<Revision>) -> Result<Verdict, LedgerError> {
    // Lines are only ever added: those up to the revision of the records do not change any more.
    let (head, mut records) = ledger.rows().await?;
    let mut walk = Walk::new(head, remembered);
    let mut page = Page { order: Order::OldestFirst, after: None, limit: PAGE, lists: true };
    loop {
        let lines = ledger.lines(page).await?;
        let ended = lines.last().is_none_or(|last| last.revision >= head.number);
        page.after = lines.last().map(|last| last.revision);
        lines.iter().take_while(|line| line.revision <= head.number).for_each(|line| walk.step(line));
        if ended {
            break;
        }
    }
    walk.end_of_lines();
    walk.compare(&mut records).await?;
    let (mut verdict, lost) = walk.end();
    for (line, name) in lost {
        let what = name_of(ledger, line, name).await?;
        verdict.breaks.push(Break::Lost { what, line });
    }
    Ok(verdict)
}

/// What a record that is not there was called, as the line has it that left it.
async fn name_of(ledger: &impl Ledger, line: u64, wanted: Name) -> Result<String, LedgerError> {
    let after = line.checked_sub(1);
    let lines = ledger.lines(Page { order: Order::OldestFirst, after, limit: 1, lists: true }).await?;
    let left = lines.first().and_then(|line| left::read(line.list.as_deref()?)).unwrap_or_default();
    let found = left.into_iter().find(|left| name(&left.id) == wanted);
    Ok(found.map_or_else(|| "a record".to_owned(), |left| left.id.to_string()))
}

/// How far the lines have been followed.
struct Walk {
    head: Revision,
    remembered: Option<Revision>,
    /// The number that the next line should have, and the head before it.
    next: u64,
    previous: Option<[u8; 32]>,
    lines: u64,
    expected: Expected,
    breaks: Vec<Break>,
    more: u64,
}

impl Walk {
    fn new(head: Revision, remembered: Option<Revision>) -> Self {
        let (expected, breaks) = (Expected::default(), Vec::new());
        Self { head, remembered, next: 0, previous: Some([0; 32]), lines: 0, expected, breaks, more: 0 }
    }

    fn found(&mut self, broken: Break) {
        if self.breaks.len() < MOST {
            self.breaks.push(broken);
        } else {
            self.more += 1;
        }
    }

    fn step(&mut self, line: &Line) {
        self.lines += 1;
        self.expect(line.revision);
        // Each line is held against the heads that are written beside it and the one before it: an altered line does not
        // hide what is wrong with those that follow.
        let chain: Option<[u8; 32]> = line.chain.as_slice().try_into().ok();
        match left_by(line) {
            Ok(left) if chain.is_some() && self.head_after(line) == chain => match left {
                Some(left) => self.expected.line(line.revision, left),
                None => self.expected.silent(line.revision, line.revision),
            },
            Ok(_) | Err(NotTheList) => {
                self.found(Break::Altered(line.revision));
                self.expected.silent(line.revision, line.revision);
            }
        }
        if let Some(remembered) = self.remembered.take_if(|remembered| remembered.number == line.revision)
            && Some(remembered.chain) != chain
        {
            self.found(Break::Forgotten(line.revision));
        }
        (self.next, self.previous) = (line.revision + 1, chain);
    }

    /// Notes the lines that are missing before this one. After a gap the head before is not known.
    fn expect(&mut self, number: u64) {
        if number > self.next {
            self.found(Break::Missing(self.next, number - 1));
            self.expected.silent(self.next, number - 1);
            self.previous = None;
        }
    }

    fn head_after(&self, line: &Line) -> Option<[u8; 32]> {
        let content = line.content.as_slice().try_into().ok()?;
        let (number, at, entry) = (line.revision, line.at.as_str(), line.entry.as_str());
        match self.previous {
            Some(previous) => Some(Link { previous, number, at, entry, content }.head()),
            // Nothing can be said of it.
            None => line.chain.as_slice().try_into().ok(),
        }
    }

    fn end_of_lines(&mut self) {
        self.expect(self.head.number + 1);
        if self.next == self.head.number + 1 && self.previous.is_some_and(|last| last != self.head.chain) {
            self.found(Break::OtherHead(self.head.number));
        }
        // Its line is among those that are missing, or comes after all that there are.
        if let Some(remembered) = self.remembered.take() {
            self.found(Break::Forgotten(remembered.number));
        }
    }

    async fn compare(&mut self, records: &mut Records) -> Result<(), LedgerError> {
        while let Some(batch) = records.next().await? {
            for record in batch {
                if let Some(broken) = self.expected.compare(&record) {
                    self.found(broken);
                }
            }
        }
        Ok(())
    }

    /// What was found, and those of the records that are missing whose names are still to be found.
    fn end(self) -> (Verdict, Vec<(u64, Name)>) {
        let Self { head, lines, expected, breaks, more, .. } = self;
        let (records, unvouched) = (expected.records, expected.unvouched);
        let mut lost = expected.lost();
        let rest = lost.split_off(lost.len().min(MOST - breaks.len()));
        (Verdict { head, lines, records, unvouched, breaks, more: more + rest.len() as u64 }, lost)
    }
}

/// The list of a line is not the one that its hash is of.
struct NotTheList;

/// What a line says that was left; `None` if it is of a version that did not say.
fn left_by(line: &Line) -> Result<Option<Vec<Left>>, NotTheList> {
    match &line.list {
        Some(list) if chain::list(list).as_slice() == line.content => left::read(list).map(Some).ok_or(NotTheList),
        Some(_) => Err(NotTheList),
        None if left::is_listed(&line.entry) => Err(NotTheList),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::chain;

    /// A history of this many commits after the first line.
    fn history(commits: u64) -> (Revision, Vec<Line>) {
        let (mut previous, mut lines) = ([0; 32], Vec::new());
        for revision in 0..=commits {
            let (at, entry, content) =
                (format!("time {revision}"), format!("{{\"n\":{revision}}}"), chain::content([]));
            previous = Link { previous, number: revision, at: &at, entry: &entry, content }.head();
            lines.push(Line { revision, at, entry, content: content.to_vec(), chain: previous.to_vec(), list: None });
        }
        (Revision { number: commits, chain: previous }, lines)
    }

    fn judge(head: Revision, remembered: Option<Revision>, lines: &[Line]) -> Vec<Break> {
        let mut walk = Walk::new(head, remembered);
        lines.iter().for_each(|line| walk.step(line));
        walk.end_of_lines();
        walk.end().0.breaks
    }

    #[test]
    fn every_way_to_touch_a_line_is_found() {
        let (head, whole) = history(5);
        assert_eq!(judge(head, Some(head), &whole), []);
        assert_eq!(judge(Revision { number: 0, ..head }, None, &[]), [Break::Missing(0, 0)]);
        let edited = |edit: &dyn Fn(&mut Vec<Line>)| {
            let mut lines = whole.clone();
            edit(&mut lines);
            judge(head, None, &lines)
        };
        assert_eq!(edited(&|lines| lines[3].entry = "{\"n\":4}".into()), [Break::Altered(3)]);
        assert_eq!(edited(&|lines| lines[3].at.push('0')), [Break::Altered(3)]);
        assert_eq!(edited(&|lines| lines[3].content[0] ^= 1), [Break::Altered(3)]);
        assert_eq!(edited(&|lines| lines[3].chain.truncate(31)), [Break::Altered(3)]);
        assert_eq!(edited(&|lines| lines[3].chain[0] ^= 1), [Break::Altered(3), Break::Altered(4)]);
        assert_eq!(edited(&|lines| drop(lines.remove(3))), [Break::Missing(3, 3)]);
        assert_eq!(edited(&|lines| drop(lines.drain(0..2))), [Break::Missing(0, 1)]);
        assert_eq!(edited(&|lines| lines.truncate(4)), [Break::Missing(4, 5)]);
        assert_eq!(edited(&|lines| lines.clear()), [Break::Missing(0, 5)]);
        let swapped = edited(&|lines| {
            lines.swap(2, 4);
            (lines[2].revision, lines[4].revision) = (2, 4);
        });
        assert_eq!(swapped, [2, 3, 4, 5].map(Break::Altered));
    }

    #[test]
    fn a_new_history_is_found_by_who_remembers_the_old_one() {
        let (before, _) = history(3);
        let (head, lines) = history(5);
        assert_eq!(judge(head, Some(before), &lines), []);
        let other = Revision { number: 3, chain: [7; 32] };
        assert_eq!(judge(head, Some(other), &lines), [Break::Forgotten(3)]);
        assert_eq!(judge(head, Some(Revision { number: 9, ..other }), &lines), [Break::Forgotten(9)]);
        // A cut together with the head that was the last one then.
        assert_eq!(judge(before, Some(head), &lines[..4]), [Break::Forgotten(5)]);
        assert_eq!(judge(before, None, &lines[..4]), []);
        assert_eq!(judge(other, None, &lines[..4]), [Break::OtherHead(3)]);
    }
}
