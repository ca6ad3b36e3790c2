//! `keyward audit …`: who did what, as it was written with each change, and whether it still is as it was written.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::console::{Console, Output, grouped, printable};
use super::exit::{Exit, Failure};
use super::place::Place;
use crate::auth::grant::Timestamp;
use crate::store::Revision;
use crate::store::ledger::Ledger;
use crate::store::ledger::audit::{Entry, Filter, hex};
use crate::store::ledger::verify::{Verdict, verify};

const VERIFY: &str = "\
Examples:
  keyward audit verify
  keyward audit verify --head 123-0a1b…    the history must still have what was printed before

Whoever can write the database can write a whole new history. So keep what this prints apart from it, \
and give it back the next time.";

/// The commands on the audit.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show what happened last
    List(ListArgs),
    /// Write everything as JSON lines, oldest first
    Export(ExportArgs),
    /// Find lines and records that were removed, edited, exchanged or put in
    #[command(after_long_help = VERIFY)]
    Verify {
        /// A head that was printed before: the history must still have it
        #[arg(long, value_name = "REVISION", value_parser = head)]
        head: Option<Revision>,
    },
}

/// What is shown.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 25)]
    limit: u32,
    /// Only what came before this revision
    #[arg(long, value_name = "REVISION")]
    before: Option<u64>,
}

/// What is written.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Only what came after this revision
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
}

#[derive(Args, Debug)]
struct Wanted {
    /// Only what this one did: cli:ann
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, or all of a group: key.revoke, key
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to the key, user or scope with this id
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// Only from then on: 2027-01-31, 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only before then
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

impl Wanted {
    fn filter(self) -> Filter {
        let Self { actor, action, target, since, until } = self;
        Filter { actor, action, target, since, until }
    }
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or("write 2027-01-31 or 2027-01-31T12:00:00Z")
}

/// A head as [`shown`] writes it. All of it: a few digits of a hash can be had by trying.
fn head(text: &str) -> Result<Revision, &'static str> {
    let read = || {
        let (number, hex) = text.split_once('-')?;
        let digits = (hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(hex)?;
        let mut chain = [0; 32];
        for (at, byte) in chain.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).ok()?;
        }
        Some(Revision { number: number.parse().ok()?, chain })
    };
    read().ok_or("write it as `keyward audit verify` prints it: a number, a hyphen and 64 hex digits")
}

fn shown(revision: Revision) -> String {
    format!("{}-{}", revision.number, hex(&revision.chain))
}

/// Carries out a command on the audit.
pub(super) async fn run(
    command: AuditCommand,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    match command {
        AuditCommand::List(args) => list(args, place, output, console).await,
        AuditCommand::Export(args) => {
            let write = |line: Value| console.json(&line);
            place.export(&args.wanted.filter(), args.after, write).await?;
            Ok(Exit::Ok)
        }
        AuditCommand::Verify { head } => {
            // A server that somebody has tampered with would vouch for itself.
            check(head, &place.session("audit verify, which believes no server,")?.store, output, console).await
        }
    }
}

async fn list(args: ListArgs, place: &impl Place, output: Output, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let entries = place.entries(&args.wanted.filter(), args.before, args.limit as usize).await?;
    match output {
        Output::Json => console.json_array(entries.iter())?,
        Output::Table => {
            let row = |entry: &Entry| {
                let text = |text: Option<&str>| printable(text.unwrap_or_default());
                let (actor, target) = (text(entry.actor.as_deref()), text(entry.target()));
                [
                    entry.revision.to_string(),
                    printable(&entry.at),
                    actor,
                    printable(&entry.action),
                    target,
                    summary(entry),
                ]
            };
            console.table(["REVISION", "TIME", "ACTOR", "ACTION", "TARGET", "CHANGE"], entries.iter().map(row))?;
        }
    }
    Ok(Exit::Ok)
}

