//! Values of options: text in, something that cannot be wrong out, or a sentence that says what to write instead.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::HeaderName;

use super::raw;
use super::secrecy::quoted;
use super::suggest::did_you_mean;
use crate::auth::key::Brand;
use crate::auth::path::is_ambiguous;

/// Longer than any timeout means, and short enough to be added to any time.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// A socket's path must fit into 108 bytes with its final zero.
const LONGEST_SOCKET_PATH: usize = 107;
/// Headers that belong to the connection, or that the proxy itself sets.
const TAKEN_HEADERS: [&str; 17] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// The address of a listener.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let shown = quoted(text);
        match text.rsplit_once(':') {
            _ if text.parse::<IpAddr>().is_ok() => {
                format!("{shown} lacks the port; write for example 0.0.0.0:8080 or [::]:8080")
            }
            Some(("" | "*", port)) if port.parse::<u16>().is_ok() => {
                format!("{shown} lacks the address; write 0.0.0.0:{port} for all, or 127.0.0.1:{port} for this machine")
            }
            Some(("localhost", port)) if port.parse::<u16>().is_ok() => {
                format!("{shown} has a name instead of an address; write 127.0.0.1:{port}")
            }
            Some(_) | None => format!("{shown} is no address with a port; write for example 0.0.0.0:8080 or [::]:8080"),
        }
    })
}

/// Where the upstream is.
#[derive(Debug)]
pub(super) enum Place {
    Http(String),
    Https(String),
    Unix(PathBuf),
}

/// Reads where the upstream is; the path of a socket starts at `base`.
pub(super) fn upstream(text: &str, base: &Path) -> Result<Place, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path, base);
    }
    let shown = quoted(text);
    let (scheme, place, port): (_, fn(String) -> Place, _) =
        if text.starts_with("https://") { ("https", Place::Https, 443) } else { ("http", Place::Http, 80) };
    let Some(rest) = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) else {
        let advice = if authority(text, port).is_ok() {
            format!("write http://{text}")
        } else {
            "write http://HOST:PORT, https://HOST:PORT or unix:PATH".to_owned()
        };
        return Err(format!("{shown} is no upstream; {advice}"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("an upstream is written without user name and password".to_owned());
    }
    if rest.contains(['/', '?', '#']) {
        return Err(format!(
            "{shown} has a path; an upstream is {scheme}://HOST:PORT, and requests keep the path they have"
        ));
    }
    authority(rest, port).map(place).map_err(|why| format!("{shown} {why}; write {scheme}://HOST:PORT"))
}

fn socket(path: &str, base: &Path) -> Result<Place, String> {
    let path = if path.starts_with("///") { &path[2..] } else { path };
    if path.is_empty() || path.starts_with("//") {
        return Err("a socket is written as unix:PATH, such as unix:/run/app.sock".to_owned());
    }
    let path: PathBuf = base.join(path).components().collect();
    match path.as_os_str().len() {
        ..=LONGEST_SOCKET_PATH => Ok(Place::Unix(path)),
        length => {
            Err(format!("the path of the socket is {length} bytes long; the system allows {LONGEST_SOCKET_PATH}"))
        }
    }
}

/// A host and a port, which is this one if it is left out.
pub(super) fn authority(text: &str, default: u16) -> Result<String, &'static str> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("needs brackets around its IPv6 address");
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) if host.parse::<Ipv6Addr>().is_ok() => (&text[..host.len() + 2], after),
        Some(_) => return Err("has no IPv6 address in its brackets"),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let port =
        if port.is_empty() { Some(default) } else { port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) };
    match port.filter(|port| *port != 0) {
        _ if !named && !host.starts_with('[') => Err("has no host"),
        None => Err("has no port from 1 to 65535"),
        Some(port) => Ok(format!("{host}:{port}")),
    }
}

/// A time that may be nothing.
pub(super) fn time(raw: &raw::Time) -> Result<Duration, String> {
    let text = raw.0.trim();
    let parsed = humantime::parse_duration(text);
    let time = parsed
        .map_err(|_| format!("{} is no time; write a number and its unit: 500ms, 10s, 5m or 1h", quoted(text)))?;
    if time > LONGEST { Err(format!("{} is too long; a year is the most", quoted(text))) } else { Ok(time) }
}

