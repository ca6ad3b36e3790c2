//! The file of an import: its format, its columns, and its rows one by one, each with its line number.
//!
//! A row is a line, in all three formats. No field of ours can hold a line break, and so a quote that is never closed
//! costs one row and not the rest of the file.

use std::io::{self, BufRead, Read};
use std::path::Path;

use super::columns::{self, Columns};
use crate::auth::key::KeyFormat;

/// Longer rows are refused, so that memory stays bounded whatever the file is.
const LONGEST_ROW: usize = 64 * 1024;

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object on each line.
    JsonLines,
    /// Fields between commas, under a header row.
    Csv,
    /// Fields between tabs, under a header row.
    Tsv,
}

impl Format {
    /// By the ending of the file's name, else by its first line.
    pub fn by_name(path: &Path, first_line: &[u8]) -> Self {
        match path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("jsonl" | "ndjson" | "json") => Self::JsonLines,
            Some("csv") => Self::Csv,
            Some("tsv") => Self::Tsv,
            Some(_) | None if first_line.trim_ascii_start().starts_with(b"{") => Self::JsonLines,
            Some(_) | None if first_line.contains(&b'\t') => Self::Tsv,
            Some(_) | None => Self::Csv,
        }
    }

    /// What is between two fields.
    pub const fn delimiter(self) -> u8 {
        match self {
            Self::JsonLines | Self::Csv => b',',
            Self::Tsv => b'\t',
        }
    }
}

/// How the rows of a file are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each names its own fields.
    JsonLines,
    /// The header row named them all; it is kept for the file of rejected rows.
    Table {
        /// What is in each column.
        columns: Columns,
        /// The header row as it is in the file.
        header: Vec<u8>,
    },
}

/// What the next line of the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A row, now in the buffer.
    Row,
    /// A row that is too long to be one; the buffer is empty.
    TooLong,
    /// The end of the file.
    End,
}

/// A file of keys, open at its next row.
pub struct Source<R> {
    reader: R,
    /// How its rows are written.
    pub format: Format,
    /// How its rows are to be read.
    pub layout: Layout,
    /// The number of the line that was read last.
    pub line: u64,
    /// How much of the file has been read.
    pub bytes: u64,
    /// A first row that was read in order to learn the format, and belongs to the data.
    pending: Option<Vec<u8>>,
}

/// Why something is no list of keys: its first line, in which no mistake can be put aside as that of a row.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRows(String);

impl<R: BufRead> Source<R> {
    /// Begins to read; how it is written, the first line may tell, which is a header or already a row.
    ///
    /// # Errors
    /// When the first line cannot be read, or is neither.
    pub fn new(reader: R, format: impl FnOnce(&[u8]) -> Format, keys: &KeyFormat) -> Result<Self, NotRows> {
        let layout = Layout::JsonLines;
        let mut source = Self { reader, format: Format::Csv, layout, line: 0, bytes: 0, pending: None };
        let mut first = Vec::new();
        let wrong = |what: &str| NotRows(what.to_owned());
        match source.next(&mut first).map_err(|e| wrong(&format!("cannot be read: {e}")))? {
            Next::Row => {}
            Next::TooLong => return Err(wrong("its first line is longer than 64 KiB")),
            Next::End => return Err(wrong("it is empty")),
        }
        source.format = format(&first);
        match source.format {
            Format::JsonLines if first.trim_ascii_start().starts_with(b"[") => {
                return Err(wrong("it is a JSON array; write one object on each line, as `jq -c '.[]'` does"));
            }
            Format::JsonLines => {
                columns::object(&first, keys).map_err(|why| wrong(&format!("line {}: {why}", source.line)))?;
                source.pending = Some(first);
            }
            Format::Csv | Format::Tsv => {
                let columns = Columns::of_header(&first, source.format.delimiter(), keys);
                let columns = columns.map_err(|why| wrong(&format!("line {}: {why}", source.line)))?;
                source.layout = Layout::Table { columns, header: first };
            }
        }
        Ok(source)
    }

    /// Has lines count from where what is read is part of a file: the first row is on this one there.
    pub fn begins_at(&mut self, line: u64) {
        self.line = if self.pending.is_some() { line } else { line.saturating_sub(1) };
    }

