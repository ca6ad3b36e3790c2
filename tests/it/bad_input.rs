//! What people get wrong: each mistake has its exit code, and a message that names the place and the way out.

mod import;
mod locks;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::process::Command;

use super::support::{Client, Response, Site, Upstream, request, until};
use super::tools::{self, Ended};

/// A config in which everything is right. Of these lines the rows change some.
const CONFIG: &str = "\
version: 1
proxy: { listen: '127.0.0.1:0', upstream: 'http://127.0.0.1:9', workers: 1 }
keys: { pepper: { file: keyward.pepper }, shapes: [{ name: cablecast, length: 20, alphabet: hex }] }
store: sqlite:keyward.db
";
const PEPPER: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// A mistake and what comes of it.
struct Row {
    /// Which lines of the config are others, or which files there are besides.
    given: &'static [(Given, &'static str)],
    /// What succeeds before.
    before: &'static [&'static str],
    /// What fails.
    command: &'static str,
    /// With which code.
    code: i32,
    /// And what it says on stderr.
    says: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
enum Given {
    /// This line of the config, counted from 1, is another. `PORT` stands for a port that is taken.
    Line(usize),
    /// A file of this name holds this text. With a slash at its end, it is a folder.
    File(&'static str),
    /// There is no file of this name.
    No(&'static str),
}
use Given::{File, Line, No};

const fn row(command: &'static str, code: i32, says: &'static [&'static str]) -> Row {
    Row { given: &[], before: &[], command, code, says }
}

impl Row {
    const fn given(self, given: &'static [(Given, &'static str)]) -> Self {
        Self { given, ..self }
    }

    const fn after(self, before: &'static [&'static str]) -> Self {
        Self { before, ..self }
    }
}

