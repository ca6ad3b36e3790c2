//! The `proxy` section and the listeners.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::place::OptionPath;
use super::raw;
use super::report::Report;
use super::routes::{self, Routing};
use super::secrecy::without;
use super::{upstream, values};
use crate::auth::Locksmith;
use crate::auth::address::Networks;
use crate::proxy::upstream::Protocol;
use crate::proxy::{Config, Limits, Workers};
use crate::tls;

/// Where each listener is, as far as it is wanted and its address can be read.
pub(super) struct Listeners {
    pub(super) proxy: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) ops: Option<SocketAddr>,
}

/// Reads the addresses of the listeners, of which no two may be the same.
pub(super) fn listeners(raw: &raw::File, report: &mut Report) -> Listeners {
    let mut known: Vec<(&str, SocketAddr)> = Vec::new();
    let mut listener = |section: &'static str, text: Option<&String>| {
        let at = OptionPath::of([section, "listen"]);
        let address = report.take(&at, values::listen(text?))?;
        if let Some((other, _)) = known.iter().find(|(_, other)| overlap(*other, address)) {
            report.mistake(&at, format!("takes the same port as {other}.listen; each listener needs its own"));
        }
        known.push((section, address));
        Some(address)
    };
    Listeners {
        proxy: listener("proxy", raw.proxy.as_ref().map(|proxy| &proxy.listen)),
        admin: listener("admin", raw.admin.as_ref().map(|admin| &admin.listen)),
        ops: listener("ops", raw.ops.as_ref().map(|ops| &ops.listen)),
    }
}

/// Whether two listeners would be in each other's way. Port 0 is any free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (all || one.ip() == other.ip())
}

/// Reads the `proxy` section and the routes. `None` where it is not there, or a mistake was reported.
pub(super) fn proxy(
    raw: &raw::File,
    listen: Option<SocketAddr>,
    locksmith: Option<&Arc<Locksmith>>,
    base: &Path,
    reads_files: bool,
    report: &mut Report,
) -> Option<Config> {
    let prefix = values::identity_prefix(&raw.identity_headers.prefix);
    let prefix = report.take(&OptionPath::of(["identity_headers", "prefix"]), prefix);
    let identity_prefix = prefix.unwrap_or_else(|| "x-keyward-".to_owned());
    // Without a proxy nothing uses the routes, but what is wrong with them is wrong all the same.
    let paths = raw.proxy.as_ref().map_or(raw::Paths::Strict, |proxy| proxy.paths);
    let Routing { routes, settings } = routes::routing(raw, paths, &identity_prefix, report);
    let mount = mount(raw, report);

    let at = OptionPath::of(["proxy"]);
    let raw = raw.proxy.as_ref()?;
    let upstream = upstream::target(raw, listen, base, reads_files, report);
    let trusted_proxies = networks(&raw.trusted_proxies, &at.key("trusted_proxies"), report);
    let proxy_protocol = networks(&raw.proxy_protocol, &at.key("proxy_protocol"), report);
    let tls = tls(raw, base, reads_files, report);
    let limits = limits(raw, &at, report);
    Some(Config {
        listen: listen?,
        upstream: upstream?,
        upstream_protocol: match raw.upstream_protocol {
            raw::UpstreamProtocol::Http1 => Protocol::Http1,
            raw::UpstreamProtocol::Http2 => Protocol::Http2,
        },
        workers: workers(raw.workers),
        trusted_proxies: trusted_proxies?,
        proxy_protocol: proxy_protocol?,
        tls: tls?,
        http2: raw.http2,
        mount,
        routes,
        settings,
        locksmith: Arc::clone(locksmith?),
        identity_prefix,
        limits: limits?,
    })
}

/// Reads where the management API is mounted. No route may be there: its requests would never reach it.
fn mount(raw: &raw::File, report: &mut Report) -> Option<Box<str>> {
    let prefix = report.take(&OptionPath::of(["admin", "mount"]), values::mount(&raw.admin.as_ref()?.mount))??;
    for (nth, route) in raw.routes.iter().enumerate() {
        let rest = route.path.as_ref().and_then(|path| path.strip_prefix(&*prefix));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            report.mistake(
                &OptionPath::of(["routes"]).index(nth).key("path"),
                format!("is never reached, since admin.mount takes all that is under {prefix}; remove this route, or mount the API elsewhere"),
            );
        }
    }
    Some(prefix)
}

