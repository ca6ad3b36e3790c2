//! What people put on either side of a proxy, as it comes from its package: curl and h2load, Python's requests, nginx and
//! HAProxy in front.

mod balancers;

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::support::certificates::Authority;
use super::support::{After, Key, Keyward, Site, Upstream, ok, request};
use super::tools::{self, Program};

/// Keyward that speaks TLS, with a key, before an upstream.
fn serve_tls(upstream: &Upstream) -> (Keyward, Key) {
    let ca = Authority::new("root");
    let site = Site::new(upstream.address(), "proxy: { tls: { certificate: tls.crt, key: tls.key } }");
    let certified = ca.sign("localhost", 2020..2100);
    site.write("tls.key", &certified.key);
    site.write("tls.crt", &certified.certificate);
    site.write("ca.crt", &ca.certificate);
    let key = site.create_key(&[]);
    (site.serve(), key)
}

fn serve(upstream: &Upstream) -> (Keyward, Key) {
    let site = Site::new(upstream.address(), "");
    let key = site.create_key(&[]);
    (site.serve(), key)
}

#[test]
fn curl_by_every_protocol() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let upstream = Upstream::start();
    let ((plain, plain_key), (tls, tls_key)) = (serve(&upstream), serve_tls(&upstream));
    let authority = tls.site.path().join("ca.crt");
    let authority = authority.to_str().unwrap();
    for (keyward, key, scheme, option, said) in [
        (&plain, &plain_key, "http", "--http1.0", "http/1.0"),
        (&plain, &plain_key, "http", "--http1.1", "http/1.1"),
        (&plain, &plain_key, "http", "--http2-prior-knowledge", "http/2"),
        // It asks to be upgraded, which is not granted, and goes on.
        (&plain, &plain_key, "http", "--http2", "http/1.1"),
        (&tls, &tls_key, "https", "--http1.1", "http/1.1"),
        (&tls, &tls_key, "https", "--http2", "http/2"),
    ] {
        let url = format!("{scheme}://localhost:{}/status.xml", keyward.proxy.port());
        let common =
            ["--cacert", authority, option, "--resolve", &format!("localhost:{}:127.0.0.1", keyward.proxy.port())];
        for (header, status) in [(key.bearer(), 200), (format!("{}x", key.bearer()), 401)] {
            let got = tools::curl(&[&common[..], &["-H", &format!("Authorization: {header}"), &url]].concat());
            assert_eq!(got.status, status, "{option} {scheme}: {got:?}");
            assert!(got.head.starts_with(said), "{option} {scheme}: {got:?}");
        }
        let upload = ["-H", &format!("X-API-Key: {}", key.value), "-d", "a=b", &url];
        assert_eq!(tools::curl(&[&common[..], &upload].concat()).status, 200, "{option} {scheme}");
        let received = upstream.take();
        assert_eq!(received.len(), 2, "{option} {scheme}");
        assert_eq!(received[1].head.start(), "POST /status.xml HTTP/1.1");
        assert!(received.iter().all(|request| request.head.value("x-api-key").is_none()));
    }
}

/// curl 7.88 forgets an answer when its stream is reset behind it, and clients that read only when they have sent everything
/// never see one that came before a reset of the connection.
#[test]
fn a_denial_is_heard_by_those_who_still_send() {
    if tools::lacks(&["curl"]) {
        return;
    }
    let upstream = Upstream::start();
    let ((plain, _), (tls, _)) = (serve(&upstream), serve_tls(&upstream));
    plain.site.write("large", &"a".repeat(300_000));
    let large = format!("@{}", plain.site.path().join("large").display());
    let (plain_url, tls_url) = (format!("http://{}/x", plain.proxy), format!("https://{}/x", tls.proxy));
    for body in ["a", &large] {
        for _ in 0..10 {
            for protocol in ["--http1.1", "--http2-prior-knowledge"] {
                assert_eq!(tools::curl(&[protocol, "-H", "Expect:", "--data-binary", body, &plain_url]).status, 401);
            }
            assert_eq!(tools::curl(&["-k", "--http2", "--data-binary", body, &tls_url]).status, 401);
        }
    }
    let body = vec![b'a'; 5 << 20];
    let mut client = plain.connect();
    for _ in 0..3 {
        assert_eq!(client.exchange(&request("POST", "/x", &[], &body)).status, 401, "on a connection that is kept");
    }
    upstream.expect_nothing();
}

#[test]
fn h2load_with_many_streams_at_once() {
    if tools::lacks(&["h2load"]) {
        return;
    }
    let upstream = Upstream::start();
    let ((plain, plain_key), (tls, tls_key)) = (serve(&upstream), serve_tls(&upstream));
    for (keyward, key, scheme) in [(&plain, &plain_key, "http"), (&tls, &tls_key, "https")] {
        let url = format!("{scheme}://127.0.0.1:{}/x", keyward.proxy.port());
        let mut command = Command::new("h2load");
        command.args(["-n", "2000", "-c", "4", "-m", "50", "-H", &format!("x-api-key: {}", key.value), &url]);
        let ended = tools::run(&mut command);
        for all in ["2000 succeeded, 0 failed, 0 errored, 0 timeout", "2000 2xx, 0 3xx, 0 4xx, 0 5xx"] {
            assert!(ended.out.contains(all), "{scheme}: {ended:?}");
        }
    }
    assert_eq!(upstream.received().len(), 4000);
}

/// With `KEYWARD_LONG=1` 2 GiB, else 256 MiB.
#[test]
fn pythons_requests_uploads_what_no_memory_holds() {
    if tools::lacks(&["python3"]) {
        return;
    }
    let size: u64 = if tools::long() { 2 << 30 } else { 256 << 20 };
    let upstream = Upstream::scripted(move |turn| {
        turn.wire.skip(size)?;
        turn.wire.send(&ok("stored"))?;
        Ok(After::Keep)
    });
    let (keyward, key) = serve(&upstream);
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-c").arg(include_str!("clients/upload.py"));
    command.args([&format!("http://{}/upload", keyward.proxy), &key.value, &size.to_string()]);
    let ended = Program::start(&mut command).end(Duration::from_secs(300));
    assert_eq!(ended.out.trim(), "200 stored", "{ended:?}");
    assert!(keyward.peak_memory() < 64 << 20, "{} bytes", keyward.peak_memory());
    let head = upstream.only().head;
    assert_eq!((head.value("content-length"), head.value("x-api-key")), (Some(size.to_string()), None));
}

/// Writes the config of a program into a folder, with its ports filled in.
fn config(folder: &std::path::Path, name: &str, text: &str, fill: &[(&str, &str)]) -> String {
    let path = folder.join(name);
    let text = fill.iter().fold(text.to_owned(), |text, (what, with)| text.replace(what, with));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
