//! HTTPS: who gets a connection and who does not, what is told about files that are of no use, and certificates that change
//! while it runs.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use super::faults::halves::with_little_room;
use super::support::certificates::{Authority, Certified};
use super::support::{After, Key, Keyward, PATIENCE, Site, Upstream, request, until};
use super::tools;

const TLS: &str = "certificate: tls.crt, key: tls.key";

/// A site whose certificate is signed by `ca`.
fn site(upstream: &Upstream, ca: &Authority, tls: &str, more: &str) -> (Site, Key) {
    let site = Site::new(upstream.address(), &format!("proxy: {{ tls: {{ {tls} }}, {more} }}"));
    install(&site, &ca.sign("localhost", 2020..2100));
    site.write("ca.crt", &ca.certificate);
    let key = site.create_key(&[]);
    (site, key)
}

fn install(site: &Site, certified: &Certified) {
    site.write("tls.key", &certified.key);
    site.write("tls.crt", &certified.certificate);
}

/// What curl gets; with its exit code, which is 0 if there was an answer.
struct Curl {
    code: Option<i32>,
    out: String,
}

fn curl(keyward: &Keyward, key: &Key, arguments: &[&str]) -> Curl {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--cacert", "ca.crt", "-H", &format!("X-API-Key: {}", key.value)]);
    command.args(arguments).arg(format!("https://127.0.0.1:{}/x", keyward.proxy.port()));
    let ended = tools::run(command.current_dir(keyward.site.path()));
    Curl { code: ended.status.code(), out: ended.out }
}

#[test]
fn the_upstream_hears_that_the_client_came_by_https() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let (site, key) = site(&upstream, &ca, TLS, "");
    let keyward = site.serve();
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let got = curl(&keyward, &key, &version);
        assert!(got.out.contains(" 200"), "{version:?} {:?} {}", got.code, got.out);
        let received = upstream.only();
        assert_eq!(received.head.values("x-forwarded-proto"), ["https"]);
        assert_eq!(received.head.values("x-forwarded-for"), ["127.0.0.1"]);
    }
    let got = curl(&keyward, &key, &["--tlsv1.1", "--tls-max", "1.1"]);
    assert_ne!(got.code, Some(0));
    let expiry = keyward.metric("keyward_tls_certificate_expiry_timestamp_seconds");
    assert_eq!(expiry, 4_102_444_800.0, "the first of January 2100");
}

#[test]
fn a_client_that_speaks_no_tls_is_told_or_left() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let (site, key) = site(&upstream, &ca, TLS, "");
    let keyward = site.serve();
    let mut plain = keyward.connect();
    let response = plain.exchange(&request("GET", "/x", &[("X-API-Key", &key.value)], b""));
    assert_eq!((response.status, response.text().as_str()), (400, "This port speaks HTTPS only.\n"));
    assert!(plain.is_closed());
    let mut other = keyward.connect();
    other.send(b"\x00\x01\x02");
    assert!(other.is_closed());
    // A record of the handshake that is none.
    let mut garbage = keyward.connect();
    garbage.send(b"\x16\x03\x01\x00\x05hello");
    let _ = garbage.wire().rest();
    until("all three are counted", || keyward.metric("keyward_connections_refused_total{reason=\"tls\"}") == 3.0);
    upstream.expect_nothing();
}

#[test]
fn handshakes_that_fail_are_counted_each_and_said_once_in_a_while() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let (site, _) = site(&upstream, &ca, TLS, "");
    let keyward = site.serve();
    for _ in 0..5 {
        let mut garbage = keyward.connect();
        garbage.send(b"\x16\x03\x01\x00\x05hello");
        let _ = garbage.wire().rest();
    }
    until("all are counted", || keyward.metric("keyward_connections_refused_total{reason=\"tls\"}") == 5.0);
    let said = "a connection was refused";
    let line = keyward.wait_for_line(said);
    assert_eq!((&line["level"], &line["reason"], &line["peer"]), (&"INFO".into(), &"tls".into(), &"127.0.0.1".into()));
    assert!(line["error"].as_str().is_some_and(|error| !error.is_empty()), "{line}");
    assert_eq!(String::from_utf8(keyward.output()).unwrap().matches(said).count(), 1);
}

#[test]
fn a_tls_client_on_the_plain_port_is_not_kept_waiting() {
    let upstream = Upstream::start();
    let keyward = Site::new(upstream.address(), "").serve();
    let mut client = keyward.connect();
    let hello = [&b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03"[..], &[7; 64]].concat();
    client.send(&hello);
    let began = Instant::now();
    let said = client.wire().rest().unwrap_or_default();
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&said));
    assert!(began.elapsed() < Duration::from_secs(5));
    until("it counts", || keyward.metric("keyward_connections_refused_total{reason=\"malformed\"}") == 1.0);
    let line = keyward.wait_for_line("a connection was refused");
    assert_eq!((&line["reason"], &line["peer"]), (&"malformed".into(), &"127.0.0.1".into()));
}

