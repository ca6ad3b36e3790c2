//! The `traces` section: where spans go, which there are, and what is sent along with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderName, HeaderValue, Uri};

use super::overrides::Overrides;
use super::place::OptionPath;
use super::raw;
use super::report::Report;
use super::secrecy::{may_be_shown, quoted};
use super::{upstream, values};
use crate::telemetry::traces::{Config, Endpoint, Follow, Headers, Resource, Sampling, Transport};

/// What collectors listen to by HTTP. A base URL gets it, as `OTEL_EXPORTER_OTLP_ENDPOINT` does.
const TRACES: &str = "/v1/traces";
/// Where collectors speak gRPC.
const GRPC_PORT: &str = ":4317";
/// Headers that say how a batch is sent.
const TAKEN: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT];
/// A header is much shorter.
const LONGEST_SECRET: u64 = 16 << 10;

/// Where the rest of the config is.
pub(super) struct Around<'a> {
    pub(super) base: &'a Path,
    pub(super) overrides: &'a Overrides,
    /// Commands that serve nobody leave the files alone, and get nothing.
    pub(super) reads_files: bool,
}

/// Reads the section. `None` where it is not there, or a mistake was reported.
pub(super) fn traces(raw: Option<&raw::Traces>, around: &Around<'_>, report: &mut Report) -> Option<Config> {
    let (raw, at) = (raw?, OptionPath::of(["traces"]));
    let timeout = report.take(&at.key("timeout"), values::time_above_zero(&raw.timeout));
    let endpoint = raw.endpoint.as_ref().and_then(|text| endpoint(raw, text, around, report));
    let headers = headers(raw, around, report);
    let resource = Resource::new(
        around.overrides.variable("OTEL_SERVICE_NAME"),
        around.overrides.variable("OTEL_RESOURCE_ATTRIBUTES"),
    );
    let resource = resource.map_err(|error| format!("the environment variable OTEL_RESOURCE_ATTRIBUTES {error}"));
    let resource = report.take(&at, resource);
    let follow = match raw.follow {
        raw::Follow::All => Follow::All,
        raw::Follow::Trusted => Follow::Trusted,
        raw::Follow::None => Follow::None,
    };
    Some(Config {
        endpoint: endpoint?,
        headers: headers?,
        sampling: Sampling::new(raw.sample, follow),
        timeout: timeout?,
        queue: usize::try_from(raw.queue).unwrap_or(usize::MAX),
        resource: resource?,
    })
}

/// The files that the section names.
pub(super) fn files(raw: &raw::Traces, base: &Path) -> Vec<PathBuf> {
    let secrets = raw.headers.values().filter_map(|source| source.file.as_ref());
    let tls = raw.tls.as_ref().map(|tls| upstream::files(tls, base)).unwrap_or_default();
    secrets.map(|file| base.join(file)).chain(tls.paths().cloned()).collect()
}

fn endpoint(raw: &raw::Traces, text: &str, around: &Around<'_>, report: &mut Report) -> Option<Endpoint> {
    let at = OptionPath::of(["traces", "endpoint"]);
    let Place { is_https, authority, path } = report.take(&at, place(text))?;
    if authority.ends_with(GRPC_PORT) {
        report.warn(&at, "has the port on which collectors speak gRPC; HTTP, which is spoken here, is usually on 4318");
    }
    let tls = OptionPath::of(["traces", "tls"]);
    if !is_https {
        if raw.tls.is_some() {
            report.mistake(&tls, "is for a collector by https: write traces.endpoint so, or leave this out");
        }
        return Some(Endpoint { authority, path, transport: Transport::Plain });
    }
    let peer = upstream::Peer { authority: &authority, http2: false, tls: raw.tls.as_ref(), at: &tls };
    let client = upstream::client(&peer, around.base, around.reads_files, report)?;
    Some(Endpoint { authority, path, transport: Transport::Tls(Arc::new(client)) })
}

/// What a URL of a collector comes to.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    is_https: bool,
    authority: String,
    path: Uri,
}

