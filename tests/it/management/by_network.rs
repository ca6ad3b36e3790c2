//! Between a command and its server: answers that are lost, changes that others make meanwhile, and servers that answer
//! strangely.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::by_command::ended;
use super::*;

/// Reads a request to its end.
fn read(client: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if request.len() >= end + 4 + length {
                return request;
            }
        }
        match client.read(&mut bytes) {
            Ok(count @ 1..) => request.extend(&bytes[..count]),
            _ => return request,
        }
    }
}

/// Passes questions on, one after the other. Of each it tells the first line, before the server hears of it, and hears whether
/// the answer shall get back.
fn relay(to: SocketAddr, mut gets_back: impl FnMut(&str) -> bool + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let request = read(&mut client);
            let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
            let passes = gets_back(&line);
            let (mut server, mut answer) = (TcpStream::connect(to).unwrap(), Vec::new());
            server.write_all(&request).unwrap();
            server.read_to_end(&mut answer).unwrap();
            if passes {
                let _ = client.write_all(&answer);
            } else {
                let _ = client.shutdown(Shutdown::Both);
            }
        }
    });
    url
}

/// Answers every question with this, and counts them.
fn answering(body: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, count) = (format!("http://{}", listener.local_addr().unwrap()), Arc::<AtomicUsize>::default());
    let counted = count.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            read(&mut client);
            counted.fetch_add(1, Relaxed);
            let _ = client.write_all(body.as_bytes());
        }
    });
    (url, count)
}

impl Stage {
    fn command(&self, words: &str, url: &str) -> Output {
        let words: Vec<&str> = words.split(' ').chain(["--server", url]).collect();
        let mut command = self.keyward.site.command(&words);
        command.env("KEYWARD_API_KEY", &self.admin.value).output().unwrap()
    }
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_key_is_made_once_however_often_the_answer_is_lost() {
    let stage = Stage::new();
    let posts = Arc::<AtomicUsize>::default();
    let counted = posts.clone();
    let url =
        relay(stage.keyward.admin(), move |line| !line.starts_with("POST ") || counted.fetch_add(1, Relaxed) >= 2);
    let output = stage.command("key create --name once", &url);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(posts.load(Relaxed), 3);
    let keys = stage.result("GET", "/v2/keys", "");
    let once = keys.as_array().unwrap().iter().filter(|key| key["name"] == "once").count();
    assert_eq!(once, 1);
    let value = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stage.opens(&Key { id: String::new(), value: value.trim().to_owned() }), 200);
}

/// What changes something is sent once: the second time it would hit what the first has changed.
#[test]
fn a_change_whose_answer_is_lost_is_told_as_such_and_not_sent_again() {
    let stage = Stage::new();
    let key = stage.create("before", json!({}));
    let sent = Arc::<AtomicUsize>::default();
    let counted = sent.clone();
    let url = relay(stage.keyward.admin(), move |line| {
        let changes = line.starts_with("PATCH ") || line.starts_with("DELETE ");
        counted.fetch_add(usize::from(changes), Relaxed);
        !changes
    });
    let (code, why) = said(&stage.command(&format!("key update {} --name after", key.id), &url));
    assert!(code == Some(7) && why.contains("look whether it was done"), "{code:?} {why}");
    assert_eq!(stage.result("GET", &format!("/v2/keys/{}", key.id), "")["name"], "after");
    let (code, why) = said(&stage.command(&format!("key revoke {}", key.id), &url));
    assert!(code == Some(7) && why.contains("look whether it was done"), "{code:?} {why}");
    assert_eq!((sent.load(Relaxed), stage.opens(&key)), (2, 401));
}

