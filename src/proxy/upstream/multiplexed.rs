//! An upstream that speaks HTTP/2: one connection for all requests of a worker.

use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioExecutor;

use super::{Lease, Upload, Upstream, failure};
use crate::proxy::forward::Outbound;
use crate::proxy::watch::{Doing, WaitLimits, drive};
use crate::telemetry::metrics::Failure;

/// A way to send requests over a connection that others use as well.
pub(super) type Sender = http2::SendRequest<Upload>;

/// The connection, once there is one. Whoever finds none makes it, and the others wait.
pub(super) type Shared = tokio::sync::Mutex<Option<Sender>>;

/// How much of an answer may wait here for its client, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;

/// The largest that there is (RFC 9113 6.9.1): answers whose clients read slowly leave room for all others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Begins to speak HTTP/2, as one who knows that the other side does.
pub(super) async fn handshake<S>(socket: S) -> hyper::Result<Sender>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, connection) = builder.handshake(socket).await?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Upstream {
    /// Sends a request, and waits for the head of the answer.
    pub(super) async fn send_multiplexed(
        &self,
        outbound: &mut Outbound,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        outbound.become_http2(self.target.scheme())?;
        let (head, body) = (self.limits.response_timeout, self.limits.body_timeout);
        let watch = self.sweeper.watch(WaitLimits { head, body, ..WaitLimits::NONE });
        loop {
            let (mut sender, fresh) = self.shared_sender().await?;
            let Some(mut request) = outbound.take() else { return Err(Failure::Broken) };
            let uploads = !hyper::body::Body::is_end_stream(request.body());
            request.body_mut().watch = uploads.then(|| watch.clone());
            watch.enter(Doing::Head);
            let mut sent = None;
            drive(&watch, async { sent = Some(sender.try_send_request(request).await) }, |_| ()).await;
            match sent {
                Some(Ok(response)) => {
                    watch.enter(Doing::Work);
                    return Ok((response, Lease::none()));
                }
                Some(Err(mut error)) => match error.take_message() {
                    // Nothing of it was written: the upstream takes no more requests on this connection.
                    Some(request) if !fresh => outbound.put_back(request),
                    Some(_) | None => return Err(failure(&watch, error.error())),
                },
                // What does not answer in time may be the connection: the next request has another.
                None => {
                    *self.multiplexed.lock().await = None;
                    return Err(if watch.is(Doing::Body) { Failure::ClientTimeout } else { Failure::Timeout });
                }
            }
        }
    }

    /// The connection that all requests share, and whether it is new.
    async fn shared_sender(&self) -> Result<(Sender, bool), Failure> {
        let mut shared = self.multiplexed.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((sender.clone(), false));
        }
        let sender = Box::pin(self.connect()).await?.into_http2().ok_or(Failure::Broken)?;
        *shared = Some(sender.clone());
        Ok((sender, true))
    }
}
