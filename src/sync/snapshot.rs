//! The last that was known, in a file: so that a process which starts while the store is away knows what those know that
//! were there before.
//!
//! Without proof of where it comes from it would be a way in. So it ends with an HMAC under a key that is made from the
//! pepper, over every byte before: a file that somebody else wrote, or in which one bit is not as it was, is refused whole.
//! What is in it was true when it was written, and that time counts: after `max_staleness` it grants nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::auth::Locksmith;
use crate::auth::digest::{SnapshotMac, parse_hex};
use crate::auth::grant::Timestamp;
use crate::replica::{Replica, Status};
use crate::store::record::{Kind, Record, RecordId};
use crate::store::{Pull, Revision, Store};
use crate::telemetry::metrics::Metrics;

/// The version of the file. Another one is refused: it may hold restrictions that this program would not enforce.
const FORMAT: u32 = 1;

/// It is written this often at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// And so much less often, the longer it takes: a large store is read whole for it.
const PAUSE: u32 = 20;

/// How far clocks may be apart: what comes from later than that does not come from us.
const SKEW: Duration = Duration::from_secs(300);

/// How many records are handed on together.
const BATCH: usize = 1000;

/// Where the file is, and what proves it.
#[derive(Clone)]
pub struct Snapshot {
    path: PathBuf,
    locksmith: Arc<Locksmith>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    keyward_snapshot: u32,
    revision: u64,
    chain: String,
    /// When the store was read, in milliseconds since 1970.
    fresh_at: u64,
}

/// The lines that follow.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Kind,
    id: Box<str>,
    rev: u64,
    body: Box<str>,
}

/// The last line but one, so that a file that was cut is told as such.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    records: u64,
}

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Useless {
    /// It is not there, or cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not as it was written, or was written with another pepper.
    #[error("it is damaged, or was written with another pepper")]
    Forged,
    /// It is of a version that this one does not read.
    #[error("it has format {0} and this version of keyward reads format {FORMAT}")]
    Format(u32),
    /// It says that it comes from the future.
    #[error("it is of {0}, which has not come yet: some clock is wrong")]
    Future(Timestamp),
}

/// A snapshot that is being read. Nothing of it may be used before all of it was proved.
pub struct Reading {
    lines: BufReader<File>,
    mac: SnapshotMac,
    count: u64,
    /// The end was reached, and all of it is proved.
    is_over: bool,
    /// Where the history stood.
    pub revision: Revision,
    /// How long ago the store was read.
    pub age: Duration,
}

