//! Where output goes: data to one stream, everything else to the other, and nothing to any global.

use std::fmt::{Display, Write as _};
use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use super::exit::Failure;

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// The two streams of a command.
pub(crate) struct Console<'c> {
    out: &'c mut dyn Write,
    err: &'c mut dyn Write,
    is_heard: bool,
}

impl<'c> Console<'c> {
    /// Data goes to the first, everything else to the second.
    pub(crate) fn new(out: &'c mut dyn Write, err: &'c mut dyn Write) -> Self {
        Self { out, err, is_heard: true }
    }

    /// The streams of this process.
    pub(crate) fn of_process(out: &'c mut dyn Write, err: &'c mut dyn Write) -> Self {
        Self { is_heard: !is_stdout_closed(), ..Self::new(out, err) }
    }

    /// Makes sure, before a value is made that is shown this once, that it can be.
    pub(crate) fn must_be_heard(&self) -> Result<(), Failure> {
        let why = "standard output is closed, and what is printed there is shown this once: nothing was done";
        if self.is_heard { Ok(()) } else { Err(Failure::Failed(why.to_owned())) }
    }

    /// Tells people something. If nobody takes it, there is nobody to tell.
    pub(crate) fn note(&mut self, text: impl Display) {
        let _ = writeln!(self.err, "{text}");
    }

    /// Writes one line of data.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(Failure::Output)
    }

    /// Writes data as it is.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::Output)
    }

    /// Writes one JSON document as one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut *self.out, value).map_err(|e| Failure::Output(e.into()))?;
        self.line("")
    }

    /// Writes one JSON document for people who will edit it.
    pub(crate) fn pretty_json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut *self.out, value).map_err(|e| Failure::Output(e.into()))?;
        self.line("")
    }

    /// Writes one JSON array with an element on each line.
    pub(crate) fn json_array<T: Serialize>(&mut self, values: impl Iterator<Item = T>) -> Result<(), Failure> {
        let mut separator = "[\n";
        for value in values {
            write!(self.out, "{separator}").map_err(Failure::Output)?;
            serde_json::to_writer(&mut *self.out, &value).map_err(|e| Failure::Output(e.into()))?;
            separator = ",\n";
        }
        self.line(if separator == "[\n" { "[]" } else { "\n]" })
    }

    /// Writes aligned columns under their headers. The rows are made twice, once to be measured, since a store may have
    /// a million of them.
    pub(crate) fn table<const N: usize>(
        &mut self,
        headers: [&str; N],
        mut rows: impl Iterator<Item = [String; N]> + Clone,
    ) -> Result<(), Failure> {
        let mut widths = headers.map(str::len);
        for row in rows.clone() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        self.line(aligned(&headers, &widths))?;
        rows.try_for_each(|row| self.line(aligned(&row, &widths)))
    }

    /// Makes sure that what was written has arrived.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Output)
    }
}

/// Whether the process was started without a standard output: there stands `/dev/null` then, which Rust opens in its place for
/// reading and writing, as no shell does.
fn is_stdout_closed() -> bool {
    let is_null = std::fs::read_link("/proc/self/fd/1").is_ok_and(|path| path.as_os_str() == "/dev/null");
    let flags = std::fs::read_to_string("/proc/self/fdinfo/1").unwrap_or_default();
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    // O_RDWR is 2, and O_WRONLY 1.
    is_null && flags.is_some_and(|flags| flags & 3 == 2)
}

/// One row of a table, without spaces at its end.
fn aligned<T: AsRef<str>>(cells: &[T], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        // Writing to a string cannot fail.
        let _ = write!(line, "{:width$}  ", cell.as_ref());
    }
    line.truncate(line.trim_end().len());
    line
}

/// A text from the store for a terminal, which must not take orders from it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A number with its thousands apart: `99,998`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn written(write: impl FnOnce(&mut Console<'_>) -> Result<(), Failure>) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        write(&mut Console::new(&mut out, &mut err)).unwrap();
        assert!(err.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_by_characters_and_end_without_spaces() {
        let rows = [["é".to_owned(), "x".to_owned()], ["abcd".to_owned(), String::new()]];
        assert_eq!(
            written(|console| console.table(["ID", "NAME"], rows.iter().cloned())),
            "ID    NAME\né     x\nabcd\n"
        );
        assert_eq!(written(|console| console.table(["ID", "NAME"], std::iter::empty())), "ID  NAME\n");
    }

    #[test]
    fn an_array_is_valid_json_of_any_length() {
        for numbers in [vec![], vec![1], vec![1, 2]] {
            let text = written(|console| console.json_array(numbers.iter()));
            assert_eq!(serde_json::from_str::<Vec<u8>>(&text).unwrap(), numbers);
            assert!(text.ends_with("]\n"));
        }
    }

    #[test]
    fn numbers_and_names_are_made_readable() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (99_998, "99,998"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