const ROWS: &[Row] = &[
    // The command line.
    row("sreve", 2, &["unrecognized subcommand", "'serve'"]),
    row("serve --conifg x", 2, &["'--conifg'", "'--config'"]),
    row("key create", 2, &["--name <NAME>"]),
    row("key create --name a --ip 10.0.0.0/33", 2, &["'--ip <NET>'", "\"10.0.0.0/33\" is no address and no network"]),
    row("key create --name a --expires 2020-01-01", 2, &["2020-01-01T00:00:00.000Z has passed"])
        .after(&[INIT]),
    // The config.
    row(
        "serve --config gone.yaml",
        3,
        &["error: gone.yaml: cannot be read: No such file", "`keyward init` writes a first config"],
    ),
    row("serve", 3, &["error: keyward.yaml:5:21: did not find expected ',' or ']'"])
        .given(&[(Line(4), "store: sqlite:keyward.db\nlog: { level: [info }")]),
    row(
        "check",
        3,
        &["keyward.yaml:2:1: found a tab character that violates indentation", "indent with spaces, not with tabs"],
    )
    .given(&[(Line(1), "version: 1\n\tstore: x")]),
    row("serve", 3, &["keyward.yaml:1:1: expected options such as `version: 1`, found a list"])
        .given(&[(File("keyward.yaml"), "- version: 1\n")]),
    row("key list", 3, &["error: keyward.yaml: is empty; without it `keyward init` writes a first config"])
        .given(&[(File("keyward.yaml"), "")]),
    row("serve", 3, &["keyward.yaml:4:12: proxy.workers: expected auto or a whole number, found \"many\""])
        .given(&[(Line(2), "proxy:\n  upstream: http://127.0.0.1:9\n  workers: many")]),
    row(
        "serve",
        3,
        &[
            "keyward.yaml:2:1: proxy.upstream: is missing; write for example `upstream: http://127.0.0.1:9000`",
            "keyward.yaml:3:3: proxy.upsteam: there is no such option; did you mean upstream?",
        ],
    )
    .given(&[(Line(2), "proxy:\n  upsteam: http://127.0.0.1:9")]),
    row(
        "serve",
        3,
        &[
            "keyward.yaml:4:8: store: a store is sqlite:PATH",
            "keyward.yaml:5:18: routes[0].path: ",
            "keyward.yaml:5:27: routes[0].auth: expected key or none, found \"nobody\"",
        ],
    )
    .given(&[(Line(4), "store: mysql://localhost\nroutes: [{ path: a, auth: nobody }]")]),
    row(
        "serve --set proxy.workers=0 --set proxy.lisen=x",
        3,
        &["error: --set proxy.workers: expected a number", "--set proxy.lisen: there is no such option"],
    ),
    // The pepper.
    row("serve", 3, &["keyward.yaml:3:25: keys.pepper.file: keyward.pepper does not exist; `(umask 077; "])
        .given(&[(No("keyward.pepper"), "")]),
    row(
        "key list",
        3,
        &["keyward.yaml:3:25: keys.pepper.file: keyward.pepper holds no pepper: a pepper is 64 hex digits"],
    )
    .given(&[(File("keyward.pepper"), "5a5a5a5a")]),
    row("serve", 3, &["keyward.pepper cannot be read: Is a directory"])
        .given(&[(No("keyward.pepper"), ""), (File("keyward.pepper/"), "")]),
    row("serve", 3, &["keyward.yaml:3:24: keys.pepper.env: the environment variable THE_PEPPER is not set"])
        .given(&[(Line(3), "keys: { pepper: { env: THE_PEPPER } }")]),
    // The store.
    row(
        "serve",
        7,
        &["error: sqlite:keyward.db: the file is not an SQLite database; correct the path, or put a backup"],
    )
    .given(&[(File("keyward.db"), "These are my notes, and no database at all.")]),
    row(
        "serve",
        7,
        &["error: sqlite:keyward.db: the file is empty; delete it and make a new store with `keyward init`, or put a backup"],
    )
    .given(&[(File("keyward.db"), "")]),
    row("serve", 7, &["error: sqlite:keyward.db: it cannot be opened"]).given(&[(File("keyward.db/"), "")]),
    row("serve", 7, &["error: sqlite:no/such.db: there is no such file; `keyward init --config FILE` makes a"])
        .given(&[(Line(4), "store: sqlite:no/such.db")]),
    row("init --config keyward.yaml", 7, &["error: sqlite:no/such.db: the file cannot be made: No such file or directory"])
        .given(&[(Line(4), "store: sqlite:no/such.db")]),
    row(
        "serve --set keys.pepper.file=other/keyward.pepper",
        7,
        &["error: sqlite:keyward.db: its keys were made with another pepper; use the pepper file that belongs"],
    )
    .after(&[INIT, "key create --name a", "init --config other/keyward.yaml"]),
    row(
        "key create --name a",
        1,
        &["error: file:keys.json is written by something else: print the records with `keyward key create --record`"],
    )
    .given(&[(Line(4), "store: file:keys.json")]),
    // The ports.
    row("serve", 1, &["error: cannot listen on 127.0.0.1:PORT (proxy.listen): Address already in use"])
        .given(&[(Line(2), "proxy: { listen: '127.0.0.1:PORT', upstream: 'http://127.0.0.1:9' }")]),
    row("serve", 1, &["error: cannot listen on 127.0.0.1:PORT (admin.listen): Address already in use"])
        .given(&[(Line(4), "store: sqlite:keyward.db\nadmin: { listen: '127.0.0.1:PORT' }")]),
    row("serve", 1, &["error: cannot listen on 127.0.0.1:PORT (ops.listen): Address already in use"])
        .given(&[(Line(4), "store: sqlite:keyward.db\nops: { listen: '127.0.0.1:PORT' }")]),
    // Keys and scopes.
    row("key revoke k2", 4, &["error: no key k2; `keyward key list` shows all"]).after(&[INIT, "key create --name a"]),
    row("key enable k1", 5, &["error: key k1 is revoked, which is final; `keyward key create` makes a new one"])
        .after(&[INIT, "key create --name a --id k1", "key revoke k1"]),
    row("key create --name b --id k1", 5, &["error: key k1 is there already; `keyward key show k1` shows it"])
        .after(&[INIT, "key create --name a --id k1"]),
    row(
        "scope suspend organization:acme/project:p1",
        4,
        &["error: no scope organization:acme/project:p1; `keyward scope list` shows all"],
    )
    .after(&[INIT, "scope create organization:acme"]),
    row(
        "init --config other/keyward.yaml",
        5,
        &["already there: other/keyward.yaml, sqlite:other/keyward.db; nothing is overwritten"],
    )
    .after(&["init --config other/keyward.yaml"]),
    // Imports.
    row("key import --input gone.csv", 1, &["error: gone.csv: cannot be read: No such file", "--input is the file of keys"])
        .after(&[INIT]),
    row("key import --input keys.csv", 2, &["error: keys.csv: it is empty"]).after(&[INIT]).given(&[(File("keys.csv"), "\n \n")]),
    row(
        "key import --input keys.csv",
        2,
        &["error: keys.csv: line 1: unknown columns: `colour`, `size`; known are value, sha256, id, name,"],
    )
    .after(&[INIT]).given(&[(File("keys.csv"), "value,colour,id,size\n")]),
    row("key import --input keys.jsonl", 2, &["error: keys.jsonl: line 1: unknown columns: `colour`; known are"])
        .after(&[INIT]).given(&[(File("keys.jsonl"), "{\"value\":\"0123456789abcdef0123\",\"colour\":1}\n")]),
    row(
        "key import --input keys.json",
        2,
        &["error: keys.json: it is a JSON array; write one object on each line, as `jq -c '.[]'` does"],
    )
    .after(&[INIT]).given(&[(File("keys.json"), "[\n{\"value\":\"0123456789abcdef0123\"}\n]\n")]),
    row(
        "key import --input keys.csv",
        2,
        &["error: keys.csv: line 1: it must name the columns, which are value, sha256, id, name, access,"],
    )
    .after(&[INIT]).given(&[(File("keys.csv"), "0123456789abcdef0123,rw\n")]),
];

