//! What keys are called: id, name and user of each, one after the other in chunks of text. A chunk that readers see does not
//! change any more.

use crate::auth::grant::KeyIndex;

/// The bytes of a chunk: a million keys have some ten thousand chunks.
const CHUNK: usize = 4096;
/// Names begin at multiples of this.
const UNIT: usize = 4;
/// How many beginnings a chunk has.
const UNITS: u32 = (CHUNK / UNIT) as u32;
/// Marks the index of names that have a text of their own.
const SINGLE: u32 = 1 << 31;
/// The lengths that stand before names.
const HEADER: usize = 6;

/// What a key is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'t> {
    /// Its id.
    pub id: &'t str,
    /// Its name.
    pub name: &'t str,
    /// The user it was handed to.
    pub user: Option<&'t str>,
}

const NOBODY: Names<'_> = Names { id: "", name: "", user: None };

/// The names that readers see.
#[derive(Default)]
pub(super) struct Roll {
    chunks: boxcar::Vec<Box<str>>,
    singles: boxcar::Vec<Box<str>>,
}

/// A chunk that is still written, by the one who builds a table that nobody reads yet.
#[derive(Default)]
pub(super) struct Page(String);

impl Roll {
    /// The names at an index.
    pub(super) fn names(&self, index: KeyIndex) -> Names<'_> {
        self.find(index).map_or(NOBODY, |(text, at)| unpack(text, at))
    }

    fn find(&self, KeyIndex(index): KeyIndex) -> Option<(&str, usize)> {
        match index.checked_sub(SINGLE) {
            Some(single) => self.singles.get(single as usize).map(|text| (&**text, 0)),
            None => {
                let at = (index % UNITS) as usize * UNIT;
                self.chunks.get((index / UNITS) as usize).map(|text| (&**text, at))
            }
        }
    }

    /// The same, for the one who writes a page.
    pub(super) fn names_or_on<'t>(&'t self, page: Option<&'t Page>, index: KeyIndex) -> Names<'t> {
        match page {
            Some(page) if (index.0 / UNITS) as usize == self.chunks.count() => {
                unpack(&page.0, (index.0 % UNITS) as usize * UNIT)
            }
            Some(_) | None => self.names(index),
        }
    }

    /// Writes names down: on the page, if there is one, else where readers see them at once.
    pub(super) fn add(&self, page: Option<&mut Page>, names: Names<'_>) -> KeyIndex {
        let mut text = pack(names);
        let Some(page) = page else { return KeyIndex(SINGLE + number(self.singles.push(text.into()))) };
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(UNIT) - text.len()));
        if page.0.len() + text.len() > CHUNK {
            self.publish(page);
        }
        let index = number(self.chunks.count()) * UNITS + number(page.0.len() / UNIT);
        page.0.push_str(&text);
        KeyIndex(index)
    }

    /// Lets readers see a page.
    pub(super) fn publish(&self, page: &mut Page) {
        self.chunks.push(page.0.as_str().into());
        page.0.clear();
    }
}

/// Names as text: three lengths of two characters, and then the three.
fn pack(names: Names<'_>) -> String {
    // Ids have at most 64 bytes and names at most 50 characters.
    let parts = [cut(names.id, 255), cut(names.name, 255), cut(names.user.unwrap_or_default(), 1024)];
    let mut text = String::with_capacity(HEADER + parts.iter().map(|part| part.len()).sum::<usize>());
    for part in parts {
        text.extend([part.len() / 64, part.len() % 64].map(digit));
    }
    parts.iter().for_each(|part| text.push_str(part));
    text
}

fn unpack(text: &str, at: usize) -> Names<'_> {
    let Some(header) = text.as_bytes().get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) else { return NOBODY };
    let length = |high: u8, low: u8| usize::from(high - b'0') * 64 + usize::from(low - b'0');
    let [a, b, c, d, e, f] = *header;
    let id = at + HEADER;
    let name = id + length(a, b);
    let user = name + length(c, d);
    let end = user + length(e, f);
    Names { id: &text[id..name], name: &text[name..user], user: (end > user).then(|| &text[user..end]) }
}

fn digit(number: usize) -> char {
    char::from(b'0' + u8::try_from(number).unwrap_or(0))
}

/// The beginning of a text, up to where it still is text.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Places fit into 31 bits: two billion of them would need a hundred times the memory that a table may have.
fn number(place: usize) -> u32 {
    u32::try_from(place).ok().filter(|place| *place < SINGLE).expect("a table holds fewer than 2^31 entries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written() {
        let (roll, mut page) = (Roll::default(), Page::default());
        let long = "é".repeat(200);
        let all: Vec<(String, String, Option<String>)> = (0..500)
            .map(|n| {
                let user = (n % 3 == 0).then(|| "u".repeat(n % 70 + 1));
                (format!("k{n}"), long[..n % 100 * 2].to_owned(), user)
            })
            .collect();
        let names = |(id, name, user): &'_ (String, String, Option<String>)| (id.clone(), name.clone(), user.clone());
        let written: Vec<KeyIndex> = (all.iter().enumerate())
            .map(|(n, (id, name, user))| {
                let names = Names { id, name, user: user.as_deref() };
                if n % 10 == 9 { roll.add(None, names) } else { roll.add(Some(&mut page), names) }
            })
            .collect();
        let read = |found: Names<'_>| (found.id.to_owned(), found.name.to_owned(), found.user.map(str::to_owned));
        for (index, expected) in written.iter().zip(&all) {
            assert_eq!(read(roll.names_or_on(Some(&page), *index)), names(expected));
        }
        roll.publish(&mut page);
        for (index, expected) in written.iter().zip(&all) {
            assert_eq!(read(roll.names(*index)), names(expected));
        }
        assert_eq!(roll.names(KeyIndex(7_000_000)), NOBODY);
        let cut = roll.add(None, Names { id: "k", name: &long, user: None });
        assert_eq!(roll.names(cut).name.len(), 254, "a name that is too long ends where it still is text");
    }
}
