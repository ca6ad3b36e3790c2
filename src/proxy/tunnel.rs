//! A WebSocket (RFC 6455): once the upstream has agreed to one, bytes pass both ways, and nobody reads them.
//!
//! Only where frames end is followed, and only towards the client: one who must go is told so between two frames.

mod frames;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Response;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy, copy_bidirectional, sink};

use self::frames::{Frames, GOING_AWAY, POLICY_VIOLATION, close};
use super::account::Account;
use super::watch::{Doing, WaitLimits, Watch, drive};

/// How long a client that was told to go may take to hang up: until then its last bytes do not turn the goodbye into a reset.
const LINGER: Duration = Duration::from_millis(500);

/// Two connections that were asked to become one. Bytes that the client sends early wait in its own.
struct Tunnel {
    client: OnUpgrade,
    upstream: OnUpgrade,
    watch: Arc<Watch>,
    /// Settled, logged and no longer counted as open when the tunnel has ended.
    account: Account,
    _open: Counted,
}

/// Opens a tunnel behind the upstream's 101, which the client is yet to be sent.
pub(super) fn open(client: OnUpgrade, response: &mut Response<Incoming>, account: Account) {
    let session = &account.session;
    let idle = session.shared.limits.tunnel_timeout;
    let watch = session.worker.sweeper.watch(WaitLimits { idle, head: idle, ..WaitLimits::NONE });
    // It is the tunnel that is in flight now.
    watch.hold(session.watch.secret());
    watch.speaks_for(session.watch.client());
    session.watch.hold(None);
    session.watch.enter(Doing::Gone);
    let open = Counted::new(&session.shared.metrics.proxy.tunnels_open);
    let upstream = hyper::upgrade::on(response);
    // A task of its own: the client's connection ends with its 101, as far as HTTP goes.
    tokio::spawn(Tunnel { client, upstream, watch, account, _open: open }.run());
}

impl Tunnel {
    async fn run(mut self) {
        let Self { client, upstream, watch, account, .. } = &mut self;
        let mut ends = None;
        let both = async { ends = Some((client.clone().await, upstream.clone().await)) };
        drive(watch, both, |_| ()).await;
        let Some((Ok(client), Ok(upstream))) = ends else {
            return watch.withdrawn().into_iter().for_each(|denial| account.withdrawn(denial));
        };
        let mut client = ClientEnd { io: TokioIo::new(client), watch: watch.clone(), frames: Frames::default() };
        let mut upstream = TokioIo::new(upstream);
        client.moved();
        drive(watch, copy_bidirectional(&mut client, &mut upstream), |_| ()).await;
        drop(upstream);
        let withdrawn = watch.withdrawn();
        if let Some(denial) = withdrawn {
            account.withdrawn(denial);
        }
        if watch.was_closed() && client.frames.end_here() {
            let code = if withdrawn.is_some() { POLICY_VIOLATION } else { GOING_AWAY };
            let _ = tokio::time::timeout(LINGER, client.say_goodbye(code)).await;
        }
    }
}

/// The client's end; every byte of either direction passes here.
struct ClientEnd {
    io: TokioIo<Upgraded>,
    watch: Arc<Watch>,
    /// Those that the client was sent.
    frames: Frames,
}

impl ClientEnd {
    fn moved(&self) {
        self.watch.enter(Doing::Idle);
    }

    async fn say_goodbye(&mut self, code: u16) -> std::io::Result<()> {
        self.io.write_all(&close(code)).await?;
        self.io.shutdown().await?;
        copy(&mut self.io, &mut sink()).await.map(|_| ())
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buffer));
        self.moved();
        Poll::Ready(result)
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.frames.follow(&bytes[..written]);
        self.moved();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One more, until it is dropped.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
