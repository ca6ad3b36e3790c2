//! kill -9 at any moment: what was acknowledged is there, nothing is there by half, and the next start needs no help.
//!
//! `make crash` kills two hundred times, a plain run of the tests eight times.

mod fold;
mod writes; // by the management API

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::wire::Wire;
use super::support::{Key, Keyward, Site, Upstream, request, until};
use super::tools::{self, Ended, Program};

const CONFIG: &str = "keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }";
/// Three batches and a bit.
const ROWS: usize = 16_000;
/// How many rows are committed together.
const BATCH: usize = 5_000;
const SCOPES: usize = 7;

fn kills() -> usize {
    if tools::long() { 200 } else { 8 }
}

/// A site with a file of keys that waits to be imported.
fn site(upstream: &Upstream) -> Site {
    let site = Site::new(upstream.address(), CONFIG);
    let mut rows = "id,value,scope\n".to_owned();
    for row in 0..ROWS {
        writeln!(rows, "k{row},{row:020x},organization:o{}", row % SCOPES).unwrap();
    }
    site.write("keys.csv", &rows);
    site.init();
    site
}

fn import(site: &Site) -> Command {
    site.command(&["key", "import", "--input", "keys.csv", "--output", "json"])
}

/// A moment within a time, never the same twice.
fn some_of(time: Duration) -> Duration {
    time.mul_f64(f64::from(getrandom::u32().unwrap()) / f64::from(u32::MAX))
}

/// What is in a database.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    keys: BTreeSet<String>,
    scopes: usize,
    revision: u64,
}

/// Reads a database as SQLite itself understands it, and makes sure that it is sound and that nothing in it is there by
/// half. What is read is a copy: the log is left for Keyward to recover. `None` if there is no database yet.
#[track_caller]
fn inspect(site: &Site, when: &str) -> Option<Content> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["keyward.db", "keyward.db-wal"] {
        let (from, to) = (site.path().join(name), copy.path().join(name));
        if let Err(error) = fs::copy(from, to) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}");
        }
    }
    if !copy.path().join("keyward.db").exists() {
        return None;
    }
    let read = "import json, sqlite3
c = sqlite3.connect('keyward.db')
rows = c.execute('select kind, id, body, rev from record').fetchall()
print(json.dumps({
    'integrity': [row[0] for row in c.execute('pragma integrity_check')],
    'keys': [id for kind, id, body, rev in rows if kind == 'key'],
    'opened': [json.loads(body)['key'] for kind, id, body, rev in rows if kind == 'secret'],
    'scopes': sum(kind == 'scope' for kind, *_ in rows),
    'newest': max([0] + [row[3] for row in rows]),
    'rev': c.execute('select rev from meta').fetchone()[0],
    'audit': [row[0] for row in c.execute('select rev from audit order by rev')],
}))";
    let Ended { status, out, err } = tools::run(Command::new("python3").args(["-c", read]).current_dir(&copy));
    assert!(status.success(), "{when}: {err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["integrity"], serde_json::json!(["ok"]), "{when}");
    let names = |field: &str| found[field].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    let (keys, opened): (BTreeSet<String>, BTreeSet<String>) = (names("keys").collect(), names("opened").collect());
    assert!(keys == opened && names("opened").count() == keys.len(), "{when}: each key has its one secret");
    let revision = found["rev"].as_u64().unwrap();
    assert_eq!(found["audit"], Value::from((0..=revision).collect::<Vec<u64>>()), "{when}: the history has no gap");
    assert!(found["newest"].as_u64().unwrap() <= revision, "{when}");
    Some(Content { keys, scopes: usize::try_from(found["scopes"].as_u64().unwrap()).unwrap(), revision })
}

#[test]
fn an_import_that_is_killed_leaves_whole_batches_and_can_go_on() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let upstream = Upstream::start();
    // What it takes undisturbed is the time within which it is killed.
    let (mut place, began) = (site(&upstream), Instant::now());
    import_all(&place);
    let time = began.elapsed();
    place = site(&upstream);
    let (mut before, mut in_between) = (0, 0);
    for kill in 0..kills() {
        let moment = some_of(time);
        let when = format!("kill {kill}, {moment:?} after the start, with {before} keys");
        let importing = Program::start(&mut import(&place));
        thread::sleep(moment);
        drop(importing);
        let found = inspect(&place, &when);
        let count = found.as_ref().map_or(0, |found| found.keys.len());
        assert!(count >= before && (count.is_multiple_of(BATCH) || count == ROWS), "{when}: {count} keys");
        if let Some(found) = found {
            assert_eq!(found.scopes, if count == 0 { 0 } else { SCOPES }, "{when}");
            assert_eq!(found.revision, count.div_ceil(BATCH) as u64, "{when}");
            let checked = tools::run(&mut place.command(&["check"]));
            assert!(checked.status.success(), "{when}: {checked:?}");
        }
        in_between += usize::from(count > before && count < ROWS);
        before = count;
        if count == ROWS {
            finish(&place, ROWS);
            (place, before) = (site(&upstream), 0);
        }
    }
    finish(&place, before);
    assert!(in_between > 0 || !tools::long(), "no kill came between two batches");
}