/// A change in a few words: what became what, and whether that widened what somebody may do.
fn summary(entry: &Entry) -> String {
    let object = |name: &str| entry.detail.get(name).and_then(Value::as_object);
    let mut words = Vec::new();
    if let (Some(before), Some(after)) = (object("before"), object("after")) {
        words.extend(after.iter().map(|(name, new)| {
            let old = before.get(name).unwrap_or(&Value::Null);
            format!("{name} {} -> {}", plain(old), plain(new))
        }));
    }
    if entry.detail.get("escalation") == Some(&Value::Bool(true)) {
        words.push("(escalation)".to_owned());
    }
    if let Some(reason) = entry.detail.get("reason").and_then(Value::as_str) {
        words.push(format!("because: {reason}"));
    }
    printable(&words.join(", "))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn check(
    remembered: Option<Revision>,
    ledger: &impl Ledger,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let Verdict { head, lines, records, unvouched, breaks, more } = verify(ledger, remembered).await?;
    let breaks: Vec<String> = breaks.iter().map(|broken| printable(&broken.to_string())).collect();
    for broken in &breaks {
        console.note(format_args!("error: {broken}"));
    }
    if more > 0 {
        console.note(format_args!("error: and {} more", grouped(more)));
    }
    if unvouched > 0 {
        let why = "the lines that left them are of an older version, or not as they were written";
        console.note(format_args!("warning: of {} records nothing can be said: {why}", grouped(unvouched)));
    }
    let head = shown(head);
    match output {
        Output::Json => console.json(&json!({
            "head": head, "lines": lines, "records": records, "unvouched": unvouched, "intact": breaks.is_empty(),
            "breaks": breaks, "more_breaks": more,
        }))?,
        Output::Table => {
            let word = if breaks.is_empty() { "intact" } else { "NOT INTACT" };
            let (lines, records) = (grouped(lines), grouped(records));
            console.line(format_args!("{word}: {lines} lines, {records} records, head {head}"))?;
        }
    }
    Ok(if breaks.is_empty() { Exit::Ok } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cli::testing::{block_on, remember};
    use crate::manage::Session;
    use crate::store::ledger::testing::fill;
    use crate::store::sqlite::SqliteStore;

    fn ran(session: &Session<SqliteStore>, words: &str, output: Output) -> crate::cli::testing::Ran {
        let command = crate::cli::testing::audit_command(words);
        remember(|console| block_on(run(command, session, output, console)))
    }

    #[test]
    fn the_audit_is_shown_written_and_verified() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        let check = crate::cli::testing::locksmith().pepper.check();
        let store = SqliteStore::open_or_create(&path, check).unwrap();
        block_on(fill(&store));
        let (locksmith, actor) = (Arc::new(crate::cli::testing::locksmith()), "cli:ann".to_owned());
        let store = Session { store, locksmith, actor, now: crate::cli::testing::noon() };
        let listed = ran(&store, "list --limit 2", Output::Json).json();
        assert_eq!(
            (&listed[0]["revision"], &listed[1]["revision"], listed.as_array().unwrap().len()),
            (&6.into(), &5.into(), 2)
        );
        assert_eq!(ran(&store, "list --limit 2 --before 2", Output::Json).json()[1]["action"], "store.create");
        assert!(ran(&store, "list --actor nobody", Output::Table).out.starts_with("REVISION"));
        assert_eq!(ran(&store, "list --actor nobody", Output::Table).out.lines().count(), 1);
        assert_eq!(ran(&store, "list --action test", Output::Table).out.lines().count(), 7);
        assert_eq!(ran(&store, "list --limit 0", Output::Json).out, "[]\n");
        let exported = ran(&store, "export", Output::Table).out;
        let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[6]["revision"], lines[6]["chain"].as_str().unwrap().len()), (7, &6.into(), 64));

        let good = ran(&store, "verify", Output::Json);
        let head = good.json()["head"].as_str().unwrap().to_owned();
        assert_eq!((good.code, good.json()["intact"].as_bool()), (0, Some(true)));
        assert_eq!(ran(&store, &format!("verify --head {head}"), Output::Table).code, 0);
        let raw = rusqlite::Connection::open(&path).unwrap();
        raw.execute_batch("update audit set entry = '{}' where rev = 3").unwrap();
        let bad = ran(&store, "verify", Output::Table);
        assert!(bad.code == 1 && bad.err.contains("line 3 ") && bad.out.starts_with("NOT INTACT"), "{bad:?}");
        raw.execute_batch("update record set body = body || ' ' where id = 'k1'").unwrap();
        let bad = ran(&store, "verify", Output::Json);
        let breaks = &bad.json()["breaks"];
        assert!(bad.code == 1 && breaks[1] == "key k1 is not as line 6 left it", "{bad:?}");
        let other = head.replace("6-", "5-");
        let bad = ran(&store, &format!("verify --head {other}"), Output::Table);
        assert!(bad.code == 1 && bad.err.contains("remembered"), "{bad:?}");
    }

    #[test]
    fn a_head_is_given_whole() {
        assert!(head(&format!("5-{}", "ab".repeat(32))).is_ok());
        for text in ["5", "5-ab", &format!("x-{}", "ab".repeat(32)), &format!("5-{}é", "a".repeat(62))] {
            assert!(head(text).is_err(), "{text}");
        }
    }
}
