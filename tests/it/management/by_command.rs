//! The command line against a store and against a server: the same commands, the same words, the same ends.

use std::io::Write as _;
use std::process::{Output, Stdio};

use super::*;
use crate::support::certificates::Authority;
use crate::support::until;

/// How a command ended, with what no two runs have in common taken out.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// One of the two ways to the same thing.
struct Way {
    stage: Stage,
    /// Words after each command.
    more: Vec<String>,
    /// Hints of values that were printed.
    hints: Vec<String>,
    /// The id that was printed last.
    last: String,
    /// The value that was printed last.
    value: String,
}

impl Way {
    fn new(by_server: bool) -> Self {
        Self::with(by_server, "sync: { node: n1 }")
    }

    fn with(by_server: bool, more: &str) -> Self {
        let stage = Stage::with(more);
        let url = format!("http://{}", stage.keyward.admin());
        let more = if by_server { vec!["--server".to_owned(), url] } else { vec![] };
        Self { stage, more, hints: Vec::new(), last: String::new(), value: String::new() }
    }

    /// What stands behind ` < ` is what the command reads.
    fn run(&mut self, words: &str) -> Ended {
        let words = words.replace("{last}", &self.last).replace("{value}", &self.value);
        let (words, typed) = words.split_once(" < ").unwrap_or((&words, ""));
        let words: Vec<&str> = words.split(' ').chain(self.more.iter().map(String::as_str)).collect();
        let mut command = self.stage.keyward.site.command(&words);
        command.env("USER", "ann").env("KEYWARD_API_KEY", &self.stage.admin.value);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
        let output = child.wait_with_output().unwrap();
        self.mask(&output)
    }

    fn mask(&mut self, output: &Output) -> Ended {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        for word in words_of(&out).chain(words_of(&err)) {
            if is_value(word) && word.len() > 20 {
                self.hints.push(word[8..16].to_owned());
                self.value = word.to_owned();
            } else if is_new_id(word) {
                self.last = word.to_owned();
            }
        }
        let mut masked = [out, err].map(|text| self.masked(&text));
        let err = std::mem::take(&mut masked[1]);
        Ended { code: output.status.code(), out: std::mem::take(&mut masked[0]), err }
    }

    fn masked(&self, text: &str) -> String {
        let mut masked = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            // What stands between a name and what it names is a word of its own.
            let length = if first == ':' { 1 } else { rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()) };
            let (word, after) = rest.split_at(length.max(first.len_utf8()));
            let (word, after) = match word.trim_end_matches('.') {
                "" => (word, after),
                whole => rest.split_at(whole.len()),
            };
            let is_count = after.starts_with(" ms")
                || after.starts_with(" s ago")
                || masked.ends_with("ms\":")
                || masked.ends_with("_ago\":")
                // How far a process has come, which it says every second.
                || (masked.contains("NODE") && (masked.ends_with("live ") || masked.ends_with("revision\":")));
            let word = match word {
                _ if is_value(word) => "VALUE",
                _ if is_new_id(word)
                    || word.starts_with("cli:")
                    || word.strip_prefix("key:").is_some_and(is_new_id) =>
                {
                    "ID"
                }
                _ if word.len() > 15 && word.starts_with("20") && word.ends_with('Z') => "TIME",
                _ if self.hints.iter().any(|hint| hint == word) => "HINT",
                _ if word.len() == 43 => "TICKET",
                _ if word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) => "HASH",
                _ if word.starts_with("n1-") => "NODE",
                _ if is_count && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => "N",
                // Columns are as wide as what was masked.
                " " if masked.ends_with(' ') => "",
                word => word,
            };
            masked.push_str(word);
            rest = after;
        }
        masked
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-:.".contains(c)
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_of_word(c)).filter(|word| !word.is_empty())
}

fn is_value(word: &str) -> bool {
    word.starts_with("kw_live_") || word.starts_with("kw_test_")
}