/// Reads the files for HTTPS, so that what is wrong with them is told with everything else; commands that serve nobody leave
/// them alone. `None` where a mistake was reported.
fn tls(raw: &raw::Proxy, base: &Path, reads_files: bool, report: &mut Report) -> Option<Option<tls::Server>> {
    let at = OptionPath::of(["proxy", "tls"]);
    let http2 = raw.http2;
    let Some(raw) = &raw.tls else { return Some(None) };
    if raw.client_auth.is_some() && raw.client_ca.is_none() {
        report.mistake(&at.key("client_auth"), "needs client_ca, the roots of the certificates that clients must have");
        return None;
    }
    let files = tls_files(raw, base)?;
    if !reads_files {
        return Some(None);
    }
    match tls::Server::load(&files, http2) {
        Ok(server) => Some(Some(server)),
        Err(error) => {
            let options = ["certificate", "key", "client_ca"].into_iter().zip(files.paths());
            let option = options
                .into_iter()
                .find(|(_, path)| Some(path.as_path()) == error.path())
                .map_or("key", |(option, _)| option);
            report.mistake(&at.key(option), error.to_string());
            None
        }
    }
}

/// The files for HTTPS. `None` where one is missing, which was reported.
pub(super) fn tls_files(raw: &raw::Tls, base: &Path) -> Option<tls::ServerFiles> {
    let auth = match raw.client_auth {
        Some(raw::ClientAuth::Required) | None => tls::ClientAuth::Required,
        Some(raw::ClientAuth::Optional) => tls::ClientAuth::Optional,
    };
    Some(tls::ServerFiles {
        certificate: base.join(raw.certificate.as_ref()?),
        key: base.join(raw.key.as_ref()?),
        client_ca: raw.client_ca.as_ref().map(|path| (base.join(path), auth)),
    })
}

/// `auto` is as many as there are CPUs for this process, or as its cgroup's quota comes to, rounded up.
fn workers(raw: raw::Workers) -> Workers {
    let count = match raw {
        raw::Workers::Word(raw::AutoWord::Auto) => {
            rounded_up(thread::available_parallelism().map_or(1, usize::from), of_cgroup("cpu.max").as_deref())
        }
        raw::Workers::Number(number) => usize::try_from(number).unwrap_or(usize::MAX),
    };
    Workers { count, is_auto: matches!(raw, raw::Workers::Word(_)) }
}

/// The standard library rounds a quota down: with a CPU and a half, one thread would leave the half unused.
fn rounded_up(available: usize, cpu_max: Option<&str>) -> usize {
    let quota = cpu_max.and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<usize>().ok()?.div_ceil(period.parse::<usize>().ok().filter(|period| *period > 0)?))
    });
    if quota == Some(available + 1) { available + 1 } else { available }
}

/// What the kernel says of this process's cgroup (version 2): for `cpu.max` microseconds, and of how many.
fn of_cgroup(file: &str) -> Option<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let inside = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}"));
    inside.or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}"))).ok()
}

/// What the process needs for itself, and what a client may make it hold without a key: a head that never ends, an answer
/// that is not read, or the streams of HTTP/2.
const OWN_MEMORY: i64 = 32 << 20;
const MEMORY_OF_CONNECTION: i64 = 256 << 10;
/// Even the smallest sidecar serves that many.
const FEW_CONNECTIONS: i64 = 64;

/// `auto` is half of the files that the process may open, since a connection may need another one to the upstream, and no
/// more than its memory is enough for.
fn max_connections(raw: raw::MaxConnections) -> i64 {
    match raw {
        raw::MaxConnections::Number(number) => i64::try_from(number).unwrap_or(i64::MAX),
        raw::MaxConnections::Word(raw::AutoWord::Auto) => {
            let limits = std::fs::read_to_string("/proc/self/limits").ok();
            let by_files = limits.and_then(|text| open_files(&text)).unwrap_or(i64::MAX) / 2;
            by_files.min(by_memory(of_cgroup("memory.max").as_deref()))
        }
    }
}

/// How many connections a cgroup's memory is enough for; `max` is any number.
fn by_memory(memory_max: Option<&str>) -> i64 {
    let memory = memory_max.and_then(|text| text.trim().parse::<i64>().ok());
    memory.map_or(i64::MAX, |memory| ((memory - OWN_MEMORY) / MEMORY_OF_CONNECTION).max(FEW_CONNECTIONS))
}

