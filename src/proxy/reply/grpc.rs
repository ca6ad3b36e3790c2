//! Denials as gRPC clients read them: HTTP says 200, and the headers what is wrong (gRPC over HTTP/2, "Trailers-Only").

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::Grpc;

/// The number of what is wrong.
pub(super) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The same in words.
pub(super) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The media type of an answer.
pub(super) const MEDIA_TYPE: &str = "application/grpc";

/// Whether a request with this `Content-Type` is one of gRPC: `application/grpc+proto` is, `application/grpc-web`, which has
/// its trailers in the body, is not.
pub(super) fn is_media_type(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix(MEDIA_TYPE).is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

/// What stands in the headers of an answer that has this status elsewhere.
pub(super) fn headers(status: StatusCode, message: &str) -> Grpc {
    let message = HeaderValue::from_str(&encoded(message)).unwrap_or(HeaderValue::from_static(""));
    Grpc { status: HeaderValue::from_static(code(status)), message }
}

/// gRPC's codes, by name: UNAUTHENTICATED, PERMISSION_DENIED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED,
/// UNAVAILABLE, INVALID_ARGUMENT. Clients try again what is unavailable, but not what has taken too long already.
fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "4",
        StatusCode::TOO_MANY_REQUESTS => "8",
        StatusCode::NOT_IMPLEMENTED => "12",
        _ if status.is_server_error() => "14",
        _ => "3",
    }
}

/// Percent-encoded: all but printable ASCII, and the percent sign.
fn encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        for (message, expected) in
            [("Access Denied", "Access Denied"), ("50 %", "50 %25"), ("a\nb\u{7f}", "a%0Ab%7F"), ("\u{e9}", "%C3%A9")]
        {
            assert_eq!(headers(StatusCode::FORBIDDEN, message).message, expected);
        }
    }

    #[test]
    fn what_is_grpc_and_what_only_looks_like_it() {
        for media in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y", "application/grpc+json"] {
            assert!(is_media_type(media), "{media}");
        }
        for media in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx", "text/plain", ""] {
            assert!(!is_media_type(media), "{media}");
        }
    }
}
