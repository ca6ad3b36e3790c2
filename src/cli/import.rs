//! `keyward key import`: keys of another system, as they are. Reads rows one by one, commits them in batches, puts bad
//! rows aside, and may be run again at any time: what is there already counts as unchanged.

mod batch;
mod columns;
mod interrupt;
mod known;
mod progress;
mod rejects;
mod row;
mod source;
#[cfg(test)]
mod tests;

use std::io::BufRead;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use self::batch::{BATCH, Batch, Importer};
use self::columns::Fields;
use self::interrupt::Interrupt;
use self::progress::{Choice, Progress};
use self::rejects::Rejects;
use self::row::{Reason, Row};
use self::source::{Layout, Next, Source};
use super::console::{Console, Output, grouped};
use super::exit::{Exit, Failure};
use crate::auth::Locksmith;
use crate::manage::Session;
use crate::store::Store;

const HELP: &str = "\
Examples:
  keyward key import --input keys.csv
  keyward key import --input keys.jsonl --rejects bad.jsonl --output json

The input is JSON lines (.jsonl, .ndjson, .json), CSV (.csv) or TSV (.tsv) with a header row; \
without one of these endings its first line tells. A row is a line. Columns, in any order:

  value       the key that clients present: one of our own, or of a shape that the config declares
  sha256      instead of value: its SHA-256 in 64 hex digits
  id          the key's id; a new one if empty
  name        1 to 50 characters; the id if empty
  access      rw, read-write, ro or read-only; rw if empty
  ips         addresses and networks between commas; any, or empty, for any
  scope       such as organization:acme/project:p1; everywhere if empty
  env         live or test; if empty what the value says, else live
  expires     a time such as 2027-01-31 or 2027-01-31T12:00:00Z; never if empty
  user        who it was handed to
  rate_limit  how often it may be used, such as 100/1m; as often as it likes if empty or none

Rows that cannot be imported are written to a file, with the line and the reason before them; it \
can be corrected and imported. The same input can be imported again: what is there already, with \
the same settings, is unchanged. Ctrl-C stops after the batch of 5,000 rows that is under way.";

/// What `keyward key import` takes.
#[derive(Args, Debug)]
#[command(after_long_help = HELP)]
pub(crate) struct ImportArgs {
    /// The file of keys
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where rows go that cannot be imported; INPUT.rejected if not given
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// How progress is shown on stderr
    #[arg(long, value_enum, default_value = "auto")]
    progress: Choice,
}

/// Imports a file.
pub(super) async fn run<S: Store>(
    args: ImportArgs,
    session: &Session<S>,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let (source, size) = Source::open(&args.input, &session.locksmith.format)?;
    let rejects = Rejects::of(&args.input, args.rejects, source.format, source.layout.clone())?;
    let interrupt =
        Interrupt::listen().map_err(|error| Failure::Failed(format!("cannot listen for Ctrl-C: {error}")))?;
    let progress = Progress::new(args.progress, size);
    let name = args.input.file_name().unwrap_or(args.input.as_os_str());
    let importer = Importer::new(session, name.to_string_lossy().into_owned());
    Import { source, importer, rejects, progress, interrupt }.run(output, console).await
}

/// An import and what it goes through.
struct Import<'s, R, S> {
    source: Source<R>,
    importer: Importer<'s, S>,
    rejects: Rejects,
    progress: Progress,
    interrupt: Interrupt,
}

/// How an import ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    WholeFile,
    Interrupted,
}

impl<R: BufRead, S: Store> Import<'_, R, S> {
    async fn run(mut self, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let end = self.batches(console).await;
        std::mem::replace(&mut self.progress, Progress::Silent).finish();
        self.summary(output, console)?;
        match end? {
            End::Interrupted => {
                console.note(format_args!("interrupted after line {}; the same command goes on", self.source.line));
                Ok(Exit::Interrupted)
            }
            End::WholeFile if self.rejects.count > 0 => Ok(Exit::SomeRejected),
            End::WholeFile => Ok(Exit::Ok),
        }
    }

    /// Batch after batch, to the end of the file or to Ctrl-C.
    async fn batches(&mut self, console: &mut Console<'_>) -> Result<End, Failure> {
        let locksmith = &*self.importer.session().locksmith;
        let mut rows = 0;
        while !self.interrupt.is_requested() {
            let batch = self.read(locksmith)?;
            if batch.len() == 0 {
                return Ok(End::WholeFile);
            }
            rows += batch.len() as u64;
            let rejected = self.importer.commit(batch).await?;
            self.rejects.add(&rejected)?;
            self.progress.update(rows, self.source.bytes, console);
        }
        Ok(End::Interrupted)
    }

    /// The next batch of lines; an empty one at the end of the file.
    fn read(&mut self, locksmith: &Locksmith) -> Result<Batch, Failure> {
        let mut batch = Batch::default();
        let mut raw = Vec::new();
        while batch.len() < BATCH {
            let next =
                self.source.next(&mut raw).map_err(|e| Failure::Failed(format!("--input: cannot be read on: {e}")))?;
            let line = self.source.line;
            let row = match next {
                Next::End => break,
                Next::TooLong => Err(Reason::from("it is longer than 64 KiB and is not repeated here")),
                Next::Row => self.row(&raw, line, locksmith),
            };
            self.importer.add(&mut batch, row, line, &raw);
        }
        Ok(batch)
    }

    fn row(&self, raw: &[u8], line: u64, locksmith: &Locksmith) -> Result<Row, Reason> {
        let fields = match &self.source.layout {
            Layout::JsonLines => Fields::of_object(raw, &locksmith.format)?,
            Layout::Table { columns, .. } => columns.fields(raw, self.source.format.delimiter())?,
        };
        Row::read(&fields, line, raw, locksmith)
    }

    fn summary(&self, output: Output, console: &mut Console<'_>) -> Result<(), Failure> {
        let Importer { imported, unchanged, .. } = self.importer;
        let rejected = self.rejects.count;
        let file = (rejected > 0).then(|| self.rejects.path.display().to_string());
        let see = file.as_ref().map(|file| format!(" (see {file})")).unwrap_or_default();
        let counts = [imported, unchanged, rejected].map(grouped);
        let [imported_text, unchanged_text, rejected_text] = counts;
        console
            .note(format_args!("imported {imported_text}, unchanged {unchanged_text}, rejected {rejected_text}{see}"));
        match output {
            Output::Table => Ok(()),
            Output::Json => console
                .json(&json!({ "imported": imported, "unchanged": unchanged, "rejected": rejected, "rejects": file })),
        }
    }
}