/// How many files the kernel says that a process may open.
fn open_files(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Each network is read by itself, so that each mistake has its place.
fn networks(raw: &[String], at: &OptionPath, report: &mut Report) -> Option<Networks> {
    for (nth, text) in raw.iter().enumerate() {
        let parsed = Networks::parse([text.as_str()]).map_err(|error| without(text, &error));
        report.take(&at.index(nth), parsed);
    }
    Networks::parse(raw.iter().map(String::as_str)).ok()
}

fn limits(raw: &raw::Proxy, at: &OptionPath, report: &mut Report) -> Option<Limits> {
    let max_head_bytes = report.take(&at.key("max_head"), values::head_size(&raw.max_head));
    let at = at.key("timeouts");
    let mut above_zero = |name: &str, raw| report.take(&at.key(name), values::time_above_zero(raw));
    let handshake_timeout = above_zero("handshake", &raw.timeouts.handshake);
    let head_timeout = above_zero("head", &raw.timeouts.head);
    let body_timeout = above_zero("body", &raw.timeouts.body);
    let idle_timeout = above_zero("idle", &raw.timeouts.idle);
    let connect_timeout = above_zero("connect", &raw.timeouts.connect);
    let response_timeout = above_zero("response", &raw.timeouts.response);
    let tunnel_timeout = above_zero("tunnel", &raw.timeouts.tunnel);
    let upstream_idle_timeout = report.take(&at.key("upstream_idle"), values::time(&raw.timeouts.upstream_idle));
    let response_idle_timeout = report.take(&at.key("response_idle"), values::time(&raw.timeouts.response_idle));
    let request_timeout = report.take(&at.key("request"), values::time(&raw.timeouts.request));
    let drain_timeout = report.take(&at.key("drain"), values::time(&raw.timeouts.drain));
    let drain_delay = report.take(&at.key("drain_delay"), values::time(&raw.timeouts.drain_delay));
    Some(Limits {
        handshake_timeout: handshake_timeout?,
        head_timeout: head_timeout?,
        body_timeout: body_timeout?,
        request_timeout: request_timeout?,
        idle_timeout: idle_timeout?,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
        response_idle_timeout: response_idle_timeout?,
        tunnel_timeout: tunnel_timeout?,
        upstream_idle_timeout: upstream_idle_timeout?,
        drain_timeout: drain_timeout?,
        drain_delay: drain_delay?,
        max_head_bytes: max_head_bytes?,
        max_headers: usize::try_from(raw.max_headers).ok()?,
        max_connections: max_connections(raw.max_connections),
        max_connections_per_peer: usize::try_from(raw.max_connections_per_peer).ok()?,
        max_requests: i64::try_from(raw.max_requests).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_are_for_clients() {
        let limits = "Max stack size  8388608  unlimited  bytes\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files            unlimited            unlimited            files\n"), None);
        assert_eq!(open_files(""), None);
        assert_eq!(max_connections(raw::MaxConnections::Number(7)), 7);
        assert!(max_connections(raw::MaxConnections::Word(raw::AutoWord::Auto)) > 0);
    }

    #[test]
    fn the_memory_of_a_sidecar_is_enough_for_its_clients() {
        for (memory_max, expected) in [
            (Some("134217728\n"), 384),
            (Some("1073741824\n"), 3968),
            (Some("33554432"), 64),
            (Some("0"), 64),
            (Some("max\n"), i64::MAX),
            (Some("nonsense"), i64::MAX),
            (None, i64::MAX),
        ] {
            assert_eq!(by_memory(memory_max), expected, "{memory_max:?}");
        }
    }

    #[test]
    fn a_part_of_a_cpu_is_a_worker_too() {
        for (available, cpu_max, expected) in [
            (1, Some("150000 100000\n"), 2),
            (1, Some("50000 100000"), 1),
            (2, Some("200000 100000"), 2),
            (2, Some("250000 100000"), 3),
            (8, Some("max 100000"), 8),
            (2, Some("800000 100000"), 2),
            (2, Some("100000 0"), 2),
            (2, Some("nonsense"), 2),
            (2, None, 2),
        ] {
            assert_eq!(rounded_up(available, cpu_max), expected, "{available} {cpu_max:?}");
        }
    }
}