/// Imports to the end what lacks, and makes sure that all is there.
#[track_caller]
fn finish(site: &Site, there: usize) {
    for there in [there, ROWS] {
        let Ended { status, out, err } = tools::run(&mut import(site));
        assert!(status.success(), "{err}");
        let counts: Value = serde_json::from_str(&out).unwrap();
        let expected = serde_json::json!(
            { "imported": ROWS - there, "unchanged": there, "rejected": 0, "rejects": null }
        );
        assert_eq!(counts, expected);
    }
    let found = inspect(site, "at the end").unwrap();
    assert_eq!((found.keys.len(), found.scopes), (ROWS, SCOPES));
}

#[test]
fn a_key_whose_value_was_shown_survives() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let upstream = Upstream::start();
    let place = Site::new(upstream.address(), "");
    let began = Instant::now();
    place.create_key(&["--id", "first"]);
    let time = began.elapsed() * 2;
    let mut shown = Vec::new();
    for kill in 0..kills() {
        let moment = some_of(time);
        let id = format!("k{kill}");
        let mut command = place.command(&["key", "create", "--name", "a", "--id", &id]);
        let mut creating = Program::start(&mut command);
        tools::wait(moment, || creating.has_ended());
        creating.kill();
        let ended = creating.end(tools::PATIENCE);
        if ended.out.ends_with('\n') {
            shown.push(Key { id, value: ended.out.trim().to_owned() });
        }
        let found = inspect(&place, &format!("kill {kill}, {moment:?} after the start")).unwrap();
        let lost: Vec<&Key> = shown.iter().filter(|key| !found.keys.contains(&key.id)).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
    let keyward = place.serve();
    for key in &shown {
        assert_eq!(keyward.with_key(key, "GET", "/").status, 200, "{key:?}");
    }
}

/// Clients that never stop asking.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, key: &Key) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let get = request("GET", "/", &[("Authorization", &key.bearer())], b"");
        let client = || {
            let (stop, answered, get) = (stop.clone(), answered.clone(), get.clone());
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    // That it is not there for a moment is what this is about.
                    let Ok(mut wire) = TcpStream::connect(address).map(Wire::new) else {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    while let Ok(status) = ask(&mut wire, &get)
                        && !stop.load(SeqCst)
                    {
                        assert!(status == "200" || status == "503", "a good key got {status}");
                        answered.fetch_add(usize::from(status == "200"), SeqCst);
                    }
                }
            })
        };
        let clients = (0..4).map(|_| client()).collect();
        Self { stop, answered, clients }
    }

    fn answered(&self) -> usize {
        self.answered.load(SeqCst)
    }

    fn end(self) {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
    }
}

fn ask(wire: &mut Wire, get: &[u8]) -> io::Result<String> {
    wire.send(get)?;
    let head = wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    wire.body(head.framing())?;
    Ok(head.target())
}

#[test]
fn a_server_that_is_killed_under_load_is_back_at_once() {
    let upstream = Upstream::start();
    let site = site(&upstream);
    import_all(&site);
    let key = site.create_key(&[]);
    // From here on it listens where it listened before, as it would in a pod.
    let keyward = site.serve();
    let address = keyward.proxy;
    let site = keyward.kill();
    let config = fs::read_to_string(site.path().join("keyward.yaml")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["proxy"]["listen"] = address.to_string().into();
    site.write("keyward.yaml", &config.to_string());

    let mut keyward = site.serve();
    let load = Load::start(address, &key);
    let mut times = Vec::new();
    for _ in 0..kills().div_ceil(2) {
        let before = load.answered();
        until("the load is on", || load.answered() > before + 100);
        let site = keyward.kill();
        let began = Instant::now();
        keyward = site.serve();
        times.push(began.elapsed().saturating_sub(waited_for_cpu(&keyward)));
        let before = load.answered();
        until("clients are served again", || load.answered() > before + 100);
    }
    load.end();
    // Of the others, some may have been held up by what else goes on here.
    assert!(times.iter().min() < Some(&Duration::from_secs(2)), "{times:?}");
    assert_serves(&keyward, &key);
}

/// How long its threads had work to do and no CPU to do it on: that says something of the machine alone.
fn waited_for_cpu(keyward: &Keyward) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", keyward.id())).unwrap();
    let waited =
        |path: PathBuf| fs::read_to_string(path.join("schedstat")).ok()?.split(' ').nth(1)?.parse::<u64>().ok();
    Duration::from_nanos(threads.filter_map(|thread| waited(thread.ok()?.path())).sum())
}

#[track_caller]
fn assert_serves(keyward: &Keyward, key: &Key) {
    assert_eq!(keyward.with_key(key, "GET", "/").status, 200);
    let imported = Key { id: "k15999".to_owned(), value: format!("{:020x}", 15_999) };
    assert_eq!(keyward.with_key(&imported, "GET", "/").status, 200);
    assert_eq!(keyward.metric("keyward_replica_records{kind=\"key\"}") as usize, ROWS + 1);
}

#[track_caller]
fn import_all(site: &Site) {
    let imported = tools::run(&mut import(site));
    assert!(imported.status.success(), "{imported:?}");
}