fn is_new_id(word: &str) -> bool {
    word.len() == 21 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Commands in the order in which they make sense, and how they end; `{last}` is the id that was printed last, `{value}` the value.
const COMMANDS: &[(&str, i32)] = &[
    (
        "key create --name CI --id k1 --read-only --ip 10.0.0.0/8 --scope organization:acme/project:p1 --env test --rate-limit 100/1m --expires 2099-01-01 --user ann --tag radio",
        0,
    ),
    ("key create --name Two --id k2 --output json", 0),
    ("key create --name Two --id k2", 5),
    ("key create --name Sealed --id k4 --recoverable --role observer --output json", 0),
    ("key create --name Below --parent k4 --id k5 --output json", 0),
    ("key create --name Below --parent none", 4),
    ("key reveal k4", 0),
    ("key reveal k4 --output json", 0),
    ("key reveal k2", 5),
    ("key reveal none", 4),
    ("key reveal {value}", 4),
    ("key list", 0),
    ("key list --output json", 0),
    ("key show k1", 0),
    ("key show k4 --output json", 0),
    ("key show none", 4),
    ("key show {value}", 4),
    (
        "key update k2 --name New --ip ::1,10.0.0.0/8 --scope organization:new --env test --rate-limit 5/1s --expires 2099-01-01 --user bob --read-only --output json",
        0,
    ),
    ("key update k2 --name New", 0),
    ("key update k2 --any-ip --everywhere --env live --rate-limit none --never-expires --no-user --read-write", 0),
    ("key update none --name x", 4),
    ("key disable k2", 0),
    ("key disable k2", 0),
    ("key list", 0),
    ("key enable k2 --output json", 0),
    ("key rotate k2", 0),
    ("key rotate k2 --retire-others-after now --output json", 0),
    ("key show k2", 0),
    ("key rotate none", 4),
    ("key revoke k2 --reason leaked --output json", 0),
    ("key revoke k2", 0),
    ("key enable k2", 5),
    ("key rotate k2", 5),
    ("key update k2 --name x", 5),
    ("key show k2", 0),
    ("key revoke none", 4),
    ("key create --name Three --id k3", 0),
    ("key revoke k3 --wait --timeout 20s", 0),
    ("key revoke k3 --wait --timeout 20s", 0),
    ("key revoke k3 --wait --output json", 0),
    ("key delete k4", 5),
    ("key delete none", 4),
    ("key delete k4 --cascade --reason over --output json", 0),
    ("key delete k4 --cascade", 4),
    ("key create --name Six --id k6", 0),
    ("key delete k6 --reason over", 0),
    ("key show k6", 0),
    ("scope create organization:beta/project:x --output json", 0),
    ("scope create organization:beta", 5),
    ("scope list", 0),
    ("scope list --output json", 0),
    ("scope suspend organization:acme", 0),
    ("scope suspend organization:acme", 0),
    ("key list", 0),
    ("scope resume organization:acme --output json", 0),
    ("scope suspend organization:none", 4),
    ("role create ops --permission keys:read,keys:write", 0),
    ("role create ops --permission keys:read", 5),
    ("role create admin --permission keys:read", 2),
    ("role update ops --permission keys:read --observer --output json", 0),
    ("role update none --permission keys:read", 4),
    ("role list", 0),
    ("role list --output json", 0),
    ("binding create key:k1 ops --scope organization:acme", 0),
    ("binding list", 0),
    ("binding create key:k1 ops --scope organization:acme", 5),
    ("binding delete {last}", 0),
    ("binding create key:none ops", 4),
    ("binding create user:none ops", 4),
    ("binding create key:k1 none", 4),
    ("binding create key:k1 ops --scope organization:none", 4),
    ("binding create key:k1 ops --output json", 0),
    ("binding list --output json", 0),
    ("binding delete none", 4),
    ("role delete ops", 0),
    ("role delete ops", 4),
    ("binding list", 0),
    ("user create --email ann@example.com --name Ann --scope organization:acme --api-access", 0),
    ("user create --email ann@example.com", 5),
    ("user create --email bob@example.com --admin --output json", 0),
    ("user list", 0),
    ("user list --output json", 0),
    ("user show ann@example.com", 0),
    ("user show none", 4),
    ("user show none@example.com", 4),
    ("user update ann@example.com --name Anna --email anna@example.com --output json", 0),
    ("user update anna@example.com --name Anna", 0),
    ("user update bob@example.com --api-access", 0),
    ("user update bob@example.com --no-api-access", 0),
    ("user password anna@example.com < correct horse battery", 0),
    ("user password anna@example.com < too short", 2),
    ("user password none@example.com < correct horse battery", 4),
    ("user create --email eve@example.com --password-stdin < correct horse battery", 0),
    ("user show eve@example.com", 0),
    ("user suspend anna@example.com", 0),
    ("user activate anna@example.com --output json", 0),
    ("user link anna@example.com --expires 5min", 0),
    ("user delete anna@example.com", 0),
    ("user delete anna@example.com", 4),
    ("usage", 0),
    ("usage k1", 0),
    ("usage k1 --output json", 0),
    ("usage none", 4),
    ("node list", 0),
    ("node list --output json", 0),
    ("node forget none", 4),
    ("audit list --action scope", 0),
    ("audit list --action scope --limit 2 --output json", 0),
    ("audit list --target organization:acme --limit 1", 0),
    ("audit list --limit 0", 0),
    ("audit export --action scope", 0),
    ("audit export --action user --after 10", 0),
    ("audit export --target none", 0),
];

#[test]
fn commands_do_and_say_the_same_by_a_store_and_by_a_server() {
    let (mut store, mut server, mut differences) = (Way::new(false), Way::new(true), Vec::new());
    for (words, code) in COMMANDS {
        let (one, other) = (store.run(words), server.run(words));
        if one.code != Some(*code) || one != other {
            differences.push(format!("{words}\n  {one:?}\n  {other:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_only_a_store_can_do_says_so() {
    let mut server = Way::new(true);
    for words in ["audit verify", "key create --name x --record"] {
        let ended = server.run(words);
        assert!(ended.code == Some(2) && ended.err.contains("store"), "{words}: {ended:?}");
    }
}

/// More than is sent at a time, with rows in between that are none: what is said of them names the lines of the file.
#[test]
fn a_file_is_imported_the_same_by_a_store_and_by_a_server() {
    let mut rows: Vec<String> = (0..2_100).map(|n| format!("{},i{n},n{n},rw,,", value(n))).collect();
    rows[3] = format!("{},i3,n3,rw,,", value(2));
    rows[7] = String::new();
    rows[9] = "nothing".to_owned();
    rows[12] = format!("{},i12,n12,rw,10.0.0.0/99,", value(12));
    rows[2_000] = "\u{2028},x,,,,".to_owned();
    rows[2_050] = "x".repeat(70_000);
    let table = format!("value,id,name,access,ips,scope\n{}\n", rows.join("\n"));
    let objects: Vec<String> =
        (0..1_500).map(|n| json!({ "value": value(5_000 + n % 1_499), "name": format!("n{n}") }).to_string()).collect();
    let shapes = "keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }";
    let ways = [false, true].map(|by_server| {
        let mut way = Way::with(by_server, shapes);
        way.stage.keyward.site.write("k.csv", &table);
        way.stage.keyward.site.write("k.jsonl", &objects.join("\n\n"));
        let mut seen = Vec::new();
        for words in [
            "key import --progress none --input k.csv --output json",
            "key import --progress none --input k.csv",
            "key import --progress none --input k.jsonl --output json",
            "key import --input none.csv",
            "key import --input keyward.yaml",
        ] {
            seen.push(way.run(words));
        }
        let rejected = ["k.csv.rejected", "k.jsonl.rejected"];
        let rejected = rejected.map(|name| std::fs::read_to_string(way.stage.keyward.site.path().join(name)).unwrap());
        (seen.iter().map(|ended| ended.code).collect::<Vec<_>>(), seen, rejected)
    });
    assert_eq!(ways[0].0, [6, 6, 6, 1, 2].map(Some), "{:?}", ways[0].1);
    assert_eq!(ways[0].1, ways[1].1);
    // Which line had a value before, a server knows of what was sent together; else it says whose value it is.
    let [one, other] = ways.map(|(_, _, rejected)| rejected);
    assert_eq!(one[0], other[0]);
    assert_eq!(one[0].lines().count(), 6, "{}", one[0]);
    assert!(one[1].contains("line\":2999") && other[1].contains("line\":2999"), "{other:?}");
}

#[test]
fn lists_go_on_for_as_many_pages_as_there_are() {
    let stage = Stage::with("keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }");
    let rows: Vec<String> = (0..2_100).map(|n| format!("i{n:04},n{n},,rw,,")).collect();
    let rows: Vec<String> =
        rows.iter().enumerate().map(|(n, row)| row.replacen(",,", &format!(",{},", value(n)), 1)).collect();
    stage.keyward.site.import_keys(&rows.iter().map(String::as_str).collect::<Vec<_>>());
    until("the import is seen", || {
        stage.ask("GET", "/v2/keys?limit=1000", "").json()["result"].as_array().unwrap().len() == 1_000
    });
    let url = format!("http://{}", stage.keyward.admin());
    let mut command = stage.keyward.site.command(&["key", "list", "--output", "json", "--server", &url]);
    let output = command.env("KEYWARD_API_KEY", &stage.admin.value).output().unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2_102);
}

/// A value of Cablecast's shape.
fn value(n: usize) -> String {
    format!("{n:020x}")
}

/// Runs a command against a server that may be any.
#[track_caller]
pub(super) fn ended(stage: &Stage, key: &str, words: &[&str]) -> (Option<i32>, String) {
    let words = [&["key", "list"], words].concat();
    let output = stage.keyward.site.command(&words).env("KEYWARD_API_KEY", key).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("kw_live_"), "no value is repeated");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn whoever_is_not_let_in_hears_why() {
    let stage = Stage::new();
    let url = format!("http://{}", stage.keyward.admin());
    let plain = stage.create("plain", json!({}));
    let away = crate::support::port::unused();
    let away = format!("http://{away}");
    stage.keyward.site.write("key", &format!("{}\n", stage.admin.value));
    for (key, words, code, said) in [
        (stage.admin.value.as_str(), &["--server", &url][..], 0, ""),
        ("", &["--server", &url, "--key-file", "key"], 0, ""),
        ("", &["--server", &url, "--key-file", "none"], 2, "--key-file: none cannot be read"),
        ("", &["--server", &url], 2, "KEYWARD_API_KEY"),
        ("kw_live_wrong", &["--server", &url], 1, "does not know who asks: the API key is not valid"),
        (&plain.value, &["--server", &url], 1, "does not allow it: this needs a role with keys:read"),
        (&stage.admin.value, &["--server", &away], 7, "cannot be reached"),
        (&stage.admin.value, &["--server", "http://192.0.2.1"], 2, "--allow-http"),
        (&stage.admin.value, &["--server", "keyward.example"], 2, "--server: must be"),
        (&stage.admin.value, &["--server", "https://nobody.invalid"], 7, "cannot be reached"),
        (&stage.admin.value, &["--ca", "ca.crt"], 2, "are for --server"),
        (&stage.admin.value, &["--server", &url, "--ca", "ca.crt"], 2, "https://"),
    ] {
        let (ended, err) = ended(&stage, key, words);
        assert!(ended == Some(code) && err.contains(said), "{words:?}: {ended:?} {err}");
    }
    // The proxy port is no management API.
    let proxy = format!("http://{}", stage.keyward.proxy);
    let (code, err) = ended(&stage, &stage.admin.value, &["--server", &proxy]);
    assert!(code == Some(1) && err.contains("is the URL right?"), "{code:?} {err}");
}

#[test]
fn a_server_is_believed_by_its_certificate_alone() {
    let (ca, other) = (Authority::new("root"), Authority::new("other"));
    let upstream = Upstream::start();
    let tls = "proxy: { tls: { certificate: tls.crt, key: tls.key } }\nadmin: { mount: /v2 }";
    let site = Site::new(upstream.address(), tls);
    let certified = ca.sign("localhost", 2020..2100);
    for (name, text) in [
        ("tls.key", &certified.key),
        ("tls.crt", &certified.certificate),
        ("ca.crt", &ca.certificate),
        ("other.crt", &other.certificate),
    ] {
        site.write(name, text);
    }
    let admin = site.create_key(&["--role", "admin"]);
    let read_only = admin.clone();
    let stage = Stage { upstream, keyward: site.serve(), admin, read_only };
    let url = format!("https://localhost:{}/v2", stage.keyward.proxy.port());
    for (ca, code) in [("ca.crt", 0), ("other.crt", 7)] {
        let (ended, err) = ended(&stage, &stage.admin.value, &["--server", &url, "--ca", ca]);
        assert!(ended == Some(code) && (code == 0 || err.contains("it is not who it should be")), "{ca}: {err}");
    }
    assert_eq!(ended(&stage, &stage.admin.value, &["--server", &url]).0, Some(7));
    stage.upstream.expect_nothing();
}
