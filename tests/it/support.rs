//! What the tests stand on: messages on the wire ([`wire`]), a client ([`client`]), an upstream ([`upstream`]) and the
//! program itself ([`keyward`]). Nothing here knows how Keyward works inside.

pub(crate) mod client;
pub(crate) mod keyward;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::time::{Duration, Instant};

pub(crate) use self::client::{Client, Response, request};
pub(crate) use self::keyward::{Key, Keyward, Site};
pub(crate) use self::upstream::{After, Upstream, ok};

/// How long anything may take that ought to happen at once. Generous: it only decides how late a failure is noticed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for something that gives no sign when it happens.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
