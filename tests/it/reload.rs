//! Another config while it runs: taken over as a whole for the next request, or not at all; and nobody is disturbed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;

use super::support::{After, Client, Key, Keyward, PATIENCE, Response, Site, Upstream, ok, request, until};
use super::tools::{self, Program};

fn serve(upstream: SocketAddr, config: &str) -> (Keyward, Key) {
    let site = Site::new(upstream, config);
    let key = site.create_key(&[]);
    (site.serve(), key)
}

/// Puts another config in force.
#[track_caller]
fn reconfigure(keyward: &Keyward, upstream: SocketAddr, config: &str) {
    keyward.site.configure(upstream, config);
    let response = keyward.reload();
    assert_eq!((response.status, response.text().as_str()), (200, "the config is in force\n"));
}

#[track_caller]
fn assert_refused(response: &Response, reasons: &[&str]) {
    let text = response.text();
    assert_eq!((response.status, text.lines().count()), (500, reasons.len()), "{text}");
    for reason in reasons {
        assert!(text.contains(reason), "no {reason:?} in {text}");
    }
}

/// Since the start: taken over, and not.
fn reloads(keyward: &Keyward) -> (u64, u64) {
    let count = |result: &str| keyward.metric(&format!("keyward_config_reloads_total{{result=\"{result}\"}}")) as u64;
    (count("success"), count("failure"))
}

#[test]
fn a_new_config_holds_for_the_next_request_of_an_open_connection() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(upstream.address(), "");
    let mut client = keyward.connect();
    let get = |fields: &[(&str, &str)]| request("GET", "/open/a", fields, b"");
    let denied = client.exchange(&get(&[]));
    assert_eq!((denied.status, denied.value("content-type").as_deref()), (401, Some("text/xml; charset=utf-8")));

    reconfigure(&keyward, upstream.address(), "deny: { format: text }");
    let denied = client.exchange(&get(&[]));
    assert_eq!((denied.status, denied.value("content-type").as_deref()), (401, Some("text/plain; charset=utf-8")));

    reconfigure(&keyward, upstream.address(), "routes: [{ path: '/open/{*rest}', auth: none }]");
    assert_eq!(client.exchange(&get(&[])).status, 200);

    reconfigure(&keyward, upstream.address(), "credentials: { header: X-Door }\nidentity_headers: { prefix: X-Who- }");
    upstream.take();
    assert_eq!(client.exchange(&get(&[("X-API-Key", &key.value)])).status, 401);
    assert_eq!(client.exchange(&get(&[("X-Door", &key.value)])).status, 200);
    assert_eq!(upstream.only().head.value("x-who-key-id").as_deref(), Some(&*key.id));

    reconfigure(&keyward, upstream.address(), "proxy: { trusted_proxies: [127.0.0.1] }");
    client.exchange(&get(&[
        ("X-API-Key", &key.value),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Request-Id", "of-the-proxy"),
    ]));
    assert_eq!(upstream.only().head.value("x-request-id").as_deref(), Some("of-the-proxy"));

    // The watch may have been quicker than the question, which then finds nothing new and counts all the same.
    assert!(reloads(&keyward).0 >= 4 && reloads(&keyward).1 == 0);
    assert_eq!(keyward.metric("keyward_connections_total") as u64, 1, "all of this was one connection");
}

#[test]
fn times_and_the_log_change_too() {
    let upstream = Upstream::scripted(|turn| match turn.head.target().as_str() {
        "/silent" => {
            turn.wire.some()?;
            Ok(After::Close)
        }
        _ => turn.answer(&ok("")),
    });
    let (keyward, key) = serve(upstream.address(), "log: { access: none }");
    assert_eq!(keyward.with_key(&key, "GET", "/unseen").status, 200);
    reconfigure(
        &keyward,
        upstream.address(),
        "proxy: { timeouts: { response: 100ms } }\nlog: { access: all, level: 'info,keyward::sync=debug' }",
    );
    assert_eq!(keyward.with_key(&key, "GET", "/silent").status, 504);
    keyward.site.create_key(&[]);
    keyward.wait_for_line("the replica was changed");
    until("the access log has a line", || String::from_utf8_lossy(&keyward.output()).contains("/silent"));
    assert!(!String::from_utf8_lossy(&keyward.output()).contains("/unseen"));
}