#[test]
fn r69_a_handshake_that_does_not_go_on_is_ended() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let (site, _) = site(&upstream, &ca, TLS, "timeouts: { handshake: 1s }");
    let keyward = site.serve();
    let began = Instant::now();
    let (mut silent, mut stalled) = (keyward.connect(), keyward.connect());
    stalled.send(b"\x16\x03\x01\x02\x00\x01");
    assert!(silent.is_closed() && stalled.is_closed());
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&took), "{took:?}");
    until("both are counted", || keyward.metric("keyward_connections_refused_total{reason=\"timeout\"}") == 2.0);
}

#[test]
fn clients_may_be_asked_for_certificates() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let (upstream, ca, others) = (Upstream::start(), Authority::new("root"), Authority::new("others"));
    for (auth, without) in [("required", false), ("optional", true)] {
        let tls = format!("{TLS}, client_ca: ca.crt, client_auth: {auth}");
        let (site, key) = site(&upstream, &ca, &tls, "");
        for (name, by) in [("good", &ca), ("bad", &others)] {
            let Certified { certificate, key } = by.sign("client", 2020..2100);
            site.write(&format!("{name}.crt"), &certificate);
            site.write(&format!("{name}.key"), &key);
        }
        let keyward = site.serve();
        let passes = |arguments: &[&str]| curl(&keyward, &key, arguments).out.contains(" 200");
        assert_eq!(passes(&[]), without, "{auth}");
        assert!(passes(&["--cert", "good.crt", "--key", "good.key"]), "{auth}");
        assert!(!passes(&["--cert", "bad.crt", "--key", "bad.key"]), "{auth}");
    }
}

#[test]
fn files_of_no_use_are_told_at_the_start() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let (site, _) = site(&upstream, &ca, TLS, "");
    let (good, other) = (ca.sign("localhost", 2020..2100), ca.sign("localhost", 2020..2100));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let (past, future) = (ca.sign("localhost", 2019..2020), ca.sign("localhost", 2098..2099));
    for (certificate, key, says) in [
        (&*good.certificate, encrypted, "proxy.tls.key: ./tls.key is encrypted"),
        (&*good.certificate, "nothing", "proxy.tls.key: ./tls.key has no private key in PEM form"),
        (&*good.certificate, &*other.key, "proxy.tls.key: ./tls.key is not the key of the certificate in ./tls.crt"),
        ("nothing", &*good.key, "proxy.tls.certificate: ./tls.crt has no certificate in PEM form"),
        (&*past.certificate, &*past.key, "./tls.crt has expired: it was valid until 2020-01-01T00:00:00Z"),
        (&*future.certificate, &*future.key, "./tls.crt is not valid yet: it will be from 2098-01-01T00:00:00Z"),
    ] {
        site.write("tls.crt", certificate);
        site.write("tls.key", key);
        for command in ["serve", "check"] {
            let output = site.run(&[command]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{command}: {said}");
            assert!(said.contains(&says.replace("./", "")), "{command}: no {says:?} in {said}");
        }
    }
    assert!(site.run(&["key", "list"]).status.success(), "who serves nobody needs no certificate");
}

#[test]
fn a_certificate_changes_and_connections_stay() {
    if tools::lacks(&["curl", "openssl"]) {
        return;
    }
    let (upstream, ca, next) = (Upstream::start(), Authority::new("root"), Authority::new("next"));
    let (site, key) = site(&upstream, &ca, TLS, "");
    let keyward = site.serve();
    let port = keyward.proxy.port();
    let mut open = tools::Program::start(Command::new("sh").current_dir(keyward.site.path()).args([
        "-c",
        // One request now, and one when the test says so.
        &format!(
            "(printf 'GET /1 HTTP/1.1\\r\\nHost: a\\r\\nX-API-Key: {0}\\r\\n\\r\\n'; until [ -e go ]; do sleep 0.02; done; \
             printf 'GET /2 HTTP/1.1\\r\\nHost: a\\r\\nX-API-Key: {0}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 2) \
             | openssl s_client -quiet -connect 127.0.0.1:{port} -CAfile ca.crt",
            key.value
        ),
    ]));
    open.wait_for("first answer", |out, _| out.contains("200 OK").then_some(()));

    install(&keyward.site, &next.sign("localhost", 2020..2099));
    keyward.site.write("ca.crt", &next.certificate);
    until("new connections get the new certificate", || curl(&keyward, &key, &[]).code == Some(0));
    keyward.site.write("go", "");
    open.wait_for("second answer", |out, _| (out.matches("200 OK").count() == 2).then_some(()));

    // What is of no use changes nothing.
    keyward.site.write("tls.key", "nothing");
    until("it was tried", || keyward.metric("keyward_config_reloads_total{result=\"failure\"}") >= 1.0);
    assert_eq!(curl(&keyward, &key, &[]).code, Some(0));
    let _ = upstream.take();
}

