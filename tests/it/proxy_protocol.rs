//! Balancers that say in a PROXY protocol header who the client is: believed from those that are named, and from nobody else
//! (catalogue row r46).

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::support::{Client, Key, Keyward, Site, Upstream, request, until};

const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x13\xcb\x00\x71\x09\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\x00\x04more";
const V2_MAPPED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\x00\x71\x09\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xdc\x04\x01\xbb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn serve(upstream: &Upstream, more: &str) -> (Keyward, Key) {
    let config = format!("proxy: {{ proxy_protocol: [127.0.0.2], timeouts: {{ handshake: 1s }}{more} }}");
    let site = Site::new(upstream.address(), &config);
    let key = site.create_key(&["--ip", "203.0.113.0/24", "--ip", "127.0.0.2"]);
    (site.serve(), key)
}

fn get(key: &Key) -> Vec<u8> {
    request("GET", "/x", &[("X-API-Key", &key.value)], b"")
}

#[test]
fn r46_the_address_in_the_header_takes_the_balancers_place() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    for (header, client) in [
        (V1, "203.0.113.9"),
        (V2, "203.0.113.9"),
        (V2_MAPPED, "203.0.113.9"),
        (V2_LOCAL, "127.0.0.2"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.2"),
    ] {
        let mut connection = Client::connect_from(BALANCER, keyward.proxy);
        let whole = [header, &get(&key)].concat();
        assert_eq!(connection.exchange(&whole).status, 200, "{client}");
        // It holds for the connection, and is sent once.
        assert_eq!(connection.exchange(&get(&key)).status, 200);
        for received in upstream.take() {
            assert_eq!(received.head.values("x-forwarded-for"), [client]);
        }
    }
    let mut elsewhere = Client::connect_from(BALANCER, keyward.proxy);
    let header = b"PROXY TCP4 203.0.114.9 198.51.100.1 56324 443\r\n";
    assert_eq!(elsewhere.exchange(&[&header[..], &get(&key)].concat()).status, 403, "the allowlist looks at it too");
}

#[test]
fn r46_a_header_may_come_byte_by_byte() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    for header in [V1, V2] {
        let mut connection = Client::connect_from(BALANCER, keyward.proxy);
        for byte in header {
            connection.send(&[*byte]);
        }
        assert_eq!(connection.exchange(&get(&key)).status, 200);
        assert_eq!(upstream.only().head.values("x-forwarded-for"), ["203.0.113.9"]);
    }
}

#[test]
fn r46_nobody_else_may_send_one() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    for header in [V1, V2, V2_LOCAL] {
        let response = keyward.connect().exchange(&[header, &get(&key)].concat());
        assert_eq!(response.status, 400);
    }
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn r46_a_balancer_that_sends_none_is_not_served() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, "");
    let beyond = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\xcb\x00\x71\x09\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\x00\x02x";
    for header in [&b""[..], b"PROXY TCP4 203.0.113.9\r\n", b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", beyond] {
        let mut connection = Client::connect_from(BALANCER, keyward.proxy);
        connection.send(&[header, &get(&key)].concat());
        assert!(connection.is_closed(), "{header:?}");
    }
    until("all are counted", || keyward.metric("keyward_connections_refused_total{reason=\"proxy_protocol\"}") == 4.0);
    assert_eq!(upstream.received().len(), 0);
}

#[test]
fn r69_a_header_that_does_not_come_is_not_waited_for() {
    let upstream = Upstream::start();
    let (keyward, _) = serve(&upstream, "");
    let began = Instant::now();
    let (mut silent, mut slow) =
        (Client::connect_from(BALANCER, keyward.proxy), Client::connect_from(BALANCER, keyward.proxy));
    slow.send(&V2[..20]);
    assert!(silent.is_closed() && slow.is_closed());
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&took), "{took:?}");
    until("both are counted", || keyward.metric("keyward_connections_refused_total{reason=\"timeout\"}") == 2.0);
}

#[test]
fn a_proxy_behind_the_balancer_is_trusted_by_its_own_address() {
    let upstream = Upstream::start();
    let (keyward, key) = serve(&upstream, ", trusted_proxies: [203.0.113.9]");
    let mut connection = Client::connect_from(BALANCER, keyward.proxy);
    let fields = [("X-API-Key", &*key.value), ("X-Forwarded-For", "203.0.113.77")];
    let whole = [V1, &request("GET", "/x", &fields, b"")].concat();
    assert_eq!(connection.exchange(&whole).status, 200);
    assert_eq!(upstream.only().head.values("x-forwarded-for"), ["203.0.113.77, 203.0.113.9"]);
}
