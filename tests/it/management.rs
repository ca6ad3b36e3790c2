//! The management API: keys as Vidbeo's documents have them, field for field, and what is ours around that.

mod bodies;
mod by_command;
mod by_network;
mod changes;
mod document;
mod import;
mod keys;
mod leaks;
mod ledger;
mod levels;
mod matrix;
mod mount;
mod operations;
mod people;
mod reach;
mod search;
mod seed;
mod sign_in;
mod stalls;
mod tenants;
mod walk;

use serde_json::{Value, json};

use super::support::{Client, Key, Keyward, Response, Site, Upstream, request};

/// A running Keyward, an upstream and two keys that may manage: one everything, one only look.
struct Stage {
    upstream: Upstream,
    keyward: Keyward,
    admin: Key,
    read_only: Key,
}

impl Stage {
    fn new() -> Self {
        Self::with("")
    }

    /// One with something more in its config.
    fn with(config: &str) -> Self {
        Self::prepared(config, |_| ()).0
    }

    /// One with something done before it runs.
    fn prepared<T>(config: &str, prepare: impl FnOnce(&Site) -> T) -> (Self, T) {
        let upstream = Upstream::start();
        let site = Site::new(upstream.address(), config);
        let admin = site.create_key(&["--role", "admin", "--name", "admin"]);
        let read_only = site.create_key(&["--role", "admin", "--name", "looks", "--read-only"]);
        let prepared = prepare(&site);
        (Self { upstream, keyward: site.serve(), admin, read_only }, prepared)
    }

    /// Asks as the admin.
    #[track_caller]
    fn ask(&self, method: &str, target: &str, body: &str) -> Response {
        self.keyward.manage(&self.admin, method, target, body)
    }

    /// Asks as the admin for something that must be granted, and gives the result.
    #[track_caller]
    fn result(&self, method: &str, target: &str, body: &str) -> Value {
        let response = self.ask(method, target, body);
        assert_eq!(response.status, 200, "{method} {target} {body}: {}", response.text());
        response.json()["result"].take()
    }

    /// Makes a key by the API.
    #[track_caller]
    fn create(&self, name: &str, more: Value) -> Key {
        let mut body = json!({ "type": "api", "name": name, "permissions": [], "ips": [] });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let made = self.result("POST", "/v2/keys", &body.to_string());
        Key { id: made["id"].as_str().unwrap().to_owned(), value: made["value"].as_str().unwrap().to_owned() }
    }

    /// The status of a request to the upstream with a key.
    #[track_caller]
    fn opens(&self, key: &Key) -> u16 {
        let status = self.keyward.with_key(key, "GET", "/videos").status;
        self.upstream.take();
        status
    }

    /// Exact bytes to the management API.
    #[track_caller]
    fn send(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        Client::connect(self.keyward.admin()).exchange(&request(method, target, fields, body))
    }
}

/// Puts lines into the audit that nobody has written, behind all that are there. Nothing may run meanwhile, and nothing can be
/// changed afterwards.
fn add_lines(site: &Site, count: u32, line: &Value) {
    let database = rusqlite::Connection::open(site.path().join("keyward.db")).unwrap();
    let copies = "with recursive n(n) as (select 1 union all select n + 1 from n where n < ?2)
        insert into audit (rev, at, entry, content, chain)
        select m.last + n.n, a.at, ?1, a.content, a.chain
        from n, audit a, (select max(rev) as last from audit) m where a.rev = 1";
    let added = database.execute(copies, rusqlite::params![line.to_string(), count]).unwrap();
    assert_eq!(added, count as usize);
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
}

/// The parts of an answer that says no: its status and the codes of what is wrong.
#[track_caller]
fn refusal(response: &Response) -> (u16, Vec<String>) {
    let body = response.json();
    let parts: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(parts, ["errors", "links", "result", "success"], "{body}");
    assert_eq!((&body["success"], &body["result"], &body["links"]), (&json!(false), &json!(null), &json!(null)));
    let codes = body["errors"].as_array().unwrap().iter();
    (response.status, codes.map(|error| error["code"].as_str().unwrap().to_owned()).collect())
}
