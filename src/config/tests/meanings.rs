//! What is said of values of the right shape that mean nothing, word for word and place for place.

use super::mistakes::{check, check_proxy, check_text};
use super::*;

#[test]
fn values_without_meaning() {
    check_proxy(
        "listen: localhost:80",
        "5:11: proxy.listen: \"localhost:80\" has a name instead of an address; write 127.0.0.1:80",
    );
    check_proxy(
        "listen: ':80'",
        "5:11: proxy.listen: \":80\" lacks the address; write 0.0.0.0:80 for all, or 127.0.0.1:80 for this machine",
    );
    check_proxy(
        "listen: 0.0.0.0",
        "5:11: proxy.listen: \"0.0.0.0\" lacks the port; write for example 0.0.0.0:8080 or [::]:8080",
    );
    check_proxy(
        "trusted_proxies: [10.0.0.0/8, 10.0.0.0/33]",
        "5:33: proxy.trusted_proxies[1]: \"10.0.0.0/33\" is no address and no network; write 192.0.2.7, 192.0.2.0/24, \
         2001:db8::7 or 2001:db8::/32",
    );
    check_proxy("timeouts: { idle: 0s, drain: 1 h }", "5:21: proxy.timeouts.idle: must be more than 0s");
    check_proxy(
        "timeouts: { connect: soon }",
        "5:24: proxy.timeouts.connect: \"soon\" is no time; write a number and its unit: 500ms, 10s, 5m or 1h",
    );
    check_proxy(
        "max_head: 32KB",
        "5:13: proxy.max_head: \"32KB\" is no size; write a number of bytes, or one with KiB or MiB such as 32KiB",
    );
    check_proxy("max_head: 4096", "5:13: proxy.max_head: 4096 is out of range: from 8KiB to 1MiB");
    check(
        "credentials: { header: Authorization }\n",
        "5:24: credentials.header: the header authorization has a meaning of its own; choose another",
    );
    check("credentials: { query: 'a b' }\n", "5:23: credentials.query: \"a b\" is no name of a query parameter");
    check(
        "identity_headers: { prefix: X-Caller }\n",
        "5:29: identity_headers.prefix: \"X-Caller\" is no prefix of headers; write letters and digits and a final \
         dash: X-Keyward-",
    );
    check("log: { level: inof }\n", "5:15: log.level: \"inof\" is no level; did you mean info?");
    check("sync: { poll: 2h }\n", "5:1: sync.max_staleness: must be longer than sync.poll, which is 2h");
    check(
        "ops: { listen: 127.0.0.1:8080 }\n",
        "5:16: ops.listen: takes the same port as proxy.listen; each listener needs its own",
    );
    check_text(
        &format!("{NEEDED}proxy: {{ upstream: http://localhost:8080 }}\n"),
        "4:20: proxy.upstream: is proxy.listen itself: requests would go round in a circle",
    );
    check_text(
        &format!("{NEEDED}proxy: {{ upstream: https://app, upstream_tls: {{ certificate: a.crt }} }}\n"),
        "4:62: proxy.upstream_tls.certificate: is of no use alone: certificate and key belong together",
    );
    check_text(
        &format!("{NEEDED}proxy: {{ upstream: http://app/api }}\n"),
        "4:20: proxy.upstream: \"http://app/api\" has a path; an upstream is http://HOST:PORT, and requests keep the \
         path they have",
    );
}

#[test]
fn traces_that_could_not_be_sent() {
    for (options, expected) in [
        ("endpoint: 'http://a:1', sample: 2", "5:43: traces.sample: expected a number from 0 to 1, found 2"),
        ("endpoint: 'http://a:1', sample: -0.1", "5:43: traces.sample: expected a number from 0 to 1, found -0.1"),
        ("endpoint: 'http://a:1', sample: some", "5:43: traces.sample: expected a number, found \"some\""),
        (
            "endpoint: a",
            "5:21: traces.endpoint: \"a\" is no URL of a collector; write http://HOST:4318 or https://HOST:4318",
        ),
        ("sample: 1", "5:1: traces.endpoint: is missing; write for example `endpoint: http://collector:4318`"),
        (
            "endpoint: 'http://a:1', tls: { ca: x }",
            "5:40: traces.tls: is for a collector by https: write traces.endpoint so, or leave this out",
        ),
        (
            "endpoint: 'http://a:1', headers: { Host: { env: PATH } }",
            "5:46: traces.headers.Host: the header host says how spans are sent; leave it out",
        ),
        (
            "endpoint: 'http://a:1', headers: { A: { env: THERE_IS_NONE } }",
            "5:49: traces.headers.A: the environment variable THERE_IS_NONE is not set",
        ),
    ] {
        check(&format!("traces: {{ {options} }}\n"), expected);
    }
}

