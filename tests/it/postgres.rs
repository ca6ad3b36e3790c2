//! Keys in PostgreSQL: commands and sidecars as people run them, each with the rights of its role, and what a sidecar does
//! when the server is away, frozen, or not set up yet.

mod elsewhere;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{Key, Keyward, Site, Upstream, port, until};
use super::tools::postgres::{self, Breaking, Database, Pooler, Server};
use super::tools::{self, Program};

/// Rows that an import commits at a time.
const BATCH: usize = 5000;

/// What must not turn up anywhere. The server asks nobody for it.
const PASSWORD: &str = "hunter2-and-then-some";

/// A database with tables and roles, and a site whose commands may write to it.
fn writer(database: &Database, upstream: &Upstream) -> Site {
    let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres/roles.sql");
    database.run(&roles);
    for role in ["owner", "writer", "reader"] {
        database.sql(&format!("create role {}_{role} login in role keyward_{role}", database.name));
    }
    let owner = site(database, upstream, "owner", "");
    owner.init();
    owner.json(&["scope", "create", "organization:acme"]);
    database.run(&roles);
    site(database, upstream, "writer", "")
}

fn site(database: &Database, upstream: &Upstream, role: &str, more: &str) -> Site {
    let url = database.url(&format!("{}_{role}", database.name), &format!("&password={PASSWORD}{more}"));
    Site::new(
        upstream.address(),
        &format!("store: {url:?}\nlog: {{ level: debug, access: none }}\nsync: {{ max_staleness: 2s }}"),
    )
}

/// How long it takes until a key is answered like this.
#[track_caller]
fn time_until(keyward: &Keyward, key: &Key, expected: u16) -> Duration {
    let began = Instant::now();
    until(&format!("a key is answered with {expected}"), || keyward.status_with(key) == expected);
    began.elapsed()
}

/// How long a sidecar goes on to let a key in that a command in another process has revoked.
#[track_caller]
fn time_to_refuse(writer: &Site, keyward: &Keyward) -> Duration {
    let keys: Vec<Key> = (0..9).map(|_| writer.create_key(&[])).collect();
    keys.iter().for_each(|key| {
        time_until(keyward, key, 200);
    });
    let times = keys.iter().map(|key| {
        writer.json(&["key", "revoke", &key.id]);
        time_until(keyward, key, 401)
    });
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    // One of them may be late because the machine is.
    times[times.len() - 2]
}

