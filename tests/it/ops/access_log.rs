//! The access log: who gets a line, what is in it in both forms, and what happens when nobody takes the lines.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{Client, Key, Keyward, Site, Upstream, request, until};
use crate::tools::{self, PATIENCE, Program};

const CONFIG: &str = "routes: [{ path: /public, auth: none }]\nproxy: { timeouts: { drain: 1s } }";

fn site(upstream: &Upstream, log: &str) -> (Site, Key) {
    let site = Site::new(upstream.address(), &format!("{CONFIG}\nlog: {log}"));
    let key = site.create_key(&["--id", "k1"]);
    (site, key)
}

/// Sends one request of each kind: permitted, public, denied, failed.
#[track_caller]
fn send_each(keyward: &Keyward, key: &Key) {
    let mut client = keyward.connect();
    let key = ("Authorization", &*key.bearer());
    for (target, fields, status) in [
        ("/permitted?a=b", &[key][..], 200),
        ("/public?api=x", &[], 200),
        ("/denied?api_key=kw_live_0", &[("User-Agent", "agent"), ("Referer", "http://referer")], 401),
        ("/failed", &[key, ("Host", "b")], 400),
    ] {
        assert_eq!(client.exchange(&request("GET", target, fields, b"")).status, status, "{target}");
    }
}

/// The lines of the access log of a program that has ended.
#[track_caller]
fn lines(mut keyward: Keyward) -> Vec<Value> {
    keyward.terminate();
    assert_eq!(keyward.wait_for_exit().code(), Some(0));
    until("all that it wrote has been read", || keyward.output().ends_with(b"}\n"));
    keyward.wait_for_line("stopped");
    let output = String::from_utf8(keyward.output()).unwrap();
    let lines = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    lines.filter(|line| line.get("http.request.method").is_some()).collect()
}

#[test]
fn the_config_says_which_requests_have_a_line() {
    let upstream = Upstream::start();
    for (access, expected) in [
        ("none", &[][..]),
        ("denied", &["/denied", "/failed"]),
        ("all", &["/permitted", "/public", "/denied", "/failed"]),
    ] {
        let (site, key) = site(&upstream, &format!("{{ access: {access} }}"));
        let keyward = site.serve();
        send_each(&keyward, &key);
        let lines = lines(keyward);
        let paths: Vec<&str> = lines.iter().map(|line| line["url.path"].as_str().unwrap()).collect();
        assert_eq!(paths, expected, "{access}");
    }
}

#[test]
fn a_line_says_who_asked_for_what_and_what_came_of_it() {
    let upstream = Upstream::start();
    let (site, key) = site(&upstream, "{ access: all }");
    let keyward = site.serve();
    send_each(&keyward, &key);
    let denied = keyward.get("/denied", &[]).value("x-request-id").unwrap();
    let told = upstream.received()[0].head.value("x-request-id").unwrap();
    let lines = lines(keyward);
    let expected = [
        ("/permitted", 200, "permit", "ok", Some("k1"), Some("bearer")),
        ("/public", 200, "public", "ok", None, None),
        ("/denied", 401, "denial", "malformed_credential", None, None),
        ("/failed", 400, "error", "bad_request", None, None),
        ("/denied", 401, "denial", "missing_credential", None, None),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (path, status, decision, reason, key, form)) in lines.iter().zip(expected) {
        assert_eq!((&line["url.path"], &line["http.response.status_code"]), (&path.into(), &status.into()), "{line}");
        assert_eq!((&line["decision"], &line["reason"]), (&decision.into(), &reason.into()), "{line}");
        assert_eq!((line["key.id"].as_str(), line["credential.form"].as_str()), (key, form), "{line}");
        assert_eq!(line["http.request.method"], "GET");
        let thousandths = line["duration_ms"].to_string();
        assert!(thousandths.split_once('.').is_none_or(|(_, digits)| digits.len() <= 3), "{thousandths}");
        assert!(line["duration_ms"].as_f64().unwrap() >= 0.0 && line["timestamp"].as_str().unwrap().ends_with('Z'));
        for word in ["api_key", "a=b", "kw_live_", "agent", "referer"] {
            assert!(!line.to_string().contains(word), "{word}: {line}");
        }
    }
    assert!(lines.iter().all(|line| line["client.address"] == "127.0.0.1"), "{lines:?}");
    assert_eq!((lines[0]["request.id"].as_str(), lines[4]["request.id"].as_str()), (Some(&*told), Some(&*denied)));
}

#[test]
fn lines_for_people_say_the_same() {
    let upstream = Upstream::start();
    let (site, key) = site(&upstream, "{ format: text, access: all }");
    let mut program = Program::start(&mut site.command(&["serve"]));
    let proxy = program.wait_for("address", |_, err| {
        let line = err.lines().find(|line| line.contains(" INFO ") && line.contains("serving"))?;
        line.split_once("proxy=")?.1.split(' ').next()?.parse().ok()
    });
    let mut client = Client::connect(proxy);
    let answers = ["/permitted?a=b", "/denied"].map(|target| {
        // It takes a moment until the replica is loaded.
        let mut status = 503;
        until("it is ready", || {
            let fields = if target == "/denied" { vec![] } else { vec![("X-API-Key", key.value.as_str())] };
            status = client.exchange(&request("GET", target, &fields, b"")).status;
            status != 503
        });
        status
    });
    assert_eq!(answers, [200, 401]);
    client.exchange(&request("GET", "/%1b[31m/\u{e9}\"", &[], b""));
    program.signal("TERM");
    let said = program.end(PATIENCE).err;
    let line =
        |words: &str| said.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {said}"));
    let permitted = line(" permit ok 200 GET /permitted ");
    assert!(permitted.contains(" key=k1 form=header client=127.0.0.1 id="), "{permitted}");
    let denied = line(" denial missing_credential 401 GET /denied ");
    assert!(denied.contains(" key=- form=- client=127.0.0.1 id="), "{denied}");
    assert!(said.is_ascii() && !said.contains('\u{1b}') && !said.contains("a=b"), "{said}");
}

#[test]
fn lines_that_nobody_takes_are_dropped_and_counted_and_delay_nobody() {
    let upstream = Upstream::start();
    let (site, key) = site(&upstream, "{ access: all }");
    let keyward = site.serve();
    assert_eq!(keyward.metric("keyward_log_dropped_total"), 0.0);
    drop(keyward);

    let (site, _) = self::site(&upstream, "{ access: all }");
    let key = Key { value: site.create_key(&[]).value, ..key };
    let mut command = site.command(&["serve"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let (proxy, ops) = tools::serving(&mut pipe);
    until("it is ready", || Client::connect(ops).exchange(&request("GET", "/readyz", &[], b"")).status == 200);

    // From here on nobody reads what it writes. 200 lines fit into the pipe, 16,384 into the queue.
    let mut client = Client::connect(proxy);
    let denied = request("GET", "/denied", &[], b"").repeat(100);
    for _ in 0..180 {
        client.send(&denied);
        (0..100).for_each(|_| assert_eq!(client.response().status, 401));
    }
    assert_eq!(client.exchange(&request("GET", "/", &[("X-API-Key", &key.value)], b"")).status, 200);
    let page = Client::connect(ops).exchange(&request("GET", "/metrics", &[], b"")).text();
    let dropped = page.lines().find_map(|line| line.strip_prefix("keyward_log_dropped_total ")).unwrap();
    let dropped: u64 = dropped.parse().unwrap();
    assert!((1..=1_800).contains(&dropped), "{dropped}");
    child.kill().unwrap();
    child.wait().unwrap();
}
