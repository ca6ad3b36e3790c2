//! Where the upstream is, and who it is.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::place::OptionPath;
use super::raw;
use super::report::Report;
use super::values::{self, Place};
use crate::proxy::upstream::Target;
use crate::tls::{Client, ClientFiles};

/// Reads it, and the files for `https:`; commands that serve nobody leave those alone, and get no such target. `None` too
/// where it is not there, or a mistake was reported.
pub(super) fn target(
    raw: &raw::Proxy,
    listen: Option<SocketAddr>,
    base: &Path,
    reads_files: bool,
    report: &mut Report,
) -> Option<Target> {
    let at = OptionPath::of(["proxy", "upstream"]);
    let place = report.take(&at, values::upstream(raw.upstream.as_ref()?, base))?;
    if let (Place::Http(authority) | Place::Https(authority), Some(listen)) = (&place, listen)
        && is_itself(authority, listen)
    {
        report.mistake(&at, "is proxy.listen itself: requests would go round in a circle");
    }
    if let (Place::Http(_) | Place::Unix(_), Some(_)) = (&place, &raw.upstream_tls) {
        let at = OptionPath::of(["proxy", "upstream_tls"]);
        report
            .mistake(&at, "is for an upstream by https: write proxy.upstream as https://HOST:PORT, or leave this out");
    }
    match place {
        Place::Http(authority) => Some(Target::Http(authority)),
        Place::Unix(path) => Some(Target::Unix(path)),
        Place::Https(authority) => {
            let at = OptionPath::of(["proxy", "upstream_tls"]);
            let http2 = raw.upstream_protocol == raw::UpstreamProtocol::Http2;
            let peer = Peer { authority: &authority, http2, tls: raw.upstream_tls.as_ref(), at: &at };
            let client = client(&peer, base, reads_files, report)?;
            Some(Target::Https { authority, client: Arc::new(client) })
        }
    }
}

/// Whether an upstream on this machine is the listener.
fn is_itself(authority: &str, listen: SocketAddr) -> bool {
    let local = authority.replacen("localhost:", "127.0.0.1:", 1).parse::<SocketAddr>();
    local.is_ok_and(|upstream| {
        let here = upstream.ip() == listen.ip() || upstream.ip().is_loopback() && listen.ip().is_unspecified();
        here && upstream.port() == listen.port() && listen.port() != 0
    })
}

/// A server that is spoken with by TLS.
pub(super) struct Peer<'p> {
    /// Its host and port.
    pub(super) authority: &'p str,
    /// Whether HTTP/2 is spoken.
    pub(super) http2: bool,
    /// What is said of it, and where.
    pub(super) tls: Option<&'p raw::UpstreamTls>,
    pub(super) at: &'p OptionPath,
}

/// Our side of TLS with a server.
pub(super) fn client(peer: &Peer<'_>, base: &Path, reads_files: bool, report: &mut Report) -> Option<Client> {
    let Peer { authority, http2, tls: raw, at } = *peer;
    if let Some(raw::UpstreamTls { certificate, key, .. }) = raw
        && certificate.is_some() != key.is_some()
    {
        let lone = if key.is_some() { "key" } else { "certificate" };
        report.mistake(&at.key(lone), "is of no use alone: certificate and key belong together");
        return None;
    }
    if !reads_files {
        return None;
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = raw.and_then(|raw| raw.server_name.as_deref()).unwrap_or(host);
    let files = raw.map(|raw| files(raw, base)).unwrap_or_default();
    match Client::load(&files, name, http2) {
        Ok(client) => Some(client),
        Err(error) => {
            let is = |path: Option<&std::path::PathBuf>| error.path().is_some() && error.path() == path.map(|p| &**p);
            let option = match &files.own {
                _ if is(files.ca.as_ref()) => Some("ca"),
                Some((certificate, _)) if is(Some(certificate)) => Some("certificate"),
                Some((_, key)) if is(Some(key)) => Some("key"),
                Some(_) | None => raw.and_then(|raw| raw.server_name.as_ref()).map(|_| "server_name"),
            };
            report.mistake(&option.map_or_else(|| at.clone(), |option| at.key(option)), error.to_string());
            None
        }
    }
}

/// The files for an upstream by `https:`.
pub(super) fn files(raw: &raw::UpstreamTls, base: &Path) -> ClientFiles {
    let own = raw.certificate.as_ref().zip(raw.key.as_ref());
    ClientFiles {
        ca: raw.ca.as_ref().map(|path| base.join(path)),
        own: own.map(|(certificate, key)| (base.join(certificate), base.join(key))),
    }
}