#[test]
fn routes_that_could_not_work() {
    for (route, expected) in [
        (
            "path: a",
            "5:18: routes[0].path: a path pattern begins with / and has no empty, dot or escaped segment: \"a\"",
        ),
        (
            "path: '/{a'",
            "5:18: routes[0].path: a capture is a whole segment, {name}, or {*name} as the last one: \"/{a\"",
        ),
        (
            "path: '/admin/*'",
            "5:18: routes[0].path: captures are written {name}, and {*rest} for all that follows; a path has no query, and * ? : < > \
             in it stand for themselves: write %2A %3F %3A %3C %3E: \"/admin/*\"",
        ),
        ("path: '/{a}/{a}'", "5:18: routes[0].path: two captures have one name: \"/{a}/{a}\""),
        (
            "path: '/{*scene}'",
            "5:18: routes[0].path: {*name} is not checked against scopes, so it is not called as a level of theirs: \"/{*scene}\"",
        ),
        (
            "path: '/{organisation}/x'",
            "5:18: routes[0].path: {organisation} is no level of scopes, so no key would be held to its own: write {organization}, \
             or a name that is less like it",
        ),
        (
            "path: '/{*rest}', auth: none }, { path: /admin",
            "5:52: routes[1].path: is never reached, since routes[0] has all of its requests; put it before that one, or remove it",
        ),
        ("path: /, hosts: [a, 'b:80']", "5:32: routes[0].hosts[1]: a host is a name without port, or *.name: \"b:80\""),
        ("path: /, hosts: 'b:80'", "5:28: routes[0].hosts: a host is a name without port, or *.name: \"b:80\""),
        (
            "path: /, methods: get",
            "5:30: routes[0].methods: methods are told apart by letter case, \"get\" is none; write GET",
        ),
        ("path: /, methods: []", "5:30: routes[0].methods: is empty; leave it out to match any"),
        (
            "path: /, auth: none, env: test",
            "5:38: routes[0].env: has no effect beside `auth: none`, which asks for no key; remove one of them",
        ),
        (
            "path: /, deny: { body: x }",
            "5:35: routes[0].deny.body: needs a format other than auto, which says of what type it is",
        ),
        (
            "path: /, deny: { format: json, body: x }",
            "5:49: routes[0].deny.body: is not of its format; write it as JSON or XML, or choose the format text",
        ),
        (
            "path: /, deny: { status: 204 }",
            "5:37: routes[0].deny.status: an answer with 204 has no body, so nothing would say that the request was \
             denied",
        ),
        (
            "path: /, inject: { header: { Host: user } }",
            "5:41: routes[0].inject.header.Host: the header host has a meaning of its own; choose another",
        ),
        (
            "path: /, inject: { header: { A: user, a: user } }",
            "5:50: routes[0].inject.header.a: is the same header as another one here, in other letter case",
        ),
        (
            "path: /, credentials: { organization: false, bearer: false, basic: false, header: '', query: '' }",
            "5:34: routes[0].credentials: every form is off, so no request could present a key; turn one on",
        ),
    ] {
        check(&format!("routes: [{{ {route} }}]\n"), expected);
    }
    check(
        "credentials: { organization: false, bearer: false, basic: false, header: '', query: '' }\nroutes: [{ path: / \
         }]\n",
        "5:14: credentials: every form is off, so no request could present a key; turn one on",
    );
}

