//! A client's socket of which the first bytes have been looked at: whoever reads it next gets them first.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::watch::Watch;

/// The socket, and what was read of it too early.
pub(super) struct ReadAhead {
    socket: TcpStream,
    ahead: BytesMut,
    watch: Arc<Watch>,
}

impl ReadAhead {
    pub(super) fn new(socket: TcpStream, watch: Arc<Watch>) -> Self {
        Self { socket, ahead: BytesMut::new(), watch }
    }

    /// What has been looked at.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Looks at more; 0 when there will be no more.
    pub(super) async fn more(&mut self) -> io::Result<usize> {
        self.socket.read_buf(&mut self.ahead).await
    }

    /// Forgets what was only for us.
    pub(super) fn skip(&mut self, count: usize) {
        self.ahead.advance(count.min(self.ahead.len()));
        if self.ahead.is_empty() {
            // Its memory is not kept for the life of the connection.
            self.ahead = BytesMut::new();
        }
    }
}

impl Drop for ReadAhead {
    /// What was cut off must not look whole, even if nothing but the end of the connection ends it (HTTP/1.0): a reset does not.
    fn drop(&mut self) {
        if self.watch.is_cut() {
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buffer);
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.skip(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