/// A time that is more than nothing.
pub(super) fn time_above_zero(raw: &raw::Time) -> Result<Duration, String> {
    match time(raw)? {
        Duration::ZERO => Err("must be more than 0s".to_owned()),
        time => Ok(time),
    }
}

/// What a process is called.
pub(super) fn node(raw: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&raw.len()) && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    fits.then(|| raw.to_owned()).ok_or_else(|| "must be 1 to 64 of A-Z a-z 0-9 . _ : -".to_owned())
}

/// The largest request head.
pub(super) fn head_size(raw: &raw::Size) -> Result<usize, String> {
    let bytes = match raw {
        raw::Size::Bytes(bytes) => Some(*bytes),
        raw::Size::Text(text) => size(text),
    };
    let shown = match raw {
        raw::Size::Bytes(bytes) => bytes.to_string(),
        raw::Size::Text(text) => quoted(text),
    };
    let bytes = bytes
        .ok_or_else(|| format!("{shown} is no size; write a number of bytes, or one with KiB or MiB such as 32KiB"))?;
    // The HTTP library does not work with less.
    let fits = (8 << 10..=1 << 20).contains(&bytes);
    usize::try_from(bytes).ok().filter(|_| fits).ok_or_else(|| format!("{shown} is out of range: from 8KiB to 1MiB"))
}

fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A level, or directives such as `info,keyward::sync=debug`.
pub(super) fn level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for directive in text.split(',') {
        let level =
            directive.rsplit_once('=').filter(|(part, _)| !part.is_empty()).map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level) {
            let advice = did_you_mean(level, &LEVELS).unwrap_or_else(|| format!("; levels are {}", LEVELS.join(", ")));
            return Err(format!("{} is no level{advice}", quoted(level)));
        }
    }
    Ok(text.to_owned())
}

/// What new keys begin with.
pub(super) fn brand(text: &str) -> Result<Brand, String> {
    let advice = "write a lower-case letter, then 1 to 11 lower-case letters or digits";
    Brand::parse(text).ok_or_else(|| format!("{} is no brand; {advice}", quoted(text)))
}

/// What people call a shape.
pub(super) fn shape_name(text: &str) -> Result<&str, String> {
    let advice = "write up to 64 letters, digits, dots, dashes and underscores";
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    fits.then_some(text).ok_or_else(|| format!("{} is no name of a shape; {advice}", quoted(text)))
}

/// A header that is free to be used, in a deployment where names with this prefix are ours.
pub(super) fn header(text: &str, identity_prefix: &str) -> Result<HeaderName, String> {
    let name =
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{} is no name of a header", quoted(text)))?;
    if TAKEN_HEADERS.contains(&name.as_str()) {
        return Err(format!("the header {name} has a meaning of its own; choose another"));
    }
    if name.as_str().starts_with(identity_prefix) {
        return Err(format!(
            "headers that begin with {identity_prefix} are Keyward's own and are removed; choose another"
        ));
    }
    Ok(name)
}

/// A query parameter, as it is called when nothing of it is escaped.
pub(super) fn parameter(text: &str) -> Result<Box<str>, String> {
    let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"&=#%+?;".contains(&b));
    fits.then(|| text.into()).ok_or_else(|| format!("{} is no name of a query parameter", quoted(text)))
}

/// What the names of identity headers begin with, in lower case.
pub(super) fn identity_prefix(text: &str) -> Result<String, String> {
    let prefix = text.to_ascii_lowercase();
    // Some servers read other marks as a dash: what may stand first must have one spelling.
    let begins = prefix.starts_with(|first: char| first.is_ascii_alphanumeric());
    let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let fits = prefix.len() > 2 && begins && prefix.ends_with('-') && plain;
    if !fits {
        return Err(format!(
            "{} is no prefix of headers; write letters and digits and a final dash: X-Keyward-",
            quoted(text)
        ));
    }
    let others = TAKEN_HEADERS.into_iter().chain([
        "accept-encoding",
        "user-agent",
        "x-api-key",
        "cache-control",
        "if-none-match",
    ]);
    match others.into_iter().find(|name| name.starts_with(&prefix)) {
        Some(other) => {
            Err(format!("all headers that begin with {prefix} would be removed, also {other}; choose another"))
        }
        None => Ok(prefix),
    }
}