impl Snapshot {
    /// The snapshot at a path.
    pub fn new(path: PathBuf, locksmith: Arc<Locksmith>) -> Self {
        Self { path, locksmith }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to read it.
    ///
    /// # Errors
    /// When it is not there, or of no use.
    pub fn read(&self, now: Timestamp) -> Result<Reading, Useless> {
        let mut lines = BufReader::new(File::open(&self.path)?);
        let mut mac = self.locksmith.pepper.snapshot_mac();
        let mut line = String::new();
        lines.read_line(&mut line)?;
        mac.update(line.as_bytes());
        let header: Header = serde_json::from_str(&line).map_err(|_| Useless::Forged)?;
        if header.keyward_snapshot != FORMAT {
            return Err(Useless::Format(header.keyward_snapshot));
        }
        let chain = parse_hex(&header.chain).ok_or(Useless::Forged)?;
        let fresh_at = Timestamp::from_millis(header.fresh_at);
        if fresh_at > now.plus(SKEW) {
            return Err(Useless::Future(fresh_at));
        }
        let age = Duration::from_millis(now.millis().saturating_sub(fresh_at.millis()));
        Ok(Reading { lines, mac, count: 0, is_over: false, revision: Revision { number: header.revision, chain }, age })
    }

    /// Writes everything that a store has into the file that takes its place when it is whole.
    async fn write(&self, pull: Pull, fresh_at: Timestamp) -> Result<(), String> {
        let Pull { revision, mut records, .. } = pull;
        let (sender, receiver) = mpsc::channel(2);
        let (path, mac) = (self.path.clone(), self.locksmith.pepper.snapshot_mac());
        let writing = spawn_blocking(move || write(&path, mac, revision, fresh_at, receiver));
        let mut whole = Ok(());
        loop {
            match records.next().await {
                Ok(Some(batch)) => {
                    // Whoever writes has failed, and says why.
                    if sender.send(batch).await.is_err() {
                        break;
                    }
                }
                Ok(None) => {
                    // An empty batch says that this was all; a channel that just closes does not.
                    let _ = sender.send(Vec::new()).await;
                    break;
                }
                Err(error) => {
                    whole = Err(error.to_string());
                    break;
                }
            }
        }
        drop(sender);
        let written = writing.await.map_err(|_| "writing it ended in a panic".to_owned())?;
        whole.and(written.map_err(|error| format!("{}: {error}", self.path.display())))
    }
}

impl Reading {
    /// The next records; `None` after the last, and only if all of it is as it was written.
    ///
    /// # Errors
    /// When it is not.
    pub fn batch(&mut self) -> Result<Option<Vec<Record>>, Useless> {
        let mut batch = Vec::new();
        let mut line = String::new();
        while batch.len() < BATCH && !self.is_over {
            line.clear();
            if self.lines.read_line(&mut line)? == 0 {
                return Err(Useless::Forged);
            }
            self.mac.update(line.as_bytes());
            if let Ok(Entry { kind, id, rev, body }) = serde_json::from_str(&line) {
                self.count += 1;
                batch.push(Record { id: RecordId { kind, id }, revision: rev, body: Some(body) });
                continue;
            }
            let footer: Footer = serde_json::from_str(&line).map_err(|_| Useless::Forged)?;
            if footer.records != self.count || !self.is_proved()? {
                return Err(Useless::Forged);
            }
            self.is_over = true;
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Whether the rest of the file is the proof of what was read.
    fn is_proved(&mut self) -> Result<bool, Useless> {
        let mut rest = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&mut self.lines, 100), &mut rest)?;
        // Not even in its spelling may it be another one.
        let is_lower = |text: &&str| !text.contains(|c: char| c.is_ascii_uppercase());
        let text = std::str::from_utf8(&rest).ok().and_then(|text| text.strip_suffix('\n')).filter(is_lower);
        let proof = text.and_then(parse_hex::<32>);
        Ok(proof.is_some_and(|proof| self.mac.clone().proves(&proof)))
    }
}

fn write(
    path: &Path,
    mut mac: SnapshotMac,
    revision: Revision,
    fresh_at: Timestamp,
    mut batches: mpsc::Receiver<Vec<Record>>,
) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".new-{}", std::process::id()));
    let unfinished = Path::new(&unfinished);
    // It says who may do what, and holds the digests of all keys.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(unfinished)?;
    let mut out = BufWriter::new(file);
    let mut count = 0;
    let mut put = |line: &mut dyn FnMut(&mut Vec<u8>) -> serde_json::Result<()>, out: &mut BufWriter<File>| {
        let mut bytes = Vec::new();
        line(&mut bytes)?;
        bytes.push(b'\n');
        mac.update(&bytes);
        out.write_all(&bytes)
    };
    let chain = revision.chain.iter().map(|byte| format!("{byte:02x}")).collect();
    let header = Header { keyward_snapshot: FORMAT, revision: revision.number, chain, fresh_at: fresh_at.millis() };
    let mut written = put(&mut |bytes| serde_json::to_writer(bytes, &header), &mut out);
    let mut is_whole = false;
    while written.is_ok()
        && let Some(batch) = batches.blocking_recv()
    {
        is_whole = batch.is_empty();
        for Record { id: RecordId { kind, id }, revision: rev, body } in batch {
            let Some(body) = body else { continue };
            count += 1;
            let entry = Entry { kind, id, rev, body };
            written = written.and_then(|()| put(&mut |bytes| serde_json::to_writer(bytes, &entry), &mut out));
        }
    }
    let footer = Footer { records: count };
    written = written.and_then(|()| put(&mut |bytes| serde_json::to_writer(bytes, &footer), &mut out));
    let proof: String = mac.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    let done = written.and_then(|()| {
        out.write_all(format!("{proof}\n").as_bytes())?;
        out.into_inner()?.sync_all()?;
        match is_whole {
            true => fs::rename(unfinished, path),
            false => Err(io::Error::other("the store broke off")),
        }
    });
    if done.is_err() {
        // If this fails too, a file is left that nobody looks for.
        let _ = fs::remove_file(unfinished);
    }
    done
}

