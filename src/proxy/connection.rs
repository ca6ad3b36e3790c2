//! A connection that carries requests, from its first byte of HTTP to its end.

use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::establish::Arrival;
use super::head_guard::{HeadGuard, Heads};
use super::watch::{Doing, WatchedSocket, drive};
use super::{Renewing, Session, handle};

/// The header lines that hyper takes if it is told nothing.
const HEADERS: usize = 100;

/// Serves HTTP/1.
pub(super) async fn http1<S>(arrival: Arrival, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival { current, link } = arrival;
    let (heads, watch) = (Arc::<Heads>::default(), link.watch.clone());
    // Whatever came before, the first head has its own time from here.
    watch.enter(Doing::Head);
    let session = Session::new(current, link, heads.clone());
    let limits = &session.shared.limits;
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: a client that does not read would fill the memory.
    builder.writev(false).max_header_size(limits.max_head_bytes);
    if limits.max_headers > HEADERS {
        // This costs 14 % of a request, so it is only for those who need it.
        builder.max_headers(limits.max_headers);
    }
    let renewing = Renewing::new(session);
    let service = service_fn(move |request| handle(renewing.session(), request));
    let socket = WatchedSocket::new(stream, watch.clone(), HeadGuard::new(heads));
    let connection = builder.serve_connection(TokioIo::new(socket), service).with_upgrades();
    drive(&watch, connection, http1::UpgradeableConnection::graceful_shutdown).await;
}
