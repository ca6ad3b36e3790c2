//! A WebSocket library that people use, as client and as server: in the clear and by TLS.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::certificates::Authority;
use crate::support::{Key, Keyward, Site};
use crate::tools::{self, Program};

/// The Python that has the library.
fn python() -> Option<String> {
    let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/websocket/setup.sh");
    let found = tools::run(Command::new(setup).arg("--present"));
    let python = found.out.trim().to_owned();
    (!tools::lacks_what("Python's websockets", "tests/it/websocket/setup.sh", Path::new(&python).is_file()))
        .then_some(python)
}

/// The script, in one of its parts.
fn script(python: &str, words: &[&str]) -> Program {
    Program::start(Command::new(python).arg("-c").arg(include_str!("library.py")).args(words))
}

/// Where the other side begins: an echo, Keyward before it, and a key.
fn serve(python: &str, tls: Option<&Authority>) -> (Program, Keyward, Key) {
    let mut echo = script(python, &["serve"]);
    let port: u16 = echo.wait_for("port", |out, _| out.lines().next()?.strip_prefix("port ")?.parse().ok());
    let config = if tls.is_some() { "proxy: { tls: { certificate: tls.crt, key: tls.key } }" } else { "" };
    let site = Site::new(([127, 0, 0, 1], port).into(), config);
    if let Some(ca) = tls {
        let certified = ca.sign("localhost", 2020..2100);
        site.write("tls.key", &certified.key);
        site.write("tls.crt", &certified.certificate);
        site.write("ca.crt", &ca.certificate);
    }
    let key = site.create_key(&[]);
    (echo, site.serve(), key)
}

#[test]
fn a_library_on_both_sides_finds_nothing_between() {
    let Some(python) = python() else { return };
    let ca = Authority::new("root");
    for tls in [None, Some(&ca)] {
        let (mut echo, keyward, key) = serve(&python, tls);
        let authority = keyward.site.path().join("ca.crt");
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let url = format!("{scheme}://{}", keyward.proxy);
        let mut words = vec!["talk", &*url, &*key.value];
        words.extend(tls.and(authority.to_str()));
        let ended = script(&python, &words).end(Duration::from_secs(60));
        assert_eq!((ended.out.trim(), ended.status.code()), ("all is well", Some(0)), "{scheme}: {}", ended.err);
        echo.wait_for("the client's goodbye", |out, _| out.contains("closed /echo?room=1 4001 done").then_some(()));
        assert!(!echo.out().contains("/refused"), "{}", echo.out());

        words[0] = "stay";
        let mut stays = script(&python, &words);
        stays.wait_for("echo", |out, _| out.contains("in").then_some(()));
        assert!(keyward.site.run(&["key", "revoke", &key.id]).status.success());
        stays.wait_for("goodbye", |out, _| out.contains("out 1008").then_some(()));
    }
}