/// Makes the store.
const INIT: &str = "init --config keyward.yaml";

/// A folder with a config, a pepper and what a row has besides.
fn site_of(row: &Row, taken: u16) -> Site {
    let site = Site::new(([127, 0, 0, 1], 9).into(), "");
    let mut lines: Vec<String> = CONFIG.lines().map(str::to_owned).collect();
    let mut files = BTreeMap::from([("keyward.pepper", PEPPER)]);
    for (given, text) in row.given {
        match given {
            Line(number) => lines[number - 1] = text.replace("PORT", &taken.to_string()),
            File(name) => _ = files.insert(name, text),
            No(name) => {
                files.remove(name);
                fs::remove_file(site.path().join(name)).unwrap();
            }
        }
    }
    site.write("keyward.yaml", &format!("{}\n", lines.join("\n")));
    for (name, text) in files {
        match name.strip_suffix('/') {
            Some(folder) => fs::create_dir(site.path().join(folder)).unwrap(),
            None => site.write(name, text),
        }
    }
    site
}

/// Runs a command in a site, with its words as they stand.
#[track_caller]
fn run(site: &Site, words: &str) -> Ended {
    let words: Vec<&str> = words.split(' ').collect();
    tools::run(tools::keyward(&words).current_dir(site.path()))
}

/// What is wrong with how a mistake is told.
fn offences(row: &Row, taken: u16) -> Vec<String> {
    let site = site_of(row, taken);
    for words in row.before {
        let ended = run(&site, words);
        assert!(ended.status.success(), "{words}: {ended:?}");
    }
    let Ended { status, out, err } = run(&site, row.command);
    let missing =
        row.says.iter().map(|said| said.replace("PORT", &taken.to_string())).filter(|said| !err.contains(said));
    let mut offences: Vec<String> = missing.map(|said| format!("does not say {said:?}")).collect();
    for (bad, what) in [
        (status.code() != Some(row.code), "ends otherwise"),
        (!err.lines().any(|line| line.starts_with("error: ")), "has no line of an error"),
        (out.contains("error") || err.contains("panicked"), "is no plain message"),
        (
            [PEPPER, "0123456789abcdef"].iter().any(|secret| err.contains(secret) || out.contains(secret)),
            "tells a secret",
        ),
    ] {
        offences.extend(bad.then(|| what.to_owned()));
    }
    let about = format!("{} after {:?}: {status}\n{out}{err}", row.command, row.given);
    offences.iter().map(|offence| format!("{offence}: {about}")).collect()
}

#[test]
fn every_mistake_has_its_code_and_its_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let offences: Vec<String> = ROWS.iter().flat_map(|row| offences(row, port)).collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// A running `serve` would follow an empty store, and refuse everybody.
#[test]
fn nothing_but_init_makes_a_store() {
    let site = site_of(&ROWS[0], 0);
    site.write("keyward.yaml", CONFIG);
    site.write("keys.csv", "value\n");
    for words in [
        "key create --name a",
        "key import --input keys.csv",
        "key list",
        "scope create organization:acme",
        "user create --email ann@example.com",
        "role create keepers --permission keys:read",
        "binding create user:ann admin",
        "audit list",
        "usage",
        "node list",
        "check",
    ] {
        let ended = run(&site, words);
        assert_eq!(ended.status.code(), Some(7), "{words}: {ended:?}");
        assert!(
            ended.err.contains("there is no such file; `keyward init --config keyward.yaml` makes"),
            "{words}: {ended:?}"
        );
        assert!(!site.path().join("keyward.db").exists(), "{words}");
    }
    assert!(run(&site, INIT).status.success());
    assert!(run(&site, "key create --name a").status.success());
}

#[test]
fn databases_of_other_programs_are_left_alone() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let site = site_of(&ROWS[0], 0);
    let make = "import sqlite3; c = sqlite3.connect('keyward.db'); c.execute('create table a (b)'); c.commit()";
    assert!(Command::new("python3").args(["-c", make]).current_dir(site.path()).status().unwrap().success());
    let before = fs::read(site.path().join("keyward.db")).unwrap();
    for words in ["serve", "key create --name a", "check"] {
        let ended = run(&site, words);
        assert_eq!(ended.status.code(), Some(7), "{ended:?}");
        assert!(ended.err.contains("the file is an SQLite database of another program; correct the path"), "{ended:?}");
    }
    assert_eq!(fs::read(site.path().join("keyward.db")).unwrap(), before);
}

