//! What a log says of itself: the revision from which it has every page that changed.
//!
//! SQLite shows the last state of a log, never its first; so its frames are read here, as
//! <https://www.sqlite.org/fileformat2.html> has them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes before the first frame, and before the page in each.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// What says that its pages are larger is no log.
const LARGEST_PAGE: usize = 65_536;

/// The revision that the first commit in a log has made, if there is a commit in it. The page numbered `meta` is in every
/// commit, and holds its revision.
pub(super) fn first_revision(log: &Path, meta: u32) -> Option<u64> {
    // No lock hangs on the log. Of the database, a handle that SQLite does not know would drop all of them when it closes.
    let log = File::open(log).ok()?;
    let header: [u8; HEADER] = read(&log, 0)?;
    let [.., a, b, c, d] = *header.first_chunk::<12>()?;
    let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok().filter(|size| *size <= LARGEST_PAGE)?;
    let mut at = HEADER as u64;
    loop {
        let frame: [u8; FRAME_HEADER] = read(&log, at)?;
        // What follows is left of an earlier round.
        if frame[8..16] != header[16..24] {
            return None;
        }
        at += FRAME_HEADER as u64;
        if frame[..4] == meta.to_be_bytes() {
            let mut page = vec![0; size];
            log.read_exact_at(&mut page, at).ok()?;
            return revision_on(&page);
        }
        at += size as u64;
    }
}

fn read<const N: usize>(log: &File, at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    log.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
}

/// The second column of the only row of a table whose first column is its row id.
fn revision_on(page: &[u8]) -> Option<u64> {
    // A leaf of a table, with one cell.
    let [13, _, _, 0, 1, _, _, _, high, low, ..] = page else { return None };
    let mut cell = page.get(usize::from(u16::from_be_bytes([*high, *low]))..)?;
    let (_payload, _row) = (varint(&mut cell)?, varint(&mut cell)?);
    let record = cell;
    let (header, first, second) = (varint(&mut cell)?, varint(&mut cell)?, varint(&mut cell)?);
    let length = match (first, second) {
        (0, 1..=4) => second,
        (0, 5) => 6,
        (0, 6) => 8,
        (0, 8) => return Some(0),
        (0, 9) => return Some(1),
        _ => return None,
    };
    let bytes = record.get(header..)?.get(..length)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Takes an integer of seven bits to the byte.
fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    loop {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number = number << 7 | usize::from(first & 0x7f);
        if *first < 0x80 {
            return Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_first_revision_is_read_whatever_its_size() {
        for revision in [0_i64, 1, 2, 127, 128, 40_000, 1 << 23, 1 << 31, 1 << 40, 1 << 50] {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("keys.db");
            let log = folder.path().join("keys.db-wal");
            let connection = Connection::open(&path).unwrap();
            let schema = "create table other (a); create table meta (one integer primary key, rev integer, chain blob)";
            connection.execute_batch(&format!("pragma journal_mode = wal; {schema}")).unwrap();
            let meta = connection
                .query_row("select rootpage from sqlite_schema where name = 'meta'", [], |row| row.get(0))
                .unwrap();
            connection.execute("insert into meta values (1, ?1, zeroblob(200))", [revision]).unwrap();
            connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
            assert_eq!(first_revision(&log, meta), None);
            connection.execute_batch("insert into other values (7)").unwrap();
            assert_eq!(first_revision(&log, meta), None);
            for _ in 0..2 {
                connection.execute_batch("update meta set chain = zeroblob(100)").unwrap();
            }
            connection.execute_batch("update meta set rev = 5").unwrap();
            assert_eq!(first_revision(&log, meta), Some(u64::try_from(revision).unwrap()));
        }
    }

    #[test]
    fn what_is_no_log_has_no_revision() {
        let folder = TempDir::new().unwrap();
        let log = folder.path().join("keys.db-wal");
        assert_eq!(first_revision(&log, 2), None);
        for content in [vec![], vec![0; 31], vec![0; 10_000], vec![0xff; 10_000]] {
            std::fs::write(&log, content).unwrap();
            assert_eq!(first_revision(&log, 2), None);
        }
    }
}
