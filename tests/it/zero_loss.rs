//! P13: under a thousand requests a second, instances are replaced one after the other and configs are taken over, and not
//! one request fails. With `KEYWARD_LONG` in the environment twenty times each, else a few times.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::support::{Client, Key, Keyward, PATIENCE, Site, Upstream, request, until};
use super::tools;

/// Clients, each of which sends a request every so often: together a thousand a second.
const CLIENTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);

fn times() -> usize {
    if tools::long() { 20 } else { 3 }
}

/// What a balancer does: clients connect to one of those that are in rotation, and stay until they are sent away.
struct Load {
    rotation: Arc<RwLock<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(first: SocketAddr, key: &Key) -> Self {
        let rotation = Arc::new(RwLock::new(vec![first]));
        let (stop, answered) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let clients = (0..CLIENTS).map(|nth| {
            let (rotation, stop, answered) = (rotation.clone(), stop.clone(), answered.clone());
            let get = request("GET", "/x", &[("X-API-Key", &key.value)], b"");
            thread::spawn(move || keep_asking(nth, &get, &rotation, &stop, &answered))
        });
        Self { clients: clients.collect(), rotation, stop, answered }
    }

    /// Lets it run for so many requests.
    fn run(&self, count: usize) {
        let goal = self.answered.load(SeqCst) + count;
        until("requests are answered", || self.answered.load(SeqCst) >= goal);
    }

    /// Ends it, and gives the numbers of requests and of connections.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, SeqCst);
        let connections = self.clients.into_iter().map(|client| client.join().unwrap()).sum();
        (self.answered.load(SeqCst), connections)
    }
}

/// One client. The first request that fails ends the test.
fn keep_asking(
    nth: usize,
    get: &[u8],
    rotation: &RwLock<Vec<SocketAddr>>,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> usize {
    let (mut client, mut connections) = (None, 0);
    let mut next = Instant::now() + PAUSE * u32::try_from(nth).unwrap() / 10;
    while !stop.load(SeqCst) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += PAUSE;
        let mut connection: Client = client.take().unwrap_or_else(|| {
            connections += 1;
            let rotation = rotation.read().unwrap();
            Client::connect(rotation[(nth + connections) % rotation.len()])
        });
        connection.send(get);
        let response = connection.try_response().unwrap_or_else(|error| panic!("a request was lost: {error}"));
        assert_eq!(response.status, 200);
        answered.fetch_add(1, SeqCst);
        if response.value("connection").as_deref() != Some("close") {
            client = Some(connection);
        }
    }
    connections
}

const CONFIG: &str = "proxy: { timeouts: { drain_delay: 200ms } }\nlog: { access: none }";

/// Another instance with the same keys.
fn successor(of: &Keyward, upstream: &Upstream) -> Keyward {
    let site = Site::new(upstream.address(), CONFIG);
    fs::copy(of.site.path().join("keyward.db"), site.path().join("keyward.db")).unwrap();
    site.serve()
}

#[test]
fn p13_rolling_restarts_lose_no_request() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), CONFIG);
    let key = site.create_key(&[]);
    let mut present = site.serve();
    let load = Load::start(present.proxy, &key);
    for _ in 0..times() {
        load.run(200);
        let next = successor(&present, &upstream);
        load.rotation.write().unwrap().push(next.proxy);
        present.terminate();
        until("it is no longer ready", || present.ops_page("/readyz").status == 503);
        load.rotation.write().unwrap().remove(0);
        assert_eq!(present.wait_for_exit().code(), Some(0));
        present = next;
    }
    let (answered, connections) = load.end();
    assert!(answered >= 200 * times() && connections >= CLIENTS * (1 + times()), "{answered}, {connections}");
}

#[test]
fn p13_reloads_lose_no_request() {
    let upstreams = [Upstream::start(), Upstream::start()];
    let site = Site::new(upstreams[0].address(), CONFIG);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let load = Load::start(keyward.proxy, &key);
    for turn in 1..=times() {
        load.run(100);
        let upstream = &upstreams[turn % 2];
        upstream.take();
        let routes = format!("{CONFIG}\nroutes: [{{ path: '/{turn}/{{*rest}}', auth: none }}]");
        keyward.site.configure(upstream.address(), &routes);
        assert_eq!(keyward.reload().status, 200);
        upstream.wait_for(CLIENTS);
    }
    let (answered, connections) = load.end();
    assert!(answered >= 100 * times(), "{answered}");
    assert_eq!(connections, CLIENTS, "nobody was sent away");
}

/// Without a delay new connections are refused at once; those that were made are served.
#[test]
fn p13_a_stop_loses_no_connection_that_was_made() {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), "log: { access: none }");
    let key = site.create_key(&[]);
    let mut present = site.serve();
    for _ in 0..times() {
        let get = request("GET", "/x", &[("X-API-Key", &key.value)], b"");
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (get, proxy) = (get.clone(), present.proxy);
                thread::spawn(move || {
                    let mut answered = 0;
                    // What is dropped on the way is tried again by the system a second later, and refused then.
                    while let Ok(socket) = TcpStream::connect_timeout(&proxy, PATIENCE) {
                        let mut client = Client::over(socket);
                        client.send(&get);
                        let response = client.try_response();
                        let response = response.unwrap_or_else(|error| panic!("a request was lost: {error}"));
                        assert_eq!(response.status, 200);
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        upstream.wait_for(200);
        present.terminate();
        let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(upstream.take().len(), answered);
        assert_eq!(present.wait_for_exit().code(), Some(0));
        let site = Site::new(upstream.address(), "log: { access: none }");
        fs::copy(present.site.path().join("keyward.db"), site.path().join("keyward.db")).unwrap();
        present = site.serve();
    }
}