#[test]
fn a_damaged_database_is_not_used() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    (0..10).for_each(|_| _ = site.create_key(&[]));
    let path = site.path().join("keyward.db");
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 3 * 4096);
    // The first page says what kind of file it is.
    bytes[4096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    for words in ["check", "key list", "key create --name a", "serve"] {
        let ended = run(&site, words);
        let told = ended.err.contains("it is damaged: stop all of keyward and put a backup in its place");
        assert!(ended.status.code() == Some(7) && told, "{words}: {ended:?}");
    }
}

#[test]
fn an_upstream_that_is_down_is_told_in_each_routes_own_words() {
    let port = crate::support::port::unused();
    let config = "proxy: { workers: 1 }\nroutes:\n  - { path: /json, deny: json }\n  - { path: /problem, deny: problem }\n\
                  \x20 - { path: /old, deny: xml-cablecast }\n  - { path: /text, deny: text }\n";
    let site = Site::new(port, config);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let get = |path| keyward.with_key(&key, "GET", path);
    let is = |response: &Response, media_type: &str, text: &str| {
        assert_eq!((response.status, response.value("content-type").as_deref()), (502, Some(media_type)));
        assert!(response.text().contains(text), "{}", response.text());
        assert!(response.value("x-request-id").is_some());
    };
    is(&get("/json"), "application/json", "\"code\":\"bad_gateway\"");
    is(&get("/problem"), "application/problem+json", "\"status\":502");
    is(&get("/old"), "text/xml; charset=utf-8", "?>\nBad Gateway");
    is(&get("/text"), "text/plain; charset=utf-8", "Bad Gateway: The server behind cannot be reached.");
    is(&get("/any"), "text/xml; charset=utf-8", "<code>bad_gateway</code><message>Bad Gateway</message>");
    // Why is said once, and not for each request.
    let line = keyward.wait_for_line("the upstream cannot be reached");
    assert_eq!((&line["level"], &line["upstream"]), (&"WARN".into(), &format!("http://{port}").into()));
    assert!(line["error"].as_str().is_some_and(|error| error.contains("refused")), "{line}");
    assert_eq!(String::from_utf8(keyward.output()).unwrap().matches("the upstream cannot be reached").count(), 1);
    assert_eq!(keyward.get("/json", &[]).status, 401, "those without a key hear nothing of the upstream");
    assert_eq!(keyward.ops_page("/readyz").status, 200, "another sidecar would not help");
}

#[test]
fn clients_hear_nothing_of_what_is_wrong_inside() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "{ store: 'file:/nowhere/secret-place.json' }");
    let keyward = site.start();
    until("the store was looked for", || keyward.ops_page("/readyz").text().contains("secret-place"));
    let known = Site::new(upstream.address(), "").create_key(&[]);
    let refused = Client::connect(keyward.proxy).exchange(&request("GET", "/", &[("X-API-Key", &known.value)], b""));
    let all = format!("{}{}", String::from_utf8_lossy(refused.head.raw()), refused.text());
    assert_eq!(refused.status, 503);
    assert!(!all.contains("secret-place") && !all.contains("nowhere"), "{all}");
}

/// A shell runs a command of a site's.
fn by_shell(site: &Site, words: &[&str], shell: &str) -> std::process::Output {
    let command = site.command(words);
    let mut sh = Command::new("sh");
    sh.args(["-c", shell, "sh"]).arg(command.get_program()).args(command.get_args()).current_dir(site.path());
    sh.output().unwrap()
}

#[test]
fn a_value_that_nobody_can_be_shown_is_not_made() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let id = site.create_key(&[]).id;
    let rotate = ["key", "rotate", id.as_str()];
    for words in
        [&["key", "create", "--name", "n"][..], &rotate, &["user", "create", "--email", "a@b.c", "--api-access"]]
    {
        let output = by_shell(&site, words, "exec \"$@\" >&-");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("standard output is closed"), "{words:?}: {said}");
    }
    assert_eq!(site.json(&["key", "list"]).as_array().map(Vec::len), Some(1));
    assert!(by_shell(&site, &["key", "create", "--name", "n"], "exec \"$@\" >/dev/null").status.success());
}

#[test]
fn a_pipe_in_the_place_of_the_pepper_is_not_waited_for() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let pepper = site.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pepper).status().unwrap().success());
    let mut command = site.command(&["check"]);
    let output = command.env("KEYWARD_KEYS__PEPPER", "{ file: ./pipe }").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("pipe is a pipe"), "{said}");
}
