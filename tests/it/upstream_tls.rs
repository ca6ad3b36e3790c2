//! An upstream by `https:`. Requests go to nobody but the one whom the certificate names, and never in the clear.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::support::certificates::{Authority, Certified};
use super::support::upstream::PAGE;
use super::support::{Key, Keyward, Site, Upstream, request};

/// What a server with this certificate says of itself, and whose certificates it asks for.
pub(super) fn server(certified: &Certified, asks_for: Option<&Authority>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match asks_for {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(certified.certificate.as_bytes()).unwrap()];
    builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap()).unwrap()
}

/// A port behind which TLS ends, and an upstream begins. It is there until the tests have ended.
pub(super) fn secured(upstream: &Upstream, certified: &Certified, asks_for: Option<&Authority>) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(server(certified, asks_for)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, upstream) = (listener.local_addr().unwrap(), upstream.address());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(relay(acceptor.clone(), socket, upstream));
            }
        });
    });
    address.port()
}

async fn relay(acceptor: TlsAcceptor, socket: TcpStream, upstream: SocketAddr) {
    let Ok(mut client) = acceptor.accept(socket).await else { return };
    let mut upstream = TcpStream::connect(upstream).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
}

fn serve(upstream: &Upstream, port: u16, ca: &Authority, tls: &str) -> (Keyward, Key) {
    let proxy = format!("upstream: \"https://localhost:{port}\", upstream_tls: {{ ca: ca.crt, {tls} }}");
    let site = Site::new(upstream.address(), &format!("proxy: {{ workers: 1, {proxy} }}"));
    site.write("ca.crt", &ca.certificate);
    let own = ca.sign("keyward", 2020..2100);
    site.write("own.crt", &own.certificate);
    site.write("own.key", &own.key);
    let key = site.create_key(&[]);
    (site.serve(), key)
}

#[test]
fn requests_and_websockets_pass_by_tls() {
    let upstream = Upstream::scripted(|turn| {
        if turn.head.value("upgrade").is_none() {
            return turn.answer(&super::support::ok(PAGE));
        }
        turn.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
    });
    let ca = Authority::new("root");
    let port = secured(&upstream, &ca.sign("localhost", 2020..2100), None);
    let (keyward, key) = serve(&upstream, port, &ca, "");
    let mut client = keyward.connect();
    for body in [&b""[..], &[0x5a; 100_000]] {
        let response = client.exchange(&request("PUT", "/x", &[("X-API-Key", &key.value)], body));
        assert_eq!((response.status, &*response.text()), (200, PAGE));
        let received = upstream.only();
        assert_eq!((received.connection, &*received.body.bytes), (0, body));
        assert_eq!(received.head.value("host").as_deref(), Some("media.example"));
    }
    let asks = [("X-API-Key", &*key.value), ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    client.send(&request("GET", "/chat", &asks, b""));
    assert_eq!(client.response_head().unwrap().0, 101);
    assert_eq!(client.wire().exactly(4).unwrap(), b"\x81\x02hi");
}

#[test]
fn an_upstream_that_is_not_who_it_should_be_gets_nothing() {
    let (ca, other) = (Authority::new("root"), Authority::new("other root"));
    for (what, certified) in [
        ("another name", ca.sign("other.example", 2020..2100)),
        ("expired", ca.sign("localhost", 2020..2021)),
        ("not valid yet", ca.sign("localhost", 2090..2100)),
        ("another root", other.sign("localhost", 2020..2100)),
    ] {
        let upstream = Upstream::start();
        let port = secured(&upstream, &certified, None);
        let (keyward, key) = serve(&upstream, port, &ca, "");
        for _ in 0..3 {
            assert_eq!(keyward.with_key(&key, "GET", "/x").status, 502, "{what}");
        }
        let line = keyward.wait_for_line("no TLS with the upstream: requests are answered with 502");
        assert!(line["error"].as_str().unwrap().contains("certificate"), "{what}: {line}");
        let output = String::from_utf8(keyward.output()).unwrap();
        assert_eq!(output.matches("no TLS with the upstream").count(), 1, "a worker says it once");
        upstream.expect_nothing();
    }
    // One that speaks no TLS, and waits for a request that is one, is not spoken to in the clear.
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, upstream.address().port(), &ca, "");
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 504);
    upstream.expect_nothing();
}

#[test]
fn the_name_may_differ_from_the_host() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let port = secured(&upstream, &ca.sign("app.internal", 2020..2100), None);
    let (keyward, key) = serve(&upstream, port, &ca, "server_name: app.internal");
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
}

#[test]
fn an_upstream_that_asks_for_a_certificate_gets_ours() {
    let (upstream, ca) = (Upstream::start(), Authority::new("root"));
    let port = secured(&upstream, &ca.sign("localhost", 2020..2100), Some(&ca));
    let (keyward, key) = serve(&upstream, port, &ca, "certificate: own.crt, key: own.key");
    assert_eq!(keyward.with_key(&key, "GET", "/x").status, 200);
    upstream.only();
    let (keyward, key) = serve(&upstream, port, &ca, "");
    for _ in 0..3 {
        assert_eq!(keyward.with_key(&key, "GET", "/x").status, 502);
    }
    upstream.expect_nothing();
    let said = "the upstream ended a new connection without an answer";
    let line = keyward.wait_for_line(said);
    assert!(line["advice"].as_str().unwrap().contains("proxy.upstream_tls.certificate"), "{line}");
    assert!(line["error"].as_str().unwrap().contains("CertificateRequired"), "{line}");
    assert_eq!(String::from_utf8(keyward.output()).unwrap().matches(said).count(), 1, "a worker says it once");
}

#[test]
fn files_that_are_of_no_use_are_told_before_the_start() {
    let upstream = Upstream::start();
    let ca = Authority::new("root");
    let own = ca.sign("keyward", 2020..2100);
    for (proxy, place, told) in [
        ("upstream: \"https://a\", upstream_tls: { ca: none.crt }", "proxy.upstream_tls.ca", "cannot be read"),
        (
            "upstream: \"https://a\", upstream_tls: { ca: own.key }",
            "proxy.upstream_tls.ca",
            "no certificate in PEM form",
        ),
        (
            "upstream: \"https://a\", upstream_tls: { ca: ca.crt, certificate: own.crt }",
            "proxy.upstream_tls.certificate",
            "certificate and key belong together",
        ),
        (
            "upstream: \"https://a\", upstream_tls: { ca: ca.crt, certificate: ca.crt, key: own.key }",
            "proxy.upstream_tls.key",
            "is not the key of the certificate",
        ),
        (
            "upstream: \"https://a\", upstream_tls: { ca: ca.crt, server_name: \"a b\" }",
            "proxy.upstream_tls.server_name",
            "no name that a certificate can be for",
        ),
        ("upstream: \"http://a\", upstream_tls: { ca: ca.crt }", "proxy.upstream_tls", "is for an upstream by https"),
    ] {
        let site = Site::new(upstream.address(), &format!("proxy: {{ {proxy} }}"));
        site.write("ca.crt", &ca.certificate);
        site.write("own.crt", &own.certificate);
        site.write("own.key", &own.key);
        let output = site.run(&["check"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{proxy}: {text}");
        assert!(text.contains(place) && text.contains(told), "{proxy}: {text}");
    }
}
