//! Requests that cannot be forwarded as they stand: another server might see another request in the same bytes.

use std::net::Ipv6Addr;

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Version};
use hyper::body::Body;
use memchr::memchr;

use crate::telemetry::metrics::Failure;

/// What no upstream is ever asked to do: CONNECT would open a tunnel, TRACE shows what was sent.
pub(super) fn is_refused(method: &Method) -> Option<Failure> {
    matches!(*method, Method::CONNECT | Method::TRACE).then_some(Failure::MethodRefused)
}

/// Why a request is not forwarded, whoever sent it.
pub(super) fn unfit<B: Body>(request: &Request<B>, max_headers: usize) -> Option<Failure> {
    let headers = request.headers();
    if headers.len() > max_headers {
        Some(Failure::HeadTooLarge)
    } else if !has_plain_target(request) || !has_one_host(request) || !is_plainly_framed(request.version(), headers) {
        Some(Failure::BadRequest)
    } else {
        None
    }
}

/// What a name of a host is made of: RFC 3986 section 3.2.2, without what would begin another one in a list.
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let set = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_~!$&'()*+=";
    let mut at = 0;
    while at < set.len() {
        table[set[at] as usize] = true;
        at += 1;
    }
    table
};

/// A host that is not empty, and its port. An escape in a name would be another host to whoever reads it.
fn is_authority(bytes: &[u8]) -> bool {
    let name = bytes.iter().position(|byte| !IN_NAME[usize::from(*byte)]).unwrap_or(bytes.len());
    let (host_fits, rest) = match &bytes[name..] {
        [b'[', literal @ ..] => match memchr(b']', literal) {
            Some(end) => (name == 0 && is_literal(&literal[..end]), &literal[end + 1..]),
            None => (false, literal),
        },
        rest => (name > 0, rest),
    };
    let port_fits = matches!(rest, []) || matches!(rest, [b':', port @ ..] if port.iter().all(u8::is_ascii_digit));
    host_fits && port_fits
}

/// An address between brackets. Zones are for one machine, and of later versions there are none.
fn is_literal(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// A path, a whole URL of HTTP without a user, or the `*` of OPTIONS (RFC 9112 section 3.2).
fn has_plain_target<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let is_of_http = || matches!(uri.scheme_str(), Some("http" | "https"));
    let authority_fits = uri.authority().is_none_or(|host| is_authority(host.as_str().as_bytes()) && is_of_http());
    let path_fits = uri.path().starts_with('/') || (uri.path() == "*" && *request.method() == Method::OPTIONS);
    authority_fits && path_fits
}

/// One valid `Host`, which HTTP/1.1 requires (RFC 9112 section 3.2). In HTTP/2 the host is in the target, and a `Host` beside
/// it must agree (RFC 9113 section 8.3.1).
fn has_one_host<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let hosts = headers.get_all(HOST);
    let mut hosts = hosts.iter();
    let host_fits = match hosts.next() {
        Some(host) => is_authority(host.as_bytes()),
        None => request.version() == Version::HTTP_10 || request.uri().authority().is_some(),
    };
    host_fits && hosts.next().is_none() && has_no_second_authority(request)
}

fn has_no_second_authority<B>(request: &Request<B>) -> bool {
    request.version() != Version::HTTP_2
        || match (request.uri().authority(), request.headers().get(HOST)) {
            (Some(authority), Some(host)) => host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
            (Some(_), None) | (None, _) => true,
        }
}

/// One plain decimal `Content-Length`, or exactly `chunked` in HTTP/1.1 (reliability catalogue 48 to 51).
fn is_plainly_framed(version: Version, headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let fits = match (codings.next(), lengths.next()) {
        (Some(coding), None) => version == Version::HTTP_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (None, Some(length)) => is_plain_decimal(length),
        (Some(_), Some(_)) => false,
        (None, None) => true,
    };
    fits && codings.next().is_none() && lengths.next().is_none()
}

