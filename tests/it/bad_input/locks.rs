//! A database that another process is about to write, and does not.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::run;
use crate::support::{Site, Upstream, until};
use crate::tools::{self, Program};

/// A writer of the database that began a change and does not end it.
#[track_caller]
fn hold_lock(site: &Site) -> Program {
    let hold = "import sqlite3, sys\n\
                c = sqlite3.connect('keyward.db', isolation_level=None)\n\
                c.execute('begin immediate')\n\
                print('held', flush=True)\n\
                sys.stdin.read()\n";
    let mut command = Command::new("python3");
    let mut holder = Program::start(command.args(["-c", hold]).current_dir(site.path()).stdin(Stdio::piped()));
    holder.wait_for("lock", |out, _| out.contains("held").then_some(()));
    holder
}

#[test]
fn a_store_that_is_locked_by_a_stopped_writer_is_told_in_time() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let key = site.create_key(&[]);
    let holder = hold_lock(&site);
    holder.signal("STOP");

    let began = Instant::now();
    let ended = run(&site, "key create --name b");
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(
        ended.err.contains("another process has held its write lock for 5 s; `fuser -v keyward.db` says"),
        "{ended:?}"
    );
    assert!(ended.out.is_empty(), "a value that was not stored is not shown: {ended:?}");

    // Nobody who only reads has to wait.
    let began = Instant::now();
    assert!(run(&site, "key list").status.success());
    let keyward = site.serve();
    assert_eq!(keyward.with_key(&key, "GET", "/").status, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());

    // A crash lets go of the lock, even of one who was stopped.
    holder.signal("KILL");
    let made = keyward.site.create_key(&[]);
    until("the new key works", || keyward.with_key(&made, "GET", "/").status == 200);
}

#[test]
fn a_store_that_is_locked_by_a_writer_who_goes_on_is_waited_for() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    site.create_key(&["--id", "k1"]);
    let holder = hold_lock(&site);
    let revoke = Program::start(&mut site.command(&["key", "revoke", "k1"]));
    // It is at the lock once it has the database open.
    let is_at_it = || {
        let files = fs::read_dir(format!("/proc/{}/fd", revoke.id())).unwrap();
        files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).any(|link| link.ends_with("keyward.db-wal"))
    };
    until("the command has opened the database", is_at_it);
    holder.signal("KILL");
    let ended = revoke.end(Duration::from_secs(7));
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(site.json(&["key", "show", "k1"])["state"], "revoked");
}
