//! The body of an answer: a page of ours, or the upstream's as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::account::Account;
use super::upstream::Lease;

/// What the client is sent. Its end, whole or not, is the end of the request.
pub(super) struct ReplyBody {
    content: Content,
    _account: Account,
}

enum Content {
    Page(Option<Bytes>),
    Upstream { body: Incoming, lease: Option<Lease> },
}

impl ReplyBody {
    /// A page of ours.
    pub(super) fn page(bytes: Bytes, account: Account) -> Self {
        Self { content: Content::Page((!bytes.is_empty()).then_some(bytes)), _account: account }
    }

    /// The upstream's body. Its connection goes back to the pool when the body has been read to the end.
    pub(super) fn upstream(body: Incoming, lease: Lease, account: Account) -> Self {
        let mut content = Content::Upstream { body, lease: Some(lease) };
        content.give_back_if_ended();
        Self { content, _account: account }
    }
}

impl Content {
    fn give_back_if_ended(&mut self) {
        if let Self::Upstream { body, lease } = self
            && body.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.content {
            Content::Page(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Upstream { body, .. } => {
                let frame = Pin::new(body).poll_frame(cx);
                if matches!(frame, Poll::Ready(None | Some(Ok(_)))) {
                    self.content.give_back_if_ended();
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Page(bytes) => bytes.is_none(),
            Content::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Page(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Upstream { body, .. } => body.size_hint(),
        }
    }
}
