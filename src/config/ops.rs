//! The `ops` section: which probes are passed on, and to whom.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::PathAndQuery;

use super::place::OptionPath;
use super::raw;
use super::report::Report;
use crate::ops::probes::{LocalServer, Probes};
use crate::ops::{Config, PAGES};
use crate::proxy::upstream::{Protocol, Target};

/// Reads the section, as far as its listener is wanted.
pub(super) fn ops(
    raw: Option<&raw::Ops>,
    listen: Option<SocketAddr>,
    upstream: Option<(&Target, Protocol)>,
    report: &mut Report,
) -> Option<Config> {
    let probes = raw.filter(|raw| !raw.probes.is_empty()).and_then(|raw| probes(&raw.probes, upstream?, report));
    Some(Config { listen: listen?, probes: probes.map(Arc::new) })
}

fn probes(
    raw: &BTreeMap<String, String>,
    (upstream, protocol): (&Target, Protocol),
    report: &mut Report,
) -> Option<Probes> {
    let at = OptionPath::of(["ops", "probes"]);
    let server = match upstream {
        Target::Http(authority) => LocalServer::loopback(authority),
        Target::Unix(path) => Some(LocalServer::Socket(path.clone())),
        // Probes are in the clear.
        Target::Https { .. } => None,
    };
    if server.is_none() {
        report.mistake(
            &at,
            "are passed on only to an upstream by http: on this machine (127.0.0.1, [::1], localhost or unix:), because they need \
             no key; probe that server directly",
        );
    }
    if protocol == Protocol::Http2 {
        report.mistake(
            &at,
            "are asked of the upstream by HTTP/1.1, which it does not speak (proxy.upstream_protocol: http2); probe that server \
             directly",
        );
    }
    let mut paths = BTreeMap::new();
    for (name, path) in raw {
        if PAGES.contains(&name.as_str()) {
            report.wrong_name(&at.key(name), "is Keyward's own page; take another name");
        } else if !name.starts_with('/') || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?') {
            report.wrong_name(&at.key(name), "is no path on the ops listener; write one such as /startup");
        }
        let parsed = path.parse::<PathAndQuery>().ok().filter(|_| path.starts_with('/'));
        match report.take(&at.key(name), parsed.ok_or("is no path at the upstream; write one such as /health")) {
            Some(path) => paths.insert(name.clone(), path),
            None => None,
        };
    }
    Some(Probes { server: server?, paths })
}
