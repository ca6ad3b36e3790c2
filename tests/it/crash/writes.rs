//! kill -9 while keys are made, changed and deleted by the management API: every change that was acknowledged is there, whoever
//! was not answered may have been heard or not, the audit has no gap, and the next start takes a moment.
//!
//! `make crashes` kills five hundred times, a plain run of the tests eight times.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::some_of;
use crate::support::{Client, Key, Keyward, Site, Upstream, request};
use crate::tools;

const WRITERS: usize = 3;
/// The longest time that writers have before the kill.
const LONGEST: Duration = Duration::from_millis(300);
const START: Duration = Duration::from_secs(2);

fn kills() -> usize {
    if tools::long() { 500 } else { 8 }
}

/// What is known of a key: its name, or `None` once it is deleted.
type Name = Option<String>;

/// One who makes keys, renames each, and deletes every other one.
#[derive(Default)]
struct Writer {
    /// What was acknowledged.
    keys: BTreeMap<String, Name>,
    /// Of these, those that were changed since the last kill.
    touched: Vec<String>,
    /// What was asked for and not answered.
    open: Option<(String, Name)>,
    made: usize,
}

impl Writer {
    /// Writes until nobody answers any more.
    fn write(&mut self, address: SocketAddr, admin: &Key, acknowledged: &AtomicUsize) {
        while let Some(answer) = ask(address, admin, "POST", "/v2/keys", &new(&format!("new {}", self.made))) {
            let id = answer["id"].as_str().unwrap().to_owned();
            self.take(id.clone(), Some(format!("new {}", self.made)), acknowledged);
            let changed = Some(format!("changed {}", self.made));
            self.open = Some((id.clone(), changed.clone()));
            self.made += 1;
            let body = json!({ "name": changed }).to_string();
            if ask(address, admin, "PATCH", &format!("/v2/keys/{id}"), &body).is_none() {
                return;
            }
            self.take(id.clone(), changed, acknowledged);
            if self.made.is_multiple_of(2) {
                self.open = Some((id.clone(), None));
                if ask(address, admin, "DELETE", &format!("/v2/keys/{id}"), "").is_none() {
                    return;
                }
                self.take(id, None, acknowledged);
            }
        }
    }

    fn take(&mut self, id: String, name: Name, acknowledged: &AtomicUsize) {
        self.touched.push(id.clone());
        self.keys.insert(id, name);
        self.open = None;
        acknowledged.fetch_add(1, SeqCst);
    }

    /// Holds what was changed since the last kill against what is there.
    #[track_caller]
    fn compare(&mut self, keyward: &Keyward, admin: &Key, when: &str) {
        for id in std::mem::take(&mut self.touched) {
            let answer = keyward.manage(admin, "GET", &format!("/v2/keys/{id}"), "");
            let found = match answer.status {
                200 => answer.json()["result"]["name"].as_str().map(str::to_owned),
                404 => None,
                status => panic!("{when}: {status} {}", answer.text()),
            };
            let known = self.keys.get_mut(&id).unwrap();
            let open = self.open.as_ref().filter(|(open, _)| *open == id).map(|(_, name)| name);
            assert!(*known == found || open == Some(&found), "{when}: {id} is {found:?}; {known:?} was acknowledged");
            *known = found;
        }
        self.open = None;
    }
}

fn new(name: &str) -> String {
    json!({ "type": "api", "name": name, "permissions": [], "ips": [] }).to_string()
}

/// The result of what was granted; `None` where nobody answers.
fn ask(address: SocketAddr, admin: &Key, method: &str, target: &str, body: &str) -> Option<Value> {
    let mut client = Client::over(TcpStream::connect(address).ok()?);
    let (bearer, json) = (admin.bearer(), ("Content-Type", "application/json"));
    let fields = [("Authorization", bearer.as_str()), json];
    let fields = if body.is_empty() { &fields[..1] } else { &fields[..] };
    client.wire().send(&request(method, target, fields, body.as_bytes())).ok()?;
    let answer = client.try_response().ok()?;
    assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
    Some(answer.json()["result"].take())
}

/// Starts it again, and says how long that took.
fn start(site: Site) -> (Keyward, Duration) {
    let began = Instant::now();
    let keyward = site.serve();
    (keyward, began.elapsed())
}

#[track_caller]
fn verify(site: &Site, when: &str) {
    let verified = tools::run(&mut site.command(&["audit", "verify"]));
    assert!(verified.status.success(), "{when}: {verified:?}");
}

/// All keys by the lists of the API, page by page.
fn listed(keyward: &Keyward, admin: &Key) -> BTreeMap<String, Name> {
    let (mut all, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = keyward.manage(admin, "GET", &format!("/v2/keys?limit=1000&cursor={cursor}"), "").json();
        let keys = page["result"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.extend(keys.iter().map(|key| (text(&key["id"]), Some(text(&key["name"])))));
        match keys.last().filter(|_| page["links"]["next"].is_string()) {
            Some(last) => cursor = text(&last["id"]),
            None => return all,
        }
    }
}

#[test]
fn what_the_management_api_has_acknowledged_survives() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "log: { access: none }");
    let admin = site.create_key(&["--role", "admin"]);
    let (mut keyward, _) = start(site);
    let (mut writers, mut times) = (Vec::new(), Vec::new());
    writers.resize_with(WRITERS, Writer::default);
    let acknowledged = AtomicUsize::new(0);
    for kill in 0..kills() {
        let (address, moment) = (keyward.admin(), some_of(LONGEST));
        let when = format!("kill {kill}, after {moment:?}");
        let site = thread::scope(|scope| {
            for writer in &mut writers {
                let (admin, acknowledged) = (&admin, &acknowledged);
                scope.spawn(move || writer.write(address, admin, acknowledged));
            }
            thread::sleep(moment);
            keyward.kill()
        });
        let time;
        (keyward, time) = start(site);
        times.push(time);
        writers.iter_mut().for_each(|writer| writer.compare(&keyward, &admin, &when));
        verify(&keyward.site, &when);
    }
    let there = listed(&keyward, &admin);
    let known = writers.iter().flat_map(|writer| &writer.keys).filter(|(_, name)| name.is_some());
    let lost: Vec<_> = known.filter(|(id, name)| there.get(*id) != Some(name)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(there.values().filter(|name| name.is_none()).count() == 0);
    report(&mut times, acknowledged.into_inner(), &keyward.site);
}

fn report(times: &mut [Duration], acknowledged: usize, site: &Site) {
    times.sort();
    let (middle, most) = (times[times.len() / 2], times[times.len() - 1]);
    let size = fs::metadata(site.path().join("keyward.db")).unwrap().len() / 1024;
    let line = format!(
        "\n{} kills, {acknowledged} changes acknowledged, 0 lost; every audit verified; database {size} KiB\n\
         start to ready: median {middle:.1?}, most {most:.1?}\n",
        times.len()
    );
    let _ = io::stderr().write_all(line.as_bytes());
    assert!(acknowledged > times.len(), "hardly anything was written: {line}");
    // Where only eight are tried, some may be late because the machine is.
    assert!(middle < START && (most < START || !tools::long()), "{line}");
}