#[test]
fn a_key_that_another_process_revokes_is_refused_at_once_by_a_sidecar_that_may_only_read() {
    if postgres::is_lacking() {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let writer = writer(&database, &upstream);
    let keyward = site(&database, &upstream, "reader", "").serve();
    keyward.wait_for_line("listening for changes");
    let time = time_to_refuse(&writer, &keyward);
    assert!(time < Duration::from_millis(500), "{time:?}");
    // The sidecar's own user may change nothing.
    let refused = keyward.site.run(&["key", "create", "--name", "mine"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("keyward_writer"), "{why}");
    let output = String::from_utf8_lossy(&keyward.output()).into_owned();
    assert!(!(output + &why).contains(PASSWORD));
}

#[test]
fn without_any_notification_a_revoked_key_is_refused_at_the_next_poll() {
    if postgres::is_lacking() {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let writer = writer(&database, &upstream);
    let keyward = site(&database, &upstream, "reader", "&listen=off").serve();
    let time = time_to_refuse(&writer, &keyward);
    assert!(time < Duration::from_millis(1500), "{time:?}");
}

/// Failure 3.
#[test]
fn failure_3_through_a_pooler_everything_works_but_notifications_and_they_go_past_it() {
    if postgres::is_lacking() || tools::lacks(&["pgbouncer"]) {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let pooler = Pooler::start(&database);
    let site = |past_it| {
        let url = pooler.url(&database, past_it);
        Site::new(upstream.address(), &format!("store: {url:?}\nlog: {{ level: debug, access: none }}"))
    };
    let writer = site(false);
    writer.init();
    writer.create_key(&[]);
    for (past_it, limit) in [(true, 500), (false, 1500)] {
        let keyward = site(past_it).serve();
        if past_it {
            keyward.wait_for_line("listening for changes");
        } else {
            let line = keyward.wait_for_line_with("level", &"WARN".into());
            assert!(line["message"].as_str().unwrap().contains("listen=HOST:PORT"), "{line}");
        }
        let time = time_to_refuse(&writer, &keyward);
        assert!(time < Duration::from_millis(limit), "{past_it}: {time:?}");
    }
}

#[test]
fn a_sidecar_waits_for_the_tables_and_says_so() {
    if postgres::is_lacking() {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let site = Site::new(upstream.address(), &format!("store: {:?}", database.url("kw", "")));
    let keyward = site.start();
    let line = keyward.wait_for_line("the store cannot be read");
    assert!(line["error"].as_str().unwrap().contains("no tables of Keyward yet"), "{line}");
    assert_eq!(keyward.get("/x", &[("X-API-Key", "kw_live_x")]).status, 401);
    assert_eq!(keyward.ops_page("/readyz").status, 503);
    assert_eq!(database.sql("select to_regnamespace('keyward') is null"), "t");
    let looked = keyward.site.run(&["key", "list"]);
    assert_eq!(looked.status.code(), Some(7));
    let written = keyward.site.run(&["key", "create", "--name", "a"]);
    assert_eq!(written.status.code(), Some(7), "who writes makes none either");
    assert_eq!(database.sql("select to_regnamespace('keyward') is null"), "t");
    keyward.site.init();
    let made = keyward.site.create_key(&[]);
    time_until(&keyward, &made, 200);
    // It is ready once it stands in the list of processes.
    until("it is ready", || keyward.ops_page("/readyz").status == 200);
}

#[test]
fn init_makes_the_tables_and_a_config_that_works() {
    if postgres::is_lacking() {
        return;
    }
    let database = Database::new();
    let folder = tempfile::tempdir().unwrap();
    let init = |name: &str, url: &str| {
        let mut command = tools::keyward(&["init", "--dir", name, "--store", url]);
        tools::run(command.current_dir(folder.path()))
    };
    let url = database.url("kw", &format!("&password={PASSWORD}"));
    let made = init("a", &url);
    assert!(made.status.success() && made.err.contains("made the tables"), "{made:?}");
    let run = |words: &[&str]| tools::run(tools::keyward(words).current_dir(folder.path().join("a")));
    assert!(run(&["key", "create", "--name", "first", "--config", "keyward.yaml"]).status.success());
    let checked = run(&["check", "--config", "keyward.yaml"]);
    assert!(checked.out.contains("keys 1 (active 1)"), "{checked:?}");
    // A second pepper would open nothing, and is not left behind.
    let again = init("b", &url);
    assert!(again.status.code() == Some(7) && again.err.contains("another pepper"), "{again:?}");
    assert!(!folder.path().join("b/keyward.pepper").exists());
    let wrong = init("c", "postgres://kw:hunter2-and-then-some@db.example/keys");
    assert!(wrong.status.code() == Some(2) && wrong.err.contains("sslmode=verify-full"), "{wrong:?}");
    // A URL in the environment is used and not written down, and nobody else may say otherwise.
    let other = Database::new();
    let mut command = tools::keyward(&["init", "--dir", "d"]);
    let quiet = tools::run(command.current_dir(folder.path()).env("KEYWARD_STORE", other.url("kw", "")));
    assert!(quiet.status.success() && quiet.err.contains("made the tables"), "{quiet:?}");
    assert!(!quiet.err.contains("keyward.db"), "{quiet:?}");
    assert!(!fs::read_to_string(folder.path().join("d/keyward.yaml")).unwrap().contains("postgres://"));
    let mut command = tools::keyward(&["init", "--dir", "e", "--store", &url]);
    let both = tools::run(command.current_dir(folder.path()).env("KEYWARD_STORE", other.url("kw", "")));
    assert!(both.status.code() == Some(2) && both.err.contains("overrules"), "{both:?}");
    assert!(!folder.path().join("e").exists());
    assert!(![made.err, checked.err, again.err, wrong.err].concat().contains(PASSWORD));
}

#[test]
fn a_pepper_that_tables_may_have_been_made_with_is_kept() {
    if postgres::is_lacking() {
        return;
    }
    let (database, folder) = (Database::new(), tempfile::tempdir().unwrap());
    let way = Breaking::start(&database, true, false);
    let config = folder.path().join("keyward.yaml");
    let config = config.to_str().unwrap();
    let lost = tools::run(&mut tools::keyward(&["init", "--config", config, "--store", &way.url(&database)]));
    assert!(lost.status.code() == Some(7) && lost.err.contains("is not known"), "{lost:?}");
    assert!(lost.err.contains("kept") && lost.err.contains("keyward.pepper"), "{lost:?}");
    // As it was told to, once the server is there again.
    let url = database.url("kw", "");
    let again = tools::run(tools::keyward(&["init", "--config", config]).env("KEYWARD_STORE", &url));
    assert!(again.status.code() == Some(5) && again.err.contains("nothing is overwritten"), "{again:?}");
    let create = ["key", "create", "--name", "first", "--config", config];
    let created = tools::run(tools::keyward(&create).env("KEYWARD_STORE", url));
    assert!(created.status.success(), "{created:?}");
}

#[test]
fn an_outage_refuses_nobody_who_was_allowed_and_ends_when_the_server_is_back() {
    if postgres::is_lacking() {
        return;
    }
    let (mut server, upstream) = (Server::start(&[]), Upstream::start());
    let database = server.database();
    let writer = writer(&database, &upstream);
    let key = writer.create_key(&[]);
    let keyward = site(&database, &upstream, "reader", "").serve();
    assert_eq!(keyward.status_with(&key), 200);
    server.stop();
    keyward.wait_for_line("the store cannot be read");
    assert_eq!(keyward.status_with(&key), 200);
    let unreachable = writer.run(&["key", "revoke", &key.id]);
    let why = String::from_utf8_lossy(&unreachable.stderr).into_owned();
    assert!(unreachable.status.code() == Some(7) && !why.contains(PASSWORD), "{why}");
    server.start_again();
    writer.json(&["key", "revoke", &key.id]);
    time_until(&keyward, &key, 401);
}

/// Failure 17.
#[test]
fn failure_17_a_frozen_server_comes_to_503_and_never_to_401() {
    if postgres::is_lacking() || tools::lacks(&["pgrep"]) {
        return;
    }
    let (server, upstream) = (Server::start(&[]), Upstream::start());
    let database = server.database();
    let writer = writer(&database, &upstream);
    let key = writer.create_key(&[]);
    let keyward = site(&database, &upstream, "reader", "").serve();
    assert_eq!(keyward.status_with(&key), 200);
    server.signal("STOP");
    let frozen = Instant::now();
    until("nothing can be known any more", || match keyward.status_with(&key) {
        200 => false,
        status => {
            assert_eq!(status, 503);
            true
        }
    });
    assert!(frozen.elapsed() > Duration::from_millis(700), "{:?}", frozen.elapsed());
    server.signal("CONT");
    time_until(&keyward, &key, 200);
    writer.json(&["key", "revoke", &key.id]);
    time_until(&keyward, &key, 401);
}

#[test]
fn an_import_that_is_killed_leaves_whole_batches_and_can_go_on() {
    if postgres::is_lacking() {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let writer = writer(&database, &upstream);
    let rows = 4 * BATCH;
    let list: String = (0..rows).map(|n| format!("k{n},{n:032x}{n:032x}\n")).collect();
    writer.write("keys.csv", &format!("id,sha256\n{list}"));
    let import = || {
        let mut command = writer.command(&["key", "import", "--input", "keys.csv"]);
        command.env("NO_COLOR", "1");
        command
    };
    let count = || database.sql("select count(*) from keyward.record where kind = 'key'").parse::<usize>().unwrap();
    let mut in_between = 0;
    for kill in 0..6 {
        let before = count();
        let mut importing = Program::start(&mut import());
        thread::sleep(Duration::from_millis(80 * (kill + 1)));
        importing.kill();
        drop(importing);
        // What the server was doing for it, it does to its end or not at all.
        until("the server has noticed", || {
            database.sql("select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle'")
                == "1"
        });
        let after = count();
        assert!(after >= before && after.is_multiple_of(BATCH), "{before} and then {after}");
        in_between += usize::from(after > before && after < rows);
    }
    let done = tools::run(&mut import());
    assert!(done.status.success(), "{done:?}");
    assert_eq!(count(), rows);
    // The history has one revision for each batch and for what was before, and no gap.
    let history = "select count(*) = max(rev) + 1, max(rev) from keyward.audit";
    let revisions = 1 + rows / BATCH;
    assert_eq!(database.sql(history), format!("t|{revisions}"), "killed {in_between} times in between");
    let checked = writer.run(&["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("keys 20,000 (active 20,000)"), "{said}");
}

#[test]
fn keys_and_scopes_are_worked_on_as_anywhere_else() {
    if postgres::is_lacking() {
        return;
    }
    let (database, upstream) = (Database::new(), Upstream::start());
    let writer = writer(&database, &upstream);
    let key = writer.create_key(&["--scope", "organization:acme", "--read-only"]);
    let show = |field: &str| writer.json(&["key", "show", &key.id])[field].clone();
    assert_eq!((show("access"), show("scope")), (Value::from("read-only"), Value::from("organization:acme")));
    writer.json(&["key", "update", &key.id, "--name", "Renamed"]);
    writer.json(&["key", "disable", &key.id]);
    assert_eq!((show("name"), show("state")), (Value::from("Renamed"), Value::from("disabled")));
    let rotated = writer.json(&["key", "rotate", &key.id]);
    assert!(rotated["value"].as_str().is_some_and(|value| value.starts_with("kw_live_")), "{rotated}");
    writer.json(&["scope", "suspend", "organization:acme"]);
    assert_eq!(writer.json(&["key", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(writer.run(&["key", "show", "nobody"]).status.code(), Some(4));
    // Two who do the same at once: one does it.
    let both: Vec<_> = (0..2)
        .map(|_| Program::start(&mut writer.command(&["key", "revoke", &key.id])))
        .map(|program| program.end(tools::PATIENCE).status.code())
        .collect();
    assert!(both.contains(&Some(0)), "{both:?}");
    let entries =
        database.sql("select string_agg(entry->>'action', ' ' order by rev) from keyward.audit where rev > 1");
    assert!(entries.starts_with("key.create key.update key.disable key.rotate scope.suspend key.revoke"), "{entries}");
}

/// Makes a certificate for `localhost` that vouches for itself.
fn certificate(folder: &Path, name: &str) {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                  -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout $0.key -out $0.pem";
    let made = tools::run(Command::new("sh").args(["-c", script, name]).current_dir(folder));
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn tls_is_used_as_the_url_says() {
    if postgres::is_lacking() || tools::lacks(&["openssl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "server");
    certificate(folder.path(), "other");
    let port = port::unused().port();
    let server = Server::start_with_tls(&folder.path().join("server.pem"), &folder.path().join("server.key"), port);
    let database = server.database();
    let upstream = Upstream::start();
    let check = |host: &str, more: &str| {
        let url = format!("postgres://kw:{PASSWORD}@{host}:{port}/{}?{more}", database.name);
        let site = Site::new(upstream.address(), &format!("store: {url:?}"));
        // The first makes the tables; to the others it does nothing.
        site.run(&["init"]);
        tools::run(&mut site.command(&["key", "create", "--name", "Example"]))
    };
    let pem = |name: &str| format!("sslmode=verify-full&sslrootcert={}", folder.path().join(name).display());
    for (host, more, expected) in [
        ("localhost", pem("server.pem"), None),
        ("127.0.0.1", "sslmode=require".to_owned(), None),
        ("localhost", pem("other.pem"), Some("certificate")),
        ("127.0.0.1", pem("server.pem"), Some("certificate")),
        ("localhost", pem("server.key"), Some("no certificate in PEM form")),
        ("localhost", pem("nothing.pem"), Some("cannot be read")),
        // In clear the server does not let anybody in.
        ("localhost", "sslmode=disable".to_owned(), Some("refuses the user or the password")),
    ] {
        let checked = check(host, &more);
        match expected {
            None => assert!(checked.status.success(), "{host} {more}: {checked:?}"),
            Some(why) => assert!(
                checked.status.code() == Some(7) && checked.err.contains(why) && !checked.err.contains(PASSWORD),
                "{host} {more}: {checked:?}"
            ),
        }
    }
}