#[test]
fn what_has_mistakes_changes_nothing_and_is_told() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(upstream.address(), "deny: { format: text }");
    let in_order = keyward.metric("keyward_config_last_reload_success_timestamp_seconds");
    assert!(in_order > 1.7e9 && keyward.metric("keyward_config_last_reload_successful") as u64 == 1);

    keyward.site.configure(upstream.address(), "deny: { format: jsn }\nproxy: { trusted_proxies: [1.2.3] }");
    let refused = keyward.reload();
    assert_refused(&refused, &["keyward.yaml:", "deny.format", "proxy.trusted_proxies[0]"][1..]);
    let line = keyward.wait_for_line("the config was read again and not taken over; the old one stays in force");
    assert!(line["why"].as_str().unwrap().contains("deny.format"), "{line}");
    assert!(keyward.get("/a", &[]).text().starts_with("Access Denied:"), "the old config is in force");
    assert_eq!(keyward.with_key(&key, "GET", "/a").status, 200);
    assert!(reloads(&keyward).0 == 0 && reloads(&keyward).1 >= 1);
    assert_eq!(keyward.metric("keyward_config_last_reload_successful") as u64, 0);
    let readiness = keyward.ops_page("/readyz?verbose");
    let trouble = "[!]config 2 mistakes in what the files say now; the log names them\n";
    assert!(readiness.status == 200 && readiness.text().contains(trouble), "{}", readiness.text());

    fs::remove_file(keyward.site.path().join("keyward.yaml")).unwrap();
    assert_refused(&keyward.reload(), &["cannot be read"]);
    // A value that could be a secret is not repeated, wherever it stands.
    keyward.site.configure(upstream.address(), &format!("keys: {{ pepper: {{ file: {} }} }}", key.value));
    assert_refused(&keyward.reload(), &["keys.pepper.file"]);
    assert!(!keyward.reload().text().contains(&key.value));
    assert!(!String::from_utf8_lossy(&keyward.output()).contains(&key.value));

    reconfigure(&keyward, upstream.address(), "deny: { format: json }");
    assert!(!keyward.ops_page("/readyz?verbose").text().contains("config"));
    assert!(keyward.metric("keyward_config_last_reload_success_timestamp_seconds") > in_order);
    assert_eq!(keyward.metric("keyward_config_last_reload_successful") as u64, 1);
}

#[test]
fn what_takes_a_restart_is_named_and_nothing_else_is_taken_over() {
    let upstream = Upstream::start();
    let (keyward, _) = serve(upstream.address(), "deny: { format: text }");
    for (config, options) in [
        ("proxy: { listen: '127.0.0.1:1' }", "proxy.listen"),
        ("proxy: { workers: 3 }", "proxy.workers"),
        ("admin: { listen: '127.0.0.1:1' }\nops: { listen: '127.0.0.1:2' }", "admin.listen, ops.listen"),
        ("store: 'sqlite:other.db'\nlog: { format: text }", "store, log.format"),
    ] {
        keyward.site.configure(upstream.address(), &format!("deny: {{ format: json }}\n{config}"));
        let reason = format!("{options} changed, which takes a restart; nothing else was taken over either");
        assert_refused(&keyward.reload(), &[&reason]);
        assert!(keyward.get("/a", &[]).text().starts_with("Access Denied:"));
    }
    // Another pepper would open no door any more.
    keyward.site.configure(upstream.address(), "deny: { format: text }");
    keyward.site.write("keyward.pepper", &"3c".repeat(32));
    assert_refused(&keyward.reload(), &["keys.pepper changed, which takes a restart"]);
}

#[test]
fn sighup_and_changes_of_the_files_are_noticed() {
    let upstream = Upstream::start();
    let (keyward, _) = serve(upstream.address(), "deny: { format: text }");
    let format_is = |format: &str| keyward.get("/a", &[]).value("content-type").unwrap().contains(format);
    keyward.signal("HUP");
    until("it has read its config again", || reloads(&keyward) == (1, 0));
    assert_eq!(keyward.wait_for_line("the config was read again and is in force")["cause"], "SIGHUP");

    keyward.site.configure(upstream.address(), "deny: { format: json }");
    until("a changed file is taken over", || format_is("json"));
    // A file that is written in place may be seen half; what counts is what it comes to.
    keyward.site.write("keyward.yaml", &Site::config(upstream.address(), "deny: { format: xml }"));
    until("a file that was written in place is taken over", || format_is("xml"));
    keyward.site.write("keyward.pepper", "no pepper");
    until("a changed pepper is noticed", || keyward.metric("keyward_config_last_reload_successful") as u64 == 0);
    assert!(format_is("xml"));
}

/// A ConfigMap that was mounted: files are links through `..data`, and that is replaced as a whole.
#[test]
fn a_mounted_config_that_is_swapped_is_taken_over() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    let folder = site.path().to_owned();
    let swap = |name: &str, config: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("keyward.yaml"), Site::config(upstream.address(), config)).unwrap();
        std::os::unix::fs::symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    swap("..2026_01_01", "deny: { format: text }");
    fs::remove_file(folder.join("keyward.yaml")).unwrap();
    std::os::unix::fs::symlink("..data/keyward.yaml", folder.join("keyward.yaml")).unwrap();
    let keyward = site.serve();
    assert!(keyward.get("/a", &[]).text().starts_with("Access Denied:"));
    swap("..2026_01_02", "deny: { format: json }");
    until("the swap is noticed", || keyward.get("/a", &[]).text().contains("success"));
    assert_eq!(reloads(&keyward), (1, 0));
}

