//! Nothing that Keyward ever writes tells a secret: not whole, not in part, not encoded, not hashed. Keys that are right,
//! wrong and malformed are presented in every form while everything is logged, and then everything is searched.

mod needles;

use std::fs;
use std::io;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use self::needles::{Canary, Needles};
use super::support::upstream::Turn;
use super::support::wire;
use super::support::{After, Client, Keyward, Site, Upstream, ok, request, until};
use super::tools::{self, Ended, PATIENCE, Program};

const CONFIG: &str = r#"
proxy: { timeouts: { response: 200ms } }
credentials: { bare: true }
keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }
routes:
  - { path: "/public/{*rest}", auth: none }
  - { path: /write, class: write }
  - { path: /json, deny: json }
"#;

/// Good keys, and what is like one.
struct Canaries {
    created: Canary,
    rotated: Canary,
    imported: Canary,
    hashed: Canary,
    all: Vec<Canary>,
}

/// Everything that was written, and where.
#[derive(Default)]
struct Written(Vec<(String, Vec<u8>)>);

impl Written {
    fn add(&mut self, by: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((by.into(), bytes.into()));
    }

    fn add_ended(&mut self, by: &str, ended: &Ended) {
        self.add(format!("{by}, stdout"), ended.out.clone());
        self.add(format!("{by}, stderr"), ended.err.clone());
    }

