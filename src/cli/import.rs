//! `keyward key import`: keys of another system, as they are. Reads rows one by one, commits them in batches, puts bad
//! rows aside, and may be run again at any time: what is there already counts as unchanged.

mod interrupt;
mod progress;
mod rejects;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use self::interrupt::Interrupt;
use self::progress::{Choice, Progress};
use self::rejects::Rejects;
use super::console::{Console, Output, grouped};
use super::exit::{Exit, Failure};
use super::place::Place;
use crate::auth::key::KeyFormat;
use crate::manage::import::{Format, Importer, Rejection, Source};
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
the same settings, is unchanged. Ctrl-C stops after the batch that is under way: of 5,000 rows, or by a server of 48 KiB.";

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
pub(super) async fn run(
    args: ImportArgs,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let (source, size) = open(&args.input, &place.key_format())?;
    let rejects = Rejects::of(&args.input, args.rejects, source.format, source.layout.clone())?;
    let interrupt =
        Interrupt::listen().map_err(|error| Failure::Failed(format!("cannot listen for Ctrl-C: {error}")))?;
    let progress = Progress::new(args.progress, size);
    let name = args.input.file_name().unwrap_or(args.input.as_os_str());
    let importer = place.importing(Some(name.to_string_lossy().into_owned()));
    Import { source, importer, rejects, progress, interrupt }.run(output, console).await
}

/// Where keys are brought in.
pub(super) trait Importing {
    /// Takes in the next rows of a file; `None` at its end.
    async fn step<R: BufRead>(&mut self, source: &mut Source<R>) -> Result<Option<Step>, Failure>;

    /// How many keys were made so far, and how many were there already.
    fn counts(&self) -> (u64, u64);
}

/// What became of some rows.
pub(super) struct Step {
    /// How many they were.
    pub(super) rows: u64,
    /// Those that were not taken.
    pub(super) rejected: Vec<Rejection>,
}

impl<S: Store> Importing for Importer<'_, S> {
    async fn step<R: BufRead>(&mut self, source: &mut Source<R>) -> Result<Option<Step>, Failure> {
        let batch = self.read(source).map_err(|error| unreadable(&error))?;
        if batch.is_empty() {
            return Ok(None);
        }
        let rows = batch.len() as u64;
        Ok(Some(Step { rows, rejected: self.commit(batch).await? }))
    }

    fn counts(&self) -> (u64, u64) {
        (self.imported, self.unchanged)
    }
}

/// The file broke off.
pub(super) fn unreadable(error: &io::Error) -> Failure {
    Failure::Failed(format!("--input: cannot be read on: {error}"))
}

/// Opens a file and reads its header; its size comes with it.
fn open(path: &Path, keys: &KeyFormat) -> Result<(Source<BufReader<File>>, u64), Failure> {
    let wrong = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "; --input is the file of keys, from the folder where you are",
            _ => "",
        };
        Failure::Failed(format!("{}: cannot be read: {error}{advice}", path.display()))
    };
    let file = File::open(path).map_err(wrong)?;
    let size = file.metadata().map_err(wrong)?.len();
    let source = begin(BufReader::with_capacity(1 << 18, file), path, keys)?;
    Ok((source, size))
}

/// Begins to read a file of that name.
fn begin<R: BufRead>(reader: R, path: &Path, keys: &KeyFormat) -> Result<Source<R>, Failure> {
    let format = |first: &[u8]| Format::by_name(path, first);
    Source::new(reader, format, keys).map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))
}

/// An import and what it goes through.
struct Import<R, I> {
    source: Source<R>,
    importer: I,
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

impl<R: BufRead, I: Importing> Import<R, I> {
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
        let mut rows = 0;
        while !self.interrupt.is_requested() {
            let Some(step) = self.importer.step(&mut self.source).await? else { return Ok(End::WholeFile) };
            rows += step.rows;
            self.rejects.add(&step.rejected)?;
            self.progress.update(rows, self.source.bytes, console);
        }
        Ok(End::Interrupted)
    }

    fn summary(&self, output: Output, console: &mut Console<'_>) -> Result<(), Failure> {
        let (imported, unchanged) = self.importer.counts();
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