/// What clients call this server: `https://keys.example.com`, without a path. Empty for nothing.
pub(super) fn base_url(text: &str) -> Result<Option<String>, &'static str> {
    const WHY: &str = "must be http:// or https:// and a host, such as https://keys.example.com";
    if text.is_empty() {
        return Ok(None);
    }
    let url: http::Uri = text.parse().map_err(|_| WHY)?;
    let is_whole =
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty());
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && !text.contains(['@', '#']);
    if is_whole && is_bare { Ok(Some(text.trim_end_matches('/').to_owned())) } else { Err(WHY) }
}

/// Reads a prefix under which the management API is mounted. It ends as the paths of the API begin, and there is one way to
/// spell it.
pub(super) fn mount(text: &str) -> Result<Option<Box<str>>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._~-".contains(&byte));
    let fits = is_plain && text.ends_with("/v2") && !is_ambiguous(text);
    fits.then(|| Some(text.into()))
        .ok_or("must be a path of plain letters that ends with /v2, such as /v2 or /manage/v2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: std::fmt::Debug>(result: Result<T, String>, expected: Result<&str, &str>) {
        let result = result.map(|value| format!("{value:?}"));
        assert_eq!(result.as_ref().map(String::as_str).map_err(String::as_str), expected);
    }

    #[test]
    fn upstreams() {
        let read = |text| upstream(text, Path::new("/etc/keyward"));
        check(read("http://127.0.0.1:9000"), Ok(r#"Http("127.0.0.1:9000")"#));
        check(read("http://127.0.0.1:9000/"), Ok(r#"Http("127.0.0.1:9000")"#));
        check(read("http://app.example"), Ok(r#"Http("app.example:80")"#));
        check(read("http://[::1]:9000"), Ok(r#"Http("[::1]:9000")"#));
        check(read("http://[::1]"), Ok(r#"Http("[::1]:80")"#));
        check(read("unix:/run/app.sock"), Ok(r#"Unix("/run/app.sock")"#));
        check(read("unix:///run/app.sock"), Ok(r#"Unix("/run/app.sock")"#));
        check(read("unix:app.sock"), Ok(r#"Unix("/etc/keyward/app.sock")"#));
        check(read("unix:./app.sock"), Ok(r#"Unix("/etc/keyward/app.sock")"#));
        check(read("unix:"), Err("a socket is written as unix:PATH, such as unix:/run/app.sock"));
        check(read("unix://run/app.sock"), Err("a socket is written as unix:PATH, such as unix:/run/app.sock"));
        check(read("https://app"), Ok(r#"Https("app:443")"#));
        check(read("https://app:8443/"), Ok(r#"Https("app:8443")"#));
        check(
            read("https://app/x"),
            Err(
                r#""https://app/x" has a path; an upstream is https://HOST:PORT, and requests keep the path they have"#,
            ),
        );
        check(
            read("https:app"),
            Err(r#""https:app" is no upstream; write http://HOST:PORT, https://HOST:PORT or unix:PATH"#),
        );
        check(read("localhost:9000"), Err(r#""localhost:9000" is no upstream; write http://localhost:9000"#));
        check(
            read("ftp://app"),
            Err(r#""ftp://app" is no upstream; write http://HOST:PORT, https://HOST:PORT or unix:PATH"#),
        );
        check(read("http://"), Err(r#""http://" has no host; write http://HOST:PORT"#));
        check(read("http://:80"), Err(r#""http://:80" has no host; write http://HOST:PORT"#));
        check(read("http://app:0"), Err(r#""http://app:0" has no port from 1 to 65535; write http://HOST:PORT"#));
        check(read("http://app:"), Err(r#""http://app:" has no port from 1 to 65535; write http://HOST:PORT"#));
        check(
            read("http://[app]:1"),
            Err(r#""http://[app]:1" has no IPv6 address in its brackets; write http://HOST:PORT"#),
        );
        check(
            read("http://::1"),
            Err(r#""http://::1" needs brackets around its IPv6 address; write http://HOST:PORT"#),
        );
        check(
            read("http://2001:db8::1"),
            Err(r#""http://2001:db8::1" needs brackets around its IPv6 address; write http://HOST:PORT"#),
        );
        check(read("http://user:hunter2@app"), Err("an upstream is written without user name and password"));
        let path = format!("unix:/{}", "x".repeat(107));
        check(read(&path), Err("the path of the socket is 108 bytes long; the system allows 107"));
    }

    #[test]
    fn times_and_sizes() {
        for (text, expected) in [
            ("500ms", Ok(500)),
            ("1m 30s", Ok(90_000)),
            ("0s", Ok(0)),
            (" 10s ", Ok(10_000)),
            ("365days", Ok(365 * 24 * 3_600_000)),
            ("10", Err(r#""10" is no time; write a number and its unit: 500ms, 10s, 5m or 1h"#)),
            ("", Err(r#""" is no time; write a number and its unit: 500ms, 10s, 5m or 1h"#)),
            ("-1s", Err(r#""-1s" is no time; write a number and its unit: 500ms, 10s, 5m or 1h"#)),
            ("400days", Err(r#""400days" is too long; a year is the most"#)),
            ("99999999999999999999s", Err("this value is no time; write a number and its unit: 500ms, 10s, 5m or 1h")),
        ] {
            let parsed = time(&raw::Time(text.to_owned()));
            assert_eq!(parsed, expected.map(Duration::from_millis).map_err(str::to_owned), "{text}");
        }
        for (text, expected) in [
            ("32KiB", Some(32 << 10)),
            ("1 MiB", Some(1 << 20)),
            ("8192", Some(8192)),
            ("8192B", Some(8192)),
            ("32KB", None),
            ("KiB", None),
            ("-1", None),
            ("", None),
            ("99999999999999999999MiB", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn names_of_headers_and_parameters() {
        check(header("X-API-Key", "x-keyward-"), Ok(r#""x-api-key""#));
        check(header("", "x-keyward-"), Err(r#""" is no name of a header"#));
        check(header("a b", "x-keyward-"), Err(r#""a b" is no name of a header"#));
        check(header("Authorization", "x-"), Err("the header authorization has a meaning of its own; choose another"));
        check(
            header("X-Keyward-Key", "x-keyward-"),
            Err("headers that begin with x-keyward- are Keyward's own and are removed; choose another"),
        );
        check(parameter("api_key"), Ok(r#""api_key""#));
        check(parameter("filter[user]"), Ok(r#""filter[user]""#));
        check(parameter("a&b"), Err(r#""a&b" is no name of a query parameter"#));
        check(identity_prefix("X-Keyward-"), Ok(r#""x-keyward-""#));
        check(
            identity_prefix("X-Keyward"),
            Err(r#""X-Keyward" is no prefix of headers; write letters and digits and a final dash: X-Keyward-"#),
        );
        check(
            identity_prefix("X-"),
            Err(r#""X-" is no prefix of headers; write letters and digits and a final dash: X-Keyward-"#),
        );
        check(
            identity_prefix("X-Forwarded-"),
            Err("all headers that begin with x-forwarded- would be removed, also x-forwarded-for; choose another"),
        );
    }

    #[test]
    fn levels_of_the_log() {
        check(level("info"), Ok(r#""info""#));
        check(level("info,keyward::sync=debug"), Ok(r#""info,keyward::sync=debug""#));
        check(level("inof"), Err(r#""inof" is no level; did you mean info?"#));
        check(
            level("info,hyper=verbose"),
            Err(r#""verbose" is no level; levels are error, warn, info, debug, trace, off"#),
        );
        check(level(""), Err(r#""" is no level; levels are error, warn, info, debug, trace, off"#));
        check(level("=info"), Err(r#""=info" is no level; did you mean info?"#));
    }
}
