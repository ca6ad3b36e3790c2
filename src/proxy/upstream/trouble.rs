//! What is said of an upstream that gives no answer, and what may help.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use super::Protocol;

/// Whether a connection ended where an answer was to come: closed, or reset.
pub(super) fn is_loss(error: &hyper::Error) -> bool {
    const KINDS: [ErrorKind; 4] =
        [ErrorKind::BrokenPipe, ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
    error.is_incomplete_message() || cause::<io::Error>(error).is_some_and(|error| KINDS.contains(&error.kind()))
}

/// Whether the upstream says that it has not processed a request: it refused the stream, or goes away and names one before
/// it as the last (RFC 9113 section 8.7). h2 hands a GOAWAY to no other streams.
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    cause::<h2::Error>(error).is_some_and(|error| {
        let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (is_refused || error.is_go_away())
    })
}

/// What of this type is behind an error.
fn cause<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    successors(error.source(), |&error| error.source()).find_map(|error| error.downcast_ref())
}

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
    successors(error.source(), |&error| error.source())
        .fold(error.to_string(), |text, error| format!("{text}: {error}"))
}
