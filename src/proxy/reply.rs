//! Answers of our own, in the upstream's own voice: denials, and what goes wrong on the way to the upstream.
//!
//! Every page is made when the config is read. Nothing of a request goes into one, so there is nothing to escape when it
//! is sent.

mod grpc;
mod pages;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};

use super::account::Account;
use super::body::ReplyBody;
use super::forward::X_REQUEST_ID;
use super::request_id::RequestId;
use crate::auth::credential::Forms;
use crate::auth::decision::Denial;
use crate::telemetry::metrics::{Failure, Outcome};

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
    /// In the headers, with status 200, as gRPC has it for an answer without a message.
    Grpc,
}

impl Format {
    /// All of them, in order of declaration.
    pub const ALL: [Self; 7] =
        [Self::Xml, Self::XmlCablecast, Self::Json, Self::Problem, Self::Oauth, Self::Text, Self::Grpc];
}

/// How a route's format is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatRule {
    /// Always this one.
    Always(Format),
    /// By `Accept`, else by the path's ending, else by the request's `Content-Type`, else this one; but what comes as gRPC is
    /// answered as such.
    Negotiated(Format),
}

/// How a route's denials are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    /// In which format.
    pub format: FormatRule,
    /// Instead of the denial's own status, where that is 401 or 403: an outage keeps its 503.
    pub status: Option<StatusCode>,
    /// Instead of the format's own body, for the same denials.
    pub body: Option<String>,
}

/// What is answered: a denial, or a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Denial(Denial),
    Failure(Failure),
}

impl Answer {
    const COUNT: usize = Denial::ALL.len() + Failure::ALL.len();

    fn all() -> impl Iterator<Item = Self> {
        Denial::ALL.into_iter().map(Self::Denial).chain(Failure::ALL.into_iter().map(Self::Failure))
    }

    fn place(self) -> usize {
        match self {
            Self::Denial(denial) => denial as usize,
            Self::Failure(failure) => Denial::ALL.len() + failure as usize,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Denial(denial) => denial.terms().status,
            Self::Failure(Failure::BadRequest) => StatusCode::BAD_REQUEST,
            Self::Failure(Failure::HeadTooLarge) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Failure(Failure::MethodRefused) => StatusCode::NOT_IMPLEMENTED,
            Self::Failure(Failure::Unreachable | Failure::Broken) => StatusCode::BAD_GATEWAY,
            Self::Failure(Failure::Overloaded) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failure(Failure::ClientTimeout) => StatusCode::REQUEST_TIMEOUT,
            Self::Failure(Failure::Timeout | Failure::RequestTimeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Failure(Failure::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn is_challenge(self) -> bool {
        matches!(self, Self::Denial(denial) if denial.terms().challenge)
    }

    /// How it counts.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Denial(denial) => Outcome::Denial(denial),
            Self::Failure(failure) => Outcome::Failure(failure),
        }
    }
}

/// A finished page.
struct Page {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
    /// What stands in its headers instead.
    grpc: Option<Grpc>,
}

/// `grpc-status` and `grpc-message`.
struct Grpc {
    status: HeaderValue,
    message: HeaderValue,
}

/// All answers that a route can give.
pub(super) struct Replies {
    rule: FormatRule,
    /// By format, then by answer.
    pages: Vec<Page>,
    challenges: Vec<HeaderValue>,
}

/// What the format of an answer may depend on; kept while the request itself is on its way.
pub(super) struct Hints {
    accept: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
    ending: Option<Format>,
}

impl Hints {
    pub(super) fn of(request: &Request<Incoming>) -> Self {
        let header = |name| request.headers().get(name).cloned();
        let content_type = if request.body().is_end_stream() { None } else { header(CONTENT_TYPE) };
        Self { accept: header(ACCEPT), content_type, ending: pages::format_of_ending(request.uri().path()) }
    }
}

impl Replies {
    pub(super) fn new(deny: &Deny, forms: &Forms) -> Self {
        let pages =
            Format::ALL.iter().flat_map(|format| Answer::all().map(|answer| pages::page(*format, answer, deny)));
        Self { rule: deny.format, pages: pages.collect(), challenges: pages::challenges(forms) }
    }

    fn format(&self, hints: &Hints) -> Format {
        match self.rule {
            FormatRule::Always(format) => format,
            FormatRule::Negotiated(_) if text(&hints.content_type).is_some_and(grpc::is_media_type) => Format::Grpc,
            FormatRule::Negotiated(fallback) => text(&hints.accept)
                .and_then(pages::format_of_accept)
                .or(hints.ending)
                .or_else(|| text(&hints.content_type).and_then(pages::format_of_media_type))
                .unwrap_or(fallback),
        }
    }
}

fn text(value: &Option<HeaderValue>) -> Option<&str> {
    value.as_ref()?.to_str().ok()
}

/// Answers a request. `headers` are emptied and used again: a denial then needs no allocation of its own.
pub(super) fn answer(
    answer: Answer,
    route: usize,
    hints: &Hints,
    mut headers: HeaderMap,
    id: &RequestId,
    mut account: Account,
) -> Response<ReplyBody> {
    let replies = &account.session.shared.replies[route];
    let page = &replies.pages[replies.format(hints) as usize * Answer::COUNT + answer.place()];
    let (status, body) = (page.status, page.body.clone());
    headers.clear();
    headers.insert(CONTENT_TYPE, page.content_type.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, id.to_value());
    if answer.is_challenge() && status == StatusCode::UNAUTHORIZED {
        for challenge in &replies.challenges {
            headers.append(WWW_AUTHENTICATE, challenge.clone());
        }
    }
    if let Some(Grpc { status, message }) = &page.grpc {
        headers.insert(grpc::STATUS, status.clone());
        headers.insert(grpc::MESSAGE, message.clone());
    }
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    account.session.close_if_draining(&mut headers);
    account.answered(status.as_u16());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    ReplyBody::page(response, account)
}
