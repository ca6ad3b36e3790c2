//! P13: under a thousand requests a second, instances are replaced one after the other, configs and certificates are taken
//! over, and not one request fails. With `KEYWARD_LONG` in the environment twenty times each, else a few times.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::support::certificates::Authority;
use super::support::upstream::PAGE;
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
        Self::over(Arc::new(Plain), first, key)
    }

    fn over(way: Arc<dyn Way>, first: SocketAddr, key: &Key) -> Self {
        let rotation = Arc::new(RwLock::new(vec![first]));
        let (stop, answered) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let clients = (0..CLIENTS).map(|nth| {
            let (way, rotation, stop, answered) = (way.clone(), rotation.clone(), stop.clone(), answered.clone());
            let get = request("GET", "/x", &[("X-API-Key", &key.value)], b"");
            thread::spawn(move || keep_asking(nth, &get, &*way, &rotation, &stop, &answered))
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

/// How clients connect.
trait Way: Send + Sync {
    fn connect(&self, address: SocketAddr) -> Box<dyn Connection>;
}

/// Carries one request after the other.
trait Connection {
    /// Sends a request, of which the answer must be good; `false` if it was the last one of this connection.
    fn ask(&mut self, get: &[u8]) -> io::Result<bool>;
}

struct Plain;

impl Way for Plain {
    fn connect(&self, address: SocketAddr) -> Box<dyn Connection> {
        Box::new(Client::connect(address))
    }
}

impl Connection for Client {
    fn ask(&mut self, get: &[u8]) -> io::Result<bool> {
        self.send(get);
        let response = self.try_response()?;
        assert_eq!(response.status, 200);
        Ok(response.value("connection").as_deref() != Some("close"))
    }
}

/// HTTPS, and a new connection every so often, so that there are handshakes all the time.
struct Secure(Arc<ClientConfig>);

struct SecureConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    left: usize,
}

impl Secure {
    fn trusting(ca: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Self(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    fn stream(&self, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = ClientConnection::new(self.0.clone(), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(connection, socket)
    }

    /// The certificate that a new connection gets.
    fn certificate(&self, address: SocketAddr) -> CertificateDer<'static> {
        let mut stream = self.stream(address);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

impl Way for Secure {
    fn connect(&self, address: SocketAddr) -> Box<dyn Connection> {
        Box::new(SecureConnection { stream: self.stream(address), left: 20 })
    }
}

impl Connection for SecureConnection {
    fn ask(&mut self, get: &[u8]) -> io::Result<bool> {
        self.stream.write_all(get)?;
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        while !said.ends_with(PAGE.as_bytes()) {
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => said.extend_from_slice(&buffer[..count]),
            }
        }
        assert!(said.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&said));
        self.left -= 1;
        Ok(self.left > 0)
    }
}

/// One client. The first request that fails ends the test.
fn keep_asking(
    nth: usize,
    get: &[u8],
    way: &dyn Way,
    rotation: &RwLock<Vec<SocketAddr>>,
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> usize {
    let (mut client, mut connections) = (None, 0);
    let mut next = Instant::now() + PAUSE * u32::try_from(nth).unwrap() / 10;
    while !stop.load(SeqCst) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += PAUSE;
        let mut connection: Box<dyn Connection> = client.take().unwrap_or_else(|| {
            connections += 1;
            let rotation = rotation.read().unwrap();
            way.connect(rotation[(nth + connections) % rotation.len()])
        });
        let goes_on = connection.ask(get).unwrap_or_else(|error| panic!("a request was lost: {error}"));
        answered.fetch_add(1, SeqCst);
        client = goes_on.then_some(connection);
    }
    connections
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
    let upstream = Upstream::start();
    let site = Site::new(upstream.address(), DELAYED);
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

#[test]
fn p13_new_certificates_lose_no_request() {
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
    let way = Arc::new(Secure::trusting(&ca));
    let load = Load::over(way.clone(), keyward.proxy, &key);
    for _ in 0..times() {
        load.run(200);
        let certificate = install(&keyward.site);
        assert_eq!(keyward.reload().status, 200);
        assert_eq!(way.certificate(keyward.proxy), certificate);
    }
    let (answered, connections) = load.end();
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
