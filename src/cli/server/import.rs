//! An import by a server: rows are sent on as they are, a few at a time, and what the server says of their lines is told of them.

use std::collections::BTreeMap;
use std::io::BufRead;

use http::Method;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Sent, Server};
use crate::cli::exit::Failure;
use crate::cli::import::{Importing, Step, unreadable};
use crate::manage::import::{Format, Layout, Next, Raw, Reason, Rejection, Source, TOO_LONG};

/// What is sent at a time, but for a row that alone is longer: as much as every server takes, wherever its API is mounted.
const CHUNK: usize = 48 * 1024;

/// Sends rows to a server.
pub(super) struct Sending<'s> {
    server: &'s Server,
    imported: u64,
    unchanged: u64,
    /// A row that was read and did not fit any more, and its line.
    left: Option<(u64, Vec<u8>)>,
}

/// Rows that are sent together.
struct Chunk {
    text: Zeroizing<String>,
    /// The line of the first of them, and of the next one.
    first: u64,
    next: u64,
    rows: BTreeMap<u64, Raw>,
    rejected: Vec<Rejection>,
}

/// What a server says.
#[derive(Deserialize)]
struct Told {
    imported: u64,
    unchanged: u64,
    rejections: Vec<Wrong>,
}

#[derive(Deserialize)]
struct Wrong {
    line: u64,
    reason: String,
}

impl<'s> Sending<'s> {
    /// Begins.
    pub(super) fn new(server: &'s Server) -> Self {
        Self { server, imported: 0, unchanged: 0, left: None }
    }

    /// Reads as many rows as are sent at a time.
    fn read<R: BufRead>(&mut self, source: &mut Source<R>) -> Result<Chunk, Failure> {
        let (text, rows, rejected) = (Zeroizing::default(), BTreeMap::new(), Vec::new());
        let mut chunk = Chunk { text, first: 0, next: 0, rows, rejected };
        if let Layout::Table { header, .. } = &source.layout {
            chunk.text.push_str(&String::from_utf8_lossy(header));
            chunk.text.push('\n');
        }
        if let Some((line, row)) = self.left.take() {
            chunk.add(line, &row);
        }
        let mut row = Vec::new();
        loop {
            match source.next(&mut row).map_err(|error| unreadable(&error))? {
                Next::End => return Ok(chunk),
                Next::TooLong => chunk.reject(source.line, &[], Reason::from(TOO_LONG)),
                Next::Row if chunk.text.len() + row.len() > CHUNK && !chunk.rows.is_empty() => {
                    self.left = Some((source.line, row));
                    return Ok(chunk);
                }
                Next::Row => chunk.add(source.line, &row),
            }
        }
    }
}

impl Chunk {
    fn add(&mut self, line: u64, row: &[u8]) {
        let Ok(text) = str::from_utf8(row) else {
            return self.reject(line, row, Reason::from("it is not UTF-8"));
        };
        if self.rows.is_empty() {
            (self.first, self.next) = (line, line);
        }
        // Lines keep their numbers: those that are not sent are blank.
        for _ in self.next..line {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self.text.push('\n');
        self.next = line + 1;
        self.rows.insert(line, Raw::new(row));
    }

    fn reject(&mut self, line: u64, row: &[u8], reason: Reason) {
        self.rejected.push(Rejection { line, raw: Raw::new(row), reason });
    }
}

impl Importing for Sending<'_> {
    async fn step<R: BufRead>(&mut self, source: &mut Source<R>) -> Result<Option<Step>, Failure> {
        let mut chunk = self.read(source)?;
        let rows = (chunk.rows.len() + chunk.rejected.len()) as u64;
        if rows == 0 {
            return Ok(None);
        }
        if !chunk.rows.is_empty() {
            let media_type = match source.format {
                Format::JsonLines => "application/x-ndjson",
                Format::Csv => "text/csv",
                Format::Tsv => "text/tab-separated-values",
            };
            let target = format!("/v2/keys/import?line={}", chunk.first);
            // What is there already is unchanged, so that it may be sent again.
            let sent = Sent::Rows(media_type, &chunk.text);
            let done = self.server.ask(Method::POST, &target, vec![], sent, true).await?;
            let strange = || self.server.strange("something that this version cannot read");
            let told: Told = serde_json::from_value(done.result).map_err(|_| strange())?;
            (self.imported, self.unchanged) = (self.imported + told.imported, self.unchanged + told.unchanged);
            for Wrong { line, reason } in told.rejections {
                let raw = chunk.rows.remove(&line).ok_or_else(strange)?;
                chunk.rejected.push(Rejection { line, raw, reason: Reason::from(reason) });
            }
            chunk.rejected.sort_by_key(|rejection| rejection.line);
        }
        Ok(Some(Step { rows, rejected: chunk.rejected }))
    }

    fn counts(&self) -> (u64, u64) {
        (self.imported, self.unchanged)
    }
}
