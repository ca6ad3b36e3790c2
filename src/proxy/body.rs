//! The body of an answer: a page of ours, or the upstream's as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use thiserror::Error;

use super::account::Account;
use super::upstream::Lease;
use super::watch::Doing;
use crate::telemetry::metrics::Failure;

/// What a client of HTTP/2 is given at once. A stream can tell only by the next piece that it is being read, and a piece of all
/// that the upstream sent at once may take a slow client longer than it has.
const PIECE: usize = 16 << 10;

/// Why an answer ends before it is whole.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// The connection says so.
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    /// The upstream has reset its stream without an error (`NO_ERROR`), which hyper takes for an end, but before the end.
    #[error("the upstream has not sent all of its answer")]
    CutShort,
}

/// What the client is sent. Its end, whole or not, is the end of the request.
pub(super) struct ReplyBody {
    content: Content,
    /// Elsewhere, where the request does not end with its answer.
    account: Option<Account>,
}

enum Content {
    Page(Option<Bytes>),
    Upstream {
        body: Incoming,
        /// Of what came of it, but was not passed on so far.
        rest: Bytes,
        lease: Option<Lease>,
    },
}

impl ReplyBody {
    /// An answer with a page of ours. Where it ends with its head, it says how long the page would be.
    pub(super) fn page(mut response: Response<Bytes>, account: Account) -> Response<Self> {
        if account.ends_with_head() {
            let page = std::mem::take(response.body_mut());
            response.headers_mut().insert(CONTENT_LENGTH, page.len().into());
        }
        let content = |bytes: Bytes| Content::Page((!bytes.is_empty()).then_some(bytes));
        response.map(|bytes| Self { content: content(bytes), account: Some(account) })
    }

    /// The upstream's body. Its connection goes back to the pool when the body has been read to the end.
    pub(super) fn upstream(body: Incoming, lease: Lease, account: Account) -> Self {
        let ended = body.is_end_stream();
        let mut content = Content::Upstream { body, rest: Bytes::new(), lease: Some(lease) };
        if ended {
            content.give_back();
        }
        Self { content, account: Some(account) }
    }

    /// Nothing: a tunnel follows.
    pub(super) fn none() -> Self {
        Self { content: Content::Page(None), account: None }
    }
}

impl Content {
    /// All has been read.
    fn give_back(&mut self) {
        if let Self::Upstream { lease, .. } = self
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let (body, rest, lease) = match &mut this.content {
            Content::Page(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Upstream { body, rest, lease } => (body, rest, lease),
        };
        let mut frame = match rest.is_empty() {
            true => Pin::new(&mut *body).poll_frame(cx).map_err(Broken::from),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(rest))))),
        };
        if this.account.as_ref().is_some_and(Account::is_of_http2) {
            frame = frame.map_ok(|frame| in_pieces(frame, rest));
        }
        // Only HTTP/2 tells whether it is the end; hyper asks itself, of HTTP/1.
        let is_shared = lease.as_ref().is_some_and(Lease::is_shared);
        if matches!(frame, Poll::Ready(None)) && is_shared && !body.is_end_stream() {
            frame = Poll::Ready(Some(Err(Broken::CutShort)));
        }
        match &frame {
            // A body in chunks does not know before that it has ended.
            Poll::Ready(None) => this.content.give_back(),
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || body.is_end_stream() => this.content.give_back(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(account) = &mut this.account {
                    account.failed(Failure::Broken);
                    account.watch().cut();
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        // Until it is asked for more, the client is reading; and from then on it is the upstream that takes its time.
        match &this.account {
            Some(account) if frame.is_ready() => account.watch().enter(Doing::Body),
            // It takes no less time for having been asked again.
            Some(account) if !account.watch().is(Doing::Pause) => account.watch().enter(Doing::Pause),
            Some(_) | None => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Page(bytes) => bytes.is_none(),
            Content::Upstream { body, rest, .. } => rest.is_empty() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Page(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Upstream { body, rest, .. } => plus(body.size_hint(), rest.len() as u64),
        }
    }
}

/// Keeps back what is too much at once.
fn in_pieces(frame: Frame<Bytes>, rest: &mut Bytes) -> Frame<Bytes> {
    frame.map_data(|mut data| {
        if data.len() > PIECE {
            *rest = data.split_off(PIECE);
        }
        data
    })
}

/// That much, and some more.
pub(super) fn plus(hint: SizeHint, more: u64) -> SizeHint {
    let mut sum = SizeHint::new();
    sum.set_lower(hint.lower().saturating_add(more));
    if let Some(upper) = hint.upper() {
        sum.set_upper(upper.saturating_add(more));
    }
    sum
}
