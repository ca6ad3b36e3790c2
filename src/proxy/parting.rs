//! The end of an HTTP/2 connection, without a reset.
//!
//! What a client sent while we said that we go has not been read when we close, and closing then resets the connection. That
//! destroys the GOAWAY on its way, the one frame by which the client knows that its last requests were not processed and may be
//! sent again (RFC 9113 section 6.8).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client has to close as well.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much is read of what it still sends, in bytes.
const MOST: usize = 256 << 10;

/// A socket that is closed when its other end is, or has had time for it.
pub(super) struct Parting<S> {
    socket: S,
    /// How long we wait, once we have said our last.
    limit: Option<Pin<Box<Sleep>>>,
    read: usize,
}

impl<S> Parting<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, limit: None, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Parting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Parting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.limit.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        }
        let limit = this.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        while this.read < MOST && limit.as_mut().poll(cx).is_pending() {
            let mut bytes = [0; 4096];
            let mut buffer = ReadBuf::new(&mut bytes);
            let result = ready!(Pin::new(&mut this.socket).poll_read(cx, &mut buffer));
            if result.is_err() || buffer.filled().is_empty() {
                break;
            }
            this.read += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn it_ends_with_the_other_end_or_in_time() {
        for closes in [true, false] {
            let (mut client, server) = duplex(64 << 10);
            client.write_all(&[0; 10_000]).await.unwrap();
            let ending = tokio::spawn(async move { Parting::new(server).shutdown().await });
            assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0, "the last is said at once");
            client.write_all(b"more").await.unwrap();
            tokio::time::sleep(PATIENCE / 2).await;
            assert!(!ending.is_finished());
            if closes {
                drop(client);
                ending.await.unwrap().unwrap();
            } else {
                tokio::time::sleep(PATIENCE).await;
                assert!(ending.is_finished());
            }
        }
    }

    #[tokio::test]
    async fn it_does_not_read_for_ever() {
        let (mut client, server) = duplex(64 << 10);
        let ending = tokio::spawn(async move { Parting::new(server).shutdown().await });
        while client.write_all(&[0; 4096]).await.is_ok() {}
        ending.await.unwrap().unwrap();
    }
}
