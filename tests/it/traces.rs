//! Traces: what a collector is sent of a request, what the upstream is told, and that a collector which is slow, away or of
//! another opinion costs no request anything.

mod collector;

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use self::collector::{Collector, Span, TAKEN, partial};
use super::support::certificates::Authority;
use super::support::{After, Keyward, PATIENCE, Site, Upstream, request, until};
use super::upstream_tls::secured;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// A config with traces to this collector, and these options.
fn config(collector: &Collector, options: &str) -> String {
    let routes = "routes: [{ path: '/public/{*rest}', auth: none }, { path: '/v0/{organization}/{*rest}' }]";
    format!("{routes}\ntraces: {{ endpoint: '{}', {options} }}", collector.url())
}

fn serve(upstream: &Upstream, collector: &Collector, options: &str) -> Keyward {
    Site::new(upstream.address(), &config(collector, options)).serve()
}

#[track_caller]
fn of_kind(spans: &[Span], kind: i32) -> &Span {
    let mut found = spans.iter().filter(|span| span.kind == kind);
    let span = found.next().unwrap_or_else(|| panic!("no span of kind {kind}: {spans:#?}"));
    assert!(found.next().is_none(), "one span of kind {kind}: {spans:#?}");
    span
}

#[test]
fn a_request_is_three_spans_of_its_callers_trace() {
    let (upstream, collector) = (Upstream::start(), Collector::start());
    let site = Site::new(upstream.address(), &config(&collector, "follow: all"));
    let key = site.create_key(&["--id", "k1"]);
    let keyward = site.serve();
    let given = [("traceparent", &*traceparent("01")), ("tracestate", "vendor=1"), ("X-API-Key", &key.value)];
    assert_eq!(keyward.get("/v0/acme/x?a=b", &given).status, 200);

    let spans = collector.wait_for(3);
    let (server, decision, client) = (of_kind(&spans, 2), of_kind(&spans, 1), of_kind(&spans, 3));
    assert!(spans.iter().all(|span| span.trace == TRACE && !span.has_error), "{spans:#?}");
    assert_eq!((&*server.parent, &decision.parent, &client.parent), (SPAN, &server.id, &server.id));
    assert_eq!((server.flags, decision.flags, client.flags), (0x301, 0x101, 0x101));
    let names = [server, decision, client].map(|span| &*span.name);
    assert_eq!(names, ["GET /v0/{organization}/{*rest}", "authorize", "GET"]);
    assert!(server.time.start == decision.time.start && decision.time.end <= client.time.start, "{spans:#?}");
    assert!(client.time.end <= server.time.end, "{spans:#?}");

    let (sent, port) = (upstream.only().head, upstream.address().port().to_string());
    let id = sent.value("x-request-id").unwrap();
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/v0/acme/x"),
        ("url.scheme", "http"),
        ("http.route", "/v0/{organization}/{*rest}"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
        ("network.peer.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("keyward.decision", "permit"),
        ("keyward.reason", "ok"),
        ("keyward.key.id", "k1"),
        ("keyward.credential.form", "header"),
        ("keyward.request.id", &id),
    ] {
        assert_eq!(server.get(name), value, "{name} of {server:#?}");
    }
    assert_eq!((decision.get("keyward.decision"), decision.get("keyward.reason")), ("permit", "ok"));
    let url = format!("http://127.0.0.1:{port}/v0/acme/x");
    for (name, value) in [
        ("url.full", &*url),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(client.get(name), value, "{name} of {client:#?}");
    }

    assert_eq!(sent.value("traceparent"), Some(format!("00-{TRACE}-{}-01", client.id)));
    assert_eq!(sent.value("tracestate").as_deref(), Some("vendor=1"));
    assert_eq!(keyward.wait_for_line_with("request.id", &id.into())["trace_id"], TRACE);
}

#[test]
fn a_batch_says_who_sends_it() {
    let (upstream, collector) = (Upstream::start(), Collector::start());
    let keyward = Site::new(upstream.address(), &config(&collector, ""))
        .with_environment("OTEL_SERVICE_NAME", "gate".to_owned())
        .with_environment("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=web-1,k8s.namespace.name=a%2Cb".to_owned())
        .serve();
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    collector.wait_for(3);
    let batch = &collector.batches()[0];
    for (name, value) in [
        ("service.name", "gate"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("k8s.pod.name", "web-1"),
        ("k8s.namespace.name", "a,b"),
    ] {
        assert_eq!(batch.resource[name], value);
    }
    assert_eq!(batch.resource["service.instance.id"].len(), 36);
    assert_eq!(batch.scope, format!("keyward {}", env!("CARGO_PKG_VERSION")));
    let post = collector.server.received()[0].head.clone();
    assert_eq!(post.start(), "POST /v1/traces HTTP/1.1");
    assert_eq!(post.value("content-type").as_deref(), Some("application/x-protobuf"));
    assert_eq!(keyward.metric("keyward_spans_exported_total"), 3.0);
}

#[test]
fn a_trace_that_begins_here_has_the_requests_id() {
    let (upstream, collector) = (Upstream::start(), Collector::start());
    let keyward = serve(&upstream, &collector, "");
    // What is said of a trace that nobody continues is about another one.
    keyward.get("/public/x", &[("tracestate", "vendor=1"), ("traceparent", "00-nonsense")]);
    let sent = upstream.only().head;
    let spans = collector.wait_for(3);
    let (server, client) = (of_kind(&spans, 2), of_kind(&spans, 3));
    assert_eq!((&server.trace, &*server.parent, server.flags), (&sent.value("x-request-id").unwrap(), "", 0x101));
    assert_eq!((server.get("keyward.decision"), server.get("keyward.key.id")), ("public", ""));
    assert_eq!(sent.value("traceparent"), Some(format!("00-{}-{}-01", server.trace, client.id)));
    assert_eq!(sent.value("tracestate"), None);
}

#[test]
fn what_is_refused_or_fails_is_seen_too() {
    let (upstream, collector) = (
        Upstream::scripted(|turn| match &*turn.head.target() {
            "/public/cut" => Ok(After::Close),
            "/public/missing" => turn.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            _ => turn.answer(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"),
        }),
        Collector::start(),
    );
    let keyward = serve(&upstream, &collector, "");

    assert_eq!(keyward.get("/x", &[("X-API-Key", "nonsense")]).status, 401);
    let spans = collector.wait_for(2);
    let (server, decision) = (of_kind(&spans, 2), of_kind(&spans, 1));
    // Who is refused has made a mistake; the server has not (semantic conventions for HTTP).
    assert!(!server.has_error && server.get("error.type").is_empty());
    assert_eq!((&*server.name, server.get("http.route"), server.get("http.response.status_code")), ("GET", "", "401"));
    for span in [server, decision] {
        assert_eq!(span.get("keyward.decision"), "denial");
        assert_eq!(span.get("keyward.reason"), "malformed_credential");
    }

    for (path, status, of_server, of_client) in [
        ("/public/cut", 502, Some("upstream_broken"), "upstream_broken"),
        ("/public/missing", 404, None, "404"),
        ("/public/error", 500, Some("500"), "500"),
    ] {
        let seen = collector.spans().len();
        assert_eq!(keyward.get(path, &[]).status, status);
        let spans = collector.wait_for(seen + 3)[seen..].to_vec();
        let (server, decision, client) = (of_kind(&spans, 2), of_kind(&spans, 1), of_kind(&spans, 3));
        assert_eq!((server.has_error, server.get("error.type")), (of_server.is_some(), of_server.unwrap_or("")));
        assert!(client.has_error && client.get("error.type") == of_client, "{client:#?}");
        assert_eq!(server.get("http.response.status_code"), status.to_string());
        assert_ne!(decision.get("keyward.decision"), "error");
    }
}

#[test]
fn callers_are_followed_as_far_as_they_are_trusted() {
    let (upstream, collector) = (Upstream::start(), Collector::start());
    for (options, flags, recorded) in [
        ("sample: 0", None, false),
        ("sample: 0", Some("01"), true),
        ("sample: 1", Some("00"), false),
        ("sample: 0, follow: trusted", Some("01"), false),
        ("sample: 1.0, follow: none", Some("00"), true),
    ] {
        let keyward = serve(&upstream, &collector, options);
        let seen = collector.spans().len();
        let given = flags.map(traceparent);
        let fields: Vec<(&str, &str)> = given.iter().map(|given| ("traceparent", given.as_str())).collect();
        assert_eq!(keyward.get("/public/x", &fields).status, 200);
        let sent = upstream.only().head;
        let (id, told) = (sent.value("x-request-id").unwrap(), sent.value("traceparent").unwrap());
        match (recorded, given) {
            (true, _) => {
                assert!(told.starts_with(&format!("00-{TRACE}-")) && !told.contains(SPAN), "{options}: {told}");
            }
            (false, Some(given)) => assert_eq!(told, given, "{options}"),
            // Nobody records it here, so nobody behind needs to.
            (false, None) => assert_eq!(told, format!("00-{id}-{}-00", &id[16..]), "{options}"),
        }
        keyward.terminate();
        until("what waits is sent at the end", || collector.spans().len() >= seen + 3 * usize::from(recorded));
        drop(keyward);
        assert_eq!(collector.spans().len(), seen + 3 * usize::from(recorded), "{options}");
    }
}

#[test]
fn a_share_of_requests_is_recorded() {
    let (upstream, collector) = (Upstream::start(), Collector::start());
    let keyward = serve(&upstream, &collector, "sample: 0.5");
    let mut client = keyward.connect();
    for _ in 0..400 {
        assert_eq!(client.exchange(&request("GET", "/public/x", &[], b"")).status, 200);
    }
    let told = upstream.take();
    let recorded = told.iter().filter(|request| request.head.value("traceparent").unwrap().ends_with("-01")).count();
    assert!((120..280).contains(&recorded), "{recorded} of 400");
    collector.wait_for(3 * recorded);
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let (upstream, collector) = (
        Upstream::start(),
        Collector::answering(|nth| match nth {
            0 => ("503 Service Unavailable", Vec::new()),
            1 => ("429 Too Many Requests\r\nRetry-After: 2", Vec::new()),
            _ => (TAKEN, Vec::new()),
        }),
    );
    let keyward = serve(&upstream, &collector, "");
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    collector.server.wait_for(2);
    let told_to_wait = Instant::now();
    collector.wait_for(3);
    assert!(told_to_wait.elapsed() >= Duration::from_millis(1_900), "{:?}", told_to_wait.elapsed());
    let received = collector.server.received();
    assert!(received.iter().all(|request| request.body.bytes == received[0].body.bytes), "the same batch each time");
    keyward.wait_for_line("the collector of traces takes spans again");
}

#[test]
fn what_a_collector_will_not_have_is_dropped_and_counted() {
    let (upstream, collector) = (
        Upstream::start(),
        Collector::answering(|nth| match nth {
            0 => ("400 Bad Request", b"no spans of yours".to_vec()),
            _ => (TAKEN, partial(2, "too old")),
        }),
    );
    let keyward = serve(&upstream, &collector, "");
    let refused = "keyward_spans_dropped_total{reason=\"refused\"}";
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    until("a whole batch is refused", || keyward.metric(refused) == 3.0);
    let line =
        keyward.wait_for_line("the collector of traces does not take spans; they wait as far as traces.queue allows");
    assert_eq!(line["why"], "it answers 400 Bad Request: no spans of yours");
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    until("two of three are refused", || keyward.metric(refused) == 5.0);
    assert_eq!(keyward.metric("keyward_spans_exported_total"), 1.0);
}

#[test]
fn a_collector_that_is_silent_or_away_delays_nobody() {
    let upstream = Upstream::start();
    let silent = Collector::scripted(|turn, _| turn.wire.some().map(|_| false));
    let away = { Collector::start().url() };
    for endpoint in [silent.url(), away] {
        let traces = format!("traces: {{ endpoint: '{endpoint}', queue: 8, timeout: 500ms }}");
        let routes = "routes: [{ path: '/public/{*rest}', auth: none }]";
        let mut keyward = Site::new(upstream.address(), &format!("{routes}\n{traces}")).serve();
        let (mut client, mut slowest) = (keyward.connect(), Duration::ZERO);
        for _ in 0..100 {
            let asked = Instant::now();
            assert_eq!(client.exchange(&request("GET", "/public/x", &[], b"")).status, 200);
            slowest = slowest.max(asked.elapsed());
        }
        assert!(slowest < Duration::from_millis(400), "{slowest:?}");
        // One batch is on its way or gathered, and a queue of eight behind it.
        let dropped = keyward.metric("keyward_spans_dropped_total{reason=\"queue_full\"}");
        assert!((3.0 * 80.0..=3.0 * 100.0).contains(&dropped), "{dropped}");
        assert_eq!(keyward.metric("keyward_spans_exported_total"), 0.0);
        keyward.wait_for_line("the collector of traces does not take spans; they wait as far as traces.queue allows");
        let asked = Instant::now();
        keyward.terminate();
        assert_eq!(keyward.wait_for_exit().code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    }
}

#[test]
fn a_stop_sends_what_waits() {
    let (upstream, collector) = (Upstream::start(), Collector::start());
    let mut keyward = serve(&upstream, &collector, "");
    for _ in 0..10 {
        assert_eq!(keyward.get("/public/x", &[]).status, 200);
    }
    keyward.terminate();
    assert_eq!(keyward.wait_for_exit().code(), Some(0));
    assert_eq!(collector.spans().len(), 30);
}

/// A stop sends all that waits, however many batches that is.
#[test]
fn a_stop_sends_several_batches() {
    let (go, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let (upstream, collector) = (
        Upstream::start(),
        Collector::answering(move |nth| {
            if nth == 0 {
                let _ = told.lock().unwrap().recv_timeout(PATIENCE);
            }
            (TAKEN, Vec::new())
        }),
    );
    let mut keyward = serve(&upstream, &collector, "queue: 4096");
    let mut client = keyward.connect();
    let mut ask = |count: usize| {
        for _ in 0..count {
            assert_eq!(client.exchange(&request("GET", "/public/x", &[], b"")).status, 200);
        }
    };
    ask(1);
    collector.server.wait_for(1);
    // More than three batches wait while the first is not taken.
    ask(1_600);
    keyward.terminate();
    keyward.wait_for_line("stopping: requests in flight are finished first");
    drop(go);
    assert_eq!(keyward.wait_for_exit().code(), Some(0));
    assert_eq!(collector.spans().len(), 3 * 1_601);
}

/// What looks like a key is no more told to a collector than to the log, wherever in a path it stands, and a path that is long is
/// told in part.
#[test]
fn a_path_is_told_without_what_could_be_a_key() {
    let (upstream, collector) = (Upstream::start(), Collector::start());
    let site = Site::new(upstream.address(), &config(&collector, ""));
    let key = site.create_key(&[]);
    let keyward = site.serve();
    assert_eq!(keyward.get(&format!("/public/a/{}/b", key.value), &[]).status, 200);
    let spans = collector.wait_for(3);
    let (server, client) = (of_kind(&spans, 2), of_kind(&spans, 3));
    for told in [server.get("url.path"), client.get("url.full")] {
        assert!(told.contains("/public/a/") && told.ends_with("/b") && !told.contains(&key.value[8..]), "{told}");
    }
    assert_eq!(keyward.get(&format!("/public/{}", "x".repeat(6_000)), &[]).status, 200);
    let spans = collector.wait_for(6)[3..].to_vec();
    let told = of_kind(&spans, 2).get("url.path").len();
    assert!((200..5_000).contains(&told), "{told}");
}

#[test]
fn another_config_may_name_another_collector() {
    let (upstream, first, second) = (Upstream::start(), Collector::start(), Collector::start());
    let keyward = serve(&upstream, &first, "");
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    first.wait_for(3);
    keyward.site.configure(upstream.address(), &config(&second, ""));
    assert_eq!(keyward.reload().status, 200);
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    second.wait_for(3);
    keyward.site.configure(upstream.address(), "routes: [{ path: '/public/{*rest}', auth: none }]");
    assert_eq!(keyward.reload().status, 200);
    upstream.take();
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    assert!(upstream.only().head.value("traceparent").unwrap().ends_with("-01"));
    assert_eq!((first.spans().len(), second.spans().len()), (3, 3));
}

#[test]
fn a_collector_by_https_is_told_who_we_are() {
    let (upstream, collector, ca) = (Upstream::start(), Collector::start(), Authority::new("root"));
    let port = secured(&collector.server, &ca.sign("collector.internal", 2020..2100), None);
    let tls = "tls: { ca: ca.crt, server_name: collector.internal }";
    let headers = "headers: { Authorization: { file: token }, X-Tenant: { env: TENANT } }";
    let site = Site::new(
        upstream.address(),
        &format!(
            "routes: [{{ path: '/public/{{*rest}}', auth: none }}]\n\
             traces: {{ endpoint: 'https://127.0.0.1:{port}/otlp/', {tls}, {headers} }}"
        ),
    );
    site.write("ca.crt", &ca.certificate);
    site.write("token", "Bearer t0ken\n");
    let keyward = site.with_environment("TENANT", "acme".to_owned()).serve();
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    collector.wait_for(3);
    let post = collector.server.received()[0].head.clone();
    assert_eq!(post.start(), "POST /otlp/v1/traces HTTP/1.1");
    assert_eq!(post.value("host"), Some(format!("127.0.0.1:{port}")));
    assert_eq!(post.value("authorization").as_deref(), Some("Bearer t0ken"));
    assert_eq!(post.value("x-tenant").as_deref(), Some("acme"));
    // What is in a file may change while it runs.
    keyward.site.write("token", "Bearer an0ther\n");
    assert_eq!(keyward.reload().status, 200);
    assert_eq!(keyward.get("/public/x", &[]).status, 200);
    collector.wait_for(6);
    let last = collector.server.received().pop().unwrap();
    assert_eq!(last.head.value("authorization").as_deref(), Some("Bearer an0ther"));
    let told = String::from_utf8(keyward.output()).unwrap();
    assert!(!told.contains("t0ken") && !told.contains("an0ther"), "{told}");
}
