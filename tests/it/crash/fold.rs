//! A fold that was cut short: some pages of the log are in the database file already, and the others are not. SQLite reads
//! that as if nothing had happened, since the log is still there; so must we.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use super::{Content, inspect, tools};
use crate::support::{Site, Upstream};
use crate::tools::Program;

const PAGE: usize = 4096;

/// The number that stands at a place, the most significant byte first, as in all of SQLite's files.
fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}

/// The newest version of each page in a log, by its number.
fn pages(log: &[u8]) -> BTreeMap<usize, &[u8]> {
    assert_eq!(number(log, 8), PAGE);
    let salt = &log[16..24];
    let frames = log[32..].chunks_exact(24 + PAGE);
    // Frames of before the log was begun anew have another salt.
    frames.take_while(|frame| &frame[8..16] == salt).map(|frame| (number(frame, 0), &frame[24..])).collect()
}

/// The database file when so many pages of its log have been written into it, in the order in which SQLite does so.
fn folded(file: &[u8], log: &[u8], count: usize) -> Vec<u8> {
    let mut file = file.to_vec();
    for (page, content) in pages(log).into_iter().take(count) {
        file.resize(file.len().max(page * PAGE), 0);
        file[(page - 1) * PAGE..page * PAGE].copy_from_slice(content);
    }
    file
}

#[test]
fn a_fold_that_was_cut_short_is_no_damage() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), super::CONFIG);
    site.create_key(&["--id", "first"]);
    // As long as somebody reads what was there before, the log is not folded.
    let read = "import sqlite3, sys\n\
                c = sqlite3.connect('keyward.db', isolation_level=None)\n\
                c.execute('begin')\n\
                c.execute('select * from meta').fetchall()\n\
                print('reading', flush=True)\n\
                sys.stdin.read()\n";
    let mut command = Command::new("python3");
    let mut reader = Program::start(command.args(["-c", read]).current_dir(site.path()).stdin(Stdio::piped()));
    reader.wait_for("reader", |out, _| out.contains("reading").then_some(()));
    for batch in 0..3 {
        let rows: Vec<String> =
            (0..200).map(|row| format!("k{batch}-{row},,{:020x},rw,,", batch * 200 + row)).collect();
        site.import_keys(&rows.iter().map(String::as_str).collect::<Vec<&str>>());
    }
    reader.signal("KILL");
    reader.end(tools::PATIENCE);

    let [database, log] = ["keyward.db", "keyward.db-wal"].map(|name| site.path().join(name));
    let (file, frames) = (fs::read(&database).unwrap(), fs::read(&log).unwrap());
    let count = pages(&frames).len();
    assert!(count > 20, "{count} pages in a log of {} bytes", frames.len());
    let mut refused = Vec::new();
    // The first pages are those on which the rest hangs.
    let wanted = |pages: &usize| tools::long() || *pages < 5 || pages.is_multiple_of(12) || *pages + 1 >= count;
    for folded_pages in (0..=count).filter(wanted) {
        fs::write(&database, folded(&file, &frames, folded_pages)).unwrap();
        fs::write(&log, &frames).unwrap();
        let _ = fs::remove_file(site.path().join("keyward.db-shm"));
        let about = format!("{folded_pages} of {count} pages folded");
        if folded_pages.is_multiple_of(12) {
            let Content { keys, revision, .. } = inspect(&site, &about).unwrap();
            assert_eq!((keys.len(), revision), (601, 4), "{about}");
        }
        let checked = tools::run(&mut site.command(&["check"]));
        if !checked.status.success() || !checked.out.contains("keys 601 (active 601), secrets 601") {
            refused.push(format!("{about}: {checked:?}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
