//! What clients send behind their heads, as it goes to the upstream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use crate::proxy::body::plus;
use crate::proxy::linger;
use crate::proxy::trailers::Trailers;
use crate::proxy::watch::{Doing, Watch};

/// How much is kept of a body that may be sent twice, in bytes and in pieces: most calls of gRPC are smaller.
const MOST_KEPT: usize = 16 << 10;
const MOST_PIECES: usize = 16;

/// A body on its way; it notes that it gets on, and who is waited for. What the upstream does not take of it is read all the
/// same: the client may hear its answer only then.
pub(in crate::proxy) struct Upload {
    /// Nothing is in it when it is being dropped, or when there never was anything.
    body: Option<Incoming>,
    /// The notes of the connection it goes by.
    pub(super) watch: Option<Arc<Watch>>,
    /// The notes of the request it belongs to.
    client: Option<Arc<Watch>>,
    /// Where trailers may pass.
    trailers: Option<Box<Trailers>>,
    /// Whether the client may have more of it to send, whatever becomes of it.
    lingers: bool,
    /// Where it may be sent twice.
    again: Option<Box<Again>>,
}

/// What it takes to send a body once more.
enum Again {
    /// It is sent for the first time: what was taken of it, and where it goes afterwards.
    First { taken: Vec<Bytes>, back: oneshot::Sender<Upload> },
    /// It is sent once more: what was taken of it before.
    Second(VecDeque<Bytes>),
}

impl Upload {
    /// A body of which the client sends all, or else nothing before it is asked for.
    pub(in crate::proxy) fn new(body: Incoming, lingers: bool) -> Self {
        Self { body: Some(body), watch: None, client: None, trailers: None, lingers, again: None }
    }

    /// No body at all.
    pub(super) fn nothing() -> Self {
        Self { body: None, watch: None, client: None, trailers: None, lingers: false, again: None }
    }

    /// What is taken of it from now on is kept, as long as it is not much. It comes back, as it was, when it is dropped.
    pub(super) fn comes_back(&mut self) -> oneshot::Receiver<Self> {
        let (back, receiver) = oneshot::channel();
        self.again = Some(Box::new(Again::First { taken: Vec::new(), back }));
        receiver
    }

    /// Notes whose it is.
    pub(in crate::proxy) fn belong_to(&mut self, client: &Arc<Watch>) {
        self.client = (!self.is_end_stream()).then(|| client.clone());
    }

    /// Lets some trailers pass.
    pub(in crate::proxy) fn keep(&mut self, trailers: Trailers) {
        self.trailers = Some(Box::new(trailers));
    }

    /// What passes of a frame of trailers. They could be anything that a header may not be (reliability catalogue 54).
    fn passing(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let trailers = self.trailers.as_ref()?;
        trailers.filter(frame.into_trailers().ok()?).map(Frame::trailers)
    }

    /// The next piece of what was taken before.
    fn taken_before(&mut self) -> Option<Bytes> {
        match self.again.as_deref_mut()? {
            Again::First { .. } => None,
            Again::Second(taken) => taken.pop_front(),
        }
    }

    /// Notes what is taken now.
    fn note_taken(&mut self, frame: &Frame<Bytes>) {
        let Some(Again::First { taken, .. }) = self.again.as_deref_mut() else { return };
        let size = |pieces: &[Bytes]| pieces.iter().map(Bytes::len).sum::<usize>();
        match frame.data_ref().filter(|data| size(taken) + data.len() <= MOST_KEPT && taken.len() < MOST_PIECES) {
            Some(data) => taken.push(data.clone()),
            None => self.again = None,
        }
    }

    /// How much of it was taken before.
    fn to_repeat(&self) -> u64 {
        match self.again.as_deref() {
            Some(Again::Second(taken)) => taken.iter().map(|piece| piece.len() as u64).sum(),
            Some(Again::First { .. }) | None => 0,
        }
    }
}

/// Notes who is waited for in an upload: the client for more of it, or else the upstream. An answer may have begun before the
/// upload has ended; it takes as long as it takes.
fn wait_for(watch: &Watch, client: bool) {
    let (is_clients_turn, is_upstreams_turn) = (watch.is(Doing::Body), watch.is(Doing::Head));
    // The client has no more time for having been asked again.
    if client && is_upstreams_turn {
        watch.enter(Doing::Body);
    } else if !client && (is_clients_turn || is_upstreams_turn) {
        watch.enter(Doing::Head);
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(piece) = self.taken_before() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        // Whoever wanted to be asked has been asked now.
        self.lingers = match &frame {
            Poll::Pending => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_data(),
            Poll::Ready(None | Some(Err(_))) => false,
        };
        if let Some(watch) = &self.watch {
            wait_for(watch, frame.is_pending());
        }
        if let (Poll::Ready(Some(Ok(frame))), Some(_)) = (&frame, &self.again) {
            self.note_taken(frame);
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Poll::Ready(self.passing(frame).map(Ok)),
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream) && self.to_repeat() == 0
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        if self.again.is_some() { plus(hint, self.to_repeat()) } else { hint }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(Again::First { taken, back }) = self.again.take().map(|again| *again) {
            let again = Some(Box::new(Again::Second(taken.into())));
            let (body, watch) = (self.body.take(), self.watch.take());
            let (client, trailers) = (self.client.take(), self.trailers.take());
            // Whom nobody waits for is dropped again, and then as what it is.
            return drop(back.send(Self { body, watch, client, trailers, lingers: self.lingers, again }));
        }
        // A client that was cut off hears no answer; one that has not sent on in time is not waited for again.
        let is_cut_off = self.client.as_ref().is_some_and(|client| client.was_closed());
        let is_late = self.watch.as_ref().is_some_and(|watch| watch.was_closed() && watch.is(Doing::Body));
        if let Some(body) = self.body.take().filter(|body| self.lingers && !body.is_end_stream())
            && !is_cut_off
            && !is_late
        {
            linger::start(body);
        }
    }
}