/// The one who keeps the file up.
pub struct Saver<S> {
    store: S,
    snapshot: Snapshot,
    replica: Arc<Replica>,
    metrics: Arc<Metrics>,
    /// What is in the file, and since when.
    saved: Option<(Revision, Instant)>,
}

impl<S: Store> Saver<S> {
    /// One who has written nothing yet.
    pub fn new(store: S, snapshot: Snapshot, replica: Arc<Replica>, metrics: Arc<Metrics>) -> Self {
        Self { store, snapshot, replica, metrics, saved: None }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        // Not beside the first pull, of which there is as much to do.
        while !matches!(self.replica.status(Instant::now()), Status::Usable(_)) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        loop {
            let began = Instant::now();
            if let Err(why) = self.save().await {
                self.metrics.ledger.snapshot_saved(false);
                tracing::warn!(why, "the snapshot was not written; the one before stays");
            }
            tokio::time::sleep(INTERVAL.max(began.elapsed() * PAUSE)).await;
        }
    }

    /// Writes it, if there is something to write.
    async fn save(&mut self) -> Result<(), String> {
        let (began, fresh_at) = (Instant::now(), SystemTime::now());
        // A store that is away is told of by those who follow it.
        let Ok(news) = self.store.pull(self.saved.map(|(revision, _)| revision)).await else { return Ok(()) };
        let is_old = |since: Instant| since.elapsed() > self.replica.max_staleness() / 4;
        let pull = match self.saved {
            Some((revision, since)) if revision == news.revision && !is_old(since) => return Ok(()),
            Some(_) if !news.full => {
                drop(news);
                self.store.pull(None).await.map_err(|error| error.to_string())?
            }
            Some(_) | None => news,
        };
        let revision = pull.revision;
        self.snapshot.write(pull, fresh_at.into()).await?;
        self.saved = Some((revision, began));
        self.metrics.ledger.snapshot_saved(true);
        tracing::debug!(%revision, path = %self.snapshot.path.display(), "the snapshot was written");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::auth::digest::Pepper;
    use crate::auth::key::{Brand, KeyFormat};
    use crate::store::Records;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn snapshot(folder: &Path, pepper: &str) -> Snapshot {
        let format = KeyFormat::new(Brand::parse("kw").unwrap(), vec![]);
        let pepper = Pepper::from_hex(&pepper.repeat(32)).unwrap();
        Snapshot::new(folder.join("snapshot"), Arc::new(Locksmith { format, pepper }))
    }

    fn records(count: usize) -> Vec<Record> {
        let record = |n| {
            let body = format!(r#"{{"name":"key {n}\n"}}"#);
            Record { id: RecordId::key(&format!("k{n:05}")), revision: n as u64, body: Some(body.into()) }
        };
        (0..count).map(record).collect()
    }

    fn pull(records: Records) -> Pull {
        Pull { revision: Revision { number: 7, chain: [9; 32] }, full: true, now: NOW, records }
    }

    fn read(snapshot: &Snapshot) -> Result<Vec<Record>, Useless> {
        let mut reading = snapshot.read(NOW)?;
        assert!(reading.revision.number == 7 && reading.revision.chain == [9; 32]);
        let mut all = Vec::new();
        while let Some(batch) = reading.batch()? {
            all.extend(batch);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = snapshot(folder.path(), "01");
        for count in [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH] {
            snapshot.write(pull(Records::from_vec(records(count))), NOW).await.unwrap();
            assert!(read(&snapshot).unwrap() == records(count), "{count}");
        }
        let mode = fs::metadata(snapshot.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let later = snapshot.read(NOW.plus(Duration::from_secs(90))).unwrap();
        assert_eq!(later.age, Duration::from_secs(90));
    }

    #[tokio::test]
    async fn failure_18_every_flipped_bit_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = snapshot(folder.path(), "01");
        snapshot.write(pull(Records::from_vec(records(2))), NOW).await.unwrap();
        let good = fs::read(snapshot.path()).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << bit;
                fs::write(snapshot.path(), &flipped).unwrap();
                let read = snapshot.read(NOW).and_then(|mut reading| {
                    while reading.batch()?.is_some() {}
                    Ok(())
                });
                assert!(read.is_err(), "byte {at}, bit {bit}");
            }
            fs::write(snapshot.path(), &good[..at]).unwrap();
            assert!(read(&snapshot).is_err(), "cut at {at}");
        }
        fs::write(snapshot.path(), [&good[..], b"x"].concat()).unwrap();
        assert!(read(&snapshot).is_err());
        fs::write(snapshot.path(), &good).unwrap();
        assert!(read(&snapshot).is_ok());
    }

    /// Failure 18. A checksum that anybody can make, or none: a key that was revoked lives again by a few bytes in a file.
    #[tokio::test]
    async fn failure_18_without_a_key_of_ours_whoever_writes_the_file_writes_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = snapshot(folder.path(), "01");
        let body = r#"{"name":"CI","state":"revoked"}"#;
        let record = Record { id: RecordId::key("k1"), revision: 1, body: Some(body.into()) };
        snapshot.write(pull(Records::from_vec(vec![record])), NOW).await.unwrap();
        let mut bytes = fs::read(snapshot.path()).unwrap();
        let at = bytes.windows(7).position(|window| window == b"revoked").expect("bodies are there as they are");
        bytes[at..at + 7].copy_from_slice(b"active ");
        fs::write(snapshot.path(), &bytes).unwrap();
        // Who only parses it lets the key in.
        assert!(read(&snapshot).is_err());
    }