#[test]
fn a_certificate_that_came_too_early_is_taken_over_in_time() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let (upstream, ca, next) = (Upstream::start(), Authority::new("root"), Authority::new("next"));
    let (site, key) = site(&upstream, &ca, TLS, "");
    let keyward = site.serve();
    keyward.site.write("ca.crt", &next.certificate);
    install(&keyward.site, &next.sign_from("localhost", SystemTime::now() + Duration::from_secs(3)));
    until("it was refused", || keyward.metric("keyward_config_reloads_total{result=\"failure\"}") >= 1.0);
    assert_ne!(curl(&keyward, &key, &[]).code, Some(0));
    until("it is in force", || curl(&keyward, &key, &[]).code == Some(0));
    assert!(keyward.metric("keyward_config_reloads_total{result=\"failure\"}") < 3.0, "the same is told once");
    let _ = upstream.take();
}

#[test]
fn the_client_chooses_http_2_or_1() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    for (more, asked, got) in [("", "--http2", " 2"), ("", "--http1.1", " 1.1"), ("http2: false", "--http2", " 1.1")] {
        let (site, key) = site(&upstream, &ca, TLS, more);
        let keyward = site.serve();
        let curl = curl(&keyward, &key, &[asked, "-w", "%{http_code} %{http_version}"]);
        assert!(curl.out.ends_with(&format!("200{got}")), "{asked} {more}: {}", curl.out);
        assert_eq!(upstream.only().head.values("x-forwarded-proto"), ["https"]);
    }
}

/// As `an_answer_that_is_not_read_to_its_end_is_not_completed`; but TLS keeps bytes too, when all else seems at rest. Many
/// clients take the end of a connection for the end of an answer even where TLS has not said so (reliability row 70).
#[test]
fn r70_what_tls_has_kept_back_is_not_forgotten() {
    let upstream = Upstream::scripted(|turn| {
        let size: usize = turn.head.target()[1..].parse().unwrap();
        turn.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        turn.wire.send_chunk(&vec![b'x'; size])?;
        turn.wire.send_chunk(b"")?;
        Ok(After::Keep)
    });
    let ca = Authority::new("root");
    let (site, key) = site(&upstream, &ca, TLS, "workers: 1, timeouts: { idle: 1s, body: 1s }");
    let keyward = site.serve();
    let config = client_of(&ca);
    let begin = |n: usize| {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(tls, with_little_room(keyward.proxy));
        let size = n * 30_000;
        write!(stream, "GET /{size} HTTP/1.0\r\nX-API-Key: {}\r\n\r\n", key.value).unwrap();
        (size, stream)
    };
    let clients: Vec<_> = (1..130).map(begin).collect();
    until("all have been closed", || keyward.metric("keyward_connections_open") == 0.0);
    let (mut whole, mut cut) = (0, 0);
    for (size, mut stream) in clients {
        let mut read = Vec::new();
        match stream.read_to_end(&mut read) {
            Ok(_) => {
                assert!(read.len() > size, "{size}: it looks whole");
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{size}: it looks whole to many");
                cut += 1;
            }
        }
    }
    assert!(whole > 0 && cut > 0, "{whole} whole, {cut} cut");
}

fn client_of(ca: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What is sent before the handshake has ended could be sent again by anybody who saw it (RFC 8446 section 8).
#[test]
fn r47_a_client_that_comes_back_is_offered_no_early_data() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let (site, key) = site(&upstream, &ca, TLS, "");
    let keyward = site.serve();
    let mut config = Arc::unwrap_or_clone(client_of(&ca));
    config.enable_early_data = true;
    let config = Arc::new(config);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(config.clone(), name).unwrap();
        assert!(tls.early_data().is_none(), "{kind:?}");
        let mut stream = StreamOwned::new(tls, TcpStream::connect(keyward.proxy).unwrap());
        write!(stream, "GET / HTTP/1.0\r\nX-API-Key: {}\r\n\r\n", key.value).unwrap();
        let mut read = String::new();
        stream.read_to_string(&mut read).unwrap();
        assert!(read.contains(" 200 OK"), "{read}");
        assert_eq!(stream.conn.handshake_kind(), Some(kind));
    }
    let _ = upstream.take();
}

/// Not a test of ciphers: of what becomes of bytes after a good beginning.
#[test]
fn r71_hellos_in_pieces_and_broken_ones_do_no_harm() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let (site, key) = site(&upstream, &ca, TLS, "timeouts: { handshake: 2s }");
    let keyward = site.serve();
    for cut in [1, 5, 6, 11, 40] {
        let hello = [&b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03"[..], &[7; 57]].concat();
        let mut socket = TcpStream::connect(keyward.proxy).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may have heard enough of the first piece.
        let _ = socket.write_all(&hello[..cut]).and_then(|()| socket.write_all(&hello[cut..]));
        let _ = socket.read_to_end(&mut Vec::new());
    }
    assert_eq!(keyward.metric("keyward_panics_total"), 0.0);
    if !tools::lacks(&["curl"]) {
        assert_eq!(curl(&keyward, &key, &[]).code, Some(0));
    }
}
