//! What a client still sends when it has its answer, and nobody takes any of it, is read for a while, and forgotten.
//!
//! A client that reads only when it has sent everything would otherwise never hear why: closing with bytes unread resets the
//! connection, which destroys the answer. So does the reset of an HTTP/2 stream, for clients such as curl 7.88, although the
//! answer is complete (RFC 9113 section 8.1). nginx lingers too.

use std::pin::Pin;
use std::time::Duration;

use http::Request;
use http::header::EXPECT;
use hyper::body::{Body, Incoming};

/// How long, at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much, at most. A client that has more to send than this will not be kept from it by politeness.
const MOST: usize = 64 << 20;

/// Whether a client may have something to say yet when it is answered. One that asked whether it may go on says nothing more.
pub(super) fn is_wanted(request: &Request<Incoming>) -> bool {
    !request.body().is_end_stream() && !request.headers().contains_key(EXPECT)
}

/// Reads what is left of a body, beside the answer.
pub(super) fn start(body: Incoming) {
    tokio::spawn(async move {
        // Whoever is late or breaks off has lost nothing but the answer.
        let _ = tokio::time::timeout(PATIENCE, discard(body)).await;
    });
}

async fn discard(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > MOST {
            return;
        }
    }
}
