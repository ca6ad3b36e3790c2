//! What metrics are counted by: closed sets, each with its names.

use crate::auth::decision::Denial;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forwarded: its key may.
    Permit,
    /// Forwarded: its route is public.
    Public,
    /// Answered by the management API.
    Managed,
    /// Refused.
    Denial(Denial),
    /// Not answered by the upstream, though it might have been.
    Failure(Failure),
}

/// Why a request failed that was not denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be forwarded as it stands: two hosts, say, or doubtful framing.
    BadRequest,
    /// It has too many header fields.
    HeadTooLarge,
    /// Its method is one that no upstream is asked to do.
    MethodRefused,
    /// The upstream could not be reached.
    Unreachable,
    /// The upstream closed before it answered, or its answer was no HTTP.
    Broken,
    /// The upstream did not answer in time.
    Timeout,
    /// There are too many requests in progress.
    Overloaded,
    /// The client did not send its body, or read its answer, in time.
    ClientTimeout,
    /// As a whole it took longer than a request may.
    RequestTimeout,
    /// The upstream cannot be reached or closed, and the process is stopping, as the upstream may be.
    Stopping,
}

impl Failure {
    /// All of them, in order of declaration.
    pub const ALL: [Self; 10] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::MethodRefused,
        Self::Unreachable,
        Self::Broken,
        Self::Timeout,
        Self::Overloaded,
        Self::ClientTimeout,
        Self::RequestTimeout,
        Self::Stopping,
    ];

    /// Those that are the upstream's.
    pub(super) const UPSTREAM: [Self; 3] = [Self::Unreachable, Self::Broken, Self::Timeout];

    /// As a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HeadTooLarge => "head_too_large",
            Self::MethodRefused => "method_refused",
            Self::Unreachable => "upstream_unreachable",
            Self::Broken => "upstream_broken",
            Self::Timeout => "upstream_timeout",
            Self::Overloaded => "overloaded",
            Self::ClientTimeout => "client_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::Stopping => "stopping",
        }
    }
}

impl Outcome {
    pub(super) const COUNT: usize = 3 + Denial::ALL.len() + Failure::ALL.len();

    pub(super) fn all() -> impl Iterator<Item = Self> {
        let denials = Denial::ALL.into_iter().map(Self::Denial);
        [Self::Permit, Self::Public, Self::Managed]
            .into_iter()
            .chain(denials)
            .chain(Failure::ALL.into_iter().map(Self::Failure))
    }

    pub(super) fn place(self) -> usize {
        match self {
            Self::Permit => 0,
            Self::Public => 1,
            Self::Managed => 2,
            Self::Denial(denial) => 3 + denial as usize,
            Self::Failure(failure) => 3 + Denial::ALL.len() + failure as usize,
        }
    }

    /// Which of the five decisions it is.
    pub fn decision(self) -> Decision {
        match self {
            Self::Permit => Decision::Permit,
            Self::Public => Decision::Public,
            Self::Managed => Decision::Managed,
            Self::Denial(_) => Decision::Denial,
            Self::Failure(_) => Decision::Error,
        }
    }

    /// Why, where more is known than metrics tell apart: what the management API refuses, its status says.
    pub fn reason_of(self, status: u16) -> &'static str {
        match (self, status) {
            (Self::Managed, 401) => "unauthenticated",
            (Self::Managed, 403) => "forbidden",
            (Self::Managed, 429) => "rate_limited",
            (Self::Managed, 400..=498) => "rejected",
            (Self::Managed, 500..) => "failed",
            (outcome, _) => outcome.reason(),
        }
    }

    /// Why, as a label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Permit | Self::Public | Self::Managed => "ok",
            Self::Denial(denial) => denial.label(),
            Self::Failure(failure) => failure.label(),
        }
    }
}

/// The coarsest view of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Its key may.
    Permit,
    /// It needs none.
    Public,
    /// It is not the upstream's: the management API decides and answers.
    Managed,
    /// Refused.
    Denial,
    /// Failed.
    Error,
}

impl Decision {
    /// In order of declaration.
    pub(super) const LABELS: [&'static str; 5] = ["permit", "public", "managed", "denial", "error"];

    /// As a label.
    pub const fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// Why a connection was closed before its first request, or for what came in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It did not begin with the PROXY protocol header that its peer owes.
    ProxyProtocol,
    /// It was not established in time.
    Timeout,
    /// The client spoke no TLS, or not ours.
    Tls,
    /// There are too many.
    Connections,
    /// Its peer has too many.
    PeerConnections,
    /// What came was no request of HTTP/1.1, or its head was too long.
    Malformed,
}

impl Refused {
    /// In order of declaration.
    pub(super) const LABELS: [&'static str; Self::COUNT] =
        ["proxy_protocol", "timeout", "tls", "max_connections", "max_connections_per_peer", "malformed"];
    /// How many there are.
    pub const COUNT: usize = 6;

    /// As a label.
    pub const fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}
