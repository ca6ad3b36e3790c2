//! One acceptor for all workers: each new connection goes to the one that has the fewest. A few long-lived connections are
//! so spread evenly, which the kernel does not do for listeners that share a port.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::sync::mpsc::UnboundedSender;

use super::worker::Accepted;
use crate::lifecycle::{Lifecycle, Phase};

/// The acceptor's end of a worker.
pub(super) struct WorkerHandle {
    pub(super) connections: UnboundedSender<Accepted>,
    pub(super) open: Arc<AtomicUsize>,
}

/// How long handshakes that have begun may take to end when the listener is to close.
const HANDSHAKES: Duration = Duration::from_millis(50);

/// Accepts until the process drains, and then whatever has begun to connect.
///
/// Closing a listener resets what waits in its queue, and a connection that comes between the last look and the close is
/// lost. So the kernel is first told to take no new ones.
pub(super) async fn run(listener: TcpListener, workers: Vec<WorkerHandle>, lifecycle: Lifecycle) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    accept_until(lifecycle.reached(Phase::Draining), &listener, &workers).await?;
    match take_no_new_ones(&listener) {
        Ok(()) => accept_until(tokio::time::sleep(HANDSHAKES), &listener, &workers).await?,
        Err(error) => tracing::debug!(%error, "connections may be lost while the listener closes"),
    }
    // The kernel is asked once more: the runtime may not have heard of the last ones.
    let listener = listener.into_std()?;
    while let Ok(accepted) = listener.accept() {
        hand_over(&workers, accepted);
    }
    Ok(())
}

async fn accept_until(
    end: impl Future<Output = ()>,
    listener: &tokio::net::TcpListener,
    workers: &[WorkerHandle],
) -> io::Result<()> {
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            // Under a flood there is always one more; what is queued at the end is taken after it.
            biased;
            () = &mut end => return Ok(()),
            accepted = listener.accept() => match accepted.and_then(|(socket, peer)| Ok((socket.into_std()?, peer))) {
                Ok(accepted) => {
                    if !hand_over(workers, accepted) {
                        return Err(io::Error::other("no worker is left"));
                    }
                }
                Err(error) => pause(&error).await,
            },
        }
    }
}

/// Has the kernel drop what begins a connection (SYN), as if it had been lost on the way: the other end tries again a second
/// later, and finds the port closed. Everything else passes, so that handshakes that have begun can end.
fn take_no_new_ones(listener: &tokio::net::TcpListener) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_IF_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const FLAGS: u32 = 13; // where they stand in a TCP header
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Gives a connection to the worker with the fewest that still works; `false` if none does.
fn hand_over(workers: &[WorkerHandle], mut accepted: Accepted) -> bool {
    let mut able: Vec<&WorkerHandle> = workers.iter().filter(|worker| !worker.connections.is_closed()).collect();
    able.sort_by_key(|worker| worker.open.load(Relaxed));
    for worker in able {
        worker.open.fetch_add(1, Relaxed);
        match worker.connections.send(accepted) {
            Ok(()) => return true,
            Err(refused) => accepted = refused.0,
        }
    }
    false
}

/// A connection that broke before it was accepted is no trouble; being out of file descriptors is, and passes.
async fn pause(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_seen_whatever_is_queued() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _queued = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(accept_until(async {}, &listener, &[]).await.is_ok(), "nobody was there to take it");
    }
}
