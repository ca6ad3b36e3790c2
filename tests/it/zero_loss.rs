//! P13: under a thousand requests a second, instances are replaced one after the other, configs and certificates are taken
//! over, and not one request fails, over HTTP/1.1 and HTTP/2. With `KEYWARD_LONG` in the environment twenty times each, else a
//! few times. Each says how many requests there were.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use self::ways::{Connection, Multiplexed, Plain, Secure, Tls, Way};
use super::support::certificates::Authority;
use super::support::{Client, Key, Keyward, PATIENCE, Site, Upstream, request, until};
use super::tools;

mod ways; // how clients connect and ask

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
    clients: Vec<JoinHandle<Kept>>,
    began: Instant,
}

/// What a client has done.
#[derive(Default)]
struct Kept {
    connections: usize,
    /// Requests that were refused unprocessed, and answered when they were sent again.
    again: usize,
}

impl Load {
    fn over(way: Arc<dyn Way>, first: SocketAddr) -> Self {
        let rotation = Arc::new(RwLock::new(vec![first]));
        let (stop, answered) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let clients = (0..CLIENTS).map(|nth| {
            let (way, rotation, stop, answered) = (way.clone(), rotation.clone(), stop.clone(), answered.clone());
            thread::spawn(move || keep_asking(nth, &*way, &rotation, &stop, &answered))
        });
        Self { clients: clients.collect(), rotation, stop, answered, began: Instant::now() }
    }

    /// Lets it run for so many requests.
    fn run(&self, count: usize) {
        let goal = self.answered.load(SeqCst) + count;
        until("requests are answered", || self.answered.load(SeqCst) >= goal);
    }

    /// Ends it, says what it was, and gives the numbers of requests and of connections.
    fn end(self, what: &str) -> (usize, usize) {
        self.stop.store(true, SeqCst);
        let kept: Vec<Kept> = self.clients.into_iter().map(|client| client.join().unwrap()).collect();
        let connections = kept.iter().map(|kept| kept.connections).sum();
        let again: usize = kept.iter().map(|kept| kept.again).sum();
        let (answered, took) = (self.answered.load(SeqCst), self.began.elapsed());
        let rate = answered as f64 / took.as_secs_f64();
        let line = format!(
            "{what}: {answered} requests, 0 lost, {again} refused unprocessed and sent again, {connections} connections, \
             {took:.1?}: {rate:.0} a second\n"
        );
        let _ = io::stderr().write_all(line.as_bytes());
        let meant = CLIENTS as f64 / PAUSE.as_secs_f64();
        assert!(rate > meant / 2.0, "that is no load: {line}");
        (answered, connections)
    }
}

/// One client. The first request that fails ends the test.
fn keep_asking(
    nth: usize,
    way: &dyn Way,
    rotation: &RwLock<Vec<SocketAddr>>,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Kept {
    let (mut client, mut kept, mut owed) = (None, Kept::default(), 0);
    let mut next = Instant::now() + PAUSE * u32::try_from(nth).unwrap() / 10;
    // What was refused is sent again before it ends.
    while !stop.load(SeqCst) || owed > 0 {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let mut connection: Box<dyn Connection> = client.take().unwrap_or_else(|| {
            kept.connections += 1;
            let rotation = rotation.read().unwrap();
            way.connect(rotation[(nth + kept.connections) % rotation.len()])
        });
        let asked = connection.ask().unwrap_or_else(|error| panic!("a request was lost: {error}"));
        next += PAUSE * u32::try_from(asked.answered).unwrap();
        answered.fetch_add(asked.answered, SeqCst);
        // All requests are alike, so those that are answered next are the ones that were refused before.
        let again = asked.answered.min(owed);
        kept.again += again;
        owed = owed - again + asked.refused;
        client = asked.goes_on.then_some(connection);
    }
    kept
}

const CONFIG: &str = "log: { access: none }";
const DELAYED: &str = "proxy: { timeouts: { drain_delay: 200ms } }\nlog: { access: none }";

/// Another instance with the same keys.
fn successor(of: &Keyward, upstream: &Upstream) -> Keyward {
    let site = Site::new(upstream.address(), DELAYED);
    fs::copy(of.site.path().join("keyward.db"), site.path().join("keyward.db")).unwrap();
    site.serve()
}

#[test]
fn p13_rolling_restarts_lose_no_request() {
    rolling_restarts("restarts, HTTP/1.1", |key| Arc::new(Plain::new(key)));
}

#[test]
fn p13_rolling_restarts_lose_no_request_of_http_2() {
    rolling_restarts("restarts, HTTP/2", |key| Arc::new(Multiplexed::new(key)));
}

fn rolling_restarts(what: &str, way: impl Fn(&Key) -> Arc<dyn Way>) {
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), DELAYED);
    let key = site.create_key(&[]);
    let mut present = site.serve();
    let load = Load::over(way(&key), present.proxy);
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
    // By then all have been sent away for the last time, too.
    load.run(200);
    let (answered, connections) = load.end(what);
    assert!(answered >= 200 * times() && connections >= CLIENTS * (1 + times()), "{answered}, {connections}");
    assert_eq!(upstream.received().len(), answered, "nothing that was sent again had been made of it before");
}

