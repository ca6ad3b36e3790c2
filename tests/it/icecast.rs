//! A real Icecast behind Keyward: a server that nobody wants to modify gets keys, and keeps everything of its own.

mod radio;

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use self::radio::{ADMIN_PASSWORD, PROBE, Radio, lines_in_order};
use super::support::{Keyward, Response, Site, request, until};
use super::tools::{self, Program, curl};

const CONFIG: &str = r#"
credentials: { bare: true }
keys: { shapes: [{ name: cablecast, length: 20, alphabet: hex }] }
deny: { format: xml-cablecast }
routes:
  # Icecast changes things by GET. The key comes in a header of its own, so that Icecast's own password can come too.
  - { path: /admin/metadata, class: write, credentials: { organization: false, bearer: false, basic: false, bare: false } }
  - { path: "/admin/{*page}", auth: none }
"#;

/// The keys of the system that there was before.
const GOOD: &str = "0123456789abcdef0123";
const READ_ONLY: &str = "1123456789abcdef0123";
const REVOKED: &str = "2123456789abcdef0123";
const EXPIRED: &str = "3123456789abcdef0123";
const FOREIGN: &str = "4123456789abcdef0123";
const DISABLED: &str = "5123456789abcdef0123";
const NOBODYS: &str = "f123456789abcdef0123";

const DENIED: &str = "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\nAccess Denied";

