//! `keyward demo` does what it says: its URLs and keys work, its curl lines give the answers that it promises, and nothing is
//! left behind.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::support::{Client, Response, request};
use super::tools::{self, Ended, PATIENCE, Program, curl};

/// A running demo in a folder for temporary files of its own.
struct Demo {
    program: Program,
    temporary: tempfile::TempDir,
}

impl Demo {
    #[track_caller]
    fn start(words: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = tools::keyward(&[&["demo"], words].concat());
        // Nothing of a config or a store that happens to be here goes into it.
        command.env("TMPDIR", temporary.path()).current_dir("/");
        Self { program: Program::start(&mut command), temporary }
    }

    /// The first line of its output, which is an object.
    #[track_caller]
    fn object(&mut self) -> Value {
        let line = self.program.wait_for("first line", |out, _| Some(out.split_once('\n')?.0.to_owned()));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// What is in its folder for temporary files.
    fn files(&self) -> Vec<String> {
        let files = walk(self.temporary.path());
        files.into_iter().map(|file| file.rsplit('/').next().unwrap().to_owned()).collect()
    }

    /// Ends it, and makes sure that nothing is left.
    #[track_caller]
    fn end(self, signal: &str) -> Ended {
        self.program.signal(signal);
        let ended = self.program.end(PATIENCE);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert_eq!(walk(self.temporary.path()), [""; 0], "{ended:?}");
        ended
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path.to_string_lossy().into_owned());
    }
    found
}

#[track_caller]
fn address(object: &Value, name: &str) -> SocketAddr {
    let url = object[name].as_str().unwrap_or_else(|| panic!("no {name} in {object}"));
    url.strip_prefix("http://").and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{name}: {url}"))
}

#[track_caller]
fn send(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
    Client::connect(address).exchange(&request(method, target, fields, if method == "POST" { b"<item/>" } else { b"" }))
}

#[test]
fn the_object_is_all_that_a_script_needs() {
    let mut demo = Demo::start(&["--output", "json"]);
    let object = demo.object();
    let names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["admin", "key", "management_key", "ops", "proxy", "read_only_key", "upstream"]);
    let [proxy, upstream] = ["proxy", "upstream"].map(|name| address(&object, name));
    let (key, read_only) = (object["key"].as_str().unwrap(), object["read_only_key"].as_str().unwrap());
    assert_eq!(send(address(&object, "ops"), "GET", "/readyz", &[]).status, 200);
    assert_eq!(send(address(&object, "admin"), "GET", "/status", &[]).json()["success"], true);
    assert!(send(upstream, "GET", "/catalog.xml", &[]).text().contains("<catalog key=\"none\">"));

    let bearer = |key: &str| format!("Bearer {key}");
    let (key, read_only, wrong) = (bearer(key), bearer(read_only), bearer("wrong"));
    for (method, credential, status, text) in [
        ("GET", Some(&key), 200, "The old server answers"),
        ("POST", Some(&key), 201, "<added key="),
        ("GET", Some(&read_only), 200, "The old server answers"),
        ("POST", Some(&read_only), 403, "<message>Access Denied</message>"),
        ("GET", Some(&wrong), 401, "<message>Access Denied</message>"),
        ("GET", None, 401, "<message>Access Denied</message>"),
    ] {
        let fields: Vec<(&str, &str)> = credential.iter().map(|value| ("Authorization", value.as_str())).collect();
        let response = send(proxy, method, "/catalog.xml", &fields);
        assert_eq!(response.status, status, "{method} {credential:?}: {}", response.text());
        assert!(response.text().starts_with("<?xml") && response.text().contains(text), "{}", response.text());
    }
    demo.end("HUP");
}

/// The statuses in a comment such as `# the read-only key may look (200), but not change (403)`.
fn promised(comment: &str) -> Vec<u16> {
    let numbers = comment.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 3);
    numbers.map(|number| number.parse().unwrap()).collect()
}

#[test]
fn its_curl_lines_give_what_they_promise() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let mut demo = Demo::start(&[]);
    let text = demo.program.wait_for("last line", |out, _| out.contains("Ctrl-C ends it").then(|| out.to_owned()));
    let (mut promise, mut ran) = (vec![], 0);
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            promise = promised(comment);
        }
        if !line.starts_with("curl ") {
            continue;
        }
        let Ended { status, out, err } = tools::run(Command::new("sh").args(["-c", line]).env("no_proxy", "*"));
        assert!(status.success(), "{line}: {err}");
        let got: Option<u16> = out.strip_prefix("HTTP/1.1 ").map(|rest| rest[..3].parse().unwrap());
        match (got, &*promise) {
            // Without -i there is no status, and those lines promise none.
            (None, []) => assert!(!out.is_empty(), "{line}"),
            (Some(got), [one]) => assert_eq!(got, *one, "{line}"),
            (Some(got), [_, _]) if line.contains(" -d ") => assert!(got == 201 || got == promise[1], "{line}: {got}"),
            (Some(got), [look, _]) => assert_eq!(got, *look, "{line}"),
            (Some(401), []) => assert!(out.contains("content-type: application/json"), "{line}: {out}"),
            (got, promised) => panic!("{line}: {got:?}, promised {promised:?}"),
        }
        ran += 1;
    }
    assert_eq!(ran, 14, "{text}");
    assert!(text.contains("401, <error>… Access Denied"), "{text}");
    let ended = demo.end("INT");
    assert!(ended.err.contains("stopped"), "{ended:?}");
}

#[test]
fn it_ends_on_any_signal_and_leaves_nothing() {
    for signal in ["INT", "TERM"] {
        let mut demo = Demo::start(&["--output", "json"]);
        let object = demo.object();
        let mut files = demo.files();
        files.retain(|name| name.starts_with("keyward."));
        files.sort();
        assert!(
            ["keyward.db", "keyward.pepper", "keyward.yaml"].iter().all(|name| files.iter().any(|file| file == name))
        );
        // A client that holds its connection open does not hold it up.
        let mut client = Client::connect(address(&object, "proxy"));
        assert_eq!(client.exchange(&request("GET", "/catalog.xml", &[], b"")).status, 401);
        demo.end(signal);
    }
}

#[test]
fn two_of_them_do_not_meet() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let mut demos = [Demo::start(&["--output", "json"]), Demo::start(&["--output", "json"])];
    let objects = demos.each_mut().map(Demo::object);
    for (here, there) in [(0, 1), (1, 0)] {
        let url = format!("{}/catalog.xml", objects[here]["proxy"].as_str().unwrap());
        let with = |object: &Value| curl(&["-u", &format!("{}:", object["key"].as_str().unwrap()), &url]).status;
        assert_eq!((with(&objects[here]), with(&objects[there])), (200, 401));
    }
    demos.into_iter().for_each(|demo| _ = demo.end("INT"));
}
