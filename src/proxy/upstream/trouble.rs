//! What is said of an upstream that gives no answer, and what may help.

use super::Protocol;

/// What to do about a head that is too large.
pub(super) const TOO_LARGE: &str =
    "its head has more than 100 lines, or 64 KiB; a proxy.max_headers above 100 holds for answers too";

/// What to do about a server whose connections end without an answer.
pub(super) fn advice(error: &str, protocol: Protocol) -> &'static str {
    advice_on_alert(error).unwrap_or(match protocol {
        Protocol::Http1 => "if it speaks HTTP/2 only, set proxy.upstream_protocol to http2",
        Protocol::Http2 => "if it speaks HTTP/1.1, set proxy.upstream_protocol to http1",
    })
}

/// What to do about a server that ends TLS after it has seen who we are.
pub(super) fn advice_on_alert(error: &str) -> Option<&'static str> {
    error.contains("fatal alert").then_some(
        "it may want a certificate of ours, or another one: see proxy.upstream_tls.certificate, and the server's own log",
    )
}

/// An error with what caused it.
pub(super) fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