/// Keyward with those keys before an Icecast.
#[track_caller]
fn serve(radio: &Radio) -> Keyward {
    let site = Site::new(radio.address(), CONFIG);
    site.write(
        "keys.csv",
        &format!(
            "id,value,access,ips,expires\ngood,{GOOD},rw,,\nread-only,{READ_ONLY},ro,any,\nrevoked,{REVOKED},,,\n\
             expired,{EXPIRED},,,2020-01-01\nforeign,{FOREIGN},rw,\"10.0.0.0/8,2001:db8::/32\",\n\
             disabled,{DISABLED},,,\n"
        ),
    );
    let imported = site.json(&["key", "import", "--input", "keys.csv"]);
    assert_eq!((&imported["imported"], &imported["rejected"]), (&6.into(), &0.into()));
    site.json(&["key", "revoke", "revoked"]);
    site.json(&["key", "disable", "disabled"]);
    site.serve()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A key in every form in which clients present it: options of curl and the end of the URL.
fn forms(key: &str) -> Vec<(Vec<String>, String)> {
    let header = |text: String| (vec!["-H".to_owned(), text], String::new());
    let first = u32::from(key.as_bytes()[0]);
    vec![
        header(format!("Authorization: APIKEY:ORGANIZATION {key}")),
        header(format!("Authorization: Bearer {key}")),
        header(format!("Authorization: bEaReR {key}")),
        header(format!("Authorization: {}", basic(key, ""))),
        (vec!["-u".to_owned(), format!("{key}:")], String::new()),
        header(format!("Authorization: {key}")),
        header(format!("X-API-Key: {key}")),
        header(format!("x-api-key: {key}")),
        (vec![], format!("?api_key={key}")),
        (vec![], format!("?mount=/live&api_key={key}&x=%20y")),
        (vec![], format!("?api%5Fkey=%{first:x}{}", &key[1..])),
    ]
}

#[track_caller]
fn fetch(keyward: &Keyward, path: &str, (options, query): &(Vec<String>, String)) -> tools::Got {
    let url = format!("http://{}{path}{query}", keyward.proxy);
    let args: Vec<&str> = options.iter().map(String::as_str).chain([url.as_str()]).collect();
    curl(&args)
}

/// Sends a GET with fields.
#[track_caller]
fn get(keyward: &Keyward, target: &str, fields: &[(&str, &str)]) -> Response {
    keyward.get(target, fields)
}

#[track_caller]
fn assert_denied(response: &Response, status: u16) {
    assert_eq!((response.status, response.text().as_str()), (status, DENIED));
    assert_eq!(response.value("content-type").as_deref(), Some("text/xml; charset=utf-8"));
}

#[test]
fn a_right_key_in_any_form_gets_the_real_page() {
    if tools::lacks(&["icecast2", "curl"]) {
        return;
    }
    let radio = Radio::start();
    let keyward = serve(&radio);
    // This page says nothing of the time, so it is the same each time.
    let page = radio.get("/server_version.xsl", &[]).text();
    assert!(page.contains("<h3>Server Information</h3>") && page.contains("</html>"), "{page}");
    for form in forms(GOOD).iter().chain(&forms(READ_ONLY)) {
        let got = fetch(&keyward, "/server_version.xsl", form);
        assert_eq!((got.status, &got.body), (200, &page), "{form:?}");
        assert!(got.head.contains("\r\ncontent-type: text/xml"), "{form:?}: {}", got.head);
        assert!(got.head.contains("\r\nserver: icecast 2.4"), "{form:?}: {}", got.head);
    }
    let log = radio.log();
    assert!(log.contains("\"GET /server_version.xsl HTTP/1.1\"") && !log.contains(&GOOD[1..]), "{log}");
}

#[test]
fn no_other_key_gets_anything_but_access_denied() {
    if tools::lacks(&["icecast2", "curl"]) {
        return;
    }
    let radio = Radio::start();
    let keyward = serve(&radio);
    for path in ["/status.xsl", "/server_version.xsl", "/style.css", "/live", "/"] {
        assert_denied(&get(&keyward, path, &[]), 401);
    }
    for (key, status) in [(NOBODYS, 401), (REVOKED, 401), (EXPIRED, 401), (DISABLED, 401), (FOREIGN, 403), ("x", 401)] {
        for form in forms(key) {
            let got = fetch(&keyward, "/server_version.xsl", &form);
            assert_eq!((got.status, got.body.as_str()), (status, DENIED), "{form:?}");
            assert_eq!(got.head.contains("www-authenticate: "), status == 401, "{form:?}: {}", got.head);
        }
    }
    // What Icecast would let in is no key.
    let admin = basic("admin", ADMIN_PASSWORD);
    assert_denied(&get(&keyward, "/style.css", &[("Authorization", &admin)]), 401);
    // Two keys are one too many, right or not.
    let both = get(&keyward, &format!("/style.css?api_key={GOOD}"), &[("X-API-Key", GOOD)]);
    assert_eq!((both.status, both.text().ends_with("Access Denied")), (400, false));
    let log = radio.log();
    let asked: Vec<&str> = log.lines().filter(|line| !line.contains(PROBE)).collect();
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn a_stream_runs_for_those_who_have_a_key() {
    if tools::lacks(&["icecast2", "curl"]) {
        return;
    }
    let radio = Radio::start();
    let keyward = serve(&radio);
    let key = ("X-API-Key", GOOD);
    assert_eq!(get(&keyward, "/live", &[key]).status, 404, "there is no source yet");
    let source = radio.feed();
    let page = get(&keyward, "/status.xsl?mount=/live", &[key]);
    assert!(page.status == 200 && page.text().contains("Mount Point /live"), "{}", page.text());

    let url = format!("http://{}/live", keyward.proxy);
    let mut listener =
        Program::start(Command::new("curl").args(["-qsSN", "--noproxy", "*", "-u"]).args([&format!("{GOOD}:"), &url]));
    let stream = listener.wait_for("stream of 200 KiB", |out, _| (out.len() > 200 * 1024).then(|| out.to_owned()));
    assert!(lines_in_order(&stream) > 10_000);

    for fields in [&[][..], &[("X-API-Key", NOBODYS)]] {
        assert_denied(&get(&keyward, "/live", fields), 401);
    }
    // When the source goes, so does the stream, to its regular end.
    drop(source);
    let ended = listener.end(tools::PATIENCE);
    assert!(ended.status.success(), "{ended:?}");
    lines_in_order(&ended.out);
}

#[test]
fn a_read_only_key_changes_nothing() {
    if tools::lacks(&["icecast2"]) {
        return;
    }
    let radio = Radio::start();
    let _source = radio.feed();
    let keyward = serve(&radio);
    let admin = basic("admin", ADMIN_PASSWORD);
    let title = || radio.get(PROBE, &[]).json()["icestats"]["source"]["title"].clone();
    let rename = |key: &str, song: &str| {
        let target = format!("/admin/metadata?mount=/live&mode=updinfo&song={song}");
        get(&keyward, &target, &[("X-API-Key", key), ("Authorization", &admin)])
    };
    for (key, status) in [(READ_ONLY, 403), (NOBODYS, 401), (REVOKED, 401), (FOREIGN, 403)] {
        assert_denied(&rename(key, "Wrong"), status);
    }
    let target = "/admin/metadata?mount=/live&mode=updinfo&song=Wrong";
    assert_denied(&get(&keyward, target, &[("Authorization", &admin)]), 401);
    assert!(title().is_null(), "{}", title());

    let renamed = rename(GOOD, "Right");
    assert!(renamed.status == 200 && renamed.text().contains("Metadata update successful"), "{}", renamed.text());
    until("the title is the new one", || title() == "Right");
    // A key is not Icecast's password.
    let refused = get(&keyward, target, &[("X-API-Key", GOOD)]);
    assert_eq!(refused.status, 401);
    assert!(refused.value("www-authenticate").unwrap().contains("Icecast2 Server"));
}

#[test]
fn icecasts_own_password_stays_icecasts_own() {
    if tools::lacks(&["icecast2", "curl"]) {
        return;
    }
    let radio = Radio::start();
    let keyward = serve(&radio);
    let url = format!("http://{}/admin/stats", keyward.proxy);
    let got = curl(&["-u", &format!("admin:{ADMIN_PASSWORD}"), &url]);
    assert_eq!(got.status, 200);
    assert!(got.body.starts_with("<?xml version=\"1.0\"?>\n<icestats>"), "{}", got.body);
    assert!(got.body.contains("<host>radio.example.org</host>"), "{}", got.body);
    for options in [&[][..], &["-u", "admin:wrong"], &["-H", &format!("X-API-Key: {GOOD}")]] {
        let got = curl(&[options, &[&url]].concat());
        assert_eq!(got.status, 401, "{options:?}");
        assert!(got.head.contains("www-authenticate: basic realm=\"icecast2 server\""), "{}", got.head);
        assert!(!got.body.contains("Access Denied"), "{}", got.body);
    }
    assert!(!radio.log().contains(GOOD));
}

#[test]
fn clients_hear_the_version_that_keyward_speaks() {
    if tools::lacks(&["icecast2"]) {
        return;
    }
    let radio = Radio::start();
    let keyward = serve(&radio);
    // Icecast answers in HTTP/1.0 and closes; neither is anything to those who speak with Keyward.
    let mut client = keyward.connect();
    for _ in 0..3 {
        let fields = [("X-API-Key", GOOD)];
        let response = client.exchange(&request("GET", "/server_version.xsl", &fields, b""));
        assert_eq!(response.head.start(), "HTTP/1.1 200 OK");
    }
}

#[test]
fn a_key_that_is_revoked_stops_opening_at_once() {
    if tools::lacks(&["icecast2"]) {
        return;
    }
    let radio = Radio::start();
    let keyward = serve(&radio);
    let fields = [("Authorization", &*format!("APIKEY:ORGANIZATION {GOOD}"))];
    assert_eq!(get(&keyward, "/status.xsl", &fields).status, 200);
    keyward.site.json(&["key", "revoke", "good"]);
    until("the key is refused", || get(&keyward, "/status.xsl", &fields).status == 401);
    assert_denied(&get(&keyward, "/status.xsl", &fields), 401);
    assert_eq!(get(&keyward, "/status.xsl", &[("X-API-Key", READ_ONLY)]).status, 200);
}
