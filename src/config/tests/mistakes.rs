//! What is said of what is wrong, word for word and place for place.

use std::fmt::Write as _;
use std::time::Instant;

use super::*;

/// What is said of a text, without the name of the file, which begins every line.
pub(super) fn said_of(text: &str) -> String {
    let folder = folder_with(text);
    let path = folder.path().join("keyward.yaml");
    let Err(mistakes) = load(&path, &Overrides::default()) else { return "nothing".to_owned() };
    let said = mistakes.to_string().replace(&format!("{}:", path.display()), "");
    said.replace(&format!("{}/", folder.path().display()), "")
}

/// What is said of lines from the fifth on, after those that every config needs.
#[track_caller]
pub(super) fn check(lines: &str, expected: &str) {
    assert_eq!(said_of(&format!("{NEEDED}proxy: {{ upstream: http://app:9000 }}\n{lines}")), expected, "{lines}");
}

/// What is said of the value of an option of the proxy section: it begins at column 3 of line 5, after the name.
#[track_caller]
pub(super) fn check_proxy(option: &str, expected: &str) {
    assert_eq!(said_of(&format!("{NEEDED}proxy:\n  {option}\n  upstream: http://app:9000\n")), expected, "{option}");
}

/// What is said of a whole text.
#[track_caller]
pub(super) fn check_text(text: &str, expected: &str) {
    assert_eq!(said_of(text), expected, "{text}");
}

#[test]
fn what_is_no_yaml_stops_at_its_place() {
    check_text("", " is empty; without it `keyward init` writes a first config");
    check_text("# only a comment\n", " is empty; without it `keyward init` writes a first config");
    check_text(
        "version: 1\nproxy:\n\tlisten: x\n",
        "3:1: found character that cannot start any token, while scanning for the next token; indent with spaces, not \
         with tabs",
    );
    check_text("version: 1\nkeys: {\n", "3:1: did not find expected node content, while parsing a flow node");
    check_text(
        "version: 1\nproxy:\n  listen: a\n upstream: x\n",
        "4:2: did not find expected key, while parsing a block mapping",
    );
    check_text("version: 1\nstore: \"a\n", "2:8: a quoted scalar begins here and has no end");
    check_text("version: 1\nstore: a: b\n", "2:9: mapping values are not allowed in this context");
    check_text("version: 1\n---\nversion: 1\n", "3:1: a second document begins here; a config is one");
    check_text(
        "version: !int 1\n",
        "1:10: a tag (`!name`) has no meaning here; text that begins with `!` needs quotes",
    );
    check_text("? [a]\n: b\n", "1:3: invalid type: sequence, expected the name of an option");
    check_text("store: *nobody\n", "1:8: unknown anchor; text that begins with a special character needs quotes");
    check_text(
        "store: @x\n",
        "1:8: found character that cannot start any token, while scanning for the next token; text that begins with a \
         special character needs quotes",
    );
    check_text(
        "proxy:\n  listen: [::]:80\n",
        "2:12: did not find expected node content, while parsing a flow node; an IPv6 address needs quotes",
    );
    check_text("version: 99999999999999999999999\n", "1:10: no number is that large");
    check_text("- version: 1\n", "1:1: expected options such as `version: 1`, found a list");
    check_text("just text\n", "1:1: expected options such as `version: 1`, found \"just text\"");
}