    #[track_caller]
    fn assert_free_of(&self, needles: &Needles) {
        let found: Vec<String> = self.0.iter().flat_map(|(by, bytes)| needles.found_in(by, bytes)).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

/// Runs a command that shows a value, once, and keeps what it wrote besides.
#[track_caller]
fn reveal(site: &Site, words: &[&str], written: &mut Written) -> Canary {
    let ended = tools::run(&mut site.command(words));
    assert!(ended.status.success(), "{words:?}: {ended:?}");
    let value =
        ended.out.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).find(|word| word.starts_with("kw_"));
    let value = value.unwrap_or_else(|| panic!("no value: {ended:?}")).to_owned();
    assert_eq!((ended.out.matches(&value).count(), ended.err.matches(&value).count()), (1, 0), "{words:?}");
    written.add_ended(&words.join(" "), &Ended { out: ended.out.replace(&value, ""), ..ended });
    Canary::new(&words.join(" "), &value)
}

/// Runs a command that shows no value.
#[track_caller]
fn run(site: &Site, words: &[&str], code: i32, written: &mut Written) {
    let ended = tools::run(&mut site.command(words));
    assert_eq!(ended.status.code(), Some(code), "{words:?}: {ended:?}");
    written.add_ended(&words.join(" "), &ended);
}

/// Makes, imports, changes and shows keys.
fn prepare(site: &Site, written: &mut Written) -> Canaries {
    site.init();
    let created = reveal(site, &["key", "create", "--name", "a", "--id", "created"], written);
    let json =
        reveal(site, &["key", "create", "--name", "a", "--id", "ro", "--read-only", "--output", "json"], written);
    let rotated = reveal(site, &["key", "rotate", "created"], written);
    let revoked = reveal(site, &["key", "create", "--name", "a", "--id", "revoked"], written);
    let again = reveal(site, &["key", "rotate", "revoked", "--output", "json"], written);
    let expired = reveal(site, &["key", "create", "--name", "a", "--expires", "1ms"], written);
    let foreign = reveal(site, &["key", "create", "--name", "a", "--ip", "10.0.0.0/8"], written);
    let record = reveal(site, &["key", "create", "--name", "a", "--record"], &mut Written::default());
    let imported = Canary::new("imported", "c0ffee5eedc0ffee5eed");
    let hashed = Canary::new("imported by its hash", "badc0de5badc0de5badc");
    let rejected = ["rejected", "rejected too", "as its own id"].map(|what| (what, needles::hex_key(what)));
    let rejected = rejected.map(|(what, value)| Canary::new(what, &value));
    site.write(
        "keys.csv",
        &format!(
            "id,value,sha256,access\nimported,{},,rw\nhashed,,{},rw\nbad,{},,wrong\n{},{},,\n,{}x,,\n",
            imported.value,
            hashed.sha256_hex(),
            rejected[0].value,
            rejected[2].value,
            rejected[2].value,
            rejected[1].value,
        ),
    );
    run(site, &["key", "import", "--input", "keys.csv"], 6, written);
    run(site, &["key", "import", "--input", "keys.csv", "--output", "json"], 6, written);
    // Somebody's key where the names of columns should be.
    site.write("headless.csv", &format!("{},rw\n", rejected[0].value));
    run(site, &["key", "import", "--input", "headless.csv"], 2, written);
    site.write(
        "keys.jsonl",
        &format!("{{\"value\":\"{}\",\"access\":7}}\n{{\"{}\":1}}\n", imported.value, created.value),
    );
    run(site, &["key", "import", "--input", "keys.jsonl"], 6, written);
    run(site, &["key", "revoke", "revoked"], 0, written);
    run(site, &["key", "update", "created", "--name", "b"], 0, written);
    for output in ["table", "json"] {
        run(site, &["key", "list", "--output", output], 0, written);
        run(site, &["key", "show", "created", "--output", output], 0, written);
        run(site, &["key", "show", "imported", "--output", output], 0, written);
    }
    run(site, &["check"], 0, written);
    // A whole key of which the store knows nothing, and what is nearly one.
    let unknown = record;
    let mistyped = Canary::new("mistyped", &unknown.value.replace("kw_live_", "kw_live_x"));
    let malformed = Canary::new("malformed", "Tr0ub4dor&3-correct-horse");
    let pepper = Canary::new("the pepper", needles::PEPPER);
    let all =
        [created.clone(), rotated.clone(), imported.clone(), hashed.clone(), json, revoked, again, expired, foreign]
            .into_iter()
            .chain([unknown, mistyped, malformed, pepper])
            .chain(rejected)
            .collect();
    Canaries { created, rotated, imported, hashed, all }
}

/// Fails in every way in which an upstream can.
fn by_path(turn: &mut Turn<'_>) -> io::Result<After> {
    match turn.head.target().split('?').next().unwrap() {
        "/cut" => Ok(After::Close),
        "/reset" => Ok(After::Reset),
        "/silent" => turn.wire.some().map(|_| After::Close),
        "/garbage" => turn.wire.send(b"220 mail.example ESMTP\r\n\r\n").map(|()| After::Close),
        _ => turn.answer(&ok("<ok/>")),
    }
}

/// A value in every place of a request where clients put keys, by design or by mistake: targets and fields.
fn presentations(value: &str) -> Vec<(String, Vec<(&'static str, String)>)> {
    let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let basic = |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let authorization = |text: String| ("?a=b".to_owned(), vec![("Authorization", text)]);
    vec![
        authorization(format!("APIKEY:ORGANIZATION {value}")),
        authorization(format!("Bearer {value}")),
        authorization(format!("bEARER  {value}")),
        authorization(basic(value, "")),
        authorization(basic("admin", value)),
        authorization(value.to_owned()),
        authorization(format!("Digest {value}")),
        (String::new(), vec![("X-API-Key", value.to_owned())]),
        (format!("?api_key={encoded}"), vec![]),
        (format!("?x=1&api%5Fkey={encoded}&y"), vec![]),
        (format!("?key={encoded}"), vec![]),
        (format!("?api_key={encoded}"), vec![("X-API-Key", value.to_owned())]),
        (String::new(), vec![("X-API-Key", value.to_owned()), ("Authorization", format!("Bearer {value}"))]),
        (
            String::new(),
            vec![
                ("Cookie", format!("key={value}")),
                ("User-Agent", value.to_owned()),
                ("Referer", format!("http://a/?k={value}")),
                ("X-Request-Id", value.to_owned()),
                ("X-Keyward-Key-Id", value.to_owned()),
                ("X-Forwarded-For", value.to_owned()),
                ("traceparent", format!("00-{value}")),
            ],
        ),
    ]
}

/// Sends it all, and keeps what clients heard.
fn present(keyward: &Keyward, canaries: &Canaries, written: &mut Written) {
    for (first, canary) in canaries.all.iter().enumerate().map(|(n, canary)| (n == 0, canary)) {
        for (nth, (query, fields)) in presentations(&canary.value).into_iter().enumerate() {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            for (method, path) in [("GET", "/json"), ("POST", "/write"), ("GET", "/public/a"), ("GET", "/a//b.xml")] {
                exchange(keyward, &request(method, &format!("{path}{query}"), &fields, b""), canary, written);
            }
            // Those that fail take their time.
            if first && nth < 2 {
                for path in ["/cut", "/reset", "/silent", "/garbage"] {
                    exchange(keyward, &request("GET", &format!("{path}{query}"), &fields, b""), canary, written);
                }
            }
        }
        for broken in [
            format!("GET /?api_key={0} HTTP/9.9\r\nHost: a\r\n\r\n", canary.value),
            format!("GET /?api_key={0} HTTP/1.1\r\nHost: a\r\nX-API-Key {0}\r\n\r\n", canary.value),
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nHost: {0}\r\nConnection: close\r\nX-API-Key: {0}\r\n\r\n",
                canary.value
            ),
            format!(
                "{0} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {0}\r\n\r\n",
                canary.value.replace('&', "+")
            ),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {0}\r\nX: {1}\r\n\r\n", canary.value, "x".repeat(70_000)),
        ] {
            let mut client = keyward.connect();
            // It may be refused before all of it is sent.
            let _ = client.wire().send(broken.as_bytes());
            written.add(format!("answer to {}, broken", canary.what), client.wire().rest().unwrap_or_default());
        }
    }
}

fn exchange(keyward: &Keyward, bytes: &[u8], canary: &Canary, written: &mut Written) {
    let response = keyward.send(bytes);
    let start = String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().split('?').next().unwrap().to_owned();
    written.add(format!("answer to {} at {start}", canary.what), [response.head.raw(), &response.body].concat());
}

/// Keeps what kubelet, Prometheus and operators are shown, and what the process tells about itself.
fn look_around(keyward: &Keyward, canaries: &Canaries, written: &mut Written) {
    for target in ["/metrics", "/readyz?verbose", "/livez", "/no"] {
        written.add(target, keyward.ops_page(target).body);
    }
    written.add("/status", keyward.admin_page("/status").body);
    for canary in [&canaries.created, &canaries.imported] {
        written.add("ops, 404", keyward.ops_page(&format!("/{0}?{0}", canary.value)).body);
        written.add("admin, 404", keyward.admin_page(&format!("/{0}?{0}", canary.value)).body);
    }
    written.add("its command line", fs::read(format!("/proc/{}/cmdline", keyward.id())).unwrap());
    for thread in fs::read_dir(format!("/proc/{}/task", keyward.id())).unwrap() {
        written.add("the name of a thread", fs::read(thread.unwrap().path().join("comm")).unwrap());
    }
}

#[test]
fn nothing_that_is_ever_written_tells_a_secret() {
    let upstream = Upstream::scripted(by_path);
    let mut written = Written::default();
    let collector = Upstream::start();
    let traces = format!("traces: {{ endpoint: 'http://{}', follow: none }}", collector.address());
    let site = Site::new(upstream.address(), &format!("{CONFIG}\nlog: {{ access: all, level: trace }}\n{traces}"));
    let canaries = prepare(&site, &mut written);
    let mut keyward = site.serve();
    for (canary, status) in [
        (&canaries.created, 200),
        (&canaries.rotated, 200),
        (&canaries.imported, 200),
        (&canaries.hashed, 200),
        (canaries.all.last().unwrap(), 401),
    ] {
        assert_eq!(keyward.get("/json", &[("X-API-Key", &canary.value)]).status, status, "{}", canary.what);
    }
    present(&keyward, &canaries, &mut written);
    look_around(&keyward, &canaries, &mut written);
    // What is going on in the store while it runs is logged too.
    let late = reveal(&keyward.site, &["key", "create", "--name", "late"], &mut written);
    until("the late key works", || keyward.get("/json", &[("X-API-Key", &late.value)]).status == 200);
    keyward.terminate();
    assert_eq!(keyward.wait_for_exit().code(), Some(0));
    let log = keyward.output();
    // What is searched is really there.
    let text = String::from_utf8_lossy(&log);
    for word in ["\"level\":\"DEBUG\"", "unknown_credential", "upstream_broken", "key.id"] {
        assert!(text.contains(word), "no {word} in what it wrote:\n{text}");
    }
    written.add("keyward serve", log.clone());
    let spans: Vec<u8> = collector.received().into_iter().flat_map(|batch| batch.body.bytes).collect();
    for word in ["unknown_credential", "keyward.key.id", "upstream_broken", "/json"] {
        assert!(wire::find(&spans, word.as_bytes()).is_some(), "no {word} in what the collector got");
    }
    written.add("the collector", spans);

    let mut all = canaries.all;
    all.push(late);
    let needles = Needles::of(&all);
    assert!(!needles.found_in("itself", all[0].value.as_bytes()).is_empty() && written.0.len() > 100);
    written.assert_free_of(&needles);
    check_database(&keyward.site, &all);
}

/// A database has the digests of its keys where they are looked up, and where the audit keeps which records were left, which is
/// shown to nobody: also not where what it says of them is wrong.
#[track_caller]
fn check_database(site: &Site, canaries: &[Canary]) {
    let (mut files, mut stored) = (Written::default(), Written::default());
    for name in ["keyward.db", "keyward.db-wal", "keyward.db-shm"] {
        files.add(name, fs::read(site.path().join(name)).unwrap_or_default());
    }
    assert!(files.0[0].1.len() > 4096);
    files.assert_free_of(&Needles::of_values(canaries));
    let needles = Needles::of(canaries);
    assert!(!needles.found_in("the database", &files.0[0].1).is_empty(), "digests are found where they are");
    if tools::lacks(&["python3"]) {
        return;
    }
    let dump = "import sqlite3\n\
                c = sqlite3.connect('keyward.db')\n\
                for row in c.execute('select rev, at, entry from audit'): print(row)\n\
                for row in c.execute('select body from record'): print(row)\n";
    let dumped = tools::run(Command::new("python3").args(["-c", dump]).current_dir(site.path()));
    assert!(dumped.status.success() && dumped.out.contains("key.rotate"), "{dumped:?}");
    stored.add("the audit and the bodies of records", dumped.out);
    stored.assert_free_of(&needles);
    let mut shown = Written::default();
    let database = rusqlite::Connection::open(site.path().join("keyward.db")).unwrap();
    for damage in ["", "update record set body = replace(body, '{', '{ ')", "delete from record where kind = 'secret'"]
    {
        database.execute_batch(damage).unwrap();
        for words in [&["audit", "list", "--limit", "1000"][..], &["audit", "export"], &["audit", "verify"]] {
            for more in [&[][..], &["--output", "json"]] {
                let words = [words, more].concat();
                shown.add_ended(&words.join(" "), &tools::run(&mut site.command(&words)));
            }
        }
    }
    let text = shown.0.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect::<String>();
    assert!(text.contains("a secret") && text.contains("key.rotate"), "{text}");
    shown.assert_free_of(&needles);
}

#[test]
fn lines_for_people_tell_no_more() {
    let upstream = Upstream::scripted(by_path);
    let mut written = Written::default();
    let log = "log: { format: text, access: all, level: debug }";
    let site = Site::new(upstream.address(), &format!("{CONFIG}\n{log}"));
    let canaries = prepare(&site, &mut written);
    let mut program = Program::start(&mut site.command(&["serve"]));
    let proxy = program.wait_for("address", |_, err| {
        err.lines().find(|line| line.contains("serving"))?.split_once("proxy=")?.1.split(' ').next()?.parse().ok()
    });
    for canary in &canaries.all {
        for (query, fields) in presentations(&canary.value) {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Client::connect(proxy).exchange(&request("GET", &format!("/json{query}"), &fields, b""));
        }
    }
    program.signal("TERM");
    let ended = program.end(PATIENCE);
    assert!(ended.err.contains(" denial unknown_credential 401 GET /json "), "{ended:?}");
    written.add_ended("keyward serve", &ended);
    written.assert_free_of(&Needles::of(&canaries.all));
}