    /// Reads the next line that is not blank into the buffer, without its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next(&mut self, row: &mut Vec<u8>) -> io::Result<Next> {
        if let Some(pending) = self.pending.take() {
            *row = pending;
            return Ok(Next::Row);
        }
        loop {
            row.clear();
            let read = self.reader.by_ref().take(LONGEST_ROW as u64).read_until(b'\n', row)?;
            if read == 0 {
                return Ok(Next::End);
            }
            self.bytes += read as u64;
            self.line += 1;
            if self.line == 1 && row.starts_with(b"\xef\xbb\xbf") {
                row.drain(..3);
            }
            if row.pop_if(|last| *last == b'\n').is_none() && read == LONGEST_ROW {
                row.clear();
                self.skip_line()?;
                return Ok(Next::TooLong);
            }
            row.pop_if(|last| *last == b'\r');
            if !row.trim_ascii().is_empty() {
                return Ok(Next::Row);
            }
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(buffer.len(), |end| end + 1);
            self.reader.consume(length);
            self.bytes += length as u64;
            if end.is_some() || length == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::testing::locksmith;

    #[track_caller]
    fn open<'t>(name: &str, text: &'t str) -> Result<Source<&'t [u8]>, String> {
        let format = |first: &[u8]| Format::by_name(Path::new(name), first);
        Source::new(text.as_bytes(), format, &locksmith().format).map_err(|not_rows| not_rows.to_string())
    }

    #[track_caller]
    fn check(name: &str, text: &str, format: Format, expected: &[(u64, &str)]) {
        let mut source = open(name, text).unwrap();
        assert_eq!(source.format, format);
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        while source.next(&mut row).unwrap() != Next::End {
            rows.push((source.line, String::from_utf8(row.clone()).unwrap()));
        }
        let rows: Vec<(u64, &str)> = rows.iter().map(|(line, row)| (*line, row.as_str())).collect();
        assert_eq!(rows, expected, "{text}");
        assert_eq!(source.bytes, text.len() as u64);
    }

    #[test]
    fn rows_are_lines_with_their_numbers() {
        check("k.csv", "value,id\na,1\n\nb,2\n", Format::Csv, &[(2, "a,1"), (4, "b,2")]);
        check("k.csv", "\u{feff}value\r\na\r\nb", Format::Csv, &[(2, "a"), (3, "b")]);
        check("k.TSV", "value\tid\na\t1\n", Format::Tsv, &[(2, "a\t1")]);
        check(
            "k.jsonl",
            "{\"value\":\"a\"}\n{\"value\":\"b\"}\n",
            Format::JsonLines,
            &[(1, "{\"value\":\"a\"}"), (2, "{\"value\":\"b\"}")],
        );
    }

    #[test]
    fn a_file_without_a_known_ending_is_known_by_its_first_line() {
        check("keys", "\n {\"value\":\"a\"}", Format::JsonLines, &[(2, " {\"value\":\"a\"}")]);
        check("keys.txt", "value\tid\n", Format::Tsv, &[]);
        check("keys.csv.rejected", "value\n", Format::Csv, &[]);
    }

    #[test]
    fn a_row_without_an_end_costs_no_memory() {
        let long = "x".repeat(LONGEST_ROW * 3);
        let text = format!("value\n{long}\nb\n");
        let mut source = open("k.csv", &text).unwrap();
        let mut row = Vec::new();
        assert_eq!((source.next(&mut row).unwrap(), source.line, row.len()), (Next::TooLong, 2, 0));
        assert_eq!((source.next(&mut row).unwrap(), source.line, row.as_slice()), (Next::Row, 3, b"b".as_slice()));
        assert_eq!((source.next(&mut row).unwrap(), source.bytes), (Next::End, text.len() as u64));
    }

    #[test]
    fn what_cannot_be_a_file_of_keys_is_refused_at_once() {
        for (name, text, message) in [
            ("k.csv", "", "it is empty"),
            ("k.json", "[{\"value\":\"a\"}]", "it is a JSON array; write one object on each line"),
            ("k.csv", "id,name\n1,a\n", "line 1: there is no column `value` and no column `sha256`"),
            ("k.jsonl", "{\"value\":\"a\",\"ip\":\"1.2.3.4\"}\n", "line 1: unknown columns: `ip`"),
        ] {
            let failure = open(name, text).err().unwrap();
            assert!(failure.starts_with(message), "{failure}");
        }
    }
}