#[test]
fn what_would_fill_the_memory_is_refused_soon() {
    let begun = Instant::now();
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let above = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{above}]").unwrap();
    }
    check_text(&bomb, "1:5: this is too large: 100,000 values are the most, with all that aliases stand for");
    check_text("a: &a [*a]\n", "1:4: this is nested too deeply");
    check_text(&"[".repeat(100_000), "1:129: this is nested too deeply");
    let many = format!("version: 1\nroutes: [{}]\n", "a,".repeat(100_001));
    check_text(&many, "2:9: this is too large: 100,000 values are the most, with all that aliases stand for");
    let unknown: String = (0..5_000).fold(String::new(), |text, nth| text + &format!("u{nth}: 1\nu{nth}: 1\n"));
    assert!(said_of(&format!("version: 1\n{unknown}")).ends_with("\nand 9903 more"));
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn unknown_options_are_named_with_advice() {
    check("prxy: {}\n", "5:1: prxy: there is no such option; did you mean proxy?");
    check("ops:\n  Listen: 0.0.0.0:9464\n", "6:3: ops.Listen: there is no such option; did you mean listen?");
    check("log: { format: json, acess: all }\n", "5:22: log.acess: there is no such option; did you mean access?");
    check(
        "routes:\n- path: /a\n- { path: /b, inject: { queries: {} } }\n",
        "7:25: routes[1].inject.queries: there is no such option; there are: header, query",
    );
    check(
        "listen: 0.0.0.0:80\n",
        "5:1: listen: there is no such option; an option of this name belongs under admin or ops or proxy",
    );
    check("<<: { version: 1 }\n", "5:1: <<: there is no such option; merging is not supported, write the options out");
    check(
        "cache: {}\nlog: { 1: x, true: y }\n",
        concat!(
            "5:1: cache: there is no such option; there are: admin, credentials, default_route, deny, identity_headers, \
             keys, log, ",
            "ops, proxy, routes, store, sync, traces, version\n",
            "6:8: log.1: there is no such option; there are: access, format, level\n",
            "6:14: log.true: there is no such option; there are: access, format, level",
        ),
    );
    check(
        "deny: { é: 1, formt: xml }\n",
        "5:9: deny.é: there is no such option; there are: fallback, format\n5:15: deny.formt: there is no such \
         option; did you mean format?",
    );
}

#[test]
fn options_are_given_once() {
    check(
        "store: file:x\nstore: file:y\n",
        "5:1: store: is given more than once; keep one of them\n6:1: store: is given more than once; keep one of them",
    );
    check(
        "log:\n  level: info\n  access: all\n  level: warn\n",
        "8:3: log.level: is given more than once; keep one of them",
    );
    check("routes:\n- { path: /a, path: /b }\n", "6:15: routes[0].path: is given more than once; keep one of them");
}

#[test]
fn wrong_shapes_are_told_with_what_was_expected() {
    check_proxy("workers: many", "5:12: proxy.workers: expected auto or a whole number, found \"many\"");
    check_proxy("workers: 0", "5:12: proxy.workers: expected a number from 1 to 1024, found 0");
    check_proxy("workers: 1.5", "5:12: proxy.workers: expected auto or a whole number, found 1.5");
    check_proxy("paths: relaxed", "5:10: proxy.paths: expected strict or lenient, found \"relaxed\"");
    check_proxy(
        "paths: Strict",
        "5:10: proxy.paths: expected strict or lenient, found \"Strict\"; did you mean strict?",
    );
    check_proxy(
        "listen: 8080",
        "5:11: proxy.listen: expected text, found 8080; text that looks like this needs quotes",
    );
    check_proxy("trusted_proxies: 10.0.0.0/8", "5:20: proxy.trusted_proxies: expected a list, found \"10.0.0.0/8\"");
    check_proxy("max_headers: -1", "5:16: proxy.max_headers: expected a whole number, found -1");
    check_proxy(
        "timeouts: { idle: 75 }",
        "5:21: proxy.timeouts.idle: expected a time such as 500ms, 10s or 1h, found 75; a unit is missing, as in 75s",
    );
    check_proxy(
        "max_head: [1]",
        "5:13: proxy.max_head: expected a number of bytes or a size such as 32KiB, found a list",
    );
    check(
        "credentials: { basic: yes }\n",
        "5:23: credentials.basic: expected true or false, found \"yes\"; write true",
    );
    check("admin:\n", "5:7: admin: expected a map, found nothing; write a value, or leave the option out");
    check("admin: 127.0.0.1:1\n", "5:8: admin: expected a map, found \"127.0.0.1:1\"");
    check("routes: { path: /a }\n", "5:9: routes: expected a list, found a map");
    check("routes: [/a]\n", "5:10: routes[0]: expected a map, found \"/a\"");
    check(
        "routes: [{ path: /a, deny: jsn }]\n",
        "5:28: routes[0].deny: expected auto, xml, xml-cablecast, json, problem, oauth, text, grpc or a map with body, \
         format, status, found \"jsn\"; did you mean json?",
    );
    check(
        "routes: [{ path: /a, deny: { status: 99 } }]\n",
        "5:38: routes[0].deny.status: expected a number from 200 to 599, found 99",
    );
    check(
        "routes: [{ path: /a, inject: { header: { X-A: name } } }]\n",
        "5:47: routes[0].inject.header.X-A: expected key-id, key-name, user, organization or scope, found \"name\"",
    );
    check_text(
        "version: 2\nkeys: { pepper: { file: pepper } }\nstore: file:x\nproxy: { upstream: http://a }\n",
        "1:10: version: expected 1, found 2",
    );
}

