//! What whole configs come to.

mod anything;
mod example;
mod meanings;
mod mistakes;
mod overrides;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use http::Method;
use tempfile::TempDir;

use super::*;
use crate::auth::route::{Class, ClassRule, RequestTarget, Requirement};
use crate::proxy::reply::{Deny, Format, FormatRule};
use crate::proxy::upstream::Target;
use crate::proxy::{IdentityValue, Inject, InjectInto};
use crate::telemetry::{AccessLog, LogFormat};

const PEPPER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
/// The three lines that every config needs.
const NEEDED: &str = "version: 1\nkeys: { pepper: { file: pepper } }\nstore: sqlite:keys.db\n";

/// A folder with a config file and a pepper file beside it.
fn folder_with(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("keyward.yaml"), text).unwrap();
    let pepper = folder.path().join("pepper");
    fs::write(&pepper, PEPPER).unwrap();
    fs::set_permissions(&pepper, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

fn load_text(text: &str, overrides: &Overrides) -> Result<Config, Mistakes> {
    load(&folder_with(text).path().join("keyward.yaml"), overrides)
}

/// A config with these lines from its fifth line on.
#[track_caller]
fn good(lines: &str) -> Config {
    let text = format!("{NEEDED}proxy: {{ upstream: http://app:9000 }}\n{lines}");
    load_text(&text, &Overrides::default()).unwrap_or_else(|mistakes| panic!("{lines}\n{mistakes}"))
}

/// A config with these options of its proxy section.
#[track_caller]
fn proxy(options: &str) -> crate::proxy::Config {
    let text = format!("{NEEDED}proxy:\n  upstream: http://app:9000\n  {options}\n");
    load_text(&text, &Overrides::default()).unwrap_or_else(|mistakes| panic!("{options}\n{mistakes}")).proxy
}

#[test]
fn what_is_left_out_is_as_the_example_says() {
    let config = good("");
    let proxy = &config.proxy;
    assert_eq!(proxy.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(proxy.upstream, Target::Http("app:9000".to_owned()));
    assert!(proxy.workers.count >= std::thread::available_parallelism().unwrap().get());
    assert!(proxy.trusted_proxies.is_empty());
    assert_eq!(proxy.identity_prefix, "x-keyward-");
    let seconds = Duration::from_secs;
    assert_eq!(
        proxy.limits,
        crate::proxy::Limits {
            handshake_timeout: seconds(10),
            head_timeout: seconds(10),
            body_timeout: seconds(60),
            request_timeout: seconds(0),
            idle_timeout: seconds(75),
            connect_timeout: seconds(2),
            response_timeout: seconds(60),
            response_idle_timeout: seconds(0),
            tunnel_timeout: seconds(3600),
            upstream_idle_timeout: seconds(4),
            drain_timeout: seconds(25),
            drain_delay: seconds(0),
            max_head_bytes: 32 << 10,
            max_headers: 100,
            max_connections: proxy.limits.max_connections,
            max_connections_per_peer: 0,
            max_requests: 10_000,
        }
    );
    assert_eq!((&config.admin, &config.ops), (&None, &None));
    assert_eq!(
        config.sync,
        sync::Config {
            poll_interval: Duration::from_millis(250),
            max_staleness: seconds(3600),
            snapshot: None,
            node: None
        }
    );
    let log = telemetry::Config { format: LogFormat::Auto, level: "info".to_owned(), access: AccessLog::Denied };
    assert_eq!(config.log, log);
    assert!(config.warnings.is_empty());
    assert!(Arc::ptr_eq(&config.locksmith, &proxy.locksmith));

    let [settings] = &proxy.settings[..] else { panic!("one route, the default") };
    assert_eq!(settings.deny, Deny { format: FormatRule::Negotiated(Format::Xml), status: None, body: None });
    assert_eq!((settings.forward_credential, &settings.inject[..], &settings.trailers), (false, &[][..], &None));
    let rule = proxy.routes.find_path("/").rule;
    assert_eq!((rule.requirement, rule.class, rule.environment), (Requirement::Key, ClassRule::Method, None));
    let forms = &rule.forms;
    assert_eq!((forms.organization, forms.bearer, forms.basic, forms.bare), (true, true, true, false));
    assert_eq!(forms.header.as_ref().map(http::HeaderName::as_str), Some("x-api-key"));
    assert_eq!(forms.query.as_deref(), Some("api_key"));
}

#[test]
fn options_of_the_proxy() {
    assert_eq!(proxy("listen: '[::1]:80'").listen, "[::1]:80".parse().unwrap());
    assert_eq!(proxy("workers: 3").workers.count, 3);
    assert!(proxy("trusted_proxies: [10.0.0.0/8, '::1']").trusted_proxies.contains("::1".parse().unwrap()));
    assert_eq!(proxy("max_head: 65536").limits.max_head_bytes, 65536);
    assert_eq!(proxy("max_head: 64KiB").limits.max_head_bytes, 65536);
    assert_eq!(proxy("max_headers: 7").limits.max_headers, 7);
    assert_eq!(proxy("timeouts: { drain: 0s, head: 1m 30s }").limits.drain_timeout, Duration::ZERO);
    assert_eq!(proxy("timeouts: { drain: 0s, head: 1m 30s }").limits.head_timeout, Duration::from_secs(90));
    assert!(proxy("paths: lenient").routes.find_path("//").ambiguous.is_some());
}

#[test]
fn sections() {
    let config = good("admin: {}\nops: { listen: 127.0.0.1:0 }\n");
    assert_eq!(config.admin.map(|admin| admin.listen), Some("127.0.0.1:8081".parse().unwrap()));
    assert_eq!(config.ops.map(|ops| ops.listen), Some("127.0.0.1:0".parse().unwrap()));
    let config = good("log: { format: json, level: 'warn,keyward::sync=trace', access: all }\n");
    assert_eq!((config.log.format, config.log.access), (LogFormat::Json, AccessLog::All));
    assert_eq!(config.log.level, "warn,keyward::sync=trace");
    assert_eq!(good("sync: { poll: 1s }\n").sync.poll_interval, Duration::from_secs(1));
    assert_eq!(good("identity_headers: { prefix: X-Caller- }\n").proxy.identity_prefix, "x-caller-");
}

#[test]
fn the_store_decides_how_often_it_is_asked() {
    for (store, seconds) in [("file:records", 10), ("postgres://kw@localhost/keys", 1)] {
        let text = format!(
            "version: 1\nkeys: {{ pepper: {{ file: pepper }} }}\nstore: {store}\nproxy: {{ upstream: http://app }}\n"
        );
        let config = load_text(&text, &Overrides::default()).unwrap();
        assert_eq!(config.sync.poll_interval, Duration::from_secs(seconds), "{store}");
    }
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = folder_with(&format!("{NEEDED}proxy: {{ upstream: unix:run/app.sock }}\n"));
    let config = load(&folder.path().join("keyward.yaml"), &Overrides::default()).unwrap();
    assert_eq!(config.store, Location::Sqlite(folder.path().join("keys.db")));
    assert_eq!(config.proxy.upstream, Target::Unix(folder.path().join("run/app.sock")));
}

#[test]
fn keys_fit_the_declared_shapes_and_the_brand() {
    let text = "version: 1\nkeys:\n  pepper: { file: pepper }\n  brand: acme\n  shapes:\n\
                \x20 - { name: cablecast, length: 20, alphabet: hex }\n  - { name: c3d, length: 16, alphabet: base64url }\n\
                store: sqlite:keys.db\nproxy: { upstream: http://app }\n";
    let locksmith = load_text(text, &Overrides::default()).unwrap().locksmith;
    let shape = |key: &str| locksmith.format.shape_of(key.as_bytes()).map(|shape| shape.name.clone());
    assert_eq!(shape("0123456789abcdef0123").as_deref(), Some("cablecast"));
    assert_eq!(shape("012345_789-bcdef").as_deref(), Some("c3d"));
    assert_eq!(shape("0123456789"), None);
    assert!(locksmith.format.bears_brand(b"acme_live_"));
}

#[test]
fn the_pepper_is_the_one_of_the_file_or_variable() {
    let by_file = good("").locksmith.pepper.check();
    let text = format!("{NEEDED}proxy: {{ upstream: http://app }}\n").replace("file: pepper", "env: KEYWARD_PEPPER");
    let overrides = Overrides { env: vec![("KEYWARD_PEPPER".to_owned(), PEPPER.to_owned())], set: vec![] };
    let config = load_text(&text, &overrides).unwrap();
    assert!(by_file == config.locksmith.pepper.check());
    assert!(config.warnings.is_empty(), "the variable is no unknown option");
}

#[test]
fn a_pepper_that_everybody_can_read_is_a_warning() {
    let folder = folder_with(&format!("{NEEDED}proxy: {{ upstream: http://app }}\n"));
    fs::set_permissions(folder.path().join("pepper"), fs::Permissions::from_mode(0o644)).unwrap();
    let config = load(&folder.path().join("keyward.yaml"), &Overrides::default()).unwrap();
    let path = folder.path().display();
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert_eq!(
        warning.to_string(),
        format!(
            "{path}/keyward.yaml:2:25: keys.pepper.file: {path}/pepper can be read by every user of this machine; \
             take that \
             away with chmod 600"
        )
    );
}

#[test]
fn commands_on_keys_need_no_proxy_section() {
    let folder = folder_with(NEEDED);
    let path = folder.path().join("keyward.yaml");
    let config = load_for_keys(&path, &Overrides::default()).unwrap();
    assert_eq!(config.store, Location::Sqlite(folder.path().join("keys.db")));
    assert!(load(&path, &Overrides::default()).is_err());

    let folder = folder_with(&format!("{NEEDED}proxy: {{ upstream: ftp://app }}\nlog: {{ level: loud }}\n"));
    let mistakes = load_for_keys(&folder.path().join("keyward.yaml"), &Overrides::default()).err().unwrap();
    assert_eq!(mistakes.mistakes.len(), 2, "{mistakes}");
}

#[test]
fn a_route_overrides_only_the_credentials_it_names() {
    let config = good(
        "credentials: { bare: true, header: X-Key }\n\
         routes:\n\
         - { path: /a, credentials: { query: '' } }\n\
         - { path: /b, credentials: { header: X-Other, bearer: false, forward: true } }\n\
         - { path: /c }\n",
    );
    let forms = |path| {
        let forms = &config.proxy.routes.find_path(path).rule.forms;
        let header = forms.header.as_ref().map(http::HeaderName::as_str);
        (forms.organization, forms.bearer, forms.basic, forms.bare, header, forms.query.as_deref())
    };
    let top = (true, true, true, true, Some("x-key"), Some("api_key"));
    assert_eq!(forms("/"), top);
    assert_eq!(forms("/a"), (true, true, true, true, Some("x-key"), None));
    assert_eq!(forms("/b"), (true, false, true, true, Some("x-other"), Some("api_key")));
    assert_eq!(forms("/c"), top);
    let forwarded: Vec<bool> = config.proxy.settings.iter().map(|setting| setting.forward_credential).collect();
    assert_eq!(forwarded, [false, true, false, false]);
}

#[test]
fn routes_match_by_host_method_and_path() {
    let config = good(
        "routes:\n\
         - { path: '/public/{*rest}', auth: none }\n\
         - { path: /x, hosts: a.example, methods: [GET, POST], class: write, env: test }\n\
         - { path: /x, hosts: [b.example, '*.c.example'], methods: DELETE, class: read }\n\
         default_route: { class: read, env: live }\n",
    );
    let found = |method: Method, host, path| {
        let (uri, mut headers) = (http::Uri::from_static(path), http::HeaderMap::new());
        headers.insert(http::header::HOST, http::HeaderValue::from_static(host));
        let matched = config.proxy.routes.find(&RequestTarget { method: &method, uri: &uri, headers: &headers });
        let environment = matched.rule.environment.map(crate::auth::grant::Environment::label);
        (matched.index, matched.rule.requirement, matched.rule.class, environment)
    };
    let (read, write) = (ClassRule::Always(Class::Read), ClassRule::Always(Class::Write));
    assert_eq!(found(Method::GET, "", "/public/x"), (0, Requirement::Nothing, ClassRule::Method, None));
    assert_eq!(found(Method::POST, "a.example", "/x"), (1, Requirement::Key, write, Some("test")));
    assert_eq!(found(Method::DELETE, "www.c.example", "/x"), (2, Requirement::Key, read, None));
    assert_eq!(found(Method::PUT, "a.example", "/x"), (3, Requirement::Key, read, Some("live")));
}

#[test]
fn denials_and_injections_of_routes() {
    let config = good(
        "deny: { fallback: json }\n\
         routes:\n\
         - { path: /a, deny: xml-cablecast }\n\
         - { path: /b, deny: { format: text, status: 404, body: Gone } }\n\
         - { path: /c, deny: { status: 200 } }\n\
         - { path: /d, deny: auto, inject: { query: { username: user }, header: { X-Key: key-id, X-Org: organization } } }\n\
         default_route: { deny: oauth }\n",
    );
    let deny = |format, status: Option<u16>, body: Option<&str>| Deny {
        format,
        status: status.map(|status| http::StatusCode::from_u16(status).unwrap()),
        body: body.map(str::to_owned),
    };
    let auto = FormatRule::Negotiated(Format::Json);
    let denials: Vec<Deny> = config.proxy.settings.iter().map(|setting| setting.deny.clone()).collect();
    assert_eq!(
        denials,
        [
            deny(FormatRule::Always(Format::XmlCablecast), None, None),
            deny(FormatRule::Always(Format::Text), Some(404), Some("Gone")),
            deny(auto, Some(200), None),
            deny(auto, None, None),
            deny(FormatRule::Always(Format::Oauth), None, None),
        ]
    );
    let header = |name, value| Inject { into: InjectInto::Header(http::HeaderName::from_static(name)), value };
    let query = Inject { into: InjectInto::Query("username".into()), value: IdentityValue::User };
    let all = [header("x-key", IdentityValue::KeyId), header("x-org", IdentityValue::Organization), query];
    assert_eq!(config.proxy.settings[3].inject, all);
    assert!(config.proxy.settings[0].inject.is_empty());
}