#[test]
fn a_request_in_flight_ends_under_the_config_it_began_with() {
    let (go, told) = mpsc::channel();
    let told = Mutex::<mpsc::Receiver<()>>::new(told);
    let old = Upstream::scripted(move |turn| {
        turn.wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
        told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        turn.wire.send(b" last")?;
        Ok(After::Keep)
    });
    let new = Upstream::start();
    let (keyward, key) = serve(old.address(), "routes: [{ path: /gone, deny: json }]");
    let mut client = keyward.connect();
    let get = request("GET", "/gone", &[("X-API-Key", &key.value)], b"");
    client.send(&get);
    let (status, head) = client.response_head().unwrap();
    reconfigure(&keyward, new.address(), "routes: []\nproxy: { timeouts: { response: 1s } }");
    assert_eq!(keyward.with_key(&key, "GET", "/b").status, 200);
    go.send(()).unwrap();
    assert_eq!((status, client.wire().body(head.framing()).unwrap().bytes), (200, b"first last".to_vec()));
    assert_eq!(client.exchange(&get).status, 200);
    assert_eq!((old.received().len(), new.received().len()), (1, 2));
}

#[test]
fn connections_to_an_upstream_that_was_replaced_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let new = Upstream::start();
    let (keyward, key) = serve(listener.local_addr().unwrap(), "proxy: { timeouts: { upstream_idle: 1h } }");
    let mut client = keyward.connect();
    let get = request("GET", "/a", &[("X-API-Key", &key.value)], b"");
    client.send(&get);
    let (mut old, _) = listener.accept().unwrap();
    old.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(old.read(&mut [0; 4096]).unwrap() > 0);
    old.write_all(&ok("old")).unwrap();
    assert_eq!(client.response().text(), "old");
    reconfigure(&keyward, new.address(), "proxy: { timeouts: { upstream_idle: 1h } }");
    // Nobody has to ask for anything first.
    assert_eq!(old.read(&mut [0; 1]).unwrap(), 0, "the unused connection is closed");
    assert_eq!(client.exchange(&get).status, 200);
    // What stays the same keeps its connections.
    reconfigure(&keyward, new.address(), "proxy: { timeouts: { upstream_idle: 1h } }\ndeny: { format: text }");
    assert_eq!(client.exchange(&get).status, 200);
    assert_eq!(new.connections(), 1);
}

/// A page that a browser shows may send it to this port (r73).
#[test]
fn only_a_post_reloads_and_none_of_a_web_page() {
    let upstream = Upstream::start();
    let keyward = Site::new(upstream.address(), "").serve();
    let get = keyward.admin_page("/-/reload");
    assert_eq!((get.status, get.value("allow").as_deref(), get.text().as_str()), (405, Some("POST"), "only POST\n"));
    let line = keyward.wait_for_line("serving");
    let mut client = Client::connect(line["admin"].as_str().unwrap().parse().unwrap());
    assert_eq!(client.exchange(&request("POST", "/status", &[], b"")).status, 405);
    let page = client.exchange(&request("POST", "/-/reload", &[("Origin", "http://127.0.0.1:8081")], b""));
    assert_eq!((page.status, page.text().as_str()), (403, "not for web pages\n"));
    assert_eq!(keyward.ops_page("/-/reload").status, 404);
    assert_eq!(reloads(&keyward), (0, 0));
}

/// A database that nobody else can open: a start waits for it.
#[test]
fn a_hangup_while_it_starts_does_not_end_it() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "");
    site.create_key(&[]);
    let hold = "import sqlite3, sys\n\
                c = sqlite3.connect('keyward.db', isolation_level=None)\n\
                c.execute('pragma locking_mode=exclusive')\n\
                c.execute('begin immediate')\n\
                print('held', flush=True)\n\
                sys.stdin.read()\n";
    let mut command = Command::new("python3");
    let mut holder = Program::start(command.args(["-c", hold]).current_dir(site.path()).stdin(Stdio::piped()));
    holder.wait_for("lock", |out, _| out.contains("held").then_some(()));

    let mut starting = Program::start(&mut site.command(&["serve"]));
    let hears = |id: u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
        u64::from_str_radix(caught.trim(), 16).unwrap() & 1 == 1
    };
    until("it hears SIGHUP", || hears(starting.id()));
    assert!(!starting.err().contains("\"serving\""), "it has not started: {}", starting.err());
    starting.signal("HUP");
    holder.kill();
    starting.wait_for("start", |_, err| err.contains("\"serving\"").then_some(()));
    starting.wait_for("reload", |_, err| err.contains("the config was read again and is in force").then_some(()));
    starting.signal("TERM");
    assert_eq!(starting.end(PATIENCE).status.code(), Some(0));
}