/// A command changes what it has read, or nothing: not what somebody else has made of it in between.
#[test]
fn what_others_change_meanwhile_is_left_as_they_have_made_it() {
    let stage = Stage::new();
    let key = stage.create("key", json!({}));
    stage.result("POST", "/v2/roles", r#"{"id":"clerk","permissions":["keys:read"]}"#);
    stage.result("POST", "/v2/scopes", r#"{"id":"organization:acme"}"#);
    let ann = stage.result("POST", "/v2/users", r#"{"email":"ann@example.com"}"#)["id"].as_str().unwrap().to_owned();
    let (key_path, user_path) = (format!("/v2/keys/{}", key.id), format!("/v2/users/{ann}"));
    let scope = "/v2/scopes/organization:acme";
    for (words, path, theirs) in [
        (format!("key update {} --name mine", key.id), key_path.as_str(), json!({ "name": "theirs" })),
        (format!("key disable {}", key.id), &key_path, json!({ "name": "theirs again" })),
        (format!("key revoke {}", key.id), &key_path, json!({ "permissions": ["fetch"] })),
        (
            "role update clerk --permission keys:write".to_owned(),
            "/v2/roles/clerk",
            json!({ "permissions": ["users:read"] }),
        ),
        ("role delete clerk".to_owned(), "/v2/roles/clerk", json!({ "observer": true })),
        ("user update ann@example.com --name mine".to_owned(), &user_path, json!({ "name": "theirs" })),
        ("user delete ann@example.com".to_owned(), &user_path, json!({ "name": "theirs again" })),
        ("scope suspend organization:acme".to_owned(), scope, json!({ "state": "suspended" })),
    ] {
        let (admin, bearer, mut done) = (stage.keyward.admin(), stage.admin.bearer(), false);
        let (target, body) = (path.to_owned(), theirs.to_string());
        let url = relay(admin, move |line| {
            if !done && !line.starts_with("GET ") {
                done = true;
                let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
                let changed = Client::connect(admin).exchange(&request("PATCH", &target, &fields, body.as_bytes()));
                assert_eq!(changed.status, 200);
            }
            true
        });
        let (code, why) = said(&stage.command(&words, &url));
        assert!(code == Some(5) && why.contains("changed meanwhile"), "{words}: {code:?} {why}");
        let now = stage.result("GET", path, "");
        for (name, value) in theirs.as_object().unwrap() {
            assert_eq!(now[name], *value, "{words}");
        }
    }
    assert_eq!(stage.opens(&key), 200);
}

#[test]
fn a_server_that_leads_elsewhere_is_not_followed() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let elsewhere = stage.keyward.admin();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 4096]);
            let _ = write!(
                client,
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{elsewhere}/v2/keys\r\nContent-Length: 0\r\n\r\n"
            );
        }
    });
    let (code, err) = ended(&stage, &stage.admin.value, &["--server", &url]);
    assert!(code == Some(1) && err.contains("which is not followed"), "{code:?} {err}");
}

/// A page that leads to itself is not followed for ever.
#[test]
fn a_list_that_leads_to_itself_has_an_end() {
    let stage = Stage::new();
    let (url, asked) = answering(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 91\r\n\r\n\
         {\"success\":true,\"result\":[],\"links\":{\"next\":\"http://k/v2/keys?cursor=again\"},\"errors\":[]}  ",
    );
    for words in ["role list", "audit list --limit 100000"] {
        let before = asked.load(Relaxed);
        let (code, why) = said(&stage.command(words, &url));
        assert_eq!((code, asked.load(Relaxed) - before), (Some(0), 2), "{words}: {why}");
    }
}

/// A page of the audit has a thousand lines at most, and fewer where others may not be seen.
#[test]
fn the_audit_goes_on_for_as_many_pages_as_it_takes() {
    let line = json!({ "action": "key.update", "actor": "x", "detail": { "scopes": [] } });
    let (stage, ()) = Stage::prepared("", |site| add_lines(site, 2300, &line));
    let url = format!("http://{}", stage.keyward.admin());
    for (limit, lines) in [(2100, 2100), (999, 999), (5000, 2303)] {
        let output = stage.command(&format!("audit list --limit {limit} --output json"), &url);
        assert!(output.status.success(), "{:?}", said(&output));
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(listed.as_array().map(Vec::len), Some(lines), "{limit}");
    }
}

/// A revocation is waited for as long as is said, and who has not heard of it is named.
#[test]
fn a_revocation_is_waited_for_as_long_as_the_command_says() {
    let stage = Stage::with("sync: { node: here }");
    let store = format!("store: sqlite:{}/keyward.db", stage.keyward.site.path().display());
    let twin = Site::new(stage.upstream.address(), &format!("{store}\nsync: {{ node: there }}")).serve();
    let url = format!("http://{}", stage.keyward.admin());
    let key = stage.create("key", json!({}));
    twin.signal("STOP");
    for (timeout, within) in [("200ms", 200..1500), ("2500ms", 2500..5000)] {
        let words = format!("key revoke {} --wait --timeout {timeout} --output json", key.id);
        let output = stage.command(&words, &url);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (code, why) = said(&output);
        assert_eq!((code, &told["wait"]["applied"], &told["wait"]["live"]), (Some(1), &json!(1), &json!(2)), "{why}");
        assert!(
            within.contains(&told["wait"]["ms"].as_u64().unwrap()) && why.contains("not yet: there-"),
            "{told} {why}"
        );
    }
    twin.signal("CONT");
    let again = stage.command(&format!("key revoke {} --wait --timeout 5s", key.id), &url);
    assert_eq!(said(&again).0, Some(0), "whoever has heard that it does not hold yet asks again");
}
