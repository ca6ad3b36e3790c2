//! One acceptor for all workers: each new connection goes to the one that has the fewest. A few long-lived connections are
//! so spread evenly, which the kernel does not do for listeners that share a port.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::worker::Accepted;
use crate::lifecycle::{Lifecycle, Phase};

/// The acceptor's end of a worker.
pub(super) struct WorkerHandle {
    pub(super) connections: UnboundedSender<Accepted>,
    pub(super) open: Arc<AtomicUsize>,
}

/// Accepts until the process drains, and then whatever is still in the kernel's queue.
pub(super) async fn run(listener: TcpListener, workers: Vec<WorkerHandle>, lifecycle: Lifecycle) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let draining = lifecycle.reached(Phase::Draining);
    let mut draining = std::pin::pin!(draining);
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => match accepted.and_then(|(socket, peer)| Ok((socket.into_std()?, peer))) {
                Ok(accepted) => {
                    if !hand_over(&workers, accepted) {
                        return Err(io::Error::other("no worker is left"));
                    }
                }
                Err(error) => pause(&error).await,
            },
            () = &mut draining => return Ok(()),
        }
    }
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
