//! Denials and upstream errors, in the upstream's own voice.

use http::StatusCode;

/// The formats of an answer that we make ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Well-formed XML.
    Xml,
    /// Cablecast's own text: an XML declaration, then `Access Denied` (B23).
    XmlCablecast,
    /// Vidbeo's envelope (V6, V32).
    Json,
    /// Problem details, RFC 9457.
    Problem,
    /// OAuth 2 errors, RFC 6749 section 5.2.
    Oauth,
    /// Plain text.
    Text,
}

/// How a route's format is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatRule {
    /// Always this one.
    Always(Format),
    /// By `Accept`, else by the path's ending, else by the request's `Content-Type`, else this one.
    Negotiated(Format),
}

/// How a route's denials are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    /// In which format.
    pub format: FormatRule,
    /// Instead of the denial's own status, where that is 401 or 403: an outage keeps its 503.
    pub status: Option<StatusCode>,
    /// Instead of the format's own body.
    pub body: Option<String>,
}