#[test]
fn keys_and_peppers() {
    let keys = |keys: &str| format!("version: 1\nkeys: {keys}\nstore: file:x\nproxy: {{ upstream: http://app }}\n");
    for (section, expected) in [
        (
            "{ pepper: { file: gone } }",
            "2:25: keys.pepper.file: gone does not exist; `(umask 077; openssl rand -hex 32 > FILE)` makes one \
             for a new store, as `keyward init` does with a new config; a store in use needs the one that its keys were made with",
        ),
        (
            "{ pepper: { file: keyward.yaml } }",
            "2:25: keys.pepper.file: keyward.yaml holds no pepper: a pepper is 64 hex digits (32 random bytes); make \
             one with `keyward init` or `openssl rand -hex 32`",
        ),
        (
            "{ pepper: { file: pepper/.. } }",
            "2:25: keys.pepper.file: pepper/.. cannot be read: Not a directory (os error 20)",
        ),
        ("{ pepper: { env: NOT_SET } }", "2:24: keys.pepper.env: the environment variable NOT_SET is not set"),
        ("{ pepper: { env: A, file: b } }", "2:17: keys.pepper: names a file and a variable; keep one of them"),
        ("{ pepper: {} }", "2:17: keys.pepper: names nothing; write `{ file: PATH }` or `{ env: NAME }`"),
        ("{ pepper: { fiel: pepper } }", "2:19: keys.pepper.fiel: there is no such option; did you mean file?"),
        (
            "{ pepper: { file: pepper }, brand: K }",
            "2:42: keys.brand: \"K\" is no brand; write a lower-case letter, then 1 to 11 lower-case letters or digits",
        ),
        (
            "{ pepper: { file: pepper }, shapes: [{ name: a, length: 7, alphabet: hex }] }",
            "2:63: keys.shapes[0].length: expected a number from 8 to 128, found 7",
        ),
        (
            "{ pepper: { file: pepper }, shapes: [{ name: a b, length: 8, alphabet: base64 }] }",
            "2:52: keys.shapes[0].name: \"a b\" is no name of a shape; write up to 64 letters, digits, dots, dashes \
             and underscores\n2:78: keys.shapes[0].alphabet: expected hex, base62 or base64url, found \"base64\"; did \
             you mean base62?",
        ),
    ] {
        check_text(&keys(section), expected);
    }
    check_text(
        &keys(
            "\n  pepper: { file: pepper }\n  shapes:\n  - { name: a, length: 8, alphabet: hex }\n  - { name: a, \
             length: 9, alphabet: hex }\n  - { name: b, length: 8, alphabet: hex }",
        ),
        "6:13: keys.shapes[1].name: \"a\" is the name of two shapes\n7:5: keys.shapes[2]: fits the same keys as the \
         shape \"a\"; keep one of them",
    );
}

#[test]
fn stores_that_are_none() {
    for (store, expected) in [
        (
            "keys.db",
            "a store is sqlite:PATH (an embedded database), postgres://USER@HOST/DATABASE or file:PATH (files that \
             something else writes)",
        ),
        (
            "nats://bus",
            "this version keeps its records in sqlite:PATH, postgres://… or file:PATH; NATS is not in it yet",
        ),
        ("postgres://kw:hunter2@localhost", "the database is missing; write postgres://USER@HOST/DATABASE"),
        ("'sqlite:'", "the path after the colon is missing"),
    ] {
        let text = format!("{NEEDED}proxy: {{ upstream: http://app }}\n").replace("sqlite:keys.db", store);
        check_text(&text, &format!("3:8: store: {expected}"));
    }
}

#[test]
fn probes_are_passed_on_only_on_this_machine() {
    check(
        "ops: { probes: { /startup: /health } }\n",
        "5:16: ops.probes: are passed on only to an upstream by http: on this machine (127.0.0.1, [::1], localhost or unix:), \
         because they need no key; probe that server directly",
    );
    check_text(
        &format!(
            "{NEEDED}proxy: {{ upstream: 'unix:app.sock', upstream_protocol: http2 }}\nops:\n  probes: {{ /up: /health }}\n"
        ),
        "6:11: ops.probes: are asked of the upstream by HTTP/1.1, which it does not speak (proxy.upstream_protocol: http2); \
         probe that server directly",
    );
    let text =
        |probes: &str| format!("{NEEDED}proxy: {{ upstream: 'unix:app.sock' }}\nops:\n  probes: {{ {probes} }}\n");
    check_text(&text("/startup: /health, /a: /b?c=d"), "nothing");
    for (probes, said) in [
        ("/readyz: /health", "6:13: ops.probes./readyz: is Keyward's own page; take another name"),
        ("up: /health", "6:13: ops.probes.up: is no path on the ops listener; write one such as /startup"),
        ("/up: health", "6:18: ops.probes./up: is no path at the upstream; write one such as /health"),
        ("/up: http://app/health", "6:18: ops.probes./up: is no path at the upstream; write one such as /health"),
    ] {
        check_text(&text(probes), said);
    }
}