    #[tokio::test]
    async fn what_others_wrote_or_nobody_can_have_written_yet_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = snapshot(folder.path(), "02");
        theirs.write(pull(Records::from_vec(records(2))), NOW).await.unwrap();
        let ours = snapshot(folder.path(), "01");
        assert!(matches!(read(&ours), Err(Useless::Forged)));
        ours.write(pull(Records::from_vec(vec![])), NOW.plus(SKEW).plus(Duration::from_millis(1))).await.unwrap();
        assert!(matches!(ours.read(NOW), Err(Useless::Future(_))));
        ours.write(pull(Records::from_vec(vec![])), NOW.plus(SKEW)).await.unwrap();
        assert_eq!(ours.read(NOW).unwrap().age, Duration::ZERO);
        fs::remove_file(ours.path()).unwrap();
        assert!(matches!(ours.read(NOW), Err(Useless::Io(_))));
    }

    #[tokio::test]
    async fn half_a_pull_does_not_take_the_place_of_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = snapshot(folder.path(), "01");
        snapshot.write(pull(Records::from_vec(records(2))), NOW).await.unwrap();
        let (sender, receiver) = mpsc::channel(4);
        sender.try_send(Ok(records(5))).unwrap();
        sender.try_send(Err(crate::store::StoreError::unavailable("pg", "gone"))).unwrap();
        drop(sender);
        assert!(snapshot.write(pull(Records::from_channel(receiver)), NOW).await.is_err());
        assert_eq!(read(&snapshot).unwrap().len(), 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
