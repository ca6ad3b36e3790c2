//! What is sent along with a question is read for those alone who may ask it, and for no longer than they take.

use std::time::{Duration, Instant};

use super::super::support::http2::{self, Http2};
use super::*;
use crate::support::until;

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The head of a request that says that there is more to come, which never comes.
fn begun(method: &str, target: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let whole = request(method, target, &[fields, &[JSON, ("Content-Length", "8000")]].concat(), b"");
    [whole, b"{".to_vec()].concat()
}

/// The same by pieces, of which the first is there.
fn begun_in_chunks(method: &str, target: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let whole = request(method, target, &[fields, &[JSON, ("Transfer-Encoding", "chunked")]].concat(), b"");
    [whole, b"1\r\n{\r\n".to_vec()].concat()
}

#[test]
fn nobody_is_waited_for_who_may_not_ask() {
    let stage = Stage::with("admin: { mount: /v2 }");
    let customer = stage.create("customer", json!({}));
    let (bearer, looks) = (customer.bearer(), stage.read_only.bearer());
    let (customer, looks) = (("Authorization", bearer.as_str()), ("Authorization", looks.as_str()));
    for (method, target, fields, status) in [
        ("POST", "/v2/keys", &[][..], 401),
        ("POST", "/v2/keys", &[("X-API-Key", "kw_live_wrong")], 401),
        ("POST", "/v2/keys/import", &[looks], 403),
        ("POST", "/v2/keys", &[customer], 403),
        // Everybody may change their own account, but a key has none.
        ("PATCH", "/v2/me", &[customer], 403),
        ("POST", "/v2/me/key", &[customer], 403),
        ("GET", "/v2/keys", &[looks], 200),
        ("PUT", "/v2/keys", &[looks], 405),
        ("POST", "/v2/nothing", &[looks], 404),
    ] {
        for bytes in [begun(method, target, fields), begun_in_chunks(method, target, fields)] {
            for address in [stage.keyward.proxy, stage.keyward.admin()] {
                let (mut client, asked) = (Client::connect(address), Instant::now());
                client.send(&bytes);
                assert_eq!(client.response().status, status, "{method} {target} {fields:?}");
                assert!(asked.elapsed() < Duration::from_secs(3));
            }
        }
    }
    stage.upstream.expect_nothing();
}

/// 200 streams, each of which would fill its window.
#[test]
fn what_is_sent_without_a_key_fills_no_memory() {
    let stage = Stage::with("admin: { mount: /v2 }");
    let send = |length: usize| {
        let mut clients: Vec<_> = (0..2).map(|_| Http2::connect(stage.keyward.proxy)).collect();
        let mut exchanges = Vec::new();
        for n in 0..200 {
            let path = if n < 100 { "/v2/session" } else { "/v2/keys" };
            let mut exchange = clients[n % 2].begin(http2::request("POST", path, &[JSON]), false).unwrap();
            exchange.body.send_data(vec![b' '; length].into(), false).unwrap();
            exchanges.push((n % 2, exchange));
        }
        // 503 is for those who come when too many are being judged.
        let finished = exchanges.into_iter().map(|(client, exchange)| clients[client].finish(exchange).unwrap().status);
        let statuses: Vec<u16> = finished.collect();
        assert!(statuses.iter().all(|status| [401, 403, 503].contains(status)), "{statuses:?}");
        stage.keyward.memory()
    };
    // What the streams themselves take is there already.
    let before = send(1);
    let grown = send(65_535).saturating_sub(before);
    assert!(grown < 6 << 20, "{grown}");
}

#[test]
fn little_is_read_of_those_who_sign_in() {
    let stage = Stage::new();
    let long = json!({ "email": "a@example.com", "password": "x".repeat(9 << 10) }).to_string();
    let answer = stage.send("POST", "/v2/session", &[JSON], long.as_bytes());
    assert_eq!(refusal(&answer), (413, vec!["too_large".to_owned()]));
    // And no more at a time than they may try.
    let half = begun("POST", "/v2/session", &[]);
    let mut halves: Vec<Client> = (0..30).map(|_| Client::connect(stage.keyward.admin())).collect();
    halves.iter_mut().for_each(|client| client.send(&half));
    assert_eq!(halves.pop().unwrap().response().status, 429);
}

/// Those who send half of something take the place of nobody who sends all of it, and are not waited for in the end.
#[test]
fn half_a_body_of_those_who_may_takes_nobodys_place() {
    let stage = Stage::with("admin: { mount: /v2 }");
    let bearer = stage.admin.bearer();
    let half = begun_in_chunks("POST", "/v2/keys", &[("Authorization", bearer.as_str())]);
    for address in [stage.keyward.admin(), stage.keyward.proxy] {
        let mut halves: Vec<Client> = (0..70)
            .map(|_| {
                let mut client = Client::connect(address);
                client.send(&half);
                client
            })
            .collect();
        let asked = Instant::now();
        let list = request("GET", "/v2/keys", &[("Authorization", &bearer)], b"");
        // All that come at once may be too many for a moment.
        until("the list is given", || Client::connect(address).exchange(&list).status == 200);
        assert!(asked.elapsed() < Duration::from_secs(3));
        assert_eq!(halves.pop().unwrap().response().status, 408);
        assert!(asked.elapsed() < Duration::from_secs(9));
    }
}

#[test]
fn a_request_that_has_no_time_left_hears_it() {
    let stage = Stage::with("admin: { mount: /v2 }\nproxy: { timeouts: { request: 1s } }");
    let bearer = stage.admin.bearer();
    let mut client = stage.keyward.connect();
    client.send(&begun("POST", "/v2/keys", &[("Authorization", &bearer)]));
    assert_eq!(refusal(&client.response()), (504, vec!["goes_on".to_owned()]));
    let late = r#"keyward_requests_total{code="5xx",decision="error",reason="request_timeout"}"#;
    until("it is counted as what it is", || stage.keyward.metric(late) == 1.0);
}

/// What the proxy refuses because others could read it otherwise is not for the API either.
#[test]
fn r45_what_could_be_read_otherwise_is_refused_on_the_mount_too() {
    let stage = Stage::with("admin: { mount: /v2 }\nroutes: [{ path: '/{*rest}', auth: none }]");
    let bearer = stage.admin.bearer();
    let answered = |target: &str, lines: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nAuthorization: {bearer}\r\n{lines}\r\n");
        stage.keyward.send(head.as_bytes()).status
    };
    let many = format!("Host: a\r\n{}", "x: y\r\n".repeat(100));
    for (target, lines, status) in [
        ("/v2/keys", "Host: a\r\n", 200),
        ("/v2/keys", "", 400),
        ("/v2/keys", "Host: a\r\nHost: a\r\n", 400),
        ("/v2/keys", "Host: a@b\r\n", 400),
        ("http://user@a/v2/keys", "Host: a\r\n", 400),
        ("/v2/keys", &many, 431),
    ] {
        assert_eq!(answered(target, lines), status, "{target} {lines:.40}");
    }
    stage.upstream.expect_nothing();
}