fn is_plain_decimal(value: &HeaderValue) -> bool {
    let digits = value.as_bytes();
    digits == b"0" || (!digits.starts_with(b"0") && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use hyper::body::Frame;

    use super::*;

    /// A body of which nothing is known.
    struct SomeBody;

    impl Body for SomeBody {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(None)
        }
    }

    #[track_caller]
    fn check(method: &str, target: &str, version: Version, lines: &[(&str, &str)], expected: Option<Failure>) {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        assert_eq!(unfit(&request.body(SomeBody).unwrap(), 5), expected, "{method} {target} {lines:?}");
    }

    #[test]
    fn only_what_every_server_reads_alike_is_forwarded() {
        const V11: Version = Version::HTTP_11;
        const BAD: Option<Failure> = Some(Failure::BadRequest);
        check("GET", "/", V11, &[("host", "a.example:80")], None);
        check("GET", "/", V11, &[("host", "[::1]:80")], None);
        check("GET", "/", V11, &[], BAD);
        check("GET", "/", Version::HTTP_10, &[], None);
        check("GET", "/", V11, &[("host", "a"), ("host", "a")], BAD);
        check("GET", "http://a/x", V11, &[], None);
        for target in ["http://user@a/x", "://a/x", "ftp://a/x", "a", "*", "http://:80/x"] {
            check("GET", target, V11, &[("host", "a")], BAD);
        }
        check("OPTIONS", "*", V11, &[("host", "a")], None);
        check("GET", "http://a/x", Version::HTTP_2, &[], None);
        check("GET", "http://a/x", Version::HTTP_2, &[("host", "A")], None);
        check("GET", "http://a/x", Version::HTTP_2, &[("host", "b")], BAD);
        check("GET", "/x", Version::HTTP_2, &[("host", "a")], None);
        check("GET", "/x", Version::HTTP_2, &[], BAD);
        assert!([Method::CONNECT, Method::TRACE].iter().all(|method| is_refused(method).is_some()));
        assert_eq!(is_refused(&Method::OPTIONS), None);
        check(
            "GET",
            "/",
            V11,
            &[("host", "a"), ("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")],
            Some(Failure::HeadTooLarge),
        );
        for (length, expected) in
            [("0", None), ("10", None), ("007", BAD), ("00", BAD), ("+1", BAD), ("", BAD), ("1, 1", BAD)]
        {
            check("POST", "/", V11, &[("host", "a"), ("content-length", length)], expected);
        }
        for (coding, expected) in
            [("chunked", None), ("Chunked", None), ("identity, chunked", BAD), (",chunked", BAD), ("gzip", BAD)]
        {
            check("POST", "/", V11, &[("host", "a"), ("transfer-encoding", coding)], expected);
        }
        check("POST", "/", Version::HTTP_10, &[("host", "a"), ("transfer-encoding", "chunked")], BAD);
        check("POST", "/", V11, &[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "1")], BAD);
        check("POST", "/", V11, &[("host", "a"), ("content-length", "1"), ("content-length", "1")], BAD);
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        let bad = "a, b|user@a|a/b|a b|a#|a?||:80|a:b|a:80:80|::1|[]|[x]|[::1|a]|[::1]a|a[::1]|[::1%25eth0]|[v1.a]|a%40b|a:-1|[::1]:x";
        for host in bad.split('|') {
            check("GET", "/", Version::HTTP_11, &[("host", host)], Some(Failure::BadRequest));
            check("GET", "http://a/x", Version::HTTP_11, &[("host", host)], Some(Failure::BadRequest));
        }
        for host in ["a:", "127.0.0.1:8080", "[2001:db8::1]", "[::ffff:1.2.3.4]:0", "_a-b.c_d.", "xn--a!$&'()*+=~"] {
            check("GET", "/", Version::HTTP_11, &[("host", host)], None);
        }
    }
}