#[test]
fn p13_reloads_lose_no_request() {
    reloads("reloads, HTTP/1.1", |key| Arc::new(Plain::new(key)));
}

#[test]
fn p13_reloads_lose_no_request_of_http_2() {
    reloads("reloads, HTTP/2", |key| Arc::new(Multiplexed::new(key)));
}

fn reloads(what: &str, way: impl Fn(&Key) -> Arc<dyn Way>) {
    let upstreams = [Upstream::start(), Upstream::start()];
    let site = Site::new(upstreams[0].address(), CONFIG);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let load = Load::over(way(&key), keyward.proxy);
    for turn in 1..=times() {
        load.run(100);
        let upstream = &upstreams[turn % 2];
        upstream.take();
        let routes = format!("{CONFIG}\nroutes: [{{ path: '/{turn}/{{*rest}}', auth: none }}]");
        keyward.site.configure(upstream.address(), &routes);
        assert_eq!(keyward.reload().status, 200);
        upstream.wait_for(CLIENTS);
    }
    let (answered, connections) = load.end(what);
    assert!(answered >= 100 * times(), "{answered}");
    assert_eq!(connections, CLIENTS, "nobody was sent away");
}

#[test]
fn p13_new_certificates_lose_no_request() {
    new_certificates("certificates, HTTP/1.1", |key, ca, _| Arc::new(Secure::new(key, Tls::trusting(ca))));
}

#[test]
fn p13_new_certificates_lose_no_request_of_http_2() {
    new_certificates("certificates, HTTP/2", |key, ca, to| Arc::new(Multiplexed::by_tls(key, ca, to)));
}

fn new_certificates(what: &str, way: impl Fn(&Key, &Authority, SocketAddr) -> Arc<dyn Way>) {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let site =
        Site::new(upstream.address(), &format!("{CONFIG}\nproxy: {{ tls: {{ certificate: tls.crt, key: tls.key }} }}"));
    let install = |site: &Site| {
        let made = ca.sign("localhost", 2020..2100);
        site.write("tls.key", &made.key);
        site.write("tls.crt", &made.certificate);
        CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap()
    };
    install(&site);
    let key = site.create_key(&[]);
    let keyward = site.serve();
    let tls = Tls::trusting(&ca);
    let load = Load::over(way(&key, &ca, keyward.proxy), keyward.proxy);
    for _ in 0..times() {
        load.run(200);
        let certificate = install(&keyward.site);
        assert_eq!(keyward.reload().status, 200);
        assert_eq!(tls.certificate(keyward.proxy), certificate);
    }
    let (answered, connections) = load.end(what);
    assert!(answered >= 200 * times() && connections >= 10 * times(), "{answered}, {connections}");
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