fn place(text: &str) -> Result<Place, String> {
    const ADVICE: &str = "write http://HOST:4318 or https://HOST:4318";
    if text.contains('@') {
        return Err("a collector is written without user name and password; they belong into traces.headers".to_owned());
    }
    let shown = quoted(text);
    let no_url = || format!("{shown} is no URL of a collector; {ADVICE}");
    let (scheme, rest) = text.split_once("://").ok_or_else(no_url)?;
    let (is_https, port) = match scheme {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return Err(no_url()),
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let authority = values::authority(authority, port).map_err(|why| format!("{shown} {why}; {ADVICE}"))?;
    let base = path.trim_end_matches('/');
    let path = if base.ends_with(TRACES) { base.to_owned() } else { format!("{base}{TRACES}") };
    let is_path = !path.contains(['?', '#']);
    let path =
        path.parse().ok().filter(|_| is_path).ok_or_else(|| format!("{shown} has no path that can be asked for"))?;
    Ok(Place { is_https, authority, path })
}

fn headers(raw: &raw::Traces, around: &Around<'_>, report: &mut Report) -> Option<Headers> {
    let (at, mut headers, mut is_whole) = (OptionPath::of(["traces", "headers"]), Headers::default(), true);
    for (name, source) in &raw.headers {
        let here = at.key(name);
        let name = match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if TAKEN.contains(&name) => {
                Err(format!("the header {name} says how spans are sent; leave it out"))
            }
            Ok(name) => Ok(name),
            Err(_) => Err(format!("{} is no name of a header", quoted(name))),
        };
        let header = match name {
            Ok(name) if around.reads_files => report.take(&here, secret(source, around)).map(|value| (name, value)),
            Ok(_) => None,
            Err(wrong) => {
                report.wrong_name(&here, wrong);
                None
            }
        };
        match header {
            Some((name, value)) => headers.insert(name, value),
            None => is_whole = false,
        }
    }
    is_whole.then_some(headers)
}

/// The value of a header, which is told to nobody but the collector.
fn secret(source: &raw::Source, around: &Around<'_>) -> Result<HeaderValue, String> {
    let (text, shown) = match (&source.file, &source.env) {
        (Some(file), None) => {
            let path = around.base.join(file);
            let shown = if may_be_shown(file) { path.display().to_string() } else { "that file".to_owned() };
            (read(&path).map_err(|error| format!("{shown} cannot be read: {error}"))?, shown)
        }
        (None, Some(name)) => {
            let shown = if may_be_shown(name) { name } else { "that name" };
            let shown = format!("the environment variable {shown}");
            let value = around.overrides.variable(name).ok_or_else(|| format!("{shown} is not set"))?;
            (value.to_owned(), shown)
        }
        (Some(_), Some(_)) => return Err("names a file and a variable; keep one of them".to_owned()),
        (None, None) => return Err("names nothing; write `{ file: PATH }` or `{ env: NAME }`".to_owned()),
    };
    HeaderValue::from_str(text.trim()).map_err(|_| format!("{shown} holds what no header can: more than one line, say"))
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST_SECRET).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, expected) in [
            ("http://collector:4318", Ok((false, "collector:4318", "/v1/traces"))),
            ("http://collector", Ok((false, "collector:80", "/v1/traces"))),
            ("https://[::1]:4318/", Ok((true, "[::1]:4318", "/v1/traces"))),
            ("https://a.example/otlp", Ok((true, "a.example:443", "/otlp/v1/traces"))),
            ("http://a:1/x/v1/traces", Ok((false, "a:1", "/x/v1/traces"))),
            (
                "collector:4318",
                Err(r#""collector:4318" is no URL of a collector; write http://HOST:4318 or https://HOST:4318"#),
            ),
            (
                "grpc://a:1",
                Err(r#""grpc://a:1" is no URL of a collector; write http://HOST:4318 or https://HOST:4318"#),
            ),
            ("http://:1", Err(r#""http://:1" has no host; write http://HOST:4318 or https://HOST:4318"#)),
            ("http://a/b?c", Err(r#""http://a/b?c" has no path that can be asked for"#)),
            (
                "http://user:hunter2@a",
                Err("a collector is written without user name and password; they belong into traces.headers"),
            ),
        ] {
            let got = place(text);
            let expected = expected.map(|(is_https, authority, path)| Place {
                is_https,
                authority: authority.to_owned(),
                path: path.parse().unwrap(),
            });
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
    }
}