#[test]
fn what_is_missing_is_told_with_an_example() {
    check_text(
        "log: {}\n",
        concat!(
            " version: is missing; write for example `version: 1`\n",
            " keys.pepper: is missing; write for example `pepper: { file: ./keyward.pepper }`\n",
            " store: is missing; write for example `store: sqlite:./keyward.db`\n",
            " proxy: is missing; say where requests go, such as `proxy: { upstream: http://127.0.0.1:9000 }`",
        ),
    );
    check("routes:\n- class: read\n", "6:3: routes[0].path: is missing; write for example `path: \"/public/{*rest}\"`");
    check_text(
        "version: 1\nstore: file:x\nproxy:\n  listen: 127.0.0.1:1\nkeys:\n  shapes: [{ name: a }]\n",
        concat!(
            "3:1: proxy.upstream: is missing; write for example `upstream: http://127.0.0.1:9000`\n",
            "5:1: keys.pepper: is missing; write for example `pepper: { file: ./keyward.pepper }`\n",
            "6:12: keys.shapes[0].length: is missing; write for example `length: 20`\n",
            "6:12: keys.shapes[0].alphabet: is missing; write for example `alphabet: hex`",
        ),
    );
}

#[test]
fn all_mistakes_come_in_one_run_and_in_order() {
    check_text(
        "version: 1\nproxy:\n  lisen: 0.0.0.0:80\n  workers: 0\n  trusted_proxies: [1, 10.0.0.0/99, {}, x]\nlog: { \
         level: loud }\nstore: x\n",
        concat!(
            " keys.pepper: is missing; write for example `pepper: { file: ./keyward.pepper }`\n",
            "2:1: proxy.upstream: is missing; write for example `upstream: http://127.0.0.1:9000`\n",
            "3:3: proxy.lisen: there is no such option; did you mean listen?\n",
            "4:12: proxy.workers: expected a number from 1 to 1024, found 0\n",
            "5:21: proxy.trusted_proxies[0]: expected text, found 1; text that looks like this needs quotes\n",
            "5:24: proxy.trusted_proxies[1]: \"10.0.0.0/99\" is no address and no network; write 192.0.2.7, \
             192.0.2.0/24, 2001:db8::7 or 2001:db8::/32\n",
            "5:37: proxy.trusted_proxies[2]: expected text, found a map\n",
            "5:41: proxy.trusted_proxies[3]: \"x\" is no address and no network; write 192.0.2.7, 192.0.2.0/24, \
             2001:db8::7 or 2001:db8::/32\n",
            "6:15: log.level: \"loud\" is no level; levels are error, warn, info, debug, trace, off\n",
            "7:8: store: a store is sqlite:PATH (an embedded database), postgres://USER@HOST/DATABASE or file:PATH \
             (files that something else writes)",
        ),
    );
    let many =
        said_of(&format!("{NEEDED}proxy: {{ upstream: http://app }}\nroutes:\n{}", "- { path: x }\n".repeat(130)));
    assert_eq!((many.lines().count(), many.lines().last()), (101, Some("and 30 more")));
}

