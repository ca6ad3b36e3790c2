//! The socket of a client, which notes what passes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Doing, Watch};
use crate::proxy::head_guard::HeadGuard;

/// A client's socket. HTTP/1 has a guard that sees all that comes, and the first bytes after a rest
/// are those of a head; in HTTP/2 they can be anything.
pub(in crate::proxy) struct WatchedSocket<S> {
    socket: S,
    watch: Arc<Watch>,
    guard: Option<HeadGuard>,
}

impl<S> WatchedSocket<S> {
    pub(in crate::proxy) fn new(socket: S, watch: Arc<Watch>, guard: Option<HeadGuard>) -> Self {
        Self { socket, watch, guard }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if let (true, Some(guard)) = (result.is_ready(), &mut this.guard) {
            // Behind a 101 there are no heads.
            if !this.watch.is(Doing::Gone) {
                guard.follow(&buffer.filled()[before..]);
            }
            if this.watch.is(Doing::Idle) {
                this.watch.enter(Doing::Head);
            }
        } else if result.is_ready() && this.watch.is(Doing::Head) {
            this.watch.enter(Doing::Idle);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch.stuck.store(result.is_pending(), Relaxed);
        if result.is_ready() {
            self.watch.wrote();
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_flush(cx);
        // TLS keeps bytes that it has taken.
        self.watch.stuck.store(result.is_pending(), Relaxed);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