#[test]
fn secrets_are_not_repeated() {
    let secret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    for text in [
        format!("version: 1\nkeys: {{ pepper: {secret} }}\nstore: file:x\n"),
        format!("version: 1\nkeys: {{ pepper: {{ file: {secret} }} }}\nstore: file:x\n"),
        format!("version: 1\nkeys: {{ pepper: {{ file: x/{secret} }} }}\nstore: file:x\n"),
        format!("version: 1\nkeys: {{ pepper: {{ env: {secret} }} }}\nstore: file:x\n"),
        format!("version: 1\nkeys: {{ pepper: {{ value: {secret} }} }}\nstore: file:x\n"),
        format!("version: 1\nkeys: {{ pepper: {{ {secret}, {secret} }} }}\nstore: file:x\n"),
        format!("version: 1\nkeys: {{ pepper: {{ file: {secret}, env: {secret} }} }}\nstore: {secret}\n"),
        format!("{NEEDED}proxy: {{ upstream: 'http://{secret}:{secret}@app', listen: {secret}, workers: {secret} }}\n"),
        format!(
            "{NEEDED}{secret}: 1\nlog: {{ level: {secret} }}\nproxy: {{ paths: {secret}, trusted_proxies: [{secret}] \
             }}\n"
        ),
        format!("{NEEDED}routes: [{{ path: {secret}, hosts: ['{secret}:1'], methods: '{secret} ' }}]\n"),
        format!("{NEEDED}proxy: {{ max_head: {secret}, timeouts: {{ head: {secret} }} }}\nkeys: {secret}\n"),
        format!(
            "{NEEDED}credentials: {{ header: '{secret} ', query: '{secret}&' }}\nidentity_headers: {{ prefix: \
             {secret} }}\n"
        ),
        secret.to_owned(),
        format!("'{secret}"),
        format!("{secret}: *{secret}"),
    ] {
        let said = said_of(&text);
        assert!(said != "nothing" && !said.contains("00112233"), "{said}");
    }
    check_text(
        &format!("version: 1\nkeys: {{ pepper: {secret} }}\nstore: file:x\nproxy: {{ upstream: http://app }}\n"),
        "2:17: keys.pepper: expected a map with env, file, found text",
    );
    check_text(
        &format!(
            "version: 1\nkeys: {{ pepper: {{ env: {secret} }} }}\nstore: file:x\nproxy: {{ upstream: http://app }}\n"
        ),
        "2:24: keys.pepper.env: that variable is not set. If that is the pepper itself: it never stands in a config, \
         only its place does",
    );
}

#[test]
fn a_line_names_the_file_the_place_and_the_option() {
    let folder = folder_with(&format!("{NEEDED}proxy: {{ upstream: http://app, listne: x }}\n"));
    let path = folder.path().join("keyward.yaml");
    let mistakes = load(&path, &Overrides::default()).err().unwrap();
    assert_eq!(
        mistakes.to_string(),
        format!("{}:4:32: proxy.listne: there is no such option; did you mean listen?", path.display())
    );
    let gone = folder.path().join("gone.yaml");
    let mistakes = load(&gone, &Overrides::default()).err().unwrap();
    assert_eq!(
        mistakes.to_string(),
        format!(
            "{}: cannot be read: No such file or directory (os error 2); `keyward init` writes a first config",
            gone.display()
        )
    );
}

#[test]
fn the_api_is_mounted_under_one_plain_prefix_that_no_route_has() {
    for prefix in ["v2", "/v2/", "/", "/keys", "//v2", "/a/../v2", "/%762", "/a b/v2", "/{x}/v2", "/v2?x"] {
        let said =
            said_of(&format!("{NEEDED}proxy: {{ upstream: http://app:9000 }}\nadmin: {{ mount: '{prefix}' }}\n"));
        assert!(
            said.contains("admin.mount") && said.contains("must be a path of plain letters that ends with /v2"),
            "{said}"
        );
    }
    for (path, fits) in
        [("/v2", false), ("/v2/{*rest}", false), ("/v2/keys", false), ("/v20", true), ("/{*rest}", true)]
    {
        let routes = format!("routes: [{{ path: '{path}' }}]\nadmin: {{ mount: /v2 }}\n");
        let said = said_of(&format!("{NEEDED}proxy: {{ upstream: http://app:9000 }}\n{routes}"));
        assert_eq!(!said.contains("routes[0].path: is never reached, since admin.mount takes"), fits, "{path}: {said}");
    }
    check("admin: { mount: /manage/v2 }", "nothing");
}
